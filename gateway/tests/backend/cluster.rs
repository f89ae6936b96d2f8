//! `Cluster`: who is up, who leads, and moving leaders.

use tidemark_proto::store::v1::GroupStatus;
use tidemark_proto::v1::cluster_client::ClusterClient;
use tidemark_proto::v1::{ClusterStatusRequest, MapRequest, TransferRequest, TransferResponse};
use tidemark_types::ErrorCode;
use tonic::{Response, Status};

use crate::gateway::{Gateway, bad_field, refused};
use crate::memory::Fault;

fn group(group: u32, term: u64, leader: u64, applied: u64) -> GroupStatus {
    GroupStatus { group, term, leader, applied, last_log: applied + 1, ..GroupStatus::default() }
}

#[tokio::test]
async fn the_status_is_what_the_nodes_say() {
    let gateway = Gateway::start().await;
    let control = u32::MAX;
    gateway.store.nodes.lock().extend([
        (1, vec![group(0, 2, 1, 9), group(1, 3, 2, 5), group(control, 1, 1, 1)]),
        (2, vec![group(0, 2, 1, 8), group(1, 3, 0, 7), group(control, 1, 1, 1)]),
    ]);
    let mut cluster = ClusterClient::new(gateway.admin());
    let status = cluster.status(ClusterStatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.cluster_id, vec![7; 16]);
    let nodes: Vec<_> =
        status.nodes.iter().map(|node| (node.node, node.up, node.ready, node.leads)).collect();
    assert_eq!(nodes, [(1, true, true, 1), (2, true, false, 1), (3, false, false, 0)]);
    assert_eq!(status.nodes[2].address, "127.0.0.1:3");
    let shards = status.shards.iter();
    let shards: Vec<_> = shards.map(|s| (s.shard, s.leader, s.term, s.committed)).collect();
    assert_eq!(shards, [(0, 1, 2, 9), (1, 2, 3, 7)]);
    let replicas = status.shards[0].replicas.iter();
    let replicas: Vec<_> = replicas.map(|r| (r.node, r.voter, r.matched, r.applied)).collect();
    assert_eq!(replicas, [(1, true, 10, 9), (2, true, 9, 8), (3, true, 0, 0)]);
}

#[tokio::test]
async fn the_map_is_the_clusters() {
    let gateway = Gateway::start().await;
    let map = ClusterClient::new(gateway.admin()).map(MapRequest {}).await.unwrap().into_inner();
    assert_eq!((map.version, map.hash_version), (1, 1));
    assert_eq!(map.nodes.iter().map(|node| node.node).collect::<Vec<_>>(), [1, 2, 3]);
    let shards = map.shards.iter();
    let shards: Vec<_> = shards.map(|s| (s.shard, &s.nodes[..], s.leader_hint)).collect();
    assert_eq!(shards, [(0, &[1, 2, 3][..], 1), (1, &[1, 2, 3], 2)]);
    let settings = map.settings.unwrap();
    assert_eq!(settings.dedup_window_ms, 7 * 24 * 60 * 60 * 1_000);
    assert_eq!(settings.mailbox_entries_max, 1_000_000);
}

async fn transfer(
    gateway: &Gateway,
    shard: u32,
    node: u64,
) -> Result<Response<TransferResponse>, Status> {
    ClusterClient::new(gateway.admin()).transfer(TransferRequest { shard, node }).await
}

#[tokio::test]
async fn a_leader_is_moved_to_whom_is_named_or_to_the_nearest() {
    let gateway = Gateway::start().await;
    gateway.store.nodes.lock().extend([
        (1, vec![group(0, 2, 1, 9)]),
        (2, vec![group(0, 2, 1, 7)]),
        (3, vec![group(0, 2, 1, 8)]),
    ]);
    for (named, leads) in [(2, 2), (0, 3), (1, 1)] {
        let moved = transfer(&gateway, 0, named).await.unwrap().into_inner();
        assert_eq!(moved.leader, leads);
    }
    // It led already, so nothing was moved for the last one.
    assert_eq!(*gateway.store.transfers.lock(), [(0, 1, 2), (0, 1, 3)]);
    gateway.store.fail(&[Fault::Lost]);
    assert_eq!(refused(transfer(&gateway, 0, 2).await).code, ErrorCode::Unknown);
}

#[tokio::test]
async fn a_leader_that_cannot_be_is_refused() {
    let gateway = Gateway::start().await;
    bad_field(transfer(&gateway, 2, 0).await, "shard");
    bad_field(transfer(&gateway, 0, 4).await, "node");
    let failure = refused(transfer(&gateway, 1, 0).await);
    assert_eq!(failure.code, ErrorCode::Unavailable);
    assert_eq!(failure.message, "shard 1 has no leader now");
    gateway.store.nodes.lock().insert(1, vec![group(1, 2, 1, 9)]);
    let failure = refused(transfer(&gateway, 1, 0).await);
    assert_eq!(failure.message, "no other node of shard 1 answers");
}
