//! A shard on this node: proposals into its Raft group, and reads of its state.
//!
//! Refusals that happen here had no effect; what was handed to Raft and got no answer is
//! *unknown*, never failed (R3).

mod proposer;

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tidemark_env::Clock;
use tidemark_store_core::{Command, Fatal, Read, Reply};
use tidemark_types::limits::CLOCK_SKEW_MAX;
use tidemark_types::{ClientMsgId, ErrorCode, NodeId};

use crate::config::ProposalConfig;
use crate::raft::group::{Group, Lost, NotSubmitted, TransferError};
use crate::raft::types::Replica;
use crate::storage::{GroupId, StateDb, StateDbError};

pub use proposer::Pending;
use proposer::Proposer;

/// After this long a full queue has most likely moved on.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Why a request to a shard got no reply.
#[derive(Debug, Error)]
pub enum Error {
    /// Too much waits already.
    #[error("the shard has too much to do; try again in {} ms", .retry_after.as_millis())]
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
    /// This replica does not lead the shard.
    #[error("this node does not lead the shard")]
    NotLeader {
        /// Who does, as far as is known.
        leader: Option<Replica>,
    },
    /// The shard's group has stopped.
    #[error("the shard has stopped: {0}")]
    Stopped(String),
    /// Leadership cannot move to a node without a replica.
    #[error("node {0} has no replica of this group")]
    NoReplica(NodeId),
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
    /// Its code in the one list.
    pub fn code(&self) -> ErrorCode {
        match self {
            Error::Overloaded { .. } => ErrorCode::Overloaded,
            Error::NotLeader { .. } => ErrorCode::NotLeader,
            Error::Stopped(_) => ErrorCode::Unavailable,
            Error::NoReplica(_) => ErrorCode::Invalid,
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
            TransferError::NoReplica(node) => Error::NoReplica(node),
            TransferError::Lost(lost) => lost.into(),
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
    id: GroupId,
    state: StateDb,
    proposer: Proposer,
    clock: Arc<dyn Clock>,
}

impl Shard {
    /// The shard whose Raft group is `group`; starts the task that proposes.
    pub fn start(
        id: GroupId,
        group: Group,
        state: StateDb,
        config: &ProposalConfig,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let proposer = Proposer::start(group.clone(), config, clock.clone());
        Shard { group, id, state, proposer, clock }
    }

    /// Its Raft group.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Proposes a command, and waits for its reply.
    pub async fn propose(&self, command: Command) -> Result<Reply, Error> {
        self.enqueue(command).await?.reply().await
    }

    /// Queues a command; what one caller queues is proposed in that order.
    pub async fn enqueue(&self, command: Command) -> Result<Pending, Error> {
        let id = match &command {
            Command::BackendSend(send) => Some(send.draft.client_msg_id),
            Command::Allocate { id, .. } => *id,
            _ => None,
        };
        if id.is_some_and(|id| self.is_in_future(id)) {
            return Err(Error::IdInFuture);
        }
        self.proposer.enqueue(command).await
    }

    /// Reads the state as the leader, not staler than when this was called (R16).
    pub async fn read<T>(&self, look: impl FnOnce(&dyn Read) -> T) -> Result<T, Error> {
        self.group.read_index().await?;
        Ok(self.state.read(self.id, |_, view| look(view))?)
    }

    fn is_in_future(&self, id: ClientMsgId) -> bool {
        id.created() > self.clock.wall().plus(CLOCK_SKEW_MAX)
    }
}
