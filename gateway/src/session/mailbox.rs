//! A mailbox, as the gateway hears of it: where it stands, and its newest entries.
//!
//! ```text
//!                      tail: entries heard, ready for frames
//!   1 ……………………………… |=======================| head
//!     had by Sync only    first … last = head
//! ```
//!
//! Invariant: the tail is a run without a hole that ends at the head; what does not fit to it
//! empties it first. So a connection needs nothing but the last seq it has sent, and a slow one
//! costs nothing. It is a cache: whoever lacks an entry that is not in it is told so, and asks by `Sync`.

use std::sync::Arc;

use tidemark_proto::Position;
use tidemark_store_client::WatchEvent;
use tidemark_types::{Epoch, Seq};

use super::passing::Passing;
use super::tail::{Kept, Tail, Tails};
use crate::entry;

/// A mailbox, as the gateway hears of it.
pub(crate) struct Mailbox {
    /// Where it stands; none before the first registration was answered.
    at: Option<Position>,
    /// Its newest entries.
    tail: Tail,
    /// What passes by its owner's devices, and is in no mailbox.
    pub(crate) passing: Passing,
    /// Nothing came since the last sweep.
    quiet: bool,
}

impl Mailbox {
    /// One of which nothing was heard, whose tail is one of these.
    pub(crate) fn new(tails: Arc<Tails>) -> Self {
        let (tail, passing) = (Tail::new(tails), Passing::default());
        Mailbox { at: None, tail, passing, quiet: false }
    }

    /// Where it stands, if that is known.
    pub(crate) fn position(&self) -> Option<Position> {
        self.at
    }

    /// Its epoch and head, if they are known.
    pub(crate) fn head(&self) -> Option<(Epoch, Seq)> {
        self.at.map(|at| (at.epoch, at.head))
    }

    /// The entries after `sent` up to the head, if there are some and the first one is here.
    pub(crate) fn after(&self, sent: Seq) -> Option<impl ExactSizeIterator<Item = &Kept>> {
        let missing = self.at?.head.since(sent);
        let missing = usize::try_from(missing).expect("a seq fits into a size");
        self.tail.newest(missing).filter(|_| missing > 0)
    }

    /// Takes in what was heard; is it something that a connection may have to send?
    pub(crate) fn hear(&mut self, event: &WatchEvent) -> bool {
        match event {
            WatchEvent::Registered { epoch, floor, head, .. } => {
                self.registered(Position { epoch: *epoch, floor: *floor, head: *head })
            }
            // What is told before the registration is answered lies below the answer's head.
            WatchEvent::Appended { seq, entry, .. } => {
                let wanted = self.at.is_some_and(|at| *seq > at.head);
                if wanted {
                    self.appended(*seq, Kept::from(&entry::entry(*seq, entry)));
                }
                wanted
            }
            WatchEvent::Head { head, .. } => self.raised(*head),
            // That is about connections, and about other users.
            WatchEvent::Seats { .. }
            | WatchEvent::Unseated { .. }
            | WatchEvent::Presence { .. } => false,
            WatchEvent::Typing { by, typing, .. } => {
                self.passing.typing(by.clone(), *typing);
                true
            }
        }
    }

    /// Drops the entries if nothing came since the last time: whoever lacks one asks by `Sync`.
    pub(crate) fn age(&mut self) {
        self.passing.age();
        if self.quiet {
            self.tail.clear();
        }
        self.quiet = true;
    }

    fn registered(&mut self, now: Position) -> bool {
        match &mut self.at {
            Some(at) if at.epoch == now.epoch => {
                at.floor = at.floor.max(now.floor);
                self.raised(now.head)
            }
            _ => {
                self.tail.clear();
                self.at = Some(now);
                true
            }
        }
    }

    fn raised(&mut self, head: Seq) -> bool {
        match &mut self.at {
            // A head only grows within an epoch: a lower one is older news.
            Some(at) if head > at.head => {
                at.head = head;
                self.tail.clear();
                true
            }
            _ => false,
        }
    }

