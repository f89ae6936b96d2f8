//! Why a call to the store gave no reply.

use std::time::Duration;

use thiserror::Error;
use tidemark_proto::Failure;
use tidemark_types::ErrorCode;

/// Why a call to the store gave no reply.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// It may have been taken, and nobody could be asked until the deadline (R3).
    #[error("the outcome is unknown: {0}; repeat it with the same number or id")]
    Unknown(String),
    /// It was not taken, by any attempt: no leader could be reached until the deadline.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// It was not taken, by any attempt: the store had no room for it until the deadline.
    #[error("the store has no room: {message}")]
    Overloaded {
        /// The store's words.
        message: String,
        /// When it may help to try again, as far as the store knows.
        retry_after: Option<Duration>,
    },
    /// The store refused it, and would refuse it again.
    #[error("{code}: {message}")]
    Refused {
        /// The store's code.
        code: ErrorCode,
        /// The store's words.
        message: String,
    },
    /// An answer that this client does not understand.
    #[error("the store's answer does not decode: {0}")]
    BadAnswer(String),
}

impl Error {
    /// Its code in the one list.
    pub fn code(&self) -> ErrorCode {
        match self {
            Error::Unknown(_) => ErrorCode::Unknown,
            Error::Unavailable(_) => ErrorCode::Unavailable,
            Error::Overloaded { .. } => ErrorCode::Overloaded,
            Error::Refused { code, .. } => *code,
            Error::BadAnswer(_) => ErrorCode::Internal,
        }
    }
}

/// Why one attempt gave no reply.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Attempt {
    /// The node was not reached: nothing happened.
    #[error("not sent: {0}")]
    NotSent(String),
    /// It was sent, and the answer did not come: what became of it is unknown (R3).
    #[error("no answer: {0}")]
    Lost(String),
    /// The node answered that there is no reply.
    #[error(transparent)]
    Failed(Failure),
}

impl Attempt {
    /// Its code in the one list.
    pub fn code(&self) -> ErrorCode {
        match self {
            Attempt::NotSent(_) => ErrorCode::Unavailable,
            Attempt::Lost(_) => ErrorCode::Unknown,
            Attempt::Failed(failure) => failure.code,
        }
    }
}
