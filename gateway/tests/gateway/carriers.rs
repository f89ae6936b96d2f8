//! Both carriers, over real sockets: what they have in common, and what each adds.

use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use prost::Message as _;
use tidemark_gateway::connect::Carrier;
use tidemark_gateway::limits::Limits;
use tidemark_proto::v1::server_frame::Frame;
use tidemark_proto::{Failure, v1};
use tidemark_store_core::Command;
use tidemark_types::limits::FRAME_BYTES_MAX;
use tidemark_types::{ErrorCode, Seq};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{self, Message};

use crate::device::{gateway, gateway_with, hello, hello_at, send, texts};
use crate::socket::{CARRIERS, Served, Socket};
use crate::store::Cluster;

/// What is said on a bare WebSocket.
fn message(frame: impl Into<v1::ClientFrame>) -> Message {
    Message::Binary(frame.into().encode_to_vec().into())
}

/// What is heard on it next, and an error's code.
async fn heard(socket: &mut Socket) -> (Frame, Option<ErrorCode>) {
    let next = tokio::time::timeout(Duration::from_secs(30), socket.next()).await;
    let Some(Ok(Message::Binary(bytes))) = next.expect("a message") else { panic!("no frame") };
    let frame = v1::ServerFrame::decode(bytes).expect("a frame").frame.expect("known");
    let code = match &frame {
        Frame::Error(error) => Some(Failure::from(error.failure.clone().expect("one")).code),
        _ => None,
    };
    (frame, code)
}

/// How it is closed.
async fn closed(socket: &mut Socket) -> (u16, String) {
    let next = tokio::time::timeout(Duration::from_secs(30), socket.next()).await;
    let Some(Ok(Message::Close(Some(CloseFrame { code, reason })))) = next.expect("an end") else {
        panic!("no Close")
    };
    assert!(socket.next().await.is_none(), "nothing comes after it");
    (code.into(), reason.to_string())
}

/// A browser of alice's that has had its Welcome.
async fn browser(served: &Served) -> Socket {
    let mut socket = served.websocket().await;
    socket.send(message(hello("alice", "browser"))).await.unwrap();
    assert!(matches!(heard(&mut socket).await, (Frame::Welcome(_), _)));
    socket
}

#[tokio::test]
async fn one_users_devices_on_both_carriers_get_the_same() {
    for carrier in CARRIERS {
        let cluster = Cluster::new();
        let served = Served::new(gateway(&cluster)).await;
        let mut phone = served.connect(Carrier::Grpc).await;
        let mut tablet = served.connect(Carrier::WebSocket).await;
        phone.greet(hello("bob", "phone")).await;
        tablet.greet(hello("bob", "tablet")).await;

        let mut alice = served.connect(carrier).await;
        let session = alice.open("alice").await;
        for n in 1..=20 {
            alice.say(send(session, n, &["bob"])).await;
        }
        for n in 1..=20 {
            let ack = alice.ack().await;
            assert_eq!(ack.n, n);
            assert!(matches!(ack.result, Some(v1::send_ack::Result::Accepted(_))), "{ack:?}");
        }
        let wanted: Vec<_> = (1..=20).map(|n| format!("{session}/{n}")).collect();
        assert_eq!(phone.delivered(0, 20).await, wanted);
        assert_eq!(tablet.delivered(0, 20).await, wanted);
        for device in [&mut phone, &mut tablet] {
            device.say(v1::Sync { request_id: 3, epoch: 1, seq_cli: 18, limit: 0 }).await;
            assert_eq!(texts(&device.page().await), wanted[18..]);
        }

        // Retention went on while the device was away.
        let bob = "bob".parse().unwrap();
        cluster.apply(&Command::TrimMailbox { user: bob, upto: Seq::new(15) });
        let mut back = served.connect(carrier).await;
        assert_eq!(back.greet(hello_at("bob", "phone", 1, 4)).await.floor, 15);
        let page = back.page().await.page.unwrap();
        assert_eq!((page.gap, page.prev_seq), (Some(v1::Gap { from: 5, to: 15 }), 15));
        assert_eq!(page.entries.len(), 5);

        // It has taken the place of the same device on the other carrier.
        let (code, error) = phone.error().await;
        assert_eq!((code, error.closing), (ErrorCode::Displaced, true));
        assert!(phone.next().await.is_none());
    }
}

