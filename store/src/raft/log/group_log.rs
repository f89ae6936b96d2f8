//! One group's log as openraft sees it.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use futures::{Stream, TryStreamExt, stream};
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use tidemark_mutants::{Mutant, is};
use tokio::sync::oneshot;

use super::codec::{self, What};
use super::failure::Failure;
use super::group_state::{GroupState, Misuse, SharedState, View, Weighed};
use super::queue::{Done, Op, Queue};
use super::recover::{RecoverError, decode};
use crate::metrics;
use crate::raft::types::{Entry, GroupId, LogId, TypeConfig, Vote};
use crate::storage::{Change, LogReads};

/// What an entry takes besides its value: its key and the structures around it, on disk and in
/// memory.
const ENTRY_OVERHEAD_BYTES: usize = 64;

/// What a vote takes in the queue, at most.
const VOTE_BYTES: usize = 64;

/// A handle of one group's log: cheap to clone, all clones are the same log. Reading and writing
/// half in one.
///
/// Reads are served from memory; only a follower or a state machine that lags behind the tail
/// makes them read the backend, on the caller's thread, one bounded chunk at a time.
#[derive(Clone)]
pub struct GroupLog {
    pub(crate) group: GroupId,
    pub(crate) state: SharedState,
    pub(crate) queue: Arc<Queue>,
    pub(crate) reads: Arc<dyn LogReads>,
    pub(crate) read_bytes_max: usize,
}

impl GroupLog {
    /// Lets an empty log start at any index, as openraft's conformance suite does and openraft
    /// does not.
    #[cfg(test)]
    pub(crate) fn allow_late_start(&self) {
        self.state.lock().late_start = true;
    }

    /// The last entry that was purged: without the state up to there, the log is of no use.
    pub fn purged(&self) -> Option<LogId> {
        self.state.lock().purged()
    }

    /// Begins anew behind the state, at `applied`, if it does not hold that very entry. What is
    /// applied is committed; whatever contradicts it, and all behind that, was never. Such entries
    /// are left where a crash lost a truncation, an append or a purge that the state was ahead of,
    /// and where a lost state came back from another node.
    pub async fn catch_up(&mut self, applied: Option<LogId>) -> io::Result<()> {
        let Some(applied) = applied else { return Ok(()) };
        let purged = self.purged();
        if purged.is_some_and(|purged| purged.index >= applied.index) {
            return Ok(());
        }
        let found = self.read(applied.index..applied.index + 1, usize::MAX)?;
        if found.first().is_some_and(|entry| entry.log_id == applied) {
            return Ok(());
        }
        let mark = codec::encode_log_id(What::Purged, self.group, &applied);
        // In one step: after half of it the log would end before its own commit mark.
        self.submit(mark.len(), |state| {
            let truncated = state.truncate_after(purged)?.map(|range| Change::Truncate { range });
            let purged = state.purge(applied).map(|range| Change::Purge { range, mark });
            Ok(Some((truncated.into_iter().chain(purged).collect(), Done::Lazy)))
        })
        .await
    }

    /// Waits until everything that was queued before is on disk.
    pub async fn sync(&self) -> io::Result<()> {
        // The last vote once more: it is durable behind all that was queued before it.
        self.save(|state| Ok(state.queued_vote())).await
    }

    /// Writes the vote that `prepare` gives, durably, and waits for it; nothing if it gives none.
    async fn save<F>(&self, prepare: F) -> io::Result<()>
    where
        F: FnOnce(&mut GroupState) -> Result<Option<Vote>, Misuse>,
    {
        let (saved, answer) = oneshot::channel();
        let mut waits = false;
        self.submit(VOTE_BYTES, |state| {
            let Some(vote) = prepare(state)? else { return Ok(None) };
            waits = true;
            let value = codec::encode_vote(self.group, &vote);
            Ok(Some((vec![Change::Vote(value)], Done::Voted { vote, saved })))
        })
        .await?;
        if !waits {
            return Ok(());
        }
        match answer.await {
            Ok(answer) => answer.map_err(|failure| failure.to_io()),
            Err(_gone) => Err(Failure::WriterGone.to_io()),
        }
    }

