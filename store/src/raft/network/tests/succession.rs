//! A leader whose process is gone, as its system tells: what breaks, and refuses from then on.

use std::time::Duration;

use tidemark_types::NodeId;

use super::net::Fault;
use super::{Cluster, WITHIN, others};
use crate::config::RaftConfig;
use crate::raft::group::GroupStatus;

/// Longer than any test: whoever leads was not elected by these.
pub(super) fn patient() -> RaftConfig {
    let hour_ms = 3_600_000;
    let (min, max) = (hour_ms, 2 * hour_ms);
    RaftConfig {
        election_timeout_min_ms: min,
        election_timeout_max_ms: max,
        ..RaftConfig::default()
    }
}

/// The first connections are not taken for a sign of life that has ended: they must have lasted.
async fn connections_have_lasted() {
    tokio::time::sleep(Duration::from_millis(1_500)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_gone_is_succeeded_long_before_the_timers() {
    let cluster = Cluster::start_with(4, &patient()).await;
    for group in 0..4 {
        let leader = cluster.leader(group).await;
        cluster.propose(leader, group, 10).await;
    }
    connections_have_lasted().await;
    let fallen = cluster.leader(0).await;
    let here = others(fallen);
    let mut gone: Vec<_> = here.iter().map(|node| cluster.nodes[*node].peers.gone()).collect();
    cluster.net.isolate(fallen as u64 + 1, Some(Fault::Ends(3)));
    let heirs = here.iter().zip(&mut gone).map(|(node, gone)| async {
        let told = tokio::time::timeout(WITHIN, gone.recv()).await.expect("it is noticed");
        assert_eq!(told, Ok(NodeId::new(fallen as u64 + 1)));
        for group in &cluster.nodes[*node].groups {
            group.succeed(NodeId::new(fallen as u64 + 1)).await.unwrap();
        }
    });
    futures::future::join_all(heirs).await;
    for group in 0..4 {
        let leader = cluster.leader_among(group, &here).await;
        let applied = cluster.propose(leader, group, 10).await;
        cluster.same_state(group, &here, applied).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_reach_a_majority_does_not_stand() {
    let cluster = Cluster::start_with(1, &patient()).await;
    let leader = cluster.leader(0).await;
    cluster.propose(leader, 0, 10).await;
    connections_have_lasted().await;
    let alone = (leader + 1) % 3;
    let term = cluster.group(alone, 0).status().term;
    let mut gone = cluster.nodes[alone].peers.gone();
    cluster.net.isolate(alone as u64 + 1, Some(Fault::Cut));
    for _ in 0..2 {
        let told = tokio::time::timeout(WITHIN, gone.recv()).await.expect("it is noticed").unwrap();
        let succeeded = cluster.group(alone, 0).succeed(told);
        if told == NodeId::new(leader as u64 + 1) {
            // Several of its attempts.
            let attempts = tokio::time::timeout(Duration::from_secs(1), succeeded).await;
            assert!(attempts.is_err(), "it waits for a majority");
        } else {
            succeeded.await.unwrap();
        }
    }
    assert_eq!(
        cluster.group(alone, 0).status().term,
        term,
        "a higher term would depose the leader"
    );
    cluster.net.isolate(alone as u64 + 1, None);
    let applied = cluster.propose(leader, 0, 10).await;
    cluster.same_state(0, &[0, 1, 2], applied).await;
    assert_eq!(cluster.leader(0).await, leader);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_is_gone_changes_nothing() {
    let cluster = Cluster::start_with(1, &patient()).await;
    let leader = cluster.leader(0).await;
    let term = cluster.group(leader, 0).status().term;
    for node in others(leader) {
        let other = others(leader).into_iter().find(|other| *other != node).unwrap();
        cluster.group(node, 0).succeed(NodeId::new(other as u64 + 1)).await.unwrap();
    }
    let led = |s: &GroupStatus| s.leader.is_some();
    let status = cluster.group(leader, 0).until(WITHIN, "led", led).await.unwrap();
    assert_eq!(status.term, term);
    assert_eq!(cluster.leader(0).await, leader);
    cluster.stop().await;
}
