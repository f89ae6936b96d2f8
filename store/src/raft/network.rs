//! Connections to the other replicas of a group.
//!
//! A group of one replica has none. Until nodes talk to each other, every peer is unreachable,
//! and says so.

use std::future::Future;

use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::v2::RaftNetworkV2;
use openraft::network::{RPCOption, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::SnapshotOf;
use openraft::{AnyError, OptionalSend};

use super::snapshot::SnapshotStream;
use super::types::{Replica, ReplicaId, TypeConfig, Vote};

/// The network of a node without peers.
#[derive(Clone, Copy, Debug)]
pub struct NoPeers;

/// A peer that cannot be reached.
pub struct NoPeer {
    unreachable: Unreachable<TypeConfig>,
}

impl RaftNetworkFactory<TypeConfig> for NoPeers {
    type Network = NoPeer;

    async fn new_client(&mut self, target: ReplicaId, node: &Replica) -> NoPeer {
        let reason = AnyError::error(format!("this node has no way to replica {target} on {node}"));
        NoPeer { unreachable: Unreachable::new(&reason) }
    }
}

impl NoPeer {
    fn refuse<T>(&self) -> Result<T, RPCError<TypeConfig>> {
        Err(RPCError::Unreachable(self.unreachable.clone()))
    }
}

impl RaftNetworkV2<TypeConfig> for NoPeer {
    type SnapshotData = SnapshotStream;

    async fn append_entries(
        &mut self,
        _: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.refuse()
    }

    async fn vote(
        &mut self,
        _: VoteRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.refuse()
    }

    async fn pre_vote(
        &mut self,
        _: VoteRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.refuse()
    }

    async fn full_snapshot(
        &mut self,
        _: Vote,
        _: SnapshotOf<TypeConfig, SnapshotStream>,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        Err(StreamingError::Unreachable(self.unreachable.clone()))
    }
}
