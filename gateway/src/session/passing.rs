//! What passes by, on its way to a user's connections: who types to the user, and whether those are there
//! whom the user's devices watch. Nothing of it is stored.
//!
//! Each connection remembers the number of the last news that it was told, and nothing else: one that is
//! slow holds nothing back, and is told the newest of each other user when it has caught up. A user about
//! whom there is no news takes no memory but the struct's own.
//!
//! ```text
//!   online ──► told at once
//!   offline ─► told when it has lasted SETTLES: who changes the gateway, or whose leader changes, does not flicker
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tidemark_proto::v1::client_frame::Frame;
use tidemark_proto::{Failure, v1};
use tidemark_store_client::Present;
use tidemark_types::{ErrorCode, UserId};
use tokio::time::Instant;

use crate::limits::{FOLLOW_AGAIN, PRESENCE_SETTLES, TYPING_MAX};
use crate::metrics;

/// What a user's connections are to be told, the newest of each other user.
#[derive(Default)]
pub(crate) struct Passing {
    /// Who types, in the order in which it came.
    typing: VecDeque<(u64, Typing)>,
    /// Whom the user's devices watch.
    watched: BTreeMap<UserId, Watched>,
    /// The number of the newest, from 1, whether it is still here or not.
    last: u64,
    /// Up to which number who types is gone at the next sweep.
    old: u64,
}

/// Somebody types, or has stopped.
struct Typing {
    by: UserId,
    typing: bool,
}

/// Somebody whom devices watch.
#[derive(Default)]
struct Watched {
    /// How many of the user's connections do.
    connections: u32,
    /// How it is, or why that is not told, once it is known, and the number under which it is told.
    now: Option<(u64, Result<Present, ErrorCode>)>,
    /// It is said to be otherwise since then: offline.
    leaves: Option<(Instant, Present)>,
}

impl Passing {
    /// Somebody types to the user, or has stopped.
    pub(crate) fn typing(&mut self, by: UserId, typing: bool) {
        self.typing.retain(|(_, known)| known.by != by);
        if self.typing.len() >= TYPING_MAX {
            self.typing.pop_front();
            metrics::typing_dropped();
        }
        self.last += 1;
        self.typing.push_back((self.last, Typing { by, typing }));
    }

    /// One more of the user's connections watches this one; is it the first?
    pub(crate) fn watch(&mut self, user: &UserId) -> bool {
        let watched = self.watched.entry(user.clone()).or_default();
        watched.connections += 1;
        if let Some((number, _)) = &mut watched.now {
            // The others are told once more, which does no harm.
            self.last += 1;
            *number = self.last;
        }
        watched.connections == 1
    }

    /// One of them does no more; was it the last?
    pub(crate) fn unwatch(&mut self, user: &UserId) -> bool {
        let Some(watched) = self.watched.get_mut(user) else { return false };
        watched.connections -= 1;
        let last = watched.connections == 0;
        if last {
            self.watched.remove(user);
        }
        last
    }

    /// A user is there, or is not, or that is not told; are connections to be told, or is that to be
    /// settled?
    pub(crate) fn present(&mut self, user: &UserId, said: Result<Present, ErrorCode>) -> News {
        let Some(watched) = self.watched.get_mut(user) else { return News::None };
        match (&mut watched.now, said) {
            (Some((_, Ok(now))), Ok(present)) if now.online && present.online => {
                *now = present;
                watched.leaves = None;
                return News::None;
            }
            (Some((_, Ok(now))), Ok(present)) if now.online => {
                let since = watched.leaves.map_or_else(Instant::now, |(since, _)| since);
                watched.leaves = Some((since, present));
                return News::ToSettle;
            }
            (Some((_, now)), said) if *now == said => return News::None,
            _ => {}
        }
        self.last += 1;
        watched.leaves = None;
        watched.now = Some((self.last, said));
        News::ToTell
    }

    /// Does it last that this user is offline?
    pub(crate) fn settle(&mut self, user: &UserId) -> News {
        let Some(watched) = self.watched.get_mut(user) else { return News::None };
        match watched.leaves {
            None => News::None,
            Some((since, _)) if since.elapsed() < PRESENCE_SETTLES => News::ToSettle,
            Some((_, present)) => {
                self.last += 1;
                watched.leaves = None;
                watched.now = Some((self.last, Ok(present)));
                News::ToTell
            }
        }
    }

    /// The number of the newest.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// The oldest that came after the one of this number, for a connection that watches these.
    pub(crate) fn after(
        &self,
        told: u64,
        watches: &BTreeSet<UserId>,
    ) -> Option<(u64, v1::ServerFrame)> {
        if self.last <= told {
            return None;
        }
        let typing = self.typing.iter().find(|(number, _)| *number > told);
        let typing = typing.map(|(number, Typing { by, typing })| {
            (*number, v1::Typing { user: by.to_string(), typing: *typing }.into())
        });
        let changed = watches.iter().filter_map(|user| {
            let (number, said) = self.watched.get(user)?.now?;
            (number > told).then_some((number, user, said))
        });
        let changed = changed.min_by_key(|(number, ..)| *number);
        let changed = changed.map(|(number, user, said)| (number, presence(user, said)));
        typing.into_iter().chain(changed).min_by_key(|(number, _)| *number)
    }

    /// Drops who typed at the time before: it has been told, or is old news.
    pub(crate) fn age(&mut self) {
        self.typing.retain(|(number, _)| *number > self.old);
        if self.typing.is_empty() {
            self.typing = VecDeque::new();
        }
        self.old = self.last;
    }
}

