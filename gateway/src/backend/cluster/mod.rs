//! `Cluster`: what operators see of the store, and who leads.

mod view;

use std::time::Duration;

use futures::future::join_all;
use tidemark_proto::Failure;
use tidemark_proto::convert::{FieldError, Reason, bytes_of};
use tidemark_proto::v1::cluster_server::Cluster;
use tidemark_proto::v1::{
    ClusterStatusRequest, ClusterStatusResponse, MapNode, MapRequest, MapResponse, MapSettings,
    MapShard, TransferRequest, TransferResponse,
};
use tidemark_store_core::value::{ClusterMap, Placement, Settings};
use tidemark_types::{ErrorCode, NodeId};
use tonic::{Request, Response, Status};

use self::view::View;
use super::Backend;
use super::caller::Caller;
use crate::failure;

impl Backend {
    /// Asks these nodes at once how their groups stand.
    async fn view(&self, nodes: impl IntoIterator<Item = NodeId>) -> View {
        let ask = |node| {
            let status = self.store.status(node);
            async move { Some((node, status.await.ok()?)) }
        };
        View::new(join_all(nodes.into_iter().map(ask)).await.into_iter().flatten())
    }

    async fn cluster_status(&self, caller: Caller) -> Result<ClusterStatusResponse, Failure> {
        caller.administer()?;
        let map = self.store.map();
        let view = self.view(map.nodes.keys().copied()).await;
        Ok(ClusterStatusResponse {
            cluster_id: bytes_of(map.cluster.as_bytes()),
            nodes: view.nodes(map),
            shards: view.shards(map),
        })
    }

    async fn transfer_leader(
        &self,
        caller: Caller,
        request: TransferRequest,
    ) -> Result<TransferResponse, Failure> {
        caller.administer()?;
        let TransferRequest { shard, node } = request;
        let placement = placement(self.store.map(), shard)?;
        let unavailable = |text| Failure::new(ErrorCode::Unavailable).message(text);
        let named = (node != 0).then(|| NodeId::new(node));
        if named.is_some_and(|node| !placement.replicas.values().any(|host| *host == node)) {
            return Err(out_of_range("node", node, "a node that hosts the shard").into());
        }
        let view = self.view(placement.replicas.values().copied()).await;
        let (from, _) = view
            .leader(shard)
            .ok_or_else(|| unavailable(format!("shard {shard} has no leader now")))?;
        let to = named
            .or_else(|| view.successor(shard, from))
            .ok_or_else(|| unavailable(format!("no other node of shard {shard} answers")))?;
        if to != from {
            let done = self.store.transfer_leader(shard, from, to).await;
            done.map_err(failure::of_error)?;
        }
        Ok(TransferResponse { leader: to.get() })
    }
}

fn placement(map: &ClusterMap, shard: u32) -> Result<&Placement, FieldError> {
    let found = usize::try_from(shard).ok().and_then(|shard| map.shards.get(shard));
    found.ok_or_else(|| out_of_range("shard", shard.into(), "one of the map's shards"))
}

fn out_of_range(field: &str, value: u64, wanted: &'static str) -> FieldError {
    FieldError::new(field, Reason::OutOfRange { value, wanted })
}

fn map(map: &ClusterMap) -> MapResponse {
    let nodes = map.nodes.iter();
    let nodes = nodes.map(|(node, at)| MapNode { node: node.get(), address: at.grpc.clone() });
    let shards = (0..).zip(&map.shards).map(|(shard, placement)| MapShard {
        shard,
        nodes: placement.replicas.values().map(|node| node.get()).collect(),
        leader_hint: placement.preferred.get(),
    });
    let millis = |window: Duration| u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
    let Settings {
        session_idle,
        dedup_window,
        allocate_window,
        mailbox_entries_max,
        keep,
        hard_keep,
        eligible,
        device_expiry,
        devices_max,
        push_after,
        push_every,
        group_members_max,
        feed_records_max,
        recall_within,
        edit_within,
    } = map.settings;
    MapResponse {
        cluster_id: bytes_of(map.cluster.as_bytes()),
        version: map.version,
        hash_version: map.hash_version.into(),
        nodes: nodes.collect(),
        shards: shards.collect(),
        settings: Some(MapSettings {
            session_idle_ms: millis(session_idle),
            dedup_window_ms: millis(dedup_window),
            allocate_window_ms: millis(allocate_window),
            mailbox_entries_max,
            keep_ms: millis(keep),
            hard_keep_ms: millis(hard_keep),
            eligible_ms: millis(eligible),
            device_expiry_ms: millis(device_expiry),
            devices_max,
            push_after_ms: millis(push_after),
            push_every_ms: millis(push_every),
            group_members_max,
            feed_records_max,
            recall_within_ms: millis(recall_within),
            edit_within_ms: millis(edit_within),
        }),
    }
}

#[tonic::async_trait]
impl Cluster for Backend {
    async fn status(
        &self,
        request: Request<ClusterStatusRequest>,
    ) -> Result<Response<ClusterStatusResponse>, Status> {
        let answer = |caller, _| self.cluster_status(caller);
        self.call("Cluster.Status", request, answer).await
    }

    async fn map(&self, request: Request<MapRequest>) -> Result<Response<MapResponse>, Status> {
        let answer = |caller: Caller, _| async move {
            caller.administer()?;
            Ok(map(self.store.map()))
        };
        self.call("Cluster.Map", request, answer).await
    }

    async fn transfer(
        &self,
        request: Request<TransferRequest>,
    ) -> Result<Response<TransferResponse>, Status> {
        let answer = |caller, request| self.transfer_leader(caller, request);
        self.call("Cluster.Transfer", request, answer).await
    }
}