    /// Queues what `prepare` decides, under the group's lock: memory and queue agree on the
    /// order. `prepare` may find that there is nothing to do.
    async fn submit<F>(&self, bytes: usize, prepare: F) -> io::Result<()>
    where
        F: FnOnce(&mut GroupState) -> Result<Option<(Vec<Change>, Done)>, Misuse>,
    {
        let room = self.queue.reserve(bytes).await;
        let room = room.map_err(|failure| failure.to_io())?;
        let mut state = self.state.lock();
        let Some((changes, done)) = prepare(&mut state).map_err(misuse)? else {
            return Ok(());
        };
        let op = Op { group: self.group, state: Arc::clone(&self.state), changes, done };
        let pushed = self.queue.push(op, room);
        pushed.map_err(|failure| failure.to_io())
    }

    /// The entries with an index in `range`, as of one moment: all of them, or the first ones up
    /// to `bytes_max` bytes.
    fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        loop {
            let View { cold, warm, generation } = self.state.lock().view(range.clone(), bytes_max);
            if cold.is_empty() {
                return Ok(warm.into_iter().map(|weighed| weighed.entry).collect());
            }
            metrics::log_read_cold();
            let fetched = self.fetch(cold.clone(), bytes_max);
            let state = self.state.lock();
            if state.generation() != generation || state.indexes().start > cold.start {
                // Truncated or purged meanwhile: two halves of two logs. Look again.
                continue;
            }
            drop(state);
            return self.join(cold, fetched?, warm, bytes_max);
        }
    }

    fn fetch(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Weighed>> {
        let stored = self.reads.entries(self.group, range, bytes_max)?;
        let decoded = stored.iter().map(|(index, value)| decode(self.group, *index, value));
        decoded.collect::<Result<_, _>>().map_err(invalid)
    }

    /// Puts the fetched entries of `cold` in front of `warm`; a gap is corruption.
    fn join(
        &self,
        cold: Range<u64>,
        fetched: Vec<Weighed>,
        warm: Vec<Weighed>,
        bytes_max: usize,
    ) -> io::Result<Vec<Entry>> {
        let mut entries: Vec<Entry> = Vec::with_capacity(fetched.len() + warm.len());
        let mut bytes = 0;
        let mut expected = cold.start;
        for Weighed { entry, bytes: weight } in fetched {
            if entry.log_id.index != expected {
                return Err(self.hole(expected, entry.log_id.index));
            }
            expected += 1;
            bytes += weight;
            entries.push(entry);
        }
        // Short of the end is fine only if there was no room for more.
        if entries.is_empty() || (expected < cold.end && bytes_max == usize::MAX) {
            return Err(self.hole(expected, cold.end));
        }
        if expected == cold.end {
            for Weighed { entry, bytes: weight } in warm {
                bytes += weight;
                if bytes > bytes_max {
                    break;
                }
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    fn hole(&self, expected: u64, found: u64) -> io::Error {
        invalid(RecoverError::Hole { group: self.group, expected, found })
    }

    /// An owned stream of the entries in `range`, one bounded read at a time. Only the first read
    /// may begin late (behind what is purged); what is purged under a running stream is an error.
    fn stream(self, range: Range<u64>) -> impl Stream<Item = io::Result<Entry>> + Send + 'static {
        let chunks = stream::try_unfold((self, range, true), |(log, range, fresh)| async move {
            if range.is_empty() {
                return Ok::<_, io::Error>(None);
            }
            let entries = log.read(range.clone(), log.read_bytes_max)?;
            let first = entries.first().map_or(range.end, |entry| entry.log_id.index);
            if !fresh && first != range.start {
                return Err(log.hole(range.start, first));
            }
            let rest = entries.last().map_or(range.end, |entry| entry.log_id.index + 1);
            let chunk = stream::iter(entries.into_iter().map(Ok));
            Ok(Some((chunk, (log, rest..range.end, false))))
        });
        chunks.try_flatten()
    }
}

impl RaftLogReader<TypeConfig> for GroupLog {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.read(half_open(&range), usize::MAX)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.state.lock().vote)
    }

    /// At least the entry at `start`, unless it is purged (or not there): then nothing, never a
    /// later entry. openraft sends what it gets right behind the entry before `start`, so a later
    /// one would be a hole in a follower's log; nothing is sent as a heartbeat.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let entries = self.read(start..end, self.read_bytes_max)?;
        match entries.first() {
            Some(first) if first.log_id.index == start => Ok(entries),
            _ => Ok(Vec::new()),
        }
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        // An open end means what there is now, not what is appended meanwhile.
        let Range { start, end } = half_open(&range);
        let end = end.min(self.state.lock().indexes().end);
        self.clone().stream(start..end)
    }
}

