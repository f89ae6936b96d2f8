//! A mailbox's newest entries, and what those of all mailboxes of a gateway hold together.
//!
//! Entries are kept as they are encoded: one that names 256 new members of a group takes a third of the
//! memory that its values do, and what is counted is what is held. A tail has a bound of its own, and all
//! of them have one together, since it is news of a large group that fills thousands of them at once.
//!
//! Invariant: tails never hold more than they may together. One that would, gives up what it has, and goes
//! on with its newest entry if there is room for it: whoever has much to say gives way most often, and who
//! is up to date still gets what is new.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use prost::Message as _;
use tidemark_proto::v1;
use tidemark_types::UnixMs;

use crate::limits::{TAIL_BYTES_MAX, TAIL_ENTRIES_MAX};
use crate::metrics;

/// An entry of a mailbox.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Kept {
    /// As it is encoded.
    pub(crate) encoded: Bytes,
    /// When it was sent, if it is a message.
    pub(crate) sent: Option<UnixMs>,
}

impl From<&v1::Entry> for Kept {
    fn from(entry: &v1::Entry) -> Self {
        let sent = match &entry.content {
            Some(v1::entry::Content::Message(message)) => Some(UnixMs::new(message.sent_ms)),
            _ => None,
        };
        Kept { encoded: entry.encode_to_vec().into(), sent }
    }
}

#[cfg(test)]
impl Kept {
    /// Its seq, which only tests have to know.
    pub(super) fn seq(&self) -> u32 {
        v1::Entry::decode(&self.encoded[..]).expect("it was encoded here").seq
    }
}

/// What all tails of a gateway hold, and may hold.
pub(crate) struct Tails {
    bytes: AtomicUsize,
    bytes_max: usize,
}

impl Tails {
    /// There is none yet.
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Tails { bytes: AtomicUsize::new(0), bytes_max })
    }

    /// Bytes that they hold.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Holds so many more, if there is room for them.
    fn take(&self, bytes: usize) -> bool {
        let fits = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.bytes_max;
        if !fits {
            self.give_back(bytes);
        }
        fits
    }

    fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The newest entries of a mailbox, without a hole.
pub(super) struct Tail {
    entries: VecDeque<Kept>,
    /// Bytes of the entries.
    bytes: usize,
    /// What it holds of the room that all tails have: its entries and their places.
    held: usize,
    tails: Arc<Tails>,
}

impl Tail {
    /// An empty one.
    pub(super) fn new(tails: Arc<Tails>) -> Self {
        Tail { entries: VecDeque::new(), bytes: 0, held: 0, tails }
    }

    /// The newest entries, so many, if they are here.
    pub(super) fn newest(&self, count: usize) -> Option<impl ExactSizeIterator<Item = &Kept>> {
        let skipped = self.entries.len().checked_sub(count)?;
        Some(self.entries.iter().skip(skipped))
    }

    /// Takes in the entry that follows the last one. It may be empty afterwards.
    pub(super) fn push(&mut self, entry: Kept) {
        let bytes = entry.encoded.len();
        while self.entries.len() >= TAIL_ENTRIES_MAX || self.bytes + bytes > TAIL_BYTES_MAX {
            // A single entry is smaller than the bound.
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= oldest.encoded.len();
        }
        if !self.grow(bytes) {
            metrics::tail_gave_way();
            self.clear();
            if !self.grow(bytes) {
                return self.clear();
            }
        }
        self.entries.push_back(entry);
    }

    /// Gives up all entries, and their places.
    pub(super) fn clear(&mut self) {
        self.entries = VecDeque::new();
        self.bytes = 0;
        self.tails.give_back(std::mem::take(&mut self.held));
    }

