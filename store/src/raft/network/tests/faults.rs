//! What it refuses, and how it fails: at once, and with a reason.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use openraft::RPCTypes;
use openraft::errors::RPCError;
use openraft::network::{NetStreamAppend, NetVote, RPCOption, RaftNetworkFactory};
use openraft::raft::{AppendEntriesRequest, VoteRequest};
use tidemark_env::TcpConnector;
use tidemark_types::{ClusterId, NodeId};
use tokio::time::Instant;

use super::net::{Fault, Net, Wire};
use super::{Cluster, WITHIN, cluster_id, group_id, listen, me, others, serve};
use crate::raft::network::{ANSWER_WITHIN, Acceptor, Link, Me, Peers};
use crate::raft::types::{Replica, TypeConfig, Vote};

/// Far more than any deadline of ours would take, far less than for ever.
const PATIENCE: Duration = Duration::from_secs(30);

/// A link of node 9 to replica 1 of group 0 on node 1, which `acceptor` is.
async fn link(dialer: Me, acceptor: Me) -> (Net, Peers, Link) {
    let (listener, address) = listen().await;
    let net = Net::default();
    net.add(NodeId::new(1), &address);
    serve(&Acceptor::new(Peers::new(acceptor, Arc::new(TcpConnector))), listener);
    let peers = Peers::new(dialer, Arc::new(Wire { from: dialer.node, net: net.clone() }));
    let replica = Replica { node: NodeId::new(1), address };
    let link = peers.network(group_id(0), 9).new_client(1, &replica).await;
    (net, peers, link)
}

/// Asks for votes until the answer is not that there is no connection yet.
async fn vote_until(link: &mut Link, enough: impl Fn(&str) -> bool) -> String {
    let deadline = Instant::now() + WITHIN;
    loop {
        let error = vote(link, PATIENCE).await.expect_err("no group is there").to_string();
        if enough(&error) {
            return error;
        }
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn vote(link: &mut Link, within: Duration) -> Result<(), RPCError<TypeConfig>> {
    let request = VoteRequest::new(Vote::new(1, 9), None);
    NetVote::vote(link, request, RPCOption::new(within)).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_cluster_is_refused_by_name() {
    let other = ClusterId::from_bytes([8; 16]).unwrap();
    let (_net, _peers, mut link) = link(Me { cluster: other, ..me(9) }, me(1)).await;
    let error = vote_until(&mut link, |error| error.contains("cluster")).await;
    let expected = format!("this node belongs to cluster {}, not to {other}", cluster_id());
    assert!(error.contains(&expected), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_another_than_meant_is_refused_by_name() {
    let (_net, _peers, mut link) = link(me(9), me(2)).await;
    let error = vote_until(&mut link, |error| error.contains("this is node")).await;
    assert!(error.contains("this is node 2, not node 1"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_is_not_there_is_unreachable() {
    let (_net, _peers, mut link) = link(me(9), me(1)).await;
    let error = vote_until(&mut link, |error| !error.contains("no connection")).await;
    assert!(error.contains("Unreachable node: the node has no replica of the group"), "{error}");
    // The same for a stream, which then ends.
    let append = append();
    let input = futures::stream::iter([append.clone(), append.clone(), append]);
    let mut stream = link.stream_append(input, RPCOption::new(PATIENCE)).await.unwrap();
    let error = stream.next().await.unwrap().unwrap_err();
    assert!(matches!(error, RPCError::Unreachable(_)), "{error}");
    assert!(stream.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_never_answers_for_another_one() {
    let cluster = Cluster::start(1).await;
    cluster.leader(0).await;
    let peers =
        Peers::new(me(9), Arc::new(Wire { from: NodeId::new(9), net: cluster.net.clone() }));
    let node = Replica { node: NodeId::new(1), address: cluster.nodes[0].address.clone() };
    let mut link = peers.network(group_id(0), 9).new_client(77, &node).await;
    let error = vote_until(&mut link, |error| !error.contains("no connection")).await;
    assert!(error.contains("replica 1 of the group, not the one that was asked"), "{error}");
    cluster.stop().await;
}

fn append() -> AppendEntriesRequest<TypeConfig> {
    let vote = Vote::new_committed(1, 9);
    AppendEntriesRequest { vote, prev_log_id: None, entries: vec![], leader_commit: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_connection_fails_what_waits_on_it_at_once() {
    let (net, _peers, mut link) = link(me(9), me(1)).await;
    vote_until(&mut link, |error| !error.contains("no connection")).await;
    net.set(9, 1, Some(Fault::Hang));
    let mut other = link.clone();
    let began = Instant::now();
    let call = tokio::spawn(async move { vote(&mut other, PATIENCE).await });
    // One append that gets no answer; behind it the stream waits for its input for ever.
    let input = Box::pin(futures::stream::iter([append()]).chain(futures::stream::pending()));
    let mut stream = link.stream_append(input, RPCOption::new(PATIENCE)).await.unwrap();
    net.set(9, 1, Some(Fault::Cut));
    let error = stream.next().await.unwrap().unwrap_err();
    assert!(matches!(error, RPCError::Unreachable(_)), "{error}");
    let error = call.await.unwrap().unwrap_err();
    assert!(matches!(error, RPCError::Unreachable(_)), "{error}");
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
    drop(stream);
    let error = vote(&mut link, PATIENCE).await.unwrap_err();
    assert!(matches!(error, RPCError::Unreachable(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_hangs_is_noticed_by_deadlines() {
    let (net, _peers, mut link) = link(me(9), me(1)).await;
    vote_until(&mut link, |error| !error.contains("no connection")).await;
    net.set(9, 1, Some(Fault::Hang));
    let began = Instant::now();
    let within = Duration::from_millis(300);
    let error = vote(&mut link, within).await.unwrap_err();
    assert!(matches!(&error, RPCError::Timeout(t) if t.action == RPCTypes::Vote), "{error}");
    let input = futures::stream::iter([append(), append()]).chain(futures::stream::pending());
    let mut stream = link.stream_append(Box::pin(input), RPCOption::new(within)).await.unwrap();
    let error = stream.next().await.unwrap().unwrap_err();
    // Whichever is first: the append's deadline, or the ping's.
    assert!(matches!(error, RPCError::Timeout(_) | RPCError::Unreachable(_)), "{error}");
    assert!(began.elapsed() < within + ANSWER_WITHIN + PATIENCE / 4, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_alone_does_not_raise_the_term() {
    for fault in [Fault::Cut, Fault::Hang] {
        let cluster = Cluster::start(1).await;
        let leader = cluster.leader(0).await;
        let alone = (leader + 1) % 3;
        let mut applied = cluster.propose(leader, 0, 5).await;
        cluster.same_state(0, &[0, 1, 2], applied).await;
        let before = cluster.group(leader, 0).status();
        cluster.net.isolate(alone as u64 + 1, Some(fault));
        // Long enough for several of its elections, if it could hold any; the others work on.
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until {
            applied = cluster.propose(leader, 0, 20).await;
        }
        cluster.same_state(0, &others(alone), applied).await;
        assert_eq!(cluster.group(alone, 0).status().term, before.term, "alone, {fault:?}");
        cluster.net.isolate(alone as u64 + 1, None);
        cluster.same_state(0, &[0, 1, 2], applied).await;
        for node in 0..3 {
            let now = cluster.group(node, 0).status();
            assert_eq!(now.term, before.term, "back, {fault:?}");
            assert_eq!(now.leader.unwrap().node, NodeId::new(leader as u64 + 1));
        }
        cluster.stop().await;
    }
}