impl RaftLogStorage<TypeConfig> for GroupLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let state = self.state.lock();
        Ok(LogState { last_purged_log_id: state.purged(), last_log_id: state.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    /// Durable when it returns, behind everything queued before it: a vote must not overtake the
    /// entries that were accepted under the one before.
    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let vote = *vote;
        self.save(|state| state.queue_vote(vote).map(|()| Some(vote))).await
    }

    /// Written without an fsync of its own: losing it costs a longer wait at the next start.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let Some(committed) = committed else {
            return Ok(());
        };
        let value = codec::encode_log_id(What::Committed, self.group, &committed);
        self.submit(value.len(), |state| {
            // Beyond the log it comes with a snapshot: the state holds it, nothing is replayed up
            // to it, and a crash before the purge would leave a mark that the log does not reach.
            if Some(committed.index) > state.last().map(|last| last.index) {
                return Ok(None);
            }
            state.committed = Some(committed);
            Ok(Some((vec![Change::Committed(value)], Done::Lazy)))
        })
        .await
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.state.lock().committed)
    }

    /// Readable when it returns, acknowledged through `flushed` once on disk.
    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let mut changes = Vec::with_capacity(entries.len());
        let mut weighed = Vec::with_capacity(entries.len());
        let mut total = 0;
        for entry in entries {
            let index = entry.log_id.index;
            let value = codec::encode_entry(self.group, &entry);
            let value =
                value.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
            let bytes = value.bytes() + ENTRY_OVERHEAD_BYTES;
            total += bytes;
            changes.push(Change::Entry { index, value });
            weighed.push(Weighed { entry, bytes });
        }
        self.submit(total, |state| {
            if is(Mutant::KeepConflicts) {
                let next = state.indexes().end;
                weighed.retain(|weighed| weighed.entry.log_id.index >= next);
                changes.retain(
                    |change| matches!(change, Change::Entry { index, .. } if *index >= next),
                );
            }
            let upto = state.append(weighed)?;
            let generation = state.generation();
            let done = Done::Appended { generation, upto, flushed };
            Ok(Some((changes, done)))
        })
        .await
    }

    /// Needs no fsync of its own: what replaces the removed entries is queued behind it.
    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        if is(Mutant::KeepConflicts) {
            return Ok(());
        }
        self.submit(0, |state| {
            let range = state.truncate_after(last_log_id)?;
            Ok(range.map(|range| (vec![Change::Truncate { range }], Done::Lazy)))
        })
        .await
    }

    /// Needs no fsync: if it is lost, the entries are there again.
    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        let mark = codec::encode_log_id(What::Purged, self.group, &log_id);
        self.submit(mark.len(), |state| {
            let range = state.purge(log_id);
            Ok(range.map(|range| (vec![Change::Purge { range, mark }], Done::Lazy)))
        })
        .await
    }
}

fn misuse(error: Misuse) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

fn invalid(error: RecoverError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn half_open(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}