#[tokio::test]
async fn a_device_that_sends_no_more_is_let_go() {
    for carrier in CARRIERS {
        let cluster = Cluster::new();
        let served = Served::new(gateway(&cluster)).await;
        let mut device = served.connect(carrier).await;
        device.greet(hello("alice", "phone")).await;
        let received = device.half_close();
        assert_eq!(received.await, None, "the gateway ends its side as well");
        served.empty().await;
    }
}

#[tokio::test]
async fn a_gateway_that_stops_says_so_on_both_carriers_and_waits_for_the_last_frame() {
    let cluster = Cluster::new();
    let served = Served::new(gateway(&cluster)).await;
    let mut phone = served.connect(Carrier::Grpc).await;
    phone.greet(hello("alice", "phone")).await;
    let mut browser = browser(&served).await;
    let drained = tokio::spawn({
        let devices = served.devices.clone();
        async move { devices.drain(Duration::ZERO, Duration::from_millis(300)).await }
    });
    assert!(matches!(phone.hear().await, Frame::GoAway(_)));
    assert!(matches!(heard(&mut browser).await, (Frame::GoAway(_), _)));
    // Who comes now is told as well.
    let mut late = served.websocket().await;
    assert_eq!(heard(&mut late).await.1, Some(ErrorCode::GoingAway));
    assert_eq!(closed(&mut late).await, (4024, "GOING_AWAY".to_owned()));
    assert!(phone.next().await.is_none());
    assert_eq!(closed(&mut browser).await, (4024, "GOING_AWAY".to_owned()));
    drained.await.unwrap();
    assert_eq!(served.devices.connections(), 0);
}

#[tokio::test]
async fn a_full_gateway_says_so_on_both_carriers() {
    let cluster = Cluster::new();
    let limits = Limits { connections_max: 1, ..Limits::default() };
    let served = Served::new(gateway_with(&cluster, limits)).await;
    let mut first = served.connect(Carrier::WebSocket).await;
    first.greet(hello("alice", "phone")).await;
    let status = served.grpc().connect(ReceiverStream::new(mpsc::channel(1).1)).await;
    let failure = Failure::from(&status.expect_err("it is full"));
    assert_eq!(failure.code, ErrorCode::Overloaded);
    assert!(failure.retry_after.is_some());
    let mut browser = served.websocket().await;
    let (frame, code) = heard(&mut browser).await;
    assert_eq!(code, Some(ErrorCode::Overloaded));
    let Frame::Error(v1::Error { failure: Some(failure), closing: true, .. }) = frame else {
        panic!("{frame:?}")
    };
    assert!(failure.retry_after_ms > 0);
    assert_eq!(closed(&mut browser).await, (4022, "OVERLOADED".to_owned()));
    drop(first);
    served.empty().await;
}

#[tokio::test]
async fn a_websocket_answers_pings_and_refuses_texts() {
    let cluster = Cluster::new();
    let served = Served::new(gateway(&cluster)).await;
    let mut socket = browser(&served).await;
    socket.send(Message::Ping(vec![5].into())).await.unwrap();
    let pong = tokio::time::timeout(Duration::from_secs(30), socket.next()).await.unwrap();
    assert_eq!(pong.unwrap().unwrap(), Message::Pong(vec![5].into()));
    socket.send(Message::text("{}")).await.unwrap();
    let (frame, code) = heard(&mut socket).await;
    assert_eq!(code, Some(ErrorCode::UnknownFrame));
    assert!(matches!(frame, Frame::Error(error) if !error.closing
        && error.failure.as_ref().unwrap().message.starts_with("a text message")));
    socket.send(message(v1::Ping { nonce: 1, epoch: 1, seq_cli: 0 })).await.unwrap();
    assert!(matches!(heard(&mut socket).await, (Frame::Pong(_), _)));
    socket.send(Message::Binary(vec![0xff; 20].into())).await.unwrap();
    assert_eq!(heard(&mut socket).await.1, Some(ErrorCode::Invalid));
    assert_eq!(closed(&mut socket).await, (4001, "INVALID".to_owned()));
    served.empty().await;
}

