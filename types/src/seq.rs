//! Sequence arithmetic: the only place where sequence numbers are added or compared for gaps.
//!
//! A mailbox's entries carry the seqs 1, 2, 3 … with no hole and no reuse. 0 means "nothing",
//! [`Seq::MAX`] is the last one; a mailbox that reached it refuses, it never wraps.
//!
//! ```text
//!   0        floor          seq_cli            head (seq_svr)
//!   |---------|================|==================|
//!    removed      the device      still to send:
//!    (R13)        has these       seq_cli+1 ..= seq_svr
//! ```

use std::fmt;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

/// A position in a mailbox: the number of an entry, or 0 for the place before the first one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Seq(u32);

impl Seq {
    /// The place before the first entry: an empty mailbox's head, a new device's cursor.
    pub const NONE: Seq = Seq(0);
    /// The last seq there is.
    pub const MAX: Seq = Seq(u32::MAX);

    /// The seq with this number, as it stands in a frame or a key.
    pub const fn new(number: u32) -> Self {
        Seq(number)
    }

    /// Its number, for frames, keys and metrics.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The seq after this one, or `None` when the space is used up.
    pub fn next(self) -> Option<Seq> {
        self.0.checked_add(1).map(Seq)
    }

    /// The `n` seqs after this one, or `None` when fewer than `n` are left.
    pub fn reserve(self, n: NonZeroU32) -> Option<SeqRange> {
        let last = self.0.checked_add(n.get())?;
        Some(SeqRange { first: Seq(self.0 + 1), last: Seq(last) })
    }

    /// The seq `n` places before this one, or [`Seq::NONE`].
    pub fn back(self, n: u32) -> Seq {
        Seq(self.0.saturating_sub(n))
    }

    /// How many entries lie after `earlier` up to this one; 0 when it is not earlier.
    pub fn since(self, earlier: Seq) -> u32 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A run of seqs, both ends included; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SeqRange {
    first: Seq,
    last: Seq,
}

impl SeqRange {
    /// What a device at `seq_cli` lacks of a mailbox at `seq_svr`: `seq_cli+1 ..= seq_svr`.
    pub fn missing(seq_cli: Seq, seq_svr: Seq) -> Option<SeqRange> {
        seq_cli.reserve(NonZeroU32::new(seq_svr.since(seq_cli))?)
    }

    /// The lowest seq in it.
    pub fn first(self) -> Seq {
        self.first
    }

    /// The highest seq in it.
    pub fn last(self) -> Seq {
        self.last
    }

    /// How many seqs it holds, at least 1.
    pub fn count(self) -> u32 {
        self.last.0 - self.first.0 + 1
    }

    /// Its first `n` seqs, or all of it when it is shorter.
    pub fn truncated(self, n: NonZeroU32) -> SeqRange {
        let end = self.first.0.saturating_add(n.get() - 1);
        SeqRange { first: self.first, last: Seq(end.min(self.last.0)) }
    }

    /// Its seqs, lowest first.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = Seq> {
        (self.first.0..=self.last.0).map(Seq)
    }
}

impl fmt::Display for SeqRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..={}", self.first, self.last)
    }
}

/// What a device at `seq_cli` does with a delivery of the entries after `prev` up to `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It connects: apply what is above `seq_cli`.
    Apply,
    /// All of it is known already: drop it.
    Drop,
    /// Something before it is missing: sync first.
    Sync,
}

impl Arrival {
    /// Judges a delivery; the gap arithmetic of every device.
    pub fn judge(seq_cli: Seq, prev: Seq, last: Seq) -> Arrival {
        if last <= seq_cli {
            Arrival::Drop
        } else if prev <= seq_cli {
            Arrival::Apply
        } else {
            Arrival::Sync
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn n(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).expect("a test's own constant")
    }

    #[test]
    fn the_space_ends_without_wrapping() {
        assert_eq!(Seq::MAX.next(), None);
        assert_eq!(Seq::MAX.reserve(n(1)), None);
        assert_eq!(Seq::new(u32::MAX - 1).next(), Some(Seq::MAX));
        assert_eq!(Seq::new(u32::MAX - 1).reserve(n(2)), None);
    }

    #[test]
    fn missing_is_what_the_paper_sends() {
        assert_eq!(SeqRange::missing(Seq::new(7), Seq::new(7)), None);
        assert_eq!(SeqRange::missing(Seq::new(8), Seq::new(7)), None);
        let range = SeqRange::missing(Seq::new(7), Seq::new(10)).expect("three are missing");
        assert_eq!(range.to_string(), "8..=10");
        assert_eq!(range.truncated(n(2)).to_string(), "8..=9");
        assert_eq!(range.truncated(n(9)), range);
    }

    #[test]
    fn a_delivery_is_applied_dropped_or_synced() {
        let judge = |cli, prev, last| Arrival::judge(Seq::new(cli), Seq::new(prev), Seq::new(last));
        assert_eq!(judge(5, 5, 6), Arrival::Apply);
        assert_eq!(judge(5, 3, 6), Arrival::Apply);
        assert_eq!(judge(5, 3, 5), Arrival::Drop);
        assert_eq!(judge(5, 6, 7), Arrival::Sync);
    }

    proptest! {
        #[test]
        fn a_reserved_range_starts_right_after(from: u32, count in 1u32..) {
            match Seq::new(from).reserve(n(count)) {
                None => prop_assert!(u64::from(from) + u64::from(count) > u64::from(u32::MAX)),
                Some(range) => {
                    prop_assert_eq!(Seq::new(from).next(), Some(range.first()));
                    prop_assert_eq!(range.count(), count);
                    prop_assert_eq!(range.last().since(Seq::new(from)), count);
                }
            }
        }

        #[test]
        fn truncation_never_leaves_the_range(cli in 0u32..1000, len in 1u32..1000, cut in 1u32..) {
            let range = SeqRange::missing(Seq::new(cli), Seq::new(cli + len));
            let range = range.expect("len is at least one");
            let cut_range = range.truncated(n(cut));
            prop_assert_eq!(cut_range.first(), range.first());
            prop_assert_eq!(cut_range.count(), cut.min(len));
        }
    }
}
