//! What two nodes say to each other: a version byte and postcard, like all our encodings.
//!
//! ```text
//!   dialer                                   acceptor
//!     Hello                          ──►
//!                                    ◄──     Hello
//!     Call {7, Vote}                 ──►
//!     Append {8}  Append {8}         ──►
//!                                    ◄──     Appended {8}  Called {7}  Appended {8}
//!     End {8}                        ──►
//! ```
//!
//! Calls and streams are numbered by the dialer, never twice on a connection. Answers come in any
//! order, but those of one stream in the order of its requests. The first append of a number opens
//! the stream; one marked as the last closes it behind itself. A refusal ends its call or stream.
//!
//! A snapshot is asked for by whoever needs it, with a [`Fetch`] over a connection of its own, so
//! that it never delays the frames above; what comes back are the frames of `raft/snapshot.rs`.
//!
//! An entry's payload is opaque bytes: copied once into the frame, and once out of it, so that an
//! entry kept in memory does not keep the whole message that brought it.

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tidemark_store_core::codec::{self, DecodeError};
use tidemark_types::{ClusterId, NodeId};

use crate::config::BATCH_BYTES_MAX;
use crate::raft::types::{Entry, ReplicaId, TypeConfig, Vote};
use crate::storage::GroupId;

/// Raised whenever a frame, or a command in it, changes its meaning; nodes of different versions do not talk.
const VERSION: u8 = 3;

/// The largest frame: far above the largest batch of commands, far below what hurts memory.
pub(super) const FRAME_BYTES_MAX: usize = 32 << 20;

// A batch of the relay is a command, a batch of commands an entry, which must fit into a frame; and the
// last of each batch may pass its limit.
const _: () = assert!(4 * BATCH_BYTES_MAX <= FRAME_BYTES_MAX);

/// What an entry takes in a frame beside its payload, roughly.
const ENTRY_HEAD_BYTES: usize = 32;
/// What a frame takes beside its entries, roughly.
const FRAME_HEAD_BYTES: usize = 96;

/// The first frame in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    /// The sender's cluster.
    pub(super) cluster: ClusterId,
    /// The sender.
    pub(super) from: NodeId,
    /// Whom the sender takes the receiver for.
    pub(super) to: NodeId,
}

/// Asks for all the state of a group that the other has.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Fetch {
    /// Who asks whom.
    pub(super) hello: Hello,
    /// What for.
    pub(super) group: GroupId,
}

/// Whom a call or an append is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Address {
    /// The group.
    pub(super) group: GroupId,
    /// The replica of it; never answered by another.
    pub(super) replica: ReplicaId,
}

/// What a dialer sends.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Who it is.
    Hello(Hello),
    /// Wants one answer.
    Call {
        /// The call's number.
        call: u64,
        /// Whom it asks.
        to: Address,
        /// What it asks.
        ask: Ask,
    },
    /// Wants an answer, after those to the stream's earlier appends.
    Append {
        /// The stream's number.
        stream: u64,
        /// Whom it is for.
        to: Address,
        /// No more will follow on this stream.
        last: bool,
        /// openraft's request.
        append: AppendEntriesRequest<TypeConfig>,
    },
    /// No more appends come, and no answer is wanted any more.
    End {
        /// The stream's number.
        stream: u64,
    },
}

/// What a call asks.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    /// A vote.
    Vote(VoteRequest<TypeConfig>),
    /// Whether a vote would be given.
    PreVote(VoteRequest<TypeConfig>),
    /// To take over the leadership.
    Transfer(TransferLeaderRequest<TypeConfig>),
    /// To fetch a snapshot from the asking leader, and to install it. The answer takes as long as
    /// that does.
    Install {
        /// The leader's.
        vote: Vote,
    },
}

/// What an acceptor sends.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// Who it is.
    Hello(Hello),
    /// The answer to a call.
    Called {
        /// The call's number.
        call: u64,
        /// What came of it.
        result: Result<Told, Refusal>,
    },
    /// The answer to the first append of the stream that has none yet.
    Appended {
        /// The stream's number.
        stream: u64,
        /// What came of it.
        result: Result<StreamAppendResult<TypeConfig>, Refusal>,
    },
}

/// A group's answer to a call.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Told {
    /// To a vote or pre-vote.
    Vote(VoteResponse<TypeConfig>),
    /// To a transfer.
    Transfer(TransferLeaderResponse<TypeConfig>),
    /// To an install.
    Install(SnapshotResponse<TypeConfig>),
}

/// Why a node does not let its group answer.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub(super) enum Refusal {
    /// It does not have the group, or not yet.
    #[error("the node has no replica of the group")]
    UnknownGroup,
    /// It has another replica of the group.
    #[error("the node has replica {0} of the group, not the one that was asked")]
    OtherReplica(ReplicaId),
    /// The group has stopped there.
    #[error("the group has stopped there: {0}")]
    Stopped(String),
    /// Too many calls wait there already.
    #[error("too many calls wait there")]
    Busy,
    /// It could not fetch the snapshot that it was asked to install.
    #[error("the snapshot did not arrive there: {0}")]
    NotFetched(String),
}

/// Why something was not said.
#[derive(Debug, Error)]
pub(super) enum FrameError {
    /// It does not fit.
    #[error("a frame of {bytes} bytes is larger than {FRAME_BYTES_MAX}")]
    TooLarge {
        /// How many it has.
        bytes: usize,
    },
    /// Something has no encoding.
    #[error("a frame cannot be encoded: {0}")]
    Encode(postcard::Error),
}

impl Fetch {
    /// Its frame.
    pub(super) fn encode(&self) -> Result<Bytes, FrameError> {
        encode(self, FRAME_HEAD_BYTES)
    }

    /// The request in a frame.
    pub(super) fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        decode(frame)
    }
}

impl Request {
    /// Its frame.
    pub(super) fn encode(&self) -> Result<Bytes, FrameError> {
        let entries = match self {
            Request::Append { append, .. } => append.entries.iter().map(weight).sum(),
            Request::Hello(_) | Request::Call { .. } | Request::End { .. } => 0,
        };
        encode(self, FRAME_HEAD_BYTES + entries)
    }

    /// The request in a frame.
    pub(super) fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        decode(frame)
    }
}

impl Answer {
    /// Its frame.
    pub(super) fn encode(&self) -> Result<Bytes, FrameError> {
        encode(self, FRAME_HEAD_BYTES)
    }

    /// The answer in a frame.
    pub(super) fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        decode(frame)
    }
}

fn weight(entry: &Entry) -> usize {
    let payload = match &entry.payload {
        EntryPayload::Normal(payload) => payload.0.len(),
        // Small and rare; a frame that turns out larger grows.
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    };
    ENTRY_HEAD_BYTES + payload
}

/// Room for all of it from the start: a `Vec` that grows would copy the payloads again.
fn encode(frame: &impl Serialize, bytes: usize) -> Result<Bytes, FrameError> {
    let mut start = Vec::with_capacity(bytes);
    start.push(VERSION);
    let frame = postcard::to_extend(frame, start).map_err(FrameError::Encode)?;
    if frame.len() > FRAME_BYTES_MAX {
        return Err(FrameError::TooLarge { bytes: frame.len() });
    }
    Ok(frame.into())
}

fn decode<T: DeserializeOwned>(frame: &[u8]) -> Result<T, DecodeError> {
    codec::decode("a frame between nodes", VERSION, frame)
}