/// Nothing of it is read, so nothing after it can be.
#[tokio::test]
async fn a_message_above_the_limit_ends_a_websocket_and_one_at_the_limit_does_not() {
    let cluster = Cluster::new();
    let served = Served::new(gateway(&cluster)).await;
    let sized = |body: usize| {
        v1::ClientFrame::from(v1::Send { body: vec![0; body].into(), ..send(1, 1, &["bob"]) })
    };
    let overhead = sized(FRAME_BYTES_MAX).encoded_len() - FRAME_BYTES_MAX;
    // As one message, and as a message in two pieces, each of which is small enough.
    let whole = |bytes: Vec<u8>| vec![Message::Binary(bytes.into())];
    let pieces = |bytes: Vec<u8>| {
        let (first, last) = bytes.split_at(bytes.len() / 2);
        let piece = |piece: &[u8], kind, last| {
            Message::Frame(tungstenite::protocol::frame::Frame::message(
                piece.to_vec(),
                OpCode::Data(kind),
                last,
            ))
        };
        vec![piece(first, Data::Binary, false), piece(last, Data::Continue, true)]
    };
    for cut in [whole as fn(Vec<u8>) -> Vec<Message>, pieces] {
        for bytes in [FRAME_BYTES_MAX, FRAME_BYTES_MAX + 1] {
            let mut socket = browser(&served).await;
            let frame = sized(bytes - overhead).encode_to_vec();
            assert_eq!(frame.len(), bytes);
            for message in cut(frame) {
                socket.send(message).await.unwrap();
            }
            if bytes > FRAME_BYTES_MAX {
                assert_eq!(heard(&mut socket).await.1, Some(ErrorCode::FrameTooLarge));
                assert_eq!(closed(&mut socket).await, (4005, "FRAME_TOO_LARGE".to_owned()));
            } else {
                // It is read and judged: there is no such session.
                assert_eq!(heard(&mut socket).await.1, Some(ErrorCode::Invalid));
            }
        }
    }
    served.empty().await;
}

/// Bob gets 8 MiB.
async fn fill(served: &Served) {
    let mut alice = served.connect(Carrier::Grpc).await;
    let session = alice.open("alice").await;
    for n in 1..=64 {
        let large = v1::Send { body: vec![7; 128 * 1024].into(), ..send(session, n, &["bob"]) };
        alice.say(large).await;
        alice.ack().await;
    }
    drop(alice);
    served.empty().await;
}

/// What waits for it is bounded, and it is cut as one that says nothing.
#[tokio::test]
async fn a_browser_that_reads_nothing_is_cut() {
    let cluster = Cluster::new();
    let limits = Limits {
        heartbeat_min: Duration::from_millis(100),
        heartbeat_max: Duration::from_secs(3),
        ..Limits::default()
    };
    let served = Served::new(gateway_with(&cluster, limits)).await;
    fill(&served).await;
    let mut socket = served.websocket().await;
    socket.send(message(hello("bob", "browser"))).await.unwrap();
    // It asks for all of it again and again, and reads none.
    let asks = async {
        let mut asked = 0;
        loop {
            let sync = v1::Sync { request_id: asked + 1, epoch: 1, seq_cli: 0, limit: 0 };
            if socket.send(message(sync)).await.is_err() {
                return asked;
            }
            asked += 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let cut = tokio::time::timeout(Duration::from_secs(30), asks).await;
    assert!(cut.expect("it is cut") > 10, "it was served for a while");
    served.empty().await;
}

/// Who is cut, and comes again without having gone, has one more place each time.
#[tokio::test]
async fn what_a_grpc_device_has_not_read_keeps_its_place() {
    let cluster = Cluster::new();
    let served = Served::new(gateway(&cluster)).await;
    fill(&served).await;
    let (frames, said) = mpsc::channel(1);
    let unread = served.grpc().connect(ReceiverStream::new(said)).await.unwrap();
    let mut unread = unread.into_inner();
    let hello = v1::ClientFrame::from(hello("bob", "phone"));
    frames.send(hello.clone()).await.unwrap();
    let welcome = unread.message().await.unwrap().unwrap();
    assert!(matches!(welcome.frame, Some(Frame::Welcome(_))));
    let mut again = served.connect(Carrier::Grpc).await;
    again.say(hello).await;
    again.welcome().await;
    // The first was displaced, and its task has ended; its page is here still.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(served.devices.connections(), 2);
    drop((unread, frames));
    drop(again);
    served.empty().await;
}
