//! A dialer that does not keep to the protocol loses its connection, and is told why.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use openraft::raft::{AppendEntriesRequest, VoteRequest};
use tidemark_env::TcpConnector;
use tidemark_types::NodeId;
use tonic::{Code, Status, Streaming};

use super::{Cluster, cluster_id, group_id, listen, me, serve};
use crate::raft::network::frame::{Address, Answer, Ask, Hello, Refusal, Request};
use crate::raft::network::wire::{self, PeerBatch};
use crate::raft::network::{Acceptor, Peers, STREAM_WINDOW, connect};
use crate::raft::types::Vote;

fn hello() -> Bytes {
    let (from, to) = (NodeId::new(9), NodeId::new(1));
    Request::Hello(Hello { cluster: cluster_id(), from, to }).encode().unwrap()
}

fn batch(frames: impl IntoIterator<Item = Bytes>) -> PeerBatch {
    PeerBatch { frames: frames.into_iter().collect() }
}

/// Sends `batches` and then nothing, keeping the stream open.
async fn say(address: &str, batches: Vec<PeerBatch>) -> Result<Streaming<PeerBatch>, Status> {
    let channel = connect::channel(Arc::new(TcpConnector), address.to_owned()).await.unwrap();
    let batches = futures::stream::iter(batches).chain(futures::stream::pending());
    wire::exchange(channel, batches).await
}

/// How the stream ends; what came before does not matter.
async fn end(said: Result<Streaming<PeerBatch>, Status>) -> Status {
    let mut answers = match said {
        Ok(answers) => answers,
        Err(status) => return status,
    };
    loop {
        match answers.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return Status::ok(""),
            Err(status) => return status,
        }
    }
}

async fn acceptor() -> String {
    let (listener, address) = listen().await;
    serve(&Acceptor::new(Peers::new(me(1), Arc::new(TcpConnector))), listener);
    address
}

async fn check(batches: Vec<PeerBatch>, code: Code, reason: &str) {
    let status = end(say(&acceptor().await, batches).await).await;
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(reason), "{status}");
}

fn call(replica: u64) -> Bytes {
    let to = Address { group: group_id(0), replica };
    let ask = Ask::PreVote(VoteRequest::new(Vote::new(1, 9), None));
    Request::Call { call: 1, to, ask }.encode().unwrap()
}

fn append(last: bool) -> Bytes {
    let to = Address { group: group_id(0), replica: 1 };
    let vote = Vote::new_committed(1_000_000, 9);
    let append =
        AppendEntriesRequest { vote, prev_log_id: None, entries: vec![], leader_commit: None };
    Request::Append { stream: 1, to, last, append }.encode().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_does_not_say_hello_first_is_refused() {
    let refused = Code::FailedPrecondition;
    check(vec![batch([call(1)])], refused, "must be a hello, alone").await;
    check(vec![batch([hello(), call(1)])], refused, "must be a hello, alone").await;
    check(vec![batch([])], refused, "must be a hello, alone").await;
    check(vec![batch([Bytes::from_static(&[99, 1, 2])])], refused, "hello is broken").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_frame_ends_the_connection() {
    let broken = call(1).slice(..5);
    let batches = vec![batch([hello()]), batch([call(1), broken, call(1)])];
    check(batches, Code::InvalidArgument, "a frame between nodes").await;
    let batches = vec![batch([hello()]), batch([hello()])];
    check(batches, Code::InvalidArgument, "hello twice").await;
}

/// On one thread: the reader takes the whole batch before the stream's task can take any of it.
#[tokio::test]
async fn more_appends_than_the_window_end_the_connection() {
    let appends = std::iter::repeat_with(|| append(false));
    let within = vec![batch([hello()]), batch(appends.take(STREAM_WINDOW))];
    let mut answers = say(&acceptor().await, within).await.unwrap();
    for _ in 0..2 {
        answers.message().await.unwrap().expect("the hello, then the refusal of the stream");
    }
    let above = vec![batch([hello()]), batch(appends.take(STREAM_WINDOW + 1))];
    check(above, Code::InvalidArgument, "appends under way").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_group_is_an_error_of_the_call_not_of_the_connection() {
    let cluster = Cluster::start(1).await;
    cluster.group(0, 0).shut_down().await;
    let frames = [call(1), append(true), call(1)];
    let said = say(&cluster.nodes[0].address, vec![batch([hello()]), batch(frames)]).await;
    let mut answers = said.unwrap();
    let mut refusals = 0;
    while refusals < 3 {
        for frame in answers.message().await.unwrap().unwrap().frames {
            match Answer::decode(&frame).unwrap() {
                Answer::Hello(_) => {}
                Answer::Called { result: Err(Refusal::Stopped(_)), .. }
                | Answer::Appended { result: Err(Refusal::Stopped(_)), .. } => refusals += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    cluster.stop().await;
}
