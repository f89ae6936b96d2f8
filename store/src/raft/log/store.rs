//! All groups' logs of one node.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::failure::Failure;
use super::group_log::GroupLog;
use super::group_state::{GroupState, SharedState};
use super::queue::Queue;
use super::recover::{RecoverError, recover};
use super::writer::LogWriter;
use crate::raft::types::GroupId;
use crate::storage::{LogBackend, LogReads};

/// Bounds of the log, all in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Operations waiting for the disk, all groups together. Appends wait (and with them the
    /// groups, and with them the proposers) once the disk is this far behind: a few hundred
    /// milliseconds of a slow disk.
    pub queue_bytes_max: usize,
    /// One commit. Larger batches save no fsyncs worth having, but make all others wait.
    pub batch_bytes_max: usize,
    /// Entries kept in memory per group besides those not yet on disk: what followers and the
    /// state machine normally lag behind. Older entries come from the backend.
    pub tail_bytes_max: usize,
    /// One read for replication; stays below the frame limit of the transport.
    pub read_bytes_max: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            queue_bytes_max: 64 << 20,
            batch_bytes_max: 8 << 20,
            tail_bytes_max: 16 << 20,
            read_bytes_max: 1 << 20,
        }
    }
}

/// The log of a node: hands out the groups' logs and tells when it has failed.
pub struct LogStore {
    queue: Arc<Queue>,
    reads: Arc<dyn LogReads>,
    groups: Mutex<BTreeMap<GroupId, SharedState>>,
    options: LogOptions,
}

impl LogStore {
    /// Reads and checks the logs of all groups in `backend`. One damaged group refuses the whole:
    /// what damaged it may have damaged the others.
    ///
    /// The writer does nothing until it gets a thread ([`LogWriter::spawn`]) or is stepped.
    pub fn open<B: LogBackend>(
        backend: B,
        options: LogOptions,
    ) -> Result<(Self, LogWriter<B>), RecoverError> {
        let reads = backend.reads();
        let mut groups = BTreeMap::new();
        for group in reads.groups().map_err(RecoverError::Groups)? {
            let state = recover(&*reads, group, options.tail_bytes_max)?;
            groups.insert(group, Arc::new(Mutex::new(state)));
        }
        let queue = Arc::new(Queue::new(options.queue_bytes_max));
        let writer = LogWriter::new(backend, Arc::clone(&queue), options.batch_bytes_max);
        let store = Self { queue, reads, groups: Mutex::new(groups), options };
        Ok((store, writer))
    }

    /// The log of `group`: the recovered one, or an empty one. All handles of a group are one log.
    pub fn group(&self, group: GroupId) -> GroupLog {
        let mut groups = self.groups.lock();
        let tail_bytes_max = self.options.tail_bytes_max;
        let state = groups
            .entry(group)
            .or_insert_with(|| Arc::new(Mutex::new(GroupState::new(group, None, tail_bytes_max))));
        GroupLog {
            group,
            state: Arc::clone(state),
            queue: Arc::clone(&self.queue),
            reads: Arc::clone(&self.reads),
            read_bytes_max: self.options.read_bytes_max,
        }
    }

    /// The groups that have a log here.
    pub fn groups(&self) -> Vec<GroupId> {
        self.groups.lock().keys().copied().collect()
    }

    /// Becomes `Some` when a commit has failed: the process must then stop.
    pub fn failed(&self) -> watch::Receiver<Option<Failure>> {
        self.queue.failed()
    }
}
