//! What travels in a batch: requests of all groups one way, answers the other way.
//!
//! Encoded by postcard from openraft's own messages, so both ends must be of one version; the
//! stream's headers see to that.

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};
use tidemark_store_core::codec::{self, DecodeError};

use super::VERSION;
use crate::raft::types::TypeConfig;
use crate::storage::GroupId;

/// The number of a call or an append stream on its connection.
pub(super) type Number = u64;

/// From the node that opened the connection.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub(super) enum Request {
    /// The next request of an append stream; the first one opens it.
    Append { group: GroupId, stream: Number, request: AppendEntriesRequest<TypeConfig> },
    /// No more requests of an append stream follow.
    EndAppend { stream: Number },
    /// One request that has one answer.
    Call { group: GroupId, call: Number, request: Call },
}

/// A request that has one answer.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub(in crate::raft) enum Call {
    Vote(VoteRequest<TypeConfig>),
    PreVote(VoteRequest<TypeConfig>),
    Transfer(TransferLeaderRequest<TypeConfig>),
}

/// To the node that opened the connection.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub(super) enum Answer {
    /// To the next request of an append stream, in order.
    Append { stream: Number, result: StreamAppendResult<TypeConfig> },
    /// The append stream has ended; with a reason if it was cut off.
    EndAppend { stream: Number, failed: Option<String> },
    /// To a call.
    Call { call: Number, result: Result<Called, String> },
}

/// What a call was answered.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub(in crate::raft) enum Called {
    Vote(VoteResponse<TypeConfig>),
    Transfer(TransferLeaderResponse<TypeConfig>),
}

const FRAME_VERSION: u8 = VERSION as u8;

impl Request {
    pub(super) fn encode(&self) -> Bytes {
        codec::encode(FRAME_VERSION, self).into()
    }

    pub(super) fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        codec::decode("a request between nodes", FRAME_VERSION, frame)
    }

    /// An upper estimate of its size, for bounds.
    pub(super) fn cost(&self) -> usize {
        const FIXED: usize = 256;
        match self {
            Request::Append { request, .. } => {
                let bytes = |entry: &crate::raft::types::Entry| match &entry.payload {
                    openraft::EntryPayload::Normal(payload) => payload.0.len() + FIXED,
                    _ => FIXED,
                };
                FIXED + request.entries.iter().map(bytes).sum::<usize>()
            }
            Request::EndAppend { .. } | Request::Call { .. } => FIXED,
        }
    }
}

impl Answer {
    pub(super) fn encode(&self) -> Bytes {
        codec::encode(FRAME_VERSION, self).into()
    }

    pub(super) fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        codec::decode("an answer between nodes", FRAME_VERSION, frame)
    }
}
