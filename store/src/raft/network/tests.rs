//! The transport between two ends in this process: who may connect, and how fast a call fails.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use openraft::errors::RPCError;
use openraft::network::{NetVote, RPCOption, RaftNetworkFactory};
use openraft::raft::VoteRequest;
use openraft::vote::RaftLeaderId;
use tidemark_env::SystemRng;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::transport::Server;

use super::frame::{Answer, Call, Request};
use super::*;
use crate::raft::types::{LeaderId, Vote};

const DEADLINE: Duration = Duration::from_secs(30);

fn cluster(byte: u8) -> ClusterId {
    ClusterId::from_bytes([byte; 16]).expect("any bytes")
}

fn network(byte: u8) -> Network {
    Network::new(cluster(byte), NodeId::new(1), Arc::new(SystemRng))
}

fn vote_request() -> VoteRequest<TypeConfig> {
    VoteRequest::new(Vote { leader_id: LeaderId::new(1, 1), committed: false }, None)
}

/// Node 2 of cluster 7, with no group at all.
async fn server() -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let network = Network::new(cluster(7), NodeId::new(2), Arc::new(SystemRng));
    let service = network.acceptor(Registry::new()).service();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = Server::builder().add_service(service).serve_with_incoming(incoming);
    (address, tokio::spawn(async move { server.await.expect("it serves") }))
}

async fn target(network: &Network, address: SocketAddr) -> dial::Target {
    let replica = Replica { node: NodeId::new(2), address: address.to_string() };
    network.for_group(GroupId::new(5)).new_client(9, &replica).await
}

/// What a vote is answered once there is a connection.
async fn answer(target: &mut dial::Target) -> RPCError<TypeConfig> {
    let started = Instant::now();
    loop {
        let option = RPCOption::new(Duration::from_secs(5));
        let error = target.vote(vote_request(), option).await.expect_err("nobody votes here");
        if !error.to_string().contains("no connection") || started.elapsed() > DEADLINE {
            return error;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_call_to_a_group_that_is_not_there_is_unreachable() {
    let (address, server) = server().await;
    let network = network(7);
    let answer = answer(&mut target(&network, address).await).await;
    assert!(matches!(answer, RPCError::Unreachable(_)), "{answer}");
    assert!(answer.to_string().contains("there is no shard-5 here"), "{answer}");
    server.abort();
}

#[tokio::test]
async fn a_node_of_another_cluster_never_gets_a_connection() {
    let (address, server) = server().await;
    let network = network(8);
    let mut target = target(&network, address).await;
    for _ in 0..50 {
        let option = RPCOption::new(Duration::from_secs(5));
        let error = target.vote(vote_request(), option).await.expect_err("refused");
        assert!(error.to_string().contains("there is no connection"), "{error}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.abort();
}

#[tokio::test]
async fn a_call_fails_at_once_while_there_is_no_connection() {
    let unused = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = unused.local_addr().expect("bound");
    drop(unused);
    let network = network(7);
    let mut target = target(&network, address).await;
    let started = Instant::now();
    let option = RPCOption::new(Duration::from_secs(600));
    let error = target.vote(vote_request(), option).await.expect_err("nobody is there");
    assert!(matches!(error, RPCError::Unreachable(_)), "{error}");
    assert!(started.elapsed() < DEADLINE);
}

#[test]
fn frames_round_trip_and_broken_ones_are_errors() {
    let request = Call::PreVote(vote_request());
    let frame = Request::Call { group: GroupId::new(5), call: 3, request }.encode();
    let decoded = Request::decode(&frame).expect("it was just encoded");
    assert!(matches!(
        decoded,
        Request::Call { call: 3, request: Call::PreVote(request), .. } if request == vote_request()
    ));
    for cut in 0..frame.len() {
        assert!(Request::decode(&frame[..cut]).is_err(), "cut to {cut}");
    }
    assert!(Request::decode(&[&frame[..], &[0]].concat()).is_err());
    assert!(Answer::decode(&[]).is_err());
}
