//! Sends through gateways whose store fails.

use std::time::Duration;

use prost::Message as _;
use tidemark_proto::convert::error_code;
use tidemark_proto::v1;
use tidemark_proto::v1::send_ack;
use tidemark_proto::v1::server_frame::Frame;
use tidemark_types::ErrorCode;
use tidemark_types::limits::BODY_BYTES_MAX;

use crate::device::{Device, gateway, hello, hello_at, send, texts};
use crate::store::{Cluster, Fault};

fn code(ack: &v1::SendAck) -> Option<ErrorCode> {
    match ack.result.as_ref().expect("it has one") {
        send_ack::Result::Accepted(_) => None,
        send_ack::Result::Failure(failure) => Some(error_code(failure.code)),
    }
}

/// The acknowledgements of `count` sends, by n.
async fn acks(device: &mut Device, count: usize) -> Vec<v1::SendAck> {
    let mut acks = Vec::new();
    while acks.len() < count {
        if let Frame::SendAck(ack) = device.hear().await {
            acks.push(ack);
        }
    }
    acks.sort_by_key(|ack| ack.n);
    acks
}

#[tokio::test(start_paused = true)]
async fn a_send_repeated_through_another_gateway_gets_the_same_bytes() {
    let cluster = Cluster::new();
    let (here, there) = (gateway(&cluster), gateway(&cluster));
    let (mut alice, session) = Device::with_session(&here, "alice").await;
    let too_large = vec![0; BODY_BYTES_MAX + 1];
    let sends = [
        send(session, 1, &["bob"]),
        send(session, 2, &[]),
        v1::Send { body: too_large.into(), ..send(session, 3, &["bob"]) },
        send(session, 4, &["bob", "carol"]),
    ];
    for one in &sends {
        alice.say(one.clone()).await;
    }
    let first = acks(&mut alice, 4).await;
    let codes = [None, Some(ErrorCode::BadRecipient), Some(ErrorCode::BodyTooLarge), None];
    assert_eq!(first.iter().map(code).collect::<Vec<_>>(), codes);
    let (mut again, _) = Device::welcomed(&there, hello_at("alice", "phone", 1, 2)).await;
    for one in &sends {
        again.say(one.clone()).await;
    }
    let bytes = |acks: Vec<v1::SendAck>| -> Vec<_> {
        acks.iter().map(v1::SendAck::encode_to_vec).collect()
    };
    assert_eq!(bytes(acks(&mut again, 4).await), bytes(first));
}

