//! Reading a group's log at start, and looking at it offline.
//!
//! It verifies and never repairs. A log that is not what was written means that this replica no
//! longer knows what it has promised; such a node must not start with what is left. The node then
//! comes back with an empty disk and new replica ids.
//!
//! Checked: every value decodes; entries stand without a gap right behind the purge mark; terms
//! never fall; no entry is of a term that the vote does not know (an entry is only ever accepted
//! after its term was saved in the vote, so a vote that lags was lost); the commit mark lies
//! within the log (it is queued behind the entries it covers, and a snapshot's install moves the
//! purge mark, not the commit mark; so no crash leaves it ahead).
//!
//! A log that lags behind the state machine is no damage: entries are applied once a quorum of
//! others has them, before they are on this disk. openraft then purges up to what is applied.

use std::io;

use bytes::Bytes;
use thiserror::Error;

use super::codec::{self, CodecError, What};
use super::group_state::{GroupState, Weighed};
use crate::raft::types::{Entry, GroupId, LogId, Vote};
use crate::storage::LogReads;

/// How much is read at once; bounds the memory a start takes besides the tails.
const CHUNK_BYTES: usize = 4 << 20;

/// Why a group's log is refused.
#[derive(Debug, Error)]
pub enum RecoverError {
    /// The disk cannot be read.
    #[error("{group}: the raft log cannot be read: {source}")]
    Read {
        /// Whose log.
        group: GroupId,
        /// What the backend says.
        source: io::Error,
    },
    /// The groups cannot even be listed.
    #[error("the groups in the raft log cannot be listed: {0}")]
    Groups(io::Error),
    /// The vote or a mark is damaged.
    #[error("{group}: {source}")]
    Mark {
        /// Whose log.
        group: GroupId,
        /// What is wrong.
        source: CodecError,
    },
    /// An entry is damaged.
    #[error("{group}, index {index}: {source}")]
    Entry {
        /// Whose log.
        group: GroupId,
        /// Which entry.
        index: u64,
        /// What is wrong.
        source: CodecError,
    },
    /// An entry is missing, or one is there that should not be.
    #[error("{group}, index {expected}: the entry is missing, the next one found is {found}")]
    Hole {
        /// Whose log.
        group: GroupId,
        /// The index that should come next.
        expected: u64,
        /// The index that came.
        found: u64,
    },
    /// An entry's term is lower than the one before.
    #[error("{group}, index {index}: term {found} behind term {last}")]
    TermFalls {
        /// Whose log.
        group: GroupId,
        /// Which entry.
        index: u64,
        /// The term before.
        last: u64,
        /// Its term.
        found: u64,
    },
    /// The vote was lost or is an older one.
    #[error("{group}, index {index}: an entry of term {term}, but the vote knows only {vote}")]
    VoteLags {
        /// Whose log.
        group: GroupId,
        /// The last entry's index.
        index: u64,
        /// The last entry's term.
        term: u64,
        /// The vote's term, 0 without a vote.
        vote: u64,
    },
    /// Committed entries were lost from the end.
    #[error(
        "{group}: committed up to index {committed}, but the log ends at {}",
        .last.map_or("nothing".to_owned(), |index| index.to_string())
    )]
    CommittedLost {
        /// Whose log.
        group: GroupId,
        /// The commit mark.
        committed: u64,
        /// Where the log ends, unless it is empty.
        last: Option<u64>,
    },
}

/// A group's log in a few words, for an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSummary {
    /// Whose log.
    pub group: GroupId,
    /// The saved vote.
    pub vote: Option<Vote>,
    /// The commit mark; may lag behind what the cluster has committed.
    pub committed: Option<LogId>,
    /// The last purged entry.
    pub purged: Option<LogId>,
    /// The last entry, or the purge mark if there is none.
    pub last: Option<LogId>,
    /// How many entries there are.
    pub entries: u64,
}

