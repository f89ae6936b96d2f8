//! A shard on this node: proposals into its Raft group, and reads of its state.
//!
//! Refusals that happen here had no effect; what was handed to Raft and got no answer is
//! *unknown*, never failed (R3).

mod admission;
mod hosted;
mod proposer;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::Mutex;
use thiserror::Error;
use tidemark_env::Clock;
use tidemark_mutants::{Mutant, is};
use tidemark_store_core::{Command, Fatal, Read, Reply, read};
use tidemark_types::limits::CLOCK_SKEW_MAX;
use tidemark_types::{ErrorCode, ShardCount, ShardId};

use crate::config::StoreConfig;
use crate::raft::group::{Group, Lost, NotSubmitted, TransferError, Unfit, WriteError};
use crate::raft::types::Replica;
use crate::space::Space;
use crate::storage::{StateDb, StateDbError};
use crate::time::ClusterTime;

use admission::Admission;
pub use hosted::Hosted;
pub use proposer::Pending;
use proposer::Proposer;
#[cfg(test)]
pub(crate) use proposer::TIMELESS_MAX;

/// After this long a full queue has most likely moved on.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// After this long somebody may have made room on a full disk.
const SPACE_AFTER: Duration = Duration::from_secs(5);

/// Why a request to a shard got no reply.
#[derive(Debug, Error)]
pub enum Error {
    /// Too much waits already.
    #[error("the shard has too much to do; try again in {} ms", .retry_after.as_millis())]
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
    /// The node's disk is nearly full.
    #[error("the node's disk has only {} MiB free: make room, or add a larger disk", .free >> 20)]
    NoSpace {
        /// Free bytes.
        free: u64,
    },
    /// This replica does not lead the shard.
    #[error("this node does not lead the shard")]
    NotLeader {
        /// Who does, as far as is known.
        leader: Option<Replica>,
    },
    /// The shard is new.
    #[error("the shard is being created; try again")]
    NotCreated,
    /// The shard's group has stopped.
    #[error("the shard has stopped: {0}")]
    Stopped(String),
    /// Leadership cannot move there.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// An earlier send of the same session was refused, and must come again first (R7).
    #[error("send {expected} of the session was refused and comes first")]
    OutOfOrder {
        /// That one.
        expected: u64,
    },
    /// Cluster time is not measured yet: there is nothing to stamp a command with, nor to judge the
    /// age of an id by.
    #[error("cluster time is not measured yet; try again")]
    NoTime,
    /// The id was made too far in the future.
    #[error("the message id was made more than {} s in the future", CLOCK_SKEW_MAX.as_secs())]
    IdInFuture,
    /// It was handed to Raft, and what became of it is unknown.
    #[error("{0}")]
    Unknown(#[from] Lost),
    /// The state cannot be read.
    #[error(transparent)]
    State(#[from] StateDbError),
    /// The state contradicts itself.
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

impl Error {
    /// When it may help to try again, if it is a question of time.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Error::Overloaded { retry_after } => Some(*retry_after),
            Error::NoSpace { .. } => Some(SPACE_AFTER),
            _ => None,
        }
    }

    /// Its code in the one list.
    pub fn code(&self) -> ErrorCode {
        match self {
            Error::Overloaded { .. } | Error::NoSpace { .. } => ErrorCode::Overloaded,
            Error::NotLeader { .. } => ErrorCode::NotLeader,
            Error::NotCreated | Error::Stopped(_) => ErrorCode::Unavailable,
            Error::Unfit(Unfit::NoReplica(_)) => ErrorCode::Invalid,
            Error::OutOfOrder { .. } => ErrorCode::OutOfOrder,
            Error::NoTime | Error::Unfit(Unfit::NotClose(_)) => ErrorCode::Unavailable,
            Error::IdInFuture => ErrorCode::IdInFuture,
            Error::Unknown(_) => ErrorCode::Unknown,
            Error::State(_) | Error::Fatal(_) => ErrorCode::Internal,
        }
    }
}

impl From<TransferError> for Error {
    fn from(error: TransferError) -> Self {
        match error {
            TransferError::NotSubmitted(error) => error.into(),
            TransferError::Unfit(error) => error.into(),
            TransferError::Lost(lost) => lost.into(),
        }
    }
}

impl From<WriteError> for Error {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::NotSubmitted(error) => error.into(),
            WriteError::Lost(lost) => lost.into(),
        }
    }
}

