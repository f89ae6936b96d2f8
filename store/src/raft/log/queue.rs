//! The one way to the disk: a queue of all groups' operations, bounded in bytes.
//!
//! ```text
//!  group A ──reserve (async)──push──┐
//!  group B ──reserve (async)──push──┤   FIFO     take (blocks)
//!  group C ──reserve (async)──push──┴──────────> the writer, up to 8 MiB at a time
//!                 ^                                   │
//!                 └────── room returns when the batch is committed
//! ```
//!
//! Invariants: operations leave in the order in which they were pushed. The room of an operation
//! is held until it is on disk, so that the bound covers the batch being written as well. Every
//! operation takes at least [`OP_BYTES_MIN`], so a bound in bytes bounds their number too.

use std::collections::VecDeque;
use std::sync::Arc;

use openraft::storage::IOFlushed;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::failure::Failure;
use super::group_state::{Generation, SharedState};
use crate::metrics;
use crate::raft::types::{TypeConfig, Vote};
use crate::storage::{Change, GroupId};

/// What any operation is charged at least: its own memory, keys, and overhead in the batch.
const OP_BYTES_MIN: usize = 128;

/// Who is told once an operation is on disk, and what it then means for the group's memory.
pub(crate) enum Done {
    /// Nobody waits: the operation may ride with a later one.
    Lazy,
    /// Entries up to `upto` (exclusive) were appended; openraft waits for `flushed`.
    Appended {
        /// The log's generation when they were appended.
        generation: Generation,
        /// One past the last entry.
        upto: u64,
        /// openraft's callback.
        flushed: IOFlushed<TypeConfig>,
    },
    /// A vote was saved.
    Voted {
        /// It becomes readable now.
        vote: Vote,
        /// Its saver, who may have gone.
        saved: oneshot::Sender<Result<(), Failure>>,
    },
}

/// Some changes of one group that belong together.
pub(crate) struct Op {
    pub(crate) group: GroupId,
    pub(crate) state: SharedState,
    pub(crate) changes: Vec<Change>,
    pub(crate) done: Done,
}

/// An operation and the room it takes until it is on disk.
pub(crate) struct Queued {
    pub(crate) op: Op,
    pub(crate) room: Room,
}

/// Room in the queue; returned when dropped.
pub(crate) struct Room(OwnedSemaphorePermit);

impl Room {
    pub(crate) fn bytes(&self) -> usize {
        self.0.num_permits()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        metrics::log_queue_left(self.bytes());
    }
}

struct State {
    ops: VecDeque<Queued>,
    /// Set once, never cleared: why nothing more is taken.
    closed: Option<Failure>,
}

/// The queue between the groups and the writer.
pub(crate) struct Queue {
    state: Mutex<State>,
    pushed: Condvar,
    room: Arc<Semaphore>,
    bytes_max: usize,
    /// Tells the node when the log has failed.
    failed: watch::Sender<Option<Failure>>,
}

impl Queue {
    pub(crate) fn new(bytes_max: usize) -> Self {
        // Permits are asked for in 32 bits; and an operation must fit into an empty queue.
        let bytes_max = bytes_max.clamp(OP_BYTES_MIN, u32::MAX as usize);
        metrics::log_queue_max(bytes_max);
        Self {
            state: Mutex::new(State { ops: VecDeque::new(), closed: None }),
            pushed: Condvar::new(),
            room: Arc::new(Semaphore::new(bytes_max)),
            bytes_max,
            failed: watch::Sender::new(None),
        }
    }

    /// Becomes `Some` when the log has failed; never on a shutdown.
    pub(crate) fn failed(&self) -> watch::Receiver<Option<Failure>> {
        self.failed.subscribe()
    }

    /// Waits for room for an operation of `bytes`, first come first served.
    pub(crate) async fn reserve(&self, bytes: usize) -> Result<Room, Failure> {
        // One that is larger than the whole queue gets all of it instead of waiting for ever.
        let bytes = bytes.clamp(OP_BYTES_MIN, self.bytes_max);
        let permits = u32::try_from(bytes).expect("Queue::new keeps the bound in 32 bits");
        match Arc::clone(&self.room).acquire_many_owned(permits).await {
            Ok(permit) => {
                metrics::log_queue_entered(bytes);
                Ok(Room(permit))
            }
            Err(_closed) => Err(self.closed()),
        }
    }

    /// Appends `op`. Never waits, so that callers can do it under their group's lock: what a
    /// group's memory says and what is queued cannot disagree about the order.
    pub(crate) fn push(&self, op: Op, room: Room) -> Result<(), Failure> {
        let mut state = self.state.lock();
        if let Some(failure) = &state.closed {
            return Err(failure.clone());
        }
        state.ops.push_back(Queued { op, room });
        self.pushed.notify_one();
        Ok(())
    }

    /// Waits for operations and takes them from the front until none is left or they have
    /// `bytes_max`. `None` once the queue is closed and empty.
    pub(crate) fn take(&self, bytes_max: usize) -> Option<Vec<Queued>> {
        let mut state = self.state.lock();
        while state.ops.is_empty() {
            if state.closed.is_some() {
                return None;
            }
            self.pushed.wait(&mut state);
        }
        Some(take(&mut state, bytes_max))
    }

    /// The same without waiting; empty if there is nothing.
    pub(crate) fn try_take(&self, bytes_max: usize) -> Vec<Queued> {
        take(&mut self.state.lock(), bytes_max)
    }

    /// Takes nothing more; what is queued is still written.
    pub(crate) fn shut_down(&self) {
        self.close(Failure::ShutDown);
    }

    /// Takes nothing more and gives back what is queued, so that it can be refused.
    pub(crate) fn fail(&self, failure: Failure) -> Vec<Queued> {
        self.failed.send_if_modified(|now| {
            let first = now.is_none();
            now.get_or_insert(failure.clone());
            first
        });
        self.close(failure);
        self.state.lock().ops.drain(..).collect()
    }

    fn close(&self, failure: Failure) {
        self.state.lock().closed.get_or_insert(failure);
        self.room.close();
        self.pushed.notify_all();
    }

    fn closed(&self) -> Failure {
        let closed = self.state.lock().closed.clone();
        closed.unwrap_or(Failure::ShutDown)
    }
}

fn take(state: &mut State, bytes_max: usize) -> Vec<Queued> {
    let mut taken = Vec::new();
    let mut bytes = 0;
    while bytes < bytes_max
        && let Some(queued) = state.ops.pop_front()
    {
        bytes += queued.room.bytes();
        taken.push(queued);
    }
    taken
}
