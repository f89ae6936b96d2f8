//! A mailbox as the run left it, and what was seen of the part that is gone.

use std::collections::{BTreeMap, BTreeSet};

use tidemark_types::Seq;

use super::book::Slot;
use super::findings::Clue;
use super::timeline::Timeline;
use crate::history::{Copy, Digest, Nanos, Node, User};

/// What a replica says of a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Replica {
    pub(super) node: Node,
    pub(super) floor: Seq,
    pub(super) head: Seq,
    pub(super) digest: u64,
}

/// What is at a place of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// This.
    Held(Slot),
    /// It was removed, and nobody has seen it yet.
    Unseen,
    /// Nothing: it is beyond the head, or missing.
    Nothing,
    /// Nobody read the mailbox.
    Unread,
}

/// A mailbox.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    pub(super) replicas: Vec<Replica>,
    /// The entries of one of the replicas, in ascending order once all are there.
    pub(super) entries: Vec<(Seq, Slot)>,
    /// Over these.
    pub(super) digest: Digest,
    /// The entries of each replica, where they differ.
    pub(super) copies: BTreeMap<(Seq, Node), Copy>,
    /// Where its owner's messages are of which the verdict is that they are dropped.
    pub(super) dropped: BTreeSet<Seq>,
    /// What was seen of the entries up to the floor.
    pub(super) removed: BTreeMap<Seq, Slot>,
    /// The highest seq that was acknowledged or delivered.
    pub(super) seen: Timeline,
    /// The highest head that was read.
    pub(super) heads: Timeline,
    /// The first and the last time at which something that it holds was sent.
    pub(super) span: Option<(Nanos, Nanos)>,
    floor: Seq,
    head: Seq,
    /// The last of the removed ones that nobody saw, [`Seq::NONE`] if all were seen.
    unseen: Seq,
}

impl Mailbox {
    /// All of its truth is there.
    pub(super) fn close(&mut self) {
        self.entries.sort_by_key(|(seq, _)| *seq);
        let digest = self.digest.value();
        let own = self.replicas.iter().find(|replica| replica.digest == digest);
        if let Some(replica) = own.or(self.replicas.first()) {
            (self.floor, self.head) = (replica.floor, replica.head);
        }
    }

    /// Did anybody read it after the run?
    pub(super) fn is_read(&self) -> bool {
        !self.replicas.is_empty()
    }

    /// The last seq removed, of the replica whose entries are known.
    pub(super) fn floor(&self) -> Seq {
        self.floor
    }

    /// The last seq assigned, of the same replica.
    pub(super) fn head(&self) -> Seq {
        self.head
    }

    /// By what the entry at a place is shown.
    pub(super) fn clue(&self, user: User, seq: Seq) -> Clue {
        match seq <= self.floor {
            true => Clue::Seen(user, seq),
            false => Clue::Entry(user, seq),
        }
    }

    /// What is at a place.
    pub(super) fn at(&self, seq: Seq) -> Place {
        if !self.is_read() {
            return Place::Unread;
        }
        if seq == Seq::NONE {
            return Place::Nothing;
        }
        if seq <= self.floor {
            return self.removed.get(&seq).map_or(Place::Unseen, |slot| Place::Held(*slot));
        }
        // Where nothing is missing, the place is known by its distance from the floor.
        let guess = seq.since(self.floor) as usize - 1;
        let found = match self.entries.get(guess) {
            Some((found, slot)) if *found == seq => Some(*slot),
            _ => {
                let found = self.entries.binary_search_by_key(&seq, |(seq, _)| *seq);
                found.ok().map(|at| self.entries[at].1)
            }
        };
        found.map_or(Place::Nothing, Place::Held)
    }

    /// All that is known to be or to have been in it, in ascending order.
    pub(super) fn known(&self) -> impl Iterator<Item = (Seq, Slot)> {
        let removed = self.removed.iter().map(|(seq, slot)| (*seq, *slot));
        removed.chain(self.entries.iter().copied())
    }

    /// All that was seen is here.
    pub(super) fn settle(&mut self) {
        self.unseen = self.floor;
        while self.removed.contains_key(&self.unseen) {
            self.unseen = self.unseen.back(1);
        }
    }

    /// May something that was appended after `seq` have been removed before anybody saw it? Of a
    /// mailbox that nobody read, nothing is known.
    pub(super) fn may_hide_after(&self, seq: Seq) -> bool {
        !self.is_read() || self.unseen > seq
    }
}