/// Each kind of fault in the middle of a pipelined window: all is taken once, in order.
#[tokio::test(start_paused = true)]
async fn faults_in_the_middle_of_a_window_change_nothing() {
    for fault in [
        Fault::NotLeader,
        Fault::Overloaded,
        Fault::LostAfter,
        Fault::LostBefore,
        Fault::NotSent,
        Fault::Slow(Duration::from_secs(1)),
    ] {
        let cluster = Cluster::new();
        let here = gateway(&cluster);
        let (mut alice, session) = Device::with_session(&here, "alice").await;
        cluster.fail([Fault::None, Fault::None, fault, Fault::None, fault]);
        for n in 1..=30 {
            alice.say(send(session, n, &["bob"])).await;
        }
        let acks = acks(&mut alice, 30).await;
        assert!(acks.iter().all(|ack| code(ack).is_none()), "{fault:?}: {acks:?}");
        let (mut bob, _) = Device::welcomed(&here, hello("bob", "phone")).await;
        let wanted: Vec<_> = (1..=30).map(|n| format!("{session}/{n}")).collect();
        assert_eq!(texts(&bob.page().await), wanted, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stays_away_gives_the_sends_back() {
    let cluster = Cluster::new();
    let here = gateway(&cluster);
    let (mut alice, session) = Device::with_session(&here, "alice").await;
    cluster.fail(std::iter::repeat_n(Fault::NotLeader, 100));
    alice.say(send(session, 1, &["bob"])).await;
    assert_eq!(code(&alice.ack().await), Some(ErrorCode::Unavailable));
    cluster.heal();
    cluster.fail([Fault::LostAfter]);
    cluster.fail(std::iter::repeat_n(Fault::NotLeader, 100));
    alice.say(send(session, 1, &["bob"])).await;
    // It was taken, and nobody can say so.
    assert_eq!(code(&alice.ack().await), Some(ErrorCode::Unknown));
    cluster.heal();
    alice.say(send(session, 1, &["bob"])).await;
    assert_eq!(code(&alice.ack().await), None);
    assert_eq!(cluster.attempts(), [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn what_only_the_device_can_cure_is_told_to_it() {
    let cluster = Cluster::new();
    let here = gateway(&cluster);
    let (mut alice, session) = Device::with_session(&here, "alice").await;
    for n in 2..=3 {
        alice.say(send(session, n, &["bob"])).await;
        let ack = alice.ack().await;
        let Some(send_ack::Result::Failure(failure)) = &ack.result else { panic!("{ack:?}") };
        assert_eq!(failure.detail, Some(v1::failure::Detail::Expected(1)));
    }
    alice.say(send(session, 1, &["bob"])).await;
    assert_eq!(code(&alice.ack().await), None);
    // An ended session answers, and takes nothing more.
    alice.say(v1::Open { open_id: vec![1; 16], ends: session }).await;
    let Frame::Opened(opened) = alice.answer().await else { panic!("Opened comes") };
    assert!(matches!(opened.result, Some(v1::opened::Result::Session(_))), "{opened:?}");
    alice.say(send(session, 2, &["bob"])).await;
    let ack = alice.ack().await;
    let Some(send_ack::Result::Failure(failure)) = &ack.result else { panic!("{ack:?}") };
    assert_eq!(failure.detail, Some(v1::failure::Detail::LastN(1)));
    alice.say(v1::Open { open_id: vec![2; 16], ends: 0 }).await;
    let Frame::Opened(opened) = alice.answer().await else { panic!("Opened comes") };
    let Some(v1::opened::Result::Failure(stale)) = opened.result else { panic!("{opened:?}") };
    assert_eq!(stale.code(), v1::ErrorCode::Stale);
}

#[tokio::test(start_paused = true)]
async fn another_devices_session_ends_the_connection() {
    let cluster = Cluster::new();
    let here = gateway(&cluster);
    let (_alice, session) = Device::with_session(&here, "alice").await;
    let (mut other, _) = Device::welcomed(&here, hello("alice", "laptop")).await;
    other.say(send(session, 1, &["bob"])).await;
    let (code, error) = other.error().await;
    assert_eq!((code, error.frame, error.closing), (ErrorCode::Invalid, 3, true));
    assert!(other.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_sender_asks_what_became_of_a_message() {
    let cluster = Cluster::new();
    let here = gateway(&cluster);
    let (mut alice, session) = Device::with_session(&here, "alice").await;
    alice.say(send(session, 1, &["bob"])).await;
    alice.ack().await;
    let ask = |sender: &str, request_id, n| v1::Status {
        request_id,
        origin: Some(v1::Origin {
            sender: sender.to_owned(),
            key: Some(v1::origin::Key::SessionSend(v1::SessionSend { session, n })),
        }),
    };
    for (request_id, n, stage) in [(7, 1, v1::Stage::Delivered), (8, 2, v1::Stage::Unspecified)] {
        alice.say(ask("alice", request_id, n)).await;
        let Frame::StatusReply(reply) = alice.answer().await else { panic!("another frame") };
        assert_eq!(reply.request_id, request_id);
        assert_eq!(reply.status.unwrap().stage(), stage);
    }
    alice.say(ask("bob", 9, 1)).await;
    let Frame::Error(error) = alice.answer().await else { panic!("another frame") };
    let failure = tidemark_proto::Failure::from(error.failure.unwrap());
    assert_eq!(failure.code, ErrorCode::PermissionDenied);
    assert_eq!((error.frame, error.request_id, error.closing), (6, 9, false));
}
