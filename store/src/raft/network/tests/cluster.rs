//! What groups do over the network while it works.

use std::sync::Arc;
use std::time::Duration;

use tidemark_env::{Clock, SystemClock};
use tidemark_store_core::value::Settings;
use tidemark_store_core::{Command, Reply};
use tidemark_types::{NodeId, ShardCount, ShardId, UserId, routing};

use super::net::Fault;
use super::{Cluster, WITHIN, cluster_id, others};
use crate::config::StoreConfig;
use crate::raft::group::{GroupStatus, Unfit};
use crate::shard::{Error, Shard, Surroundings};
use crate::space::Space;
use crate::time::ClusterTime;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_group_elects_a_leader_and_applies_the_same_everywhere() {
    let cluster = Cluster::start(4).await;
    for group in 0..4 {
        let leader = cluster.leader(group).await;
        let place = cluster.group(leader, group).status().leader.unwrap();
        assert_eq!(place.address, cluster.nodes[leader].address);
        let applied = cluster.propose(leader, group, 50).await;
        cluster.same_state(group, &[0, 1, 2], applied).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_whose_server_was_away_catches_up() {
    let mut cluster = Cluster::start(2).await;
    let leader = cluster.leader(0).await;
    let away = (leader + 1) % 3;
    cluster.nodes[away].stop_server().await;
    let here = others(away);
    let leader = cluster.leader_among(0, &here).await;
    let applied = cluster.propose(leader, 0, 100).await;
    cluster.same_state(0, &here, applied).await;
    assert!(cluster.nodes[away].position(0).0 < applied, "it was away");
    let first = cluster.group(leader, 0).heirs().first().copied();
    assert_ne!(first, Some(NodeId::new(away as u64 + 1)), "another follows more closely");
    cluster.nodes[away].start_server().await;
    cluster.same_state(0, &[0, 1, 2], applied).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_to_whom_it_is_given_in_one_election() {
    let cluster = Cluster::start(1).await;
    let leader = cluster.leader(0).await;
    let applied = cluster.propose(leader, 0, 10).await;
    cluster.same_state(0, &[0, 1, 2], applied).await;
    assert!((0..3).all(|node| cluster.group(node, 0).has_caught_up()));
    let group = cluster.group(leader, 0);
    let heirs = |_: &GroupStatus| group.heirs().len() == 2;
    group.until(WITHIN, "both could take over", heirs).await.unwrap();
    let term = group.status().term;
    let heir = (leader + 1) % 3;
    let to = NodeId::new(heir as u64 + 1);
    group.transfer_to(to, WITHIN).await.unwrap();
    for node in 0..3 {
        let leads = |s: &GroupStatus| s.leader.as_ref().is_some_and(|leader| leader.node == to);
        let moved = cluster.group(node, 0).until(WITHIN, "the heir leads", leads);
        assert_eq!(moved.await.unwrap().term, term + 1);
    }
    assert_eq!(cluster.leader(0).await, heir);
    let applied = cluster.propose(heir, 0, 10).await;
    cluster.same_state(0, &[0, 1, 2], applied).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_whose_core_panicked_does_not_say_that_it_runs() {
    let cluster = Cluster::start(1).await;
    let leader = cluster.leader(0).await;
    cluster.group(leader, 0).panic().await;
    let status = cluster.group(leader, 0).status();
    assert!(status.running.is_err(), "{status:?}");
    let other = cluster.group(others(leader)[0], 0).status();
    assert_eq!(other.running, Ok(()), "only one has");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_cut_off_is_out_of_touch_and_cannot_take_over() {
    let cluster = Cluster::start(1).await;
    let leader = cluster.leader(0).await;
    let away = others(leader)[0];
    let to = NodeId::new(away as u64 + 1);
    let in_touch = |node: usize| cluster.group(node, 0).is_in_touch(Duration::from_secs(1));
    until(|| (0..3).all(in_touch)).await;
    cluster.net.isolate(away as u64 + 1, Some(Fault::Cut));
    let group = cluster.group(leader, 0);
    until(|| !in_touch(away) && !group.heirs().contains(&to)).await;
    assert!(in_touch(leader) && in_touch(others(leader)[1]));
    assert_eq!(group.transfer_to(to, WITHIN).await, Err(Unfit::NotClose(to).into()));
    let term = group.status().term;
    assert_eq!(group.transfer_to(NodeId::new(leader as u64 + 1), WITHIN).await, Ok(term));
    // It leads still, and takes commands.
    let applied = cluster.propose(leader, 0, 10).await;
    cluster.net.isolate(away as u64 + 1, None);
    cluster.same_state(0, &[0, 1, 2], applied).await;
    until(|| in_touch(away)).await;
    assert_eq!(group.status().term, term);
    cluster.stop().await;
}

/// What is under way is unknown, what comes then was not taken, and all of it may come again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_a_leader_that_hears_no_majority() {
    let cluster = Cluster::start(1).await;
    let leader = cluster.leader(0).await;
    let group = cluster.group(leader, 0);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let config = StoreConfig::default();
    let around = Surroundings {
        state: cluster.nodes[leader].state.clone(),
        shards: ShardCount::new(1).unwrap(),
        time: ClusterTime::new(clock.clone()),
        space: Space::of(&std::env::temp_dir(), &config.disk).unwrap(),
        clock,
        config,
    };
    around.time.settle(vec![], 1);
    let shard = Shard::start(ShardId::new(0), group.clone(), &around);
    let init = Command::Init {
        cluster: cluster_id(),
        shard: ShardId::new(0),
        shards: around.shards,
        hash_version: routing::HASH_VERSION,
        settings: Settings::default(),
    };
    assert_eq!(shard.propose(init).await.unwrap(), Reply::Done);
    cluster.net.isolate(leader as u64 + 1, Some(Fault::Hang));
    let silence = || Command::Silence { user: UserId::new("alice").unwrap(), silent: true };
    let under_way = shard.propose(silence()).await;
    assert!(matches!(under_way, Err(Error::Unknown(_))), "{under_way:?}");
    assert!(group.is_deaf());
    let refused = shard.propose(silence()).await;
    assert!(matches!(refused, Err(Error::NotLeader { leader: None })), "{refused:?}");
    let next = cluster.leader_among(0, &others(leader)).await;
    assert!(!cluster.group(next, 0).is_deaf());
    cluster.net.isolate(leader as u64 + 1, None);
    let applied = cluster.propose(next, 0, 10).await;
    cluster.same_state(0, &[0, 1, 2], applied).await;
    assert!(!group.is_deaf(), "it follows");
    cluster.stop().await;
}

async fn until(holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(WITHIN, wait).await.expect("in time");
}