impl From<NotSubmitted> for Error {
    fn from(error: NotSubmitted) -> Self {
        match error {
            NotSubmitted::NotLeader { leader } => Error::NotLeader { leader },
            NotSubmitted::Stopped(reason) => Error::Stopped(reason),
        }
    }
}

/// A shard on this node; a cheap handle.
#[derive(Clone)]
pub struct Shard {
    group: Group,
    state: StateDb,
    admission: Arc<Admission>,
    proposer: Proposer,
}

/// What a shard needs beside its Raft group; cheap handles.
#[derive(Clone)]
pub struct Surroundings {
    /// The node's state.
    pub state: StateDb,
    /// How many shards the cluster has.
    pub shards: ShardCount,
    /// What commands are stamped with.
    pub time: ClusterTime,
    /// Free space on the node's disk.
    pub space: Space,
    /// For latencies.
    pub clock: Arc<dyn Clock>,
    /// Bounds.
    pub config: StoreConfig,
}

impl Shard {
    /// The shard whose Raft group is `group`; starts the task that proposes.
    pub fn start(number: ShardId, group: Group, around: &Surroundings) -> Self {
        let Surroundings { state, shards, time, space, clock, config } = around;
        let proposer =
            Proposer::start(group.clone(), &config.proposals, clock.clone(), time.clone());
        let state = state.clone();
        let admission = Arc::new(Admission {
            shard: number,
            shards: *shards,
            state: state.clone(),
            time: time.clone(),
            space: space.clone(),
            queue_bytes_max: config.relay.queue_bytes_max,
            created: AtomicBool::new(false),
            refused: Mutex::default(),
        });
        Shard { group, state, admission, proposer }
    }

    /// Proposes nothing more; after it nobody holds the state but who holds this.
    pub async fn stop(&self) {
        self.proposer.stop().await;
    }

    /// Its Raft group.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// What its proposals hold, and how much they may, in bytes, by class.
    pub(crate) fn held(&self) -> [(&'static str, usize, usize); 2] {
        self.proposer.held()
    }

    /// Proposes a command, and waits for its reply.
    pub async fn propose(&self, command: Command) -> Result<Reply, Error> {
        self.enqueue(command)?.reply().await
    }

    /// Queues a command; commands are proposed in the order of these calls.
    pub fn enqueue(&self, command: Command) -> Result<Pending, Error> {
        let checked = self.admission.check(&command);
        let room = checked.and_then(|()| self.proposer.room(&command));
        if matches!(room, Err(Error::Overloaded { .. } | Error::NoSpace { .. })) {
            self.admission.was_refused(&command);
        }
        self.proposer.enqueue(command, room?)
    }

    /// Reads the state as the leader, not staler than when this was called (R16).
    pub async fn read<T>(&self, look: impl FnOnce(&dyn Read) -> T) -> Result<T, Error> {
        if !is(Mutant::ReadWithoutQuorum) || !self.group.is_leader() {
            self.group.read_index().await?;
        }
        self.look(look)
    }

    /// Reads the state as it is here, which may be stale.
    pub fn look<T>(&self, look: impl FnOnce(&dyn Read) -> T) -> Result<T, Error> {
        Ok(self.state.read(self.group.id(), |_, view| look(view))?)
    }

    /// Does half of what may wait for some other shard wait for it? What does not come from a client
    /// waits itself then (R7).
    pub fn is_outbox_half_full(&self) -> Result<bool, Fatal> {
        let streams = self.peek(|state| read::outbounds(state))?;
        let half = self.admission.queue_bytes_max / 2;
        Ok(streams.iter().any(|(_, stream)| stream.queued_bytes() >= half))
    }

    /// Reads single values or ranges as they are here, each of its own moment; cheaper than
    /// [`Shard::look`].
    pub fn peek<T>(&self, look: impl FnOnce(&dyn Read) -> T) -> T {
        self.state.peek(self.group.id(), look)
    }
}
