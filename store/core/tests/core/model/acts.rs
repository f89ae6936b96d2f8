//! What the model expects of acts: judged by what the run has written down of messages, and by
//! the entries that the user can see.

use std::collections::{BTreeMap, BTreeSet};

use tidemark_store_core::act::{ActKind, Asked};
use tidemark_store_core::value::{Content, Entry, Origin, Settings};
use tidemark_types::{Epoch, ErrorCode, Recipient, Seq, UserId};

use super::{Accepted, Run, user};

/// Short windows, so that a run sees both sides of them.
pub(super) fn settings() -> Settings {
    let seconds = std::time::Duration::from_secs;
    Settings { recall_within: seconds(15), edit_within: seconds(40), ..Settings::default() }
}

/// How far each user has come with each other one.
pub(super) type Marked = BTreeMap<(UserId, UserId), (Seq, Seq)>;

/// What an act must come to.
pub(super) enum Expected {
    Refused(ErrorCode),
    /// It is accepted, and is no entry.
    Nothing,
    /// Entries for them, about that message.
    Told {
        to: BTreeSet<UserId>,
        of: Origin,
    },
}

impl Run {
    /// The message that is meant by one of the numbers around the user's mailbox.
    pub(super) fn meant(&self, number: usize, kind: ActKind, which: usize) -> Asked {
        let head = self.floor(number) + self.entries(number).len() as u32;
        let seq = Seq::new((which % (head as usize + 2)) as u32);
        Asked { kind, epoch: Epoch::FIRST, seq }
    }

    /// What comes of an act that is judged now.
    pub(super) fn expect(&mut self, number: usize, asked: Asked) -> Expected {
        let missing = Expected::Refused(ErrorCode::NoMessage);
        let at = asked.seq.get().checked_sub(self.floor(number) + 1);
        let entries = self.entries(number);
        let Some(entry) = at.and_then(|at| entries.get(at as usize)) else { return missing };
        let found = self.accepted.iter().find(|it| it.origin == entry.origin && it.act.is_none());
        let (Some(message), Content::Message { .. }) = (found, &entry.content) else {
            return missing;
        };
        let (of, me) = (message.origin.clone(), user(number));
        let is_mine = *of.sender() == me;
        if asked.kind.is_mark() {
            return if is_mine { missing } else { self.mark(me, asked, of) };
        }
        let within = match asked.kind {
            ActKind::Edit => settings().edit_within,
            _ => settings().recall_within,
        };
        if !is_mine {
            missing
        } else if self.cluster.time > message.sent + within.as_millis() as u64 {
            Expected::Refused(ErrorCode::TooLate)
        } else {
            let to = if message.dropped { BTreeSet::new() } else { message.to.clone() };
            Expected::Told { to, of }
        }
    }

    fn mark(&mut self, me: UserId, asked: Asked, of: Origin) -> Expected {
        let with = of.sender().clone();
        let (delivered, read) = self.marked.entry((me, with.clone())).or_default();
        let news = match asked.kind {
            ActKind::Read => asked.seq > *read,
            _ => asked.seq > *delivered,
        };
        if !news {
            return Expected::Nothing;
        }
        *delivered = asked.seq.max(*delivered);
        if asked.kind == ActKind::Read {
            *read = asked.seq;
        }
        Expected::Told { to: [with].into(), of }
    }
}

/// Every copy of an act says what was accepted, and what a user is told of another's reading never
/// goes back.
pub(super) fn check(accepted: &[Accepted], mailboxes: &BTreeMap<UserId, Vec<Entry>>) {
    let known: BTreeMap<&Origin, (usize, &Accepted)> =
        accepted.iter().enumerate().map(|(at, it)| (&it.origin, (at, it))).collect();
    for (owner, entries) in mailboxes {
        let mut told: BTreeMap<&UserId, (Option<usize>, Option<usize>)> = BTreeMap::new();
        for entry in entries {
            let Content::Message { message, .. } = &entry.content else { continue };
            let said = message.act.as_ref().map(|act| (act.kind, act.of.clone()));
            assert_eq!(said, known[&entry.origin].1.act, "{:?} in {owner}'s", entry.origin);
            let Some((kind, of)) = said else { continue };
            let place = Some(known[&of].0);
            let (delivered, read) = told.entry(entry.origin.sender()).or_default();
            match kind {
                ActKind::Delivered if of.sender() == owner => {
                    assert!(place > *delivered, "{owner} is told again of {of:?}");
                    *delivered = place;
                }
                ActKind::Read if of.sender() == owner => {
                    assert!(place > *read, "{owner} is told again of {of:?}");
                    *read = place;
                    *delivered = place.max(*delivered);
                }
                _ => assert!(place < Some(known[&entry.origin].0), "of a message before it"),
            }
        }
    }
}

/// Entries for which no device is woken, if nothing else is new.
pub(super) fn is_mark(entry: &Entry) -> bool {
    let Content::Message { message, .. } = &entry.content else { return false };
    message.act.as_ref().is_some_and(|act| act.kind.is_mark())
}

/// Everything that is counted as unread is, and nothing else (the mailbox being short).
pub(super) fn check_unread(run: &Run, number: usize) {
    let me = user(number);
    let state = run.cluster.state(run.cluster.shard_of(&me));
    let unread = tidemark_store_core::unread::count(state, &me).unwrap();
    let entries = run.entries(number);
    let recalled: BTreeSet<&Origin> = entries
        .iter()
        .filter_map(|entry| match &entry.content {
            Content::Message { message, .. } => message.act.as_ref(),
            _ => None,
        })
        .filter(|act| act.kind == ActKind::Recall)
        .map(|act| &act.of)
        .collect();
    for with in (0..super::USERS).map(user).filter(|with| *with != me) {
        let (delivered, read) =
            run.marked.get(&(me.clone(), with.clone())).copied().unwrap_or_default();
        let unread_here = entries.iter().zip(run.floor(number) + 1..).filter(|(entry, seq)| {
            let is_message =
                matches!(&entry.content, Content::Message { message, .. } if message.act.is_none());
            is_message
                && *entry.origin.sender() == with
                && *seq > read.get()
                && !recalled.contains(&entry.origin)
        });
        let expected = unread_here.count() as u32;
        let found = unread.conversations.iter().find(|it| it.with == Recipient::User(with.clone()));
        assert_eq!(found.map_or(0, |it| it.unread), expected, "{me} of {with}");
        if let Some(it) = found {
            assert_eq!((it.marks.delivered, it.marks.read), (delivered, read));
        }
    }
}
