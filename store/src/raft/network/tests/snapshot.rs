//! A replica that was away for longer than the log reaches back takes the state from its leader.

use std::time::Duration;

use tidemark_types::NodeId;

use super::net::Fault;
use super::{Cluster, WITHIN, group_id, others};
use crate::config::RaftConfig;
use crate::raft::machine::Applied;
use crate::raft::network::FetchError;
use crate::raft::types::Vote;

fn short_log() -> RaftConfig {
    RaftConfig { snapshot_entries: 20, keep_entries: 5, ..RaftConfig::default() }
}

/// Proposes until the leader's log begins behind `past`.
async fn purge(cluster: &Cluster, leader: usize, group: u16, past: u64) -> u64 {
    let started = tokio::time::Instant::now();
    loop {
        assert!(started.elapsed() < WITHIN, "the log is not purged");
        let applied = cluster.propose(leader, group, 30).await;
        cluster.group(leader, group).compact().await.unwrap();
        if cluster.group(leader, group).status().purged > Some(past) {
            return applied;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_away_for_too_long_takes_a_snapshot() {
    let cluster = Cluster::start_with(2, &short_log()).await;
    let leader = cluster.leader(0).await;
    let lagging = others(leader)[1];
    let number = lagging as u64 + 1;
    let before = cluster.propose(leader, 0, 3).await;
    cluster.same_state(0, &[0, 1, 2], before).await;

    cluster.net.isolate(number, Some(Fault::Cut));
    purge(&cluster, leader, 0, before).await;
    assert!(cluster.nodes[lagging].position(0).0 <= before, "it is away");
    cluster.net.isolate(number, None);

    // Also what is written while it takes the snapshot, and what is written afterwards.
    let during = cluster.propose(leader, 0, 20).await;
    cluster.same_state(0, &[0, 1, 2], during).await;
    let status = cluster.group(lagging, 0).status();
    assert!(status.snapshot > Some(before), "not by the log: {status:?}");
    let after = cluster.propose(leader, 0, 20).await;
    cluster.same_state(0, &[0, 1, 2], after).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_stops_half_way_is_taken_again() {
    let cluster = Cluster::start_with(1, &short_log()).await;
    let leader = cluster.leader(0).await;
    let lagging = others(leader)[0];
    let number = lagging as u64 + 1;
    cluster.propose(leader, 0, 3).await;
    cluster.net.isolate(number, Some(Fault::Cut));
    // What was on its way when that was cut may have arrived until this is done.
    cluster.propose(leader, 0, 3).await;
    let before = cluster.group(lagging, 0).status().last_log.expect("it has had a leader");
    purge(&cluster, leader, 0, before).await;
    // The leader can ask it to fetch; the fetch itself has no way.
    cluster.net.set(leader as u64 + 1, number, None);
    let mut gone = cluster.propose(leader, 0, 20).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let status = cluster.group(lagging, 0).status();
    assert!(status.applied <= Some(before), "it has no way to fetch behind {before}: {status:?}");
    cluster.net.isolate(number, None);
    gone = cluster.propose(leader, 0, 5).await.max(gone);
    cluster.same_state(0, &[0, 1, 2], gone).await;
    cluster.stop().await;
}

/// What a node gets that asks for a snapshot of `group`.
async fn fetch(cluster: &Cluster, from: u64, group: u16) -> Result<u64, FetchError> {
    let node = &cluster.nodes[0];
    let staged = node.peers.fetch(NodeId::new(from), group_id(group), &node.state).await?;
    let applied = staged.applied().unwrap();
    Ok(Applied::decode(applied.as_deref()).unwrap().last.unwrap().index)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_gets_the_state_with_its_position_or_a_reason() {
    let cluster = Cluster::start(1).await;
    let leader = cluster.leader(0).await;
    let applied = cluster.propose(leader, 0, 7).await;
    cluster.same_state(0, &[0, 1, 2], applied).await;
    // A follower's is as good: what it has applied is committed.
    for node in 2..=3 {
        assert_eq!(fetch(&cluster, node, 0).await.unwrap(), applied);
    }
    let unknown = fetch(&cluster, 2, 9).await.unwrap_err().to_string();
    assert!(unknown.contains("no replica of the group"), "{unknown}");
    let nobody = fetch(&cluster, 7, 0).await.unwrap_err().to_string();
    assert!(nobody.contains("node 7 was never dialed"), "{nobody}");
    cluster.stop().await;
}

/// A snapshot read after its leader fell could hold entries of a later term: openraft would take
/// that for corruption, and stop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_a_later_term_than_its_leader_is_refused() {
    let cluster = Cluster::start(1).await;
    let leader = cluster.leader(0).await;
    let applied = cluster.propose(leader, 0, 3).await;
    cluster.same_state(0, &[0, 1, 2], applied).await;
    let (asks, gives) = (others(leader)[0], others(leader)[1]);
    let node = &cluster.nodes[asks];
    let from = NodeId::new(gives as u64 + 1);
    let staged = node.peers.fetch(from, group_id(0), &node.state).await.unwrap();
    let group = cluster.group(asks, 0);
    let refused = group.install(Vote::new_committed(0, 1), staged).await.unwrap_err();
    assert!(refused.contains("its leader of 0"), "{refused}");
    assert_eq!(group.status().running, Ok(()));
    cluster.stop().await;
}