/// Checks all groups' logs and sums them up; for offline inspection.
pub fn survey(reads: &dyn LogReads) -> Result<Vec<GroupSummary>, RecoverError> {
    let groups = reads.groups().map_err(RecoverError::Groups)?;
    let summary = |group| {
        let state = recover(reads, group, 0)?;
        let indexes = state.indexes();
        Ok(GroupSummary {
            group,
            vote: state.vote,
            committed: state.committed,
            purged: state.purged(),
            last: state.last(),
            entries: indexes.end - indexes.start,
        })
    };
    groups.into_iter().map(summary).collect()
}

/// Calls `visit` with each entry of `group` in order; for offline inspection.
pub fn visit_entries(
    reads: &dyn LogReads,
    group: GroupId,
    mut visit: impl FnMut(Entry),
) -> Result<(), RecoverError> {
    scan(reads, group, |weighed| {
        visit(weighed.entry);
        Ok(())
    })
}

/// Reads and checks everything `group` has; keeps the newest entries in memory.
pub(crate) fn recover(
    reads: &dyn LogReads,
    group: GroupId,
    tail_bytes_max: usize,
) -> Result<GroupState, RecoverError> {
    let marks = reads.marks(group);
    let marks = marks.map_err(|source| RecoverError::Read { group, source })?;
    let mark = |source| RecoverError::Mark { group, source };
    let log_id = |what, value: Option<Bytes>| {
        let id = value.map(|value| codec::decode_log_id(what, group, &value));
        id.transpose().map_err(mark)
    };
    let purged = log_id(What::Purged, marks.purged)?;
    let mut state = GroupState::new(group, purged, tail_bytes_max);
    state.committed = log_id(What::Committed, marks.committed)?;
    if let Some(value) = marks.vote {
        state.voted(codec::decode_vote(group, &value).map_err(mark)?);
    }
    scan(reads, group, |weighed| add(&mut state, weighed, group))?;
    check_marks(&state, group)?;
    Ok(state)
}

fn add(state: &mut GroupState, weighed: Weighed, group: GroupId) -> Result<(), RecoverError> {
    let LogId { leader_id, index } = weighed.entry.log_id;
    let expected = state.indexes().end;
    if index != expected {
        return Err(RecoverError::Hole { group, expected, found: index });
    }
    let last = state.last().map_or(0, |id| id.leader_id.term);
    let found = leader_id.term;
    if found < last {
        return Err(RecoverError::TermFalls { group, index, last, found });
    }
    let next = state.append(vec![weighed]);
    let next = next.expect("index and term were just compared with the last entry's");
    state.appended(state.generation(), next);
    Ok(())
}

fn check_marks(state: &GroupState, group: GroupId) -> Result<(), RecoverError> {
    let vote = state.vote.map_or(0, |vote| vote.leader_id.term);
    // The purge mark is left out: it may come from a snapshot's metadata.
    if let Some(last) = state.last()
        && !state.indexes().is_empty()
        && last.leader_id.term > vote
    {
        return Err(RecoverError::VoteLags {
            group,
            index: last.index,
            term: last.leader_id.term,
            vote,
        });
    }
    let last = state.last().map(|id| id.index);
    match state.committed {
        Some(committed) if Some(committed.index) > last => {
            Err(RecoverError::CommittedLost { group, committed: committed.index, last })
        }
        _ => Ok(()),
    }
}

/// Visits all stored entries of `group`, from index 0 on, so that one below the purge mark is
/// seen as well.
fn scan(
    reads: &dyn LogReads,
    group: GroupId,
    mut visit: impl FnMut(Weighed) -> Result<(), RecoverError>,
) -> Result<(), RecoverError> {
    let mut from = 0;
    loop {
        let chunk = reads.entries(group, from..u64::MAX, CHUNK_BYTES);
        let chunk = chunk.map_err(|source| RecoverError::Read { group, source })?;
        let Some((last, _)) = chunk.last() else {
            return Ok(());
        };
        from = last + 1;
        for (index, value) in chunk {
            visit(decode(group, index, &value)?)?;
        }
    }
}

/// A stored entry; its payload shares `value`'s memory.
pub(crate) fn decode(group: GroupId, index: u64, value: &Bytes) -> Result<Weighed, RecoverError> {
    let entry = codec::decode_entry(group, index, value);
    let entry = entry.map_err(|source| RecoverError::Entry { group, index, source })?;
    Ok(Weighed { entry, bytes: value.len() })
}
