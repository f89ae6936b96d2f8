//! The seam between the log store and a disk.
//!
//! Two implementations: files ([`super::SegmentLog`]) and a simulated disk with pending and durable
//! bytes. Both move opaque bytes: an implementation never interprets a value.
//!
//! Invariants every implementation keeps:
//! * a batch is atomic: after a crash all of it is there, or nothing;
//! * batches survive in order: if a later one is there, so are all earlier ones;
//! * a batch that says `durable`, and with it every batch before it, is on disk when
//!   [`LogBackend::commit`] returns `Ok`;
//! * after one error nothing is accepted any more. The log store never retries.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::GroupId;

/// Bytes in front of every entry's body: kind 1, term 8, body length 4, checksum 4.
pub const ENTRY_HEAD_BYTES: usize = 17;

/// An entry as it is stored: a small head and the proposer's own bytes, which are shared and not
/// copied on the way to the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryValue {
    /// What the log store needs to know about the body.
    pub head: [u8; ENTRY_HEAD_BYTES],
    /// The payload, encoded once by whoever proposed it.
    pub body: Bytes,
}

impl EntryValue {
    /// Bytes that it takes on disk.
    pub fn bytes(&self) -> usize {
        self.head.len() + self.body.len()
    }
}

/// One change to a group's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Replaces the vote.
    Vote(Bytes),
    /// Replaces the mark up to where the log is known to be committed.
    Committed(Bytes),
    /// Stores the entry at `index`.
    Entry {
        /// Where it stands.
        index: u64,
        /// What is stored there.
        value: EntryValue,
    },
    /// Removes the entries in `range`, which reaches to the end of the log.
    Truncate {
        /// Up to what was the end of the log.
        range: Range<u64>,
    },
    /// Replaces the purge mark and removes the entries in `range`, in one step: a mark without
    /// the deletion, or the reverse, would be a log that does not start where it says.
    Purge {
        /// The entries from the former start of the log up to the mark.
        range: Range<u64>,
        /// The id of the last purged entry.
        mark: Bytes,
    },
}

/// A change and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogWrite {
    /// The group.
    pub group: GroupId,
    /// What happens to its log.
    pub change: Change,
}

/// What is written in one step, in this order: of two changes to one key the later wins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogBatch {
    /// The changes, of any number of groups.
    pub writes: Vec<LogWrite>,
    /// Whether it must be on disk when `commit` returns. False only if every change in it may
    /// be forgotten by a power cut without harm.
    pub durable: bool,
}

/// What a group has besides entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupMarks {
    /// The last stored vote.
    pub vote: Option<Bytes>,
    /// The last stored commit mark.
    pub committed: Option<Bytes>,
    /// The last stored purge mark.
    pub purged: Option<Bytes>,
}

/// The reading half, shared by all groups: used at start, and for entries which are no longer in
/// memory.
pub trait LogReads: Send + Sync + 'static {
    /// All groups of which anything is stored, in order.
    fn groups(&self) -> io::Result<Vec<GroupId>>;

    /// What `group` has besides entries.
    fn marks(&self, group: GroupId) -> io::Result<GroupMarks>;

    /// The entries of `group` with an index in `range`, in order, from one consistent view. Stops
    /// once `bytes_max` is reached, but never before the first.
    fn entries(
        &self,
        group: GroupId,
        range: Range<u64>,
        bytes_max: usize,
    ) -> io::Result<Vec<(u64, Bytes)>>;
}

/// A disk for the log; owned by the one thread that writes.
pub trait LogBackend: Send + 'static {
    /// The reading half.
    fn reads(&self) -> Arc<dyn LogReads>;

    /// Writes `batch`; on disk at return if the batch says `durable`.
    fn commit(&mut self, batch: LogBatch) -> io::Result<()>;
}
