//! The node's Raft log: one store for all groups, one writer thread, group commit.
//!
//! ```text
//!  RaftCore A ── GroupLog A ──┐                        ┌─> Failure ──> the node stops
//!  RaftCore B ── GroupLog B ──┼──> Queue ──> LogWriter ┤
//!  RaftCore C ── GroupLog C ──┘   (bytes)   (1 thread) └─> LogBackend::commit: 1 batch, 1 fsync
//!                    │                                            │
//!                    └── reads: the tail in memory ─── else ─── LogReads
//! ```
//!
//! * [`LogStore`] opens the log and hands out a [`GroupLog`] per group, which openraft drives.
//! * Votes, appends, truncations, purges and commit marks of all groups go through one queue, in
//!   order; so within a group nothing overtakes anything, which is what Raft needs.
//! * Acknowledged means fsynced. After one error nothing is acknowledged any more and the node
//!   must stop ([`LogStore::failed`]); nothing is ever retried.
//! * What is read at start is verified ([`RecoverError`]); nothing is repaired or shortened.
//!
//! It refuses to know which disk it is on: everything below is behind `storage::LogBackend`.

mod codec;
mod failure;
mod group_log;
mod group_state;
mod queue;
mod recover;
mod store;
mod writer;

#[cfg(test)]
mod tests;

pub use codec::CodecError;
pub use failure::Failure;
pub use group_log::GroupLog;
pub use recover::{GroupSummary, RecoverError, survey, visit_entries};
pub use store::{LogOptions, LogStore};
pub use writer::{LogThread, LogWriter};
