//! How connections begin and end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tidemark_gateway::limits::Limits;
use tidemark_proto::v1;
use tidemark_proto::v1::server_frame::Frame;
use tidemark_store_core::Command;
use tidemark_store_core::value::PushTarget;
use tidemark_types::{ErrorCode, Seq};
use tokio::time::Instant;

use crate::device::{Device, gateway, gateway_with, hello, hello_at, send, texts};
use crate::store::Cluster;

/// It is told why, and cut.
async fn cut(mut device: Device, wanted: ErrorCode) -> v1::Error {
    let (code, error) = device.error().await;
    assert_eq!((code, error.closing), (wanted, true));
    assert!(device.next().await.is_none());
    error
}

async fn refused(hello: v1::Hello, wanted: ErrorCode) {
    let cluster = Cluster::new();
    let device = Device::connect(&gateway(&cluster));
    device.say(hello).await;
    assert_eq!(cut(device, wanted).await.frame, 1);
}

#[tokio::test(start_paused = true)]
async fn a_bad_hello_ends_the_connection() {
    let good = || hello("alice", "phone");
    let token = |token: &str| v1::Hello { token: token.to_owned(), ..good() };
    refused(token("nobody"), ErrorCode::Unauthenticated).await;
    refused(token("alice:0"), ErrorCode::TokenExpired).await;
    refused(token("mallory:1000"), ErrorCode::PermissionDenied).await;
    refused(v1::Hello { user: String::new(), ..good() }, ErrorCode::Invalid).await;
    refused(v1::Hello { cluster_id: vec![8; 16], ..good() }, ErrorCode::WrongCluster).await;
}

