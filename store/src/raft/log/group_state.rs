//! What a group's log is, in memory: the marks, and the newest entries.
//!
//! ```text
//!        purged   first          tail_first        written          next
//!  ────────┴────────┴────────────────┴────────────────┴───────────────┴──>  index
//!           deleted │  backend only  │ memory, backend│  memory only  │
//! ```
//!
//! Pure arithmetic under a lock: it never waits, reads no disk and writes none. Every change here
//! is queued for the disk under the same lock, so memory is what the disk will be once the queue
//! is written, and nothing else.
//!
//! Invariants: `first <= tail_first <= next`, `tail_first <= written <= next`, no holes, terms
//! never fall, and [`Generation`] changes whenever an index may come to mean another entry.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use thiserror::Error;

use crate::raft::types::{Entry, GroupId, LogId, Vote};

/// A group's state, shared by its handles and the writer.
pub(crate) type SharedState = Arc<Mutex<GroupState>>;

/// Counts truncations. What was learnt about an index in one generation says nothing about it
/// in another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Generation(u64);

/// A request that would break the log. openraft never makes one; if it does, its state and ours
/// differ and the group must stop before the difference is written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Misuse {
    #[error("{group}: append of index {found} where {expected} comes next")]
    NotNext { group: GroupId, expected: u64, found: u64 },
    #[error("{group}: append of term {found} at index {index} behind term {last}")]
    TermFalls { group: GroupId, index: u64, last: u64, found: u64 },
    #[error("{group}: truncation after {after:?}, but the log starts at {first}")]
    TruncatesPurged { group: GroupId, after: Option<LogId>, first: u64 },
    #[error("{group}: truncation after {after}, but {found} stands there")]
    TruncatesUnknown { group: GroupId, after: LogId, found: LogId },
    #[error("{group}: vote {found} would replace the newer {last}")]
    VoteFalls { group: GroupId, last: Vote, found: Vote },
}

/// An entry and what it weighs.
pub(crate) struct Weighed {
    pub(crate) entry: Entry,
    pub(crate) bytes: usize,
}

/// What a read finds in memory, and what it has to fetch.
pub(crate) struct View {
    /// Indexes that only the backend has; they come before `warm`.
    pub(crate) cold: Range<u64>,
    /// Entries from memory, without a gap behind `cold`.
    pub(crate) warm: Vec<Weighed>,
    /// What `cold` has to be compared with after it was fetched.
    pub(crate) generation: Generation,
}

/// One group's log in memory.
pub(crate) struct GroupState {
    group: GroupId,
    /// The vote on disk.
    pub(crate) vote: Option<Vote>,
    /// The vote that was queued last; ahead of `vote` while it is being written.
    vote_queued: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    purged: Option<LogId>,
    first: u64,
    /// The last entry, or the purge mark if there is none.
    last: Option<LogId>,
    tail: VecDeque<Weighed>,
    tail_first: u64,
    tail_bytes: usize,
    tail_bytes_max: usize,
    written: u64,
    generation: Generation,
    /// openraft's conformance suite starts logs at other indexes than 0.
    #[cfg(test)]
    pub(crate) late_start: bool,
}

impl GroupState {
    /// A log without entries that was purged up to `purged`.
    pub(crate) fn new(group: GroupId, purged: Option<LogId>, tail_bytes_max: usize) -> Self {
        // A mark at the end of the number space can only be read from a disk; then nothing fits.
        let first = purged.map_or(0, |id| id.index.saturating_add(1));
        Self {
            group,
            vote: None,
            vote_queued: None,
            committed: None,
            purged,
            first,
            last: purged,
            tail: VecDeque::new(),
            tail_first: first,
            tail_bytes: 0,
            tail_bytes_max,
            written: first,
            generation: Generation::default(),
            #[cfg(test)]
            late_start: false,
        }
    }

    pub(crate) fn purged(&self) -> Option<LogId> {
        self.purged
    }

    pub(crate) fn last(&self) -> Option<LogId> {
        self.last
    }

    pub(crate) fn generation(&self) -> Generation {
        self.generation
    }

    /// All indexes that have an entry.
    pub(crate) fn indexes(&self) -> Range<u64> {
        self.first..self.next()
    }

    fn next(&self) -> u64 {
        self.tail_first + self.tail.len() as u64
    }

    /// Takes `vote` as queued, unless it is older than the last.
    pub(crate) fn queue_vote(&mut self, vote: Vote) -> Result<(), Misuse> {
        if let Some(last) = self.vote_queued
            && !matches!(vote.partial_cmp(&last), Some(order) if order.is_ge())
        {
            return Err(Misuse::VoteFalls { group: self.group, last, found: vote });
        }
        self.vote_queued = Some(vote);
        Ok(())
    }

    /// The vote that was queued last.
    pub(crate) fn queued_vote(&self) -> Option<Vote> {
        self.vote_queued
    }

    /// `vote` is on disk.
    pub(crate) fn voted(&mut self, vote: Vote) {
        self.vote = Some(vote);
        self.vote_queued.get_or_insert(vote);
    }