/// How a user is, or why that is not told.
fn presence(user: &UserId, said: Result<Present, ErrorCode>) -> v1::ServerFrame {
    match said {
        Ok(Present { online, last_seen }) => {
            let status = v1::PresenceStatus { online, last_seen_ms: last_seen.get() };
            v1::PresenceChange { user: user.to_string(), status: Some(status) }.into()
        }
        Err(code) => {
            let text = format!("watch_presence.users: as many follow {user} as may");
            let failure = Failure::new(code).message(text).retry_after(FOLLOW_AGAIN);
            let frame = Frame::WATCH_PRESENCE;
            v1::Error { failure: Some(failure.into()), frame, request_id: 0, closing: false }.into()
        }
    }
}

/// What comes of news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Nothing.
    None,
    /// Connections are to be told.
    ToTell,
    /// It is to be looked at again.
    ToSettle,
}

#[cfg(test)]
mod tests {
    use tidemark_types::UnixMs;

    use super::*;

    fn user(name: &str) -> UserId {
        name.parse().expect("legal")
    }

    /// All that a connection is told that was told up to `from`, in words.
    fn told(passing: &Passing, mut from: u64, watches: &[&str]) -> Vec<String> {
        use tidemark_proto::v1::server_frame::Frame;
        let watches = watches.iter().map(|name| user(name)).collect();
        let mut all = Vec::new();
        while let Some((number, frame)) = passing.after(from, &watches) {
            all.push(match frame.frame.expect("there is one") {
                Frame::Typing(typing) => format!("{} types: {}", typing.user, typing.typing),
                Frame::PresenceChange(change) => {
                    format!("{} is there: {}", change.user, change.status.expect("set").online)
                }
                Frame::Error(error) => error.failure.expect("a reason").message,
                other => panic!("{other:?}"),
            });
            from = number;
        }
        all
    }

    #[test]
    fn who_is_slow_is_told_the_newest_of_each() {
        let mut passing = Passing::default();
        for typing in [true, false, true] {
            passing.typing(user("bob"), typing);
        }
        let seen = passing.last();
        passing.typing(user("carol"), true);
        passing.typing(user("bob"), false);
        assert_eq!(told(&passing, 0, &[]), ["carol types: true", "bob types: false"]);
        assert_eq!(told(&passing, seen, &[]), ["carol types: true", "bob types: false"]);
        assert!(told(&passing, passing.last(), &[]).is_empty());
    }

    #[test]
    fn who_types_is_bounded_and_goes_by_itself() {
        let mut passing = Passing::default();
        for number in 0..2 * TYPING_MAX {
            passing.typing(user(&format!("user-{number}")), true);
        }
        assert_eq!(passing.typing.len(), TYPING_MAX);
        passing.age();
        passing.typing(user("bob"), true);
        passing.age();
        assert_eq!(told(&passing, 0, &[]), ["bob types: true"]);
        passing.age();
        assert_eq!((passing.typing.capacity(), passing.last()), (0, 2 * TYPING_MAX as u64 + 1));
    }

    fn is(online: bool) -> Result<Present, ErrorCode> {
        Ok(Present { online, last_seen: UnixMs::new(7) })
    }

    #[tokio::test(start_paused = true)]
    async fn who_may_not_follow_is_told_once_until_that_changes() {
        let (mut passing, bob) = (Passing::default(), user("bob"));
        passing.watch(&bob);
        let refused = Err(ErrorCode::Overloaded);
        assert_eq!(passing.present(&bob, is(true)), News::ToTell);
        assert_eq!(passing.present(&bob, is(false)), News::ToSettle);
        let seen = passing.last();
        assert_eq!(passing.present(&bob, refused), News::ToTell, "by another leader");
        assert_eq!(passing.settle(&bob), News::None, "nothing more is known");
        assert_eq!(passing.present(&bob, refused), News::None);
        let words = "watch_presence.users: as many follow bob as may";
        assert_eq!(told(&passing, seen, &["bob"]), [words]);
        let seen = passing.last();
        assert_eq!(passing.present(&bob, is(true)), News::ToTell);
        assert_eq!(told(&passing, seen, &["bob"]), ["bob is there: true"]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_is_told_at_once_and_who_goes_when_it_lasts() {
        let (mut passing, bob) = (Passing::default(), user("bob"));
        assert_eq!(passing.present(&bob, is(true)), News::None, "nobody watches");
        assert!(passing.watch(&bob) && !passing.watch(&bob));
        assert_eq!(passing.present(&bob, is(true)), News::ToTell);
        assert_eq!(passing.present(&bob, is(true)), News::None);
        let seen = passing.last();
        assert_eq!(passing.present(&bob, is(false)), News::ToSettle);
        assert_eq!(passing.settle(&bob), News::ToSettle);
        assert_eq!(passing.present(&bob, is(true)), News::None, "it did not last");
        assert_eq!(passing.settle(&bob), News::None);
        assert!(told(&passing, seen, &["bob"]).is_empty());
        assert_eq!(passing.present(&bob, is(false)), News::ToSettle);
        tokio::time::advance(PRESENCE_SETTLES).await;
        assert_eq!(passing.settle(&bob), News::ToTell);
        assert_eq!(told(&passing, seen, &["bob"]), ["bob is there: false"]);
        assert!(told(&passing, seen, &["carol"]).is_empty(), "only who watches is told");
        // A connection that begins to watch is told how it is.
        let seen = passing.last();
        passing.watch(&bob);
        assert_eq!(told(&passing, seen, &["bob"]), ["bob is there: false"]);
        assert_eq!([0; 3].map(|_| passing.unwatch(&bob)), [false, false, true]);
        assert!(passing.watched.is_empty());
    }
}