    fn appended(&mut self, seq: Seq, entry: Kept) {
        let at = self.at.as_mut().expect("its caller looked");
        let contiguous = at.head.next() == Some(seq);
        at.head = seq;
        if !contiguous {
            self.tail.clear();
        }
        self.tail.push(entry);
        self.quiet = false;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use tidemark_store_core::value::{Content, Entry, Origin};
    use tidemark_types::{ErrorCode, Recipient, SessionId, UnixMs, UserId};

    use super::*;
    use crate::limits::TAIL_ENTRIES_MAX;

    fn user() -> UserId {
        "alice".parse().expect("legal")
    }

    /// The mailbox stands there.
    pub(crate) fn registered(epoch: u32, head: u32) -> WatchEvent {
        let (epoch, head) = (Epoch::new(epoch), Seq::new(head));
        WatchEvent::Registered { user: user(), epoch, floor: Seq::NONE, head }
    }

    /// It has a new entry.
    pub(crate) fn appended(seq: u32) -> WatchEvent {
        let origin = Origin::Session {
            sender: user(),
            session: SessionId::new(1).expect("legal"),
            n: seq.into(),
        };
        let recipient = Recipient::User(user());
        let content = Content::Refused { recipient, code: ErrorCode::Blocked };
        let entry = Entry { time: UnixMs::new(1), origin, content };
        WatchEvent::Appended { user: user(), seq: Seq::new(seq), entry }
    }

    /// It has grown to there.
    pub(crate) fn head(head: u32) -> WatchEvent {
        WatchEvent::Head { user: user(), head: Seq::new(head) }
    }

    /// A mailbox of which this was heard.
    pub(crate) fn heard(events: impl IntoIterator<Item = WatchEvent>) -> Mailbox {
        heard_within(usize::MAX, events)
    }

    /// The same, where all tails together may hold so much.
    pub(crate) fn heard_within(
        bytes_max: usize,
        events: impl IntoIterator<Item = WatchEvent>,
    ) -> Mailbox {
        let mut mailbox = Mailbox::new(Tails::new(bytes_max));
        for event in events {
            mailbox.hear(&event);
        }
        mailbox
    }

    fn after(mailbox: &Mailbox, sent: u32) -> Option<Vec<u32>> {
        let entries = mailbox.after(Seq::new(sent))?;
        Some(entries.map(Kept::seq).collect())
    }

    #[test]
    fn the_tail_goes_on_without_a_hole() {
        let mailbox = heard([registered(1, 5), appended(6), appended(7), appended(6), appended(7)]);
        assert_eq!(after(&mailbox, 4), None, "5 was there before");
        assert_eq!(after(&mailbox, 5), Some(vec![6, 7]));
        assert_eq!(after(&mailbox, 6), Some(vec![7]));
        assert_eq!(after(&mailbox, 7), None);
        assert_eq!(after(&mailbox, 9), None);
    }

    #[test]
    fn a_hole_begins_a_new_tail() {
        let mailbox = heard([registered(1, 5), appended(6), appended(8)]);
        assert_eq!(after(&mailbox, 6), None);
        assert_eq!(after(&mailbox, 7), Some(vec![8]));
        let mailbox = heard([registered(1, 5), appended(6), head(7), appended(8)]);
        assert_eq!(after(&mailbox, 5), None);
        assert_eq!(after(&mailbox, 7), Some(vec![8]));
    }

    #[test]
    fn a_registration_keeps_what_it_confirms() {
        let same = heard([registered(1, 5), appended(6), registered(1, 6), appended(7)]);
        assert_eq!(after(&same, 5), Some(vec![6, 7]));
        let older = heard([registered(1, 5), appended(6), registered(1, 5)]);
        assert_eq!(after(&older, 5), Some(vec![6]));
        let higher = heard([registered(1, 5), appended(6), registered(1, 9)]);
        assert_eq!((after(&higher, 5), after(&higher, 9)), (None, None));
        let restored = heard([registered(1, 5), appended(6), registered(2, 3)]);
        assert_eq!(restored.head(), Some((Epoch::new(2), Seq::new(3))));
        assert_eq!(after(&restored, 2), None);
    }

    #[test]
    fn nothing_counts_before_the_registration() {
        let mailbox = heard([appended(6), head(7)]);
        assert_eq!(mailbox.head(), None);
        assert_eq!(after(&mailbox, 5), None);
    }

    #[test]
    fn the_tail_is_bounded_and_ages() {
        let count = u32::try_from(TAIL_ENTRIES_MAX).expect("small") + 3;
        let mut mailbox = heard([registered(1, 0)].into_iter().chain((1..=count).map(appended)));
        assert_eq!(after(&mailbox, 2), None);
        assert_eq!(after(&mailbox, 3).map(|seqs| seqs.len()), Some(TAIL_ENTRIES_MAX));
        mailbox.age();
        assert!(after(&mailbox, 3).is_some());
        mailbox.age();
        assert_eq!(after(&mailbox, 3), None);
        mailbox.hear(&appended(count + 1));
        assert_eq!(after(&mailbox, count), Some(vec![count + 1]));
    }

    #[test]
    fn what_tails_have_no_room_for_counts_as_not_heard_entry_by_entry() {
        let mut mailbox = heard_within(0, [registered(1, 5), appended(6), appended(7)]);
        assert_eq!(mailbox.head(), Some((Epoch::FIRST, Seq::new(7))));
        assert_eq!((after(&mailbox, 5), after(&mailbox, 6)), (None, None));
        mailbox.hear(&appended(7));
        assert_eq!(mailbox.head(), Some((Epoch::FIRST, Seq::new(7))), "older news");
    }
}