    /// Appends `entries` to the tail, all or none; gives the index after the last.
    pub(crate) fn append(&mut self, entries: Vec<Weighed>) -> Result<u64, Misuse> {
        #[cfg(test)]
        self.start_late(&entries);
        self.check_append(&entries)?;
        for weighed in entries {
            self.last = Some(weighed.entry.log_id);
            self.tail_bytes += weighed.bytes;
            self.tail.push_back(weighed);
        }
        Ok(self.next())
    }

    fn check_append(&self, entries: &[Weighed]) -> Result<(), Misuse> {
        let mut last = self.last.map_or(0, |id| id.leader_id.term);
        for (expected, Weighed { entry, .. }) in (self.next()..).zip(entries) {
            let (index, term) = (entry.log_id.index, entry.log_id.leader_id.term);
            if index != expected {
                return Err(Misuse::NotNext { group: self.group, expected, found: index });
            }
            if term < last {
                return Err(Misuse::TermFalls { group: self.group, index, last, found: term });
            }
            last = term;
        }
        Ok(())
    }

    #[cfg(test)]
    fn start_late(&mut self, entries: &[Weighed]) {
        if let Some(first) = entries.first()
            && self.late_start
            && self.last.is_none()
        {
            let index = first.entry.log_id.index;
            (self.first, self.tail_first, self.written) = (index, index, index);
        }
    }

    /// Entries below `upto` are on disk, if they are still those of `generation`.
    pub(crate) fn appended(&mut self, generation: Generation, upto: u64) {
        if generation == self.generation {
            self.written = self.written.max(upto);
            self.evict();
        }
    }

    /// Lets go of the oldest entries that the backend has too, once the tail is too heavy.
    fn evict(&mut self) {
        while self.tail_bytes > self.tail_bytes_max && self.tail_first < self.written {
            self.drop_front();
        }
    }

    fn drop_front(&mut self) {
        if let Some(weighed) = self.tail.pop_front() {
            self.tail_first += 1;
            self.tail_bytes -= weighed.bytes;
        }
    }

    /// Removes everything after `after`; gives the indexes to delete, if any.
    pub(crate) fn truncate_after(
        &mut self,
        after: Option<LogId>,
    ) -> Result<Option<Range<u64>>, Misuse> {
        let group = self.group;
        let from = after.map_or(0, |id| id.index + 1);
        let next = self.next();
        if from >= next {
            return Ok(None);
        }
        if from < self.first {
            let first = self.first;
            return Err(Misuse::TruncatesPurged { group, after, first });
        }
        if let Some(after) = after
            && let Some(found) = self.id_in_memory(after.index)
            && found != after
        {
            return Err(Misuse::TruncatesUnknown { group, after, found });
        }
        while self.next() > from
            && let Some(weighed) = self.tail.pop_back()
        {
            self.tail_bytes -= weighed.bytes;
        }
        self.tail_first = self.tail_first.min(from);
        self.written = self.written.min(from);
        self.last = if from == self.first { self.purged } else { after };
        self.generation.0 += 1;
        Ok(Some(from..next))
    }

    fn id_in_memory(&self, index: u64) -> Option<LogId> {
        if self.purged.is_some_and(|id| id.index == index) {
            return self.purged;
        }
        let at = usize::try_from(index.checked_sub(self.tail_first)?).ok()?;
        self.tail.get(at).map(|weighed| weighed.entry.log_id)
    }

    /// Removes everything up to `upto`, which may lie behind the end (after a snapshot). Gives
    /// the indexes to delete; `None` if all of that was done before.
    pub(crate) fn purge(&mut self, upto: LogId) -> Option<Range<u64>> {
        if self.purged.is_some_and(|purged| upto.index <= purged.index) {
            return None;
        }
        let from = self.first.min(upto.index + 1);
        self.first = upto.index + 1;
        self.purged = Some(upto);
        while self.tail_first < self.first && !self.tail.is_empty() {
            self.drop_front();
        }
        self.tail_first = self.tail_first.max(self.first);
        self.written = self.written.max(self.tail_first);
        if self.first == self.next() {
            self.last = Some(upto);
        }
        Some(from..upto.index + 1)
    }

    /// What a read of `range` finds. Stops behind `bytes_max` bytes, never before the first.
    pub(crate) fn view(&self, range: Range<u64>, bytes_max: usize) -> View {
        let start = range.start.max(self.first);
        let end = range.end.min(self.next());
        let cold = start..end.min(self.tail_first);
        let warm = start.max(self.tail_first)..end;
        let mut view = View { cold, warm: Vec::new(), generation: self.generation };
        if warm.is_empty() {
            return view;
        }
        let skip = (warm.start - self.tail_first) as usize;
        let count = (warm.end - warm.start) as usize;
        let mut bytes = 0;
        for Weighed { entry, bytes: weight } in self.tail.iter().skip(skip).take(count) {
            bytes += weight;
            if bytes > bytes_max && !view.warm.is_empty() {
                break;
            }
            view.warm.push(Weighed { entry: entry.clone(), bytes: *weight });
        }
        view
    }
}
