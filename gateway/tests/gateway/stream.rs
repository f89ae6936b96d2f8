//! The gRPC carrier, over a real connection.

use std::time::Duration;

use futures::StreamExt as _;
use tidemark_gateway::connect::grpc::GrpcCarrier;
use tidemark_gateway::limits::Limits;
use tidemark_proto::v1::gateway_client::GatewayClient;
use tidemark_proto::v1::server_frame::Frame;
use tidemark_proto::{Failure, v1};
use tidemark_types::ErrorCode;
use tidemark_types::limits::FRAME_BYTES_MAX;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Endpoint, Server};

use crate::device::{gateway_with, hello, send};
use crate::store::Cluster;

#[tokio::test]
async fn a_stream_carries_frames_both_ways_and_ends_with_the_connection() {
    let cluster = Cluster::new();
    let limits = Limits { connections_max: 1, ..Limits::default() };
    let here = gateway_with(&cluster, limits);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("bound"));
    let server = Server::builder().add_service(GrpcCarrier::service(here.clone()));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));

    let channel = Endpoint::from_shared(address).expect("legal").connect_lazy();
    let mut client = GatewayClient::new(channel);
    let (frames, outgoing) = mpsc::channel::<v1::ClientFrame>(4);
    let incoming = client.connect(ReceiverStream::new(outgoing)).await.expect("it is served");
    let mut incoming = incoming.into_inner();
    frames.send(hello("alice", "phone").into()).await.expect("read");
    let frame = incoming.next().await.expect("a frame").expect("no status");
    assert!(matches!(frame.frame, Some(Frame::Welcome(_))));

    let too_large = v1::Send { body: vec![0; FRAME_BYTES_MAX].into(), ..send(1, 1, &["bob"]) };
    for frame in [too_large.into(), v1::ClientFrame { frame: None }] {
        frames.send(frame).await.expect("read");
        let frame = incoming.next().await.expect("a frame").expect("no status");
        assert!(matches!(frame.frame, Some(Frame::Error(error)) if !error.closing));
    }

    // The gateway is full: the refusal is a status, with what a device needs.
    let status = client.connect(ReceiverStream::new(mpsc::channel(1).1)).await;
    let failure = Failure::from(&status.expect_err("it is full"));
    assert_eq!(failure.code, ErrorCode::Overloaded);
    assert!(failure.retry_after.is_some());

    drop((frames, incoming));
    let gone = async {
        while here.connections() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("it is let go");
}
