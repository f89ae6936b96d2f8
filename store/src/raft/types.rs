//! What openraft is told about us: one type configuration for all groups.
//!
//! A log entry carries a [`Payload`]: a batch of commands, encoded once by the proposer. Neither
//! the log nor the transport looks into it or encodes it again; only the state machine decodes it.
//!
//! `leader_id_std`: at most one leader per term, so a committed leader is known by its term alone.
//! The choice is part of what is stored and sent, and cannot be changed later.

use std::fmt;

use bytes::Bytes;
use openraft::impls::{InlineBatch, OneshotResponder, leader_id_std};
use openraft::vote::RaftLeaderId;
use openraft::{OptionalSend, RaftTypeConfig};
use serde::{Deserialize, Serialize};
use tidemark_store_core::Reply;
use tidemark_types::NodeId;

pub use crate::storage::GroupId;

/// A replica of one group on one disk. Allocated by the control group and never reused: a replica
/// that comes back without its log would break promises made under the old id.
pub type ReplicaId = u64;

/// openraft's configuration, the same for every group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeConfig;

/// Who proposed a term's entries.
pub type LeaderId = leader_id_std::LeaderId<u64, ReplicaId>;
/// The same once elected: its term.
pub type CommittedLeaderId = <LeaderId as RaftLeaderId>::Committed;
/// Whom a replica votes for or follows.
pub type Vote = openraft::impls::Vote<LeaderId>;
/// The place and term of an entry.
pub type LogId = openraft::LogId<CommittedLeaderId>;
/// What an entry carries: nothing, a batch of commands, or a membership.
pub type EntryPayload = openraft::EntryPayload<Payload, ReplicaId, Replica>;
/// One entry of the log.
pub type Entry = openraft::Entry<CommittedLeaderId, EntryPayload>;
/// A membership and the place of the entry that set it.
pub type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
/// What openraft knows of a snapshot beside its content.
pub type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
/// The replicas of a group.
pub type Membership = openraft::Membership<ReplicaId, Replica>;

impl RaftTypeConfig for TypeConfig {
    type D = Payload;
    type R = Replies;
    type NodeId = ReplicaId;
    type Node = Replica;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = EntryPayload;
    type Entry = Entry;
    type AsyncRuntime = openraft::impls::TokioRuntime;
    type Responder<T>
        = OneshotResponder<Self, T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// A batch of commands as its proposer encoded it. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Payload(pub Bytes);

/// Its size only: the content is users' messages and belongs in no log line.
impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// As [`fmt::Display`], for the same reason.
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What applying a [`Payload`] answered, one reply per command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replies(pub Vec<Reply>);

/// Where a replica lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// The node that holds it.
    pub node: NodeId,
    /// Where that node listens for other nodes, as `host:port`.
    pub address: String,
}

/// A replica of nowhere. Only openraft's conformance suite makes memberships by default.
#[cfg(test)]
impl Default for Replica {
    fn default() -> Self {
        Self { node: NodeId::new(0), address: String::new() }
    }
}

impl fmt::Display for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} at {}", self.node, self.address)
    }
}