    /// Makes a place for an entry of this size, if tails may hold as much; else nothing is right but to
    /// clear it.
    fn grow(&mut self, entry: usize) -> bool {
        self.entries.reserve(1);
        self.bytes += entry;
        let holds = self.bytes + self.entries.capacity() * size_of::<Kept>();
        let fits = match holds.checked_sub(self.held) {
            Some(more) => self.tails.take(more),
            None => {
                self.tails.give_back(self.held - holds);
                true
            }
        };
        if fits {
            self.held = holds;
        }
        fits
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a tail of one entry holds beside it: `VecDeque`'s first places.
    const PLACES: usize = 4 * size_of::<Kept>();

    fn entry(seq: u32, body: usize) -> Kept {
        let message = v1::Message { body: vec![7; body], ..v1::Message::default() };
        let content = Some(v1::entry::Content::Message(message));
        Kept::from(&v1::Entry { seq, content, ..v1::Entry::default() })
    }

    fn seqs(tail: &Tail, count: usize) -> Option<Vec<u32>> {
        Some(tail.newest(count)?.map(Kept::seq).collect())
    }

    /// What it says that it holds is what is there.
    fn check(tails: &Tails, all: &[&Tail]) {
        let bytes =
            |tail: &Tail| tail.entries.iter().map(|entry| entry.encoded.len()).sum::<usize>();
        for tail in all {
            assert_eq!(tail.bytes, bytes(tail));
            assert_eq!(tail.held, tail.bytes + tail.entries.capacity() * size_of::<Kept>());
        }
        assert_eq!(tails.bytes(), all.iter().map(|tail| tail.held).sum::<usize>());
        assert!(tails.bytes() <= tails.bytes_max);
    }

    #[test]
    fn entries_come_out_as_they_went_in() {
        let mut tail = Tail::new(Tails::new(1 << 20));
        let all: Vec<_> = (1..=3).map(|seq| entry(seq, 100)).collect();
        for entry in &all {
            tail.push(entry.clone());
        }
        assert_eq!(tail.newest(3).expect("there").cloned().collect::<Vec<_>>(), all);
        assert_eq!(seqs(&tail, 1), Some(vec![3]));
        assert_eq!(seqs(&tail, 4), None);
    }

    #[test]
    fn what_is_counted_is_what_is_held_after_every_step() {
        let tails = Tails::new(600_000);
        let mut all = [0; 3].map(|_| Tail::new(tails.clone()));
        for step in 0..3_000_u32 {
            let tail = &mut all[step as usize % 3];
            match step % 1_009 {
                1_000 => tail.clear(),
                // Beyond its own bound, beyond that of all, and far below.
                _ => tail
                    .push(entry(step, (step as usize * 7_919) % 16_384 / (1 + step as usize % 9))),
            }
            check(&tails, &all.each_ref());
        }
        let [first, second, third] = all;
        drop(second);
        check(&tails, &[&first, &third]);
        drop((first, third));
        assert_eq!(tails.bytes(), 0);
    }

    #[test]
    fn a_tail_is_bounded_by_entries_and_by_bytes() {
        let tails = Tails::new(usize::MAX);
        let mut tail = Tail::new(tails.clone());
        for seq in 1..=1_000 {
            tail.push(entry(seq, 1));
        }
        assert_eq!(tail.entries.len(), TAIL_ENTRIES_MAX);
        assert_eq!(tail.entries.capacity(), TAIL_ENTRIES_MAX, "no more places than entries");
        for seq in 1_001..=1_100 {
            tail.push(entry(seq, 16_000));
            assert!(tail.bytes <= TAIL_BYTES_MAX);
        }
        assert_eq!(tail.entries.len(), TAIL_BYTES_MAX / entry(1_100, 16_000).encoded.len());
        check(&tails, &[&tail]);
    }

    #[test]
    fn who_pushes_beyond_what_all_may_hold_gives_way_and_goes_on_with_its_newest() {
        let size = entry(1, 1_000).encoded.len();
        let tails = Tails::new(3 * size + 2 * PLACES);
        let (mut quiet, mut busy) = (Tail::new(tails.clone()), Tail::new(tails.clone()));
        quiet.push(entry(1, 1_000));
        for seq in 1..=3 {
            busy.push(entry(seq, 1_000));
            check(&tails, &[&quiet, &busy]);
        }
        assert_eq!(seqs(&quiet, 1), Some(vec![1]), "it has done nothing");
        assert_eq!(seqs(&busy, 1), Some(vec![3]));
        assert_eq!(seqs(&busy, 2), None, "the two before the third are given up");
        // Others hold all: nothing is kept, and what comes later begins anew.
        busy.push(entry(4, 2_050));
        assert_eq!((busy.entries.len(), busy.held), (0, 0));
        check(&tails, &[&quiet, &busy]);
        quiet.clear();
        busy.push(entry(5, 2_050));
        assert_eq!(seqs(&busy, 1), Some(vec![5]));
        check(&tails, &[&quiet, &busy]);
    }

    #[test]
    fn tails_that_are_pushed_to_from_many_threads_never_hold_too_much() {
        let tails = Tails::new(40_000);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let tails = &tails;
                scope.spawn(move || {
                    let mut tail = Tail::new(tails.clone());
                    for seq in 1..=5_000 {
                        tail.push(entry(seq, 100 * (1 + thread)));
                    }
                    assert!(tail.held <= tails.bytes_max);
                });
            }
        });
        assert_eq!(tails.bytes(), 0);
    }
}
