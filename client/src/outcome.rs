//! What became of a send, as far as its sender's own shard is concerned.
//!
//! Three answers and no fourth: taken, refused for good, or unknown for good. Invariant (R3):
//! nothing that may have been taken is ever called refused.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tidemark_types::{ClientMsgId, ErrorCode, Seq, UnixMs};

/// What became of a send. It is final, and reported once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It is durable, and every recipient will have exactly one outcome: the message, or a refusal
    /// that comes back as an entry of this user's mailbox.
    Accepted(Accepted),
    /// It was refused for good, with this code: nobody got it, and nobody will.
    Refused(ErrorCode),
    /// Whether it was taken cannot be found out any more; it is not sent again by itself.
    Unknown(Unknown),
}

/// Where an accepted send went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Its seq in the sender's own mailbox; none for a send to a group, whose copy comes with the
    /// others.
    pub seq: Option<Seq>,
    /// When, by the cluster's time.
    pub time: UnixMs,
}

/// Why nobody can tell what became of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum Unknown {
    /// Its session is no longer kept, and the mailbox does not hold the message.
    #[error("its session has expired, and the mailbox does not hold it")]
    Expired,
    /// The server knows its number with other content: a bug, or another process that used a copy
    /// of this device's store.
    #[error("its number was used for other content: the device's store was copied or restored")]
    Conflict,
    /// It was answered before, to a later state of this device's store than this one.
    #[error("it was answered before, and the device's store has forgotten: it was restored")]
    Settled,
}

/// The name of a send, and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// The application's name for the message.
    pub client_msg_id: ClientMsgId,
    /// What became of it.
    pub outcome: Outcome,
}