#[tokio::test(start_paused = true)]
async fn a_hello_that_nobody_can_answer_may_be_said_again() {
    let cluster = Cluster::new();
    let here = gateway(&cluster);
    cluster.down.store(true, Ordering::SeqCst);
    let mut device = Device::connect(&here);
    device.say(hello("alice", "phone")).await;
    let (code, error) = device.error().await;
    assert_eq!((code, error.frame, error.closing), (ErrorCode::Unavailable, 1, false));
    cluster.down.store(false, Ordering::SeqCst);
    device.say(hello("alice", "phone")).await;
    device.welcome().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_comes_before_hello_and_not_for_long() {
    let cluster = Cluster::new();
    let here = gateway(&cluster);
    let device = Device::connect(&here);
    device.say(send(1, 1, &["bob"])).await;
    assert_eq!(cut(device, ErrorCode::Unauthenticated).await.frame, 3);
    let began = Instant::now();
    cut(Device::connect(&here), ErrorCode::Unauthenticated).await;
    assert_eq!(began.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_is_not_known_or_too_large_is_refused_and_the_connection_goes_on() {
    let cluster = Cluster::new();
    let here = gateway(&cluster);
    let (mut device, _) = Device::welcomed(&here, hello("alice", "phone")).await;
    for code in [ErrorCode::UnknownFrame, ErrorCode::FrameTooLarge] {
        device.garble(code).await;
        let (told, error) = device.error().await;
        assert_eq!((told, error.frame, error.closing), (code, 0, false));
    }
    device.say(v1::Ping { nonce: 1, epoch: 1, seq_cli: 0 }).await;
    assert!(matches!(device.hear().await, Frame::Pong(_)));
    device.garble(ErrorCode::Invalid).await;
    cut(device, ErrorCode::Invalid).await;
    let (device, _) = Device::welcomed(&here, hello("alice", "phone")).await;
    device.say(v1::Send { n: 0, ..send(1, 1, &["bob"]) }).await;
    assert_eq!(cut(device, ErrorCode::Invalid).await.frame, 3);
}

#[tokio::test(start_paused = true)]
async fn a_silent_device_is_cut_and_a_ping_keeps_it() {
    let cluster = Cluster::new();
    let limits = Limits { heartbeat_max: Duration::from_secs(60), ..Limits::default() };
    let here = gateway_with(&cluster, limits);
    let began = Instant::now();
    let (mut device, welcome) = Device::welcomed(&here, hello("alice", "phone")).await;
    assert_eq!(welcome.heartbeat_max_ms, 60_000);
    tokio::time::sleep(Duration::from_secs(50)).await;
    device.say(v1::Ping { nonce: 1, epoch: 1, seq_cli: 0 }).await;
    assert!(matches!(device.hear().await, Frame::Pong(pong) if pong.server_time_ms > 0));
    assert!(device.next().await.is_none());
    assert_eq!(began.elapsed().as_secs(), 110);
}

#[tokio::test(start_paused = true)]
async fn an_expired_token_ends_the_connection_unless_it_is_renewed() {
    let cluster = Cluster::new();
    let limits = Limits { heartbeat_max: Duration::from_secs(600), ..Limits::default() };
    let here = gateway_with(&cluster, limits);
    let token = |seconds: u32| format!("alice:{seconds}");
    let began = Instant::now();
    let first = v1::Hello { token: token(20), ..hello("alice", "phone") };
    let (mut device, welcome) = Device::welcomed(&here, first).await;
    let expires = welcome.token_expires_ms;
    tokio::time::sleep(Duration::from_secs(30)).await;
    device.say(v1::Hello { token: token(40), ..hello_at("alice", "phone", 1, 0) }).await;
    assert_eq!(device.welcome().await.token_expires_ms, expires + 20_000);
    cut(device, ErrorCode::TokenExpired).await;
    let cut_after = began.elapsed().as_secs() - 40;
    assert!((1..=60).contains(&cut_after), "{cut_after} s after it expired");
}

#[tokio::test(start_paused = true)]
async fn a_second_hello_starts_delivery_anew_and_keeps_who_it_is() {
    let cluster = Cluster::new();
    let here = gateway(&cluster);
    let (alice, session) = Device::with_session(&here, "alice").await;
    let (mut bob, _) = Device::welcomed(&here, hello("bob", "phone")).await;
    alice.say(send(session, 1, &["bob"])).await;
    bob.delivered(0, 1).await;
    bob.say(hello_at("bob", "phone", 1, 0)).await;
    assert_eq!(bob.welcome().await.start, 0);
    assert_eq!(texts(&bob.page().await), ["1/1"]);
    alice.say(send(session, 2, &["bob"])).await;
    bob.delivered(1, 2).await;
    bob.say(hello_at("bob", "tablet", 1, 0)).await;
    cut(bob, ErrorCode::PermissionDenied).await;
}

#[tokio::test(start_paused = true)]
async fn a_device_that_connects_again_takes_its_own_place() {
    let cluster = Cluster::new();
    let here = gateway(&cluster);
    let (old, _) = Device::welcomed(&here, hello("alice", "phone")).await;
    let (mut other, _) = Device::welcomed(&here, hello("alice", "laptop")).await;
    let (mut new, _) = Device::welcomed(&here, hello("alice", "phone")).await;
    assert!(cut(old, ErrorCode::Displaced).await.failure.unwrap().retry_after_ms > 0);
    for device in [&mut new, &mut other] {
        device.say(v1::Ping { nonce: 1, epoch: 1, seq_cli: 0 }).await;
        assert!(matches!(device.hear().await, Frame::Pong(_)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_that_connects_to_another_gateway_is_displaced_here() {
    let cluster = Cluster::new();
    let (here, there) = (gateway(&cluster), gateway(&cluster));
    let (old, _) = Device::welcomed(&here, hello("alice", "phone")).await;
    let (mut laptop, _) = Device::welcomed(&here, hello("alice", "laptop")).await;
    let (mut new, _) = Device::welcomed(&there, hello("alice", "phone")).await;
    assert!(cut(old, ErrorCode::Displaced).await.failure.unwrap().retry_after_ms > 0);
    // A renewed token is no reason to go.
    new.greet(hello_at("alice", "phone", 1, 0)).await;
    for device in [&mut new, &mut laptop] {
        device.say(v1::Ping { nonce: 1, epoch: 1, seq_cli: 0 }).await;
        assert!(matches!(device.hear().await, Frame::Pong(_)));
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_logged_out_or_forgotten_is_cut_off_wherever_it_is() {
    let cluster = Cluster::new();
    let (here, there) = (gateway(&cluster), gateway(&cluster));
    let (user, device) = (|| "alice".parse().unwrap(), |name: &str| name.parse().unwrap());
    let (phone, _) = Device::welcomed(&here, hello("alice", "phone")).await;
    let (tablet, _) = Device::welcomed(&there, hello("alice", "tablet")).await;
    let (mut watch, _) = Device::welcomed(&there, hello("alice", "watch")).await;
    cluster.apply(&Command::LogOut { user: user(), device: device("phone") });
    assert_eq!(cut(phone, ErrorCode::LoggedOut).await.failure.unwrap().retry_after_ms, 0);
    cluster.apply(&Command::ForgetDevice { user: user(), device: device("tablet") });
    cut(tablet, ErrorCode::NoDevice).await;
    watch.say(v1::Ping { nonce: 1, epoch: 1, seq_cli: 0 }).await;
    assert!(matches!(watch.hear().await, Frame::Pong(_)));

    // What no watch told is told when the watch begins anew.
    let (phone, _) = Device::welcomed(&there, hello("alice", "phone")).await;
    cluster.unheard(&Command::LogOut { user: user(), device: device("phone") });
    cluster.unheard(&Command::ForgetDevice { user: user(), device: device("watch") });
    cluster.fail_over(None);
    cut(phone, ErrorCode::LoggedOut).await;
    cut(watch, ErrorCode::NoDevice).await;
}

#[tokio::test(start_paused = true)]
async fn a_logged_out_device_confirms_nothing_more() {
    let cluster = Cluster::new();
    let here = gateway(&cluster);
    let (phone, _) = Device::welcomed(&here, hello("alice", "phone")).await;
    let (user, device) = ("alice".parse().unwrap(), "phone".parse().unwrap());
    let draft = Command::Adopt { user: "alice".parse().unwrap(), seq: Seq::new(3) };
    cluster.unheard(&draft);
    cluster.unheard(&Command::LogOut { user, device });
    phone.say(v1::Ack { epoch: 1, seq: 2 }).await;
    assert_eq!(cut(phone, ErrorCode::LoggedOut).await.frame, 4, "it is the Ack that is refused");
}

#[tokio::test(start_paused = true)]
async fn the_store_learns_of_the_end_of_each_connection() {
    let cluster = Cluster::new();
    let here = gateway(&cluster);
    let (user, device) = (|| "alice".parse().unwrap(), || "phone".parse().unwrap());
    let departs = async |phone| {
        drop(phone);
        while here.connections() > 0 {
            tokio::task::yield_now().await;
        }
        let changes = cluster.changes().into_iter();
        changes.filter(|change| change.starts_with("Depart")).collect::<Vec<_>>()
    };
    let (phone, _) = Device::welcomed(&here, hello("alice", "phone")).await;
    let told = departs(phone).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("connection: 1"), "{told:?}");
    let target = PushTarget { provider: "log".to_owned(), target: "token".to_owned() };
    cluster.apply(&Command::SetPush { user: user(), device: device(), target: Some(target) });
    let (phone, _) = Device::welcomed(&here, hello("alice", "phone")).await;
    let told = departs(phone).await;
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[1].contains("connection: 3"), "the token has a number too: {told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_full_gateway_refuses_until_somebody_leaves() {
    let cluster = Cluster::new();
    let here = gateway_with(&cluster, Limits { connections_max: 1, ..Limits::default() });
    let device = Device::connect(&here);
    let failure = Device::try_connect(&here).err().expect("it is full");
    assert_eq!(failure.code, ErrorCode::Overloaded);
    assert!(failure.retry_after.is_some());
    assert_eq!(here.connections(), 1);
    drop(device);
    while here.connections() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(Device::try_connect(&here).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_stops_sends_its_devices_away_and_waits_for_them() {
    let cluster = Cluster::new();
    let here = gateway(&cluster);
    let (mut leaves, _) = Device::welcomed(&here, hello("bob", "phone")).await;
    let (mut stays, session) = Device::with_session(&here, "alice").await;
    let (spread, grace) = (Duration::from_secs(5), Duration::from_secs(20));
    let began = Instant::now();
    let drained = tokio::spawn({
        let here = here.clone();
        async move { here.drain(spread, grace).await }
    });
    let mut told = Vec::new();
    for device in [&mut leaves, &mut stays] {
        let Frame::GoAway(go_away) = device.hear().await else { panic!("GoAway comes") };
        assert_eq!(go_away.close_after_ms, 20_000);
        assert!(go_away.reconnect_after_ms < 5_000);
        told.push(go_away.reconnect_after_ms);
    }
    assert_ne!(told[0], told[1], "each at its own time");
    let failure = Device::try_connect(&here).err().expect("it stops");
    assert_eq!(failure.code, ErrorCode::GoingAway);
    drop(leaves);
    // What is under way is finished here.
    stays.say(send(session, 1, &["bob"])).await;
    stays.ack().await;
    while stays.next().await.is_some() {}
    drained.await.expect("it ends");
    assert_eq!(began.elapsed().as_secs(), 20);
    assert_eq!(here.connections(), 0);
}
