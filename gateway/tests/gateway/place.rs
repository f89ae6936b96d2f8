//! `Hello`, `Welcome`, cursors, resets.

use std::sync::atomic::Ordering;

use tidemark_gateway::devices::Devices;
use tidemark_proto::v1;
use tidemark_proto::v1::server_frame::Frame;
use tidemark_store_core::Command;
use tidemark_types::{Epoch, ErrorCode};

use crate::device::{Device, gateway, hello, hello_at, send, texts};
use crate::store::{Cluster, cluster_id};

#[tokio::test(start_paused = true)]
async fn a_new_device_learns_where_it_starts_and_gets_the_rest() {
    let cluster = Cluster::new();
    let (here, there) = (gateway(&cluster), gateway(&cluster));
    let (mut alice, session) = Device::with_session(&here, "alice").await;
    for n in 1..=3 {
        alice.say(send(session, n, &["bob"])).await;
        alice.ack().await;
    }
    let (mut bob, welcome) = Device::welcomed(&there, hello("bob", "phone")).await;
    assert_eq!(welcome.cluster_id, cluster_id().as_bytes()[..]);
    assert_eq!((welcome.epoch, welcome.seq_svr, welcome.start), (1, 3, 0));
    assert_eq!((welcome.live_session, welcome.send_window), (0, 256));
    let page = bob.page().await;
    assert_eq!((page.request_id, texts(&page).len()), (0, 3));

    let last = v1::Start { at: v1::StartAt::Last.into(), last: 1 };
    let last = v1::Hello { start: Some(last), ..hello("bob", "tablet") };
    let (mut tablet, welcome) = Device::welcomed(&here, last).await;
    assert_eq!(welcome.start, 2);
    assert_eq!(texts(&tablet.page().await), ["1/3"]);

    let head = v1::Start { at: v1::StartAt::Head.into(), last: 0 };
    let head = v1::Hello { start: Some(head), ..hello("bob", "laptop") };
    let (mut laptop, welcome) = Device::welcomed(&here, head).await;
    assert_eq!(welcome.start, 3);
    assert!(laptop.hears_nothing().await);
}

#[tokio::test(start_paused = true)]
async fn delivery_starts_at_the_devices_own_cursor() {
    let cluster = Cluster::new();
    let here = gateway(&cluster);
    let (mut alice, session) = Device::with_session(&here, "alice").await;
    for n in 1..=4 {
        alice.say(send(session, n, &["bob"])).await;
        alice.ack().await;
    }
    let (_, welcome) = Device::welcomed(&here, hello_at("bob", "phone", 1, 3)).await;
    assert_eq!(welcome.start, 3);
    assert_eq!(cluster.confirms(), [3], "a Hello confirms as an Ack does");
    // Lower than what the server remembers: it is what counts, and confirms nothing.
    let (mut bob, welcome) = Device::welcomed(&here, hello_at("bob", "phone", 1, 1)).await;
    assert_eq!(welcome.start, 1);
    assert_eq!(texts(&bob.page().await), ["1/2", "1/3", "1/4"]);
    assert_eq!(cluster.confirms(), [3]);
    // The live session is found again.
    let (_, welcome) = Device::welcomed(&here, hello_at("alice", "phone", 1, 0)).await;
    assert_eq!(welcome.live_session, session);
}

#[tokio::test(start_paused = true)]
async fn an_impossible_cursor_gets_a_reset_and_then_everything() {
    let cluster = Cluster::new();
    let here = gateway(&cluster);
    let (mut alice, session) = Device::with_session(&here, "alice").await;
    alice.say(send(session, 1, &["bob"])).await;
    alice.ack().await;
    for (epoch, seq) in [(1, 2), (2, 0)] {
        let mut bob = Device::connect(&here);
        bob.say(hello_at("bob", "phone", epoch, seq)).await;
        let Frame::Reset(reset) = bob.hear().await else { panic!("a Reset comes") };
        assert_eq!((reset.epoch, reset.floor, reset.head), (1, 0, 1));
        bob.say(hello_at("bob", "phone", reset.epoch, reset.floor)).await;
        assert_eq!(bob.welcome().await.start, 0);
        assert_eq!(texts(&bob.page().await), ["1/1"]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_ack_a_sync_and_a_ping_of_nowhere_get_a_reset() {
    let cluster = Cluster::new();
    let here = gateway(&cluster);
    for frame in [
        v1::ClientFrame::from(v1::Ack { epoch: 1, seq: 9 }),
        v1::Sync { request_id: 1, epoch: 2, ..Default::default() }.into(),
        v1::Sync { request_id: 1, epoch: 1, seq_cli: 9, limit: 0 }.into(),
        v1::Ping { nonce: 1, epoch: 2, seq_cli: 0 }.into(),
    ] {
        let (mut bob, _) = Device::welcomed(&here, hello("bob", "phone")).await;
        bob.say(frame).await;
        let Frame::Reset(reset) = bob.hear().await else { panic!("a Reset comes") };
        assert_eq!((reset.epoch, reset.floor, reset.head), (1, 0, 0));
        // Until the next Hello it has no place; what still comes from the old one is passed over.
        bob.say(v1::Ack { epoch: 1, seq: 9 }).await;
        assert!(bob.hears_nothing().await);
        bob.say(hello_at("bob", "phone", 1, 0)).await;
        bob.welcome().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_mailbox_that_was_restored_resets_its_devices() {
    let cluster = Cluster::new();
    let here = gateway(&cluster);
    let (mut bob, _) = Device::welcomed(&here, hello("bob", "phone")).await;
    cluster.fail_over(Some(Epoch::new(2)));
    let Frame::Reset(reset) = bob.hear().await else { panic!("a Reset comes") };
    assert_eq!(reset.epoch, 2);
}

async fn who_has_sent_nine_to_bob(here: &Devices) -> Device {
    let (mut alice, session) = Device::with_session(here, "alice").await;
    for n in 1..=9 {
        alice.say(send(session, n, &["bob"])).await;
        alice.ack().await;
    }
    alice
}

#[tokio::test(start_paused = true)]
async fn acks_are_collected_and_the_last_one_survives_the_connection() {
    let cluster = Cluster::new();
    let here = gateway(&cluster);
    let _alice = who_has_sent_nine_to_bob(&here).await;
    let (mut bob, _) = Device::welcomed(&here, hello("bob", "phone")).await;
    bob.page().await;
    for seq in 1..=5 {
        bob.say(v1::Ack { epoch: 1, seq }).await;
    }
    bob.say(v1::Ack { epoch: 1, seq: 2 }).await;
    assert!(bob.hears_nothing().await);
    assert_eq!(cluster.confirms(), [5]);
    bob.say(v1::Ping { nonce: 4, epoch: 1, seq_cli: 8 }).await;
    assert!(matches!(bob.hear().await, Frame::Pong(pong) if pong.nonce == 4 && pong.seq_svr == 9));
    drop(bob);
    while cluster.confirms().len() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(cluster.confirms(), [5, 8]);
}

#[tokio::test(start_paused = true)]
async fn what_the_store_does_not_answer_is_confirmed_later_and_only_the_newest() {
    let cluster = Cluster::new();
    let here = gateway(&cluster);
    let _alice = who_has_sent_nine_to_bob(&here).await;
    let (mut bob, _) = Device::welcomed(&here, hello("bob", "phone")).await;
    let (mut tablet, _) = Device::welcomed(&here, hello("bob", "tablet")).await;
    bob.page().await;
    tablet.page().await;
    cluster.down.store(true, Ordering::SeqCst);
    for device in [&bob, &tablet] {
        device.say(v1::Ack { epoch: 1, seq: 5 }).await;
    }
    assert!(bob.hears_nothing().await && tablet.hears_nothing().await);
    bob.say(v1::Ack { epoch: 1, seq: 7 }).await;
    let before = cluster.confirms();
    cluster.down.store(false, Ordering::SeqCst);
    assert!(bob.hears_nothing().await && tablet.hears_nothing().await);
    let mut told = cluster.confirms().split_off(before.len());
    told.sort_unstable();
    assert_eq!(told, [5, 7]);
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_device_is_told_to_register() {
    let cluster = Cluster::new();
    let here = gateway(&cluster);
    let (mut bob, _) = Device::welcomed(&here, hello("bob", "phone")).await;
    let (user, device) = ("bob".parse().unwrap(), "phone".parse().unwrap());
    // Nobody told the gateway, which would have cut it off.
    cluster.unheard(&Command::ForgetDevice { user, device });
    bob.say(v1::Ack { epoch: 1, seq: 1 }).await;
    let (code, error) = bob.error().await;
    assert_eq!((code, error.frame, error.closing), (ErrorCode::NoDevice, 4, false));
    bob.say(hello_at("bob", "phone", 1, 0)).await;
    bob.welcome().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_among_many_is_told_to_its_device_alone() {
    let cluster = Cluster::new();
    let here = gateway(&cluster);
    let _alice = who_has_sent_nine_to_bob(&here).await;
    let mut bobs = Vec::new();
    for name in ["phone", "tablet", "watch"] {
        let (mut device, _) = Device::welcomed(&here, hello("bob", name)).await;
        device.page().await;
        bobs.push(device);
    }
    let (user, device) = ("bob".parse().unwrap(), "tablet".parse().unwrap());
    cluster.unheard(&Command::ForgetDevice { user, device });
    for (device, seq) in bobs.iter().zip(1..) {
        device.say(v1::Ack { epoch: 1, seq }).await;
    }
    let (code, error) = bobs[1].error().await;
    assert_eq!((code, error.frame, error.closing), (ErrorCode::NoDevice, 4, false));
    for device in &mut bobs {
        assert!(device.hears_nothing().await);
    }
    let together = cluster.changes().into_iter().find(|change| change.contains("confirm"));
    assert_eq!(together.as_deref(), Some("confirm bob 1, confirm bob 2, confirm bob 3"));
    assert_eq!(cluster.confirms(), [1, 2, 3], "nothing is said again");
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_in_an_earlier_place_does_not_end_a_later_one() {
    let cluster = Cluster::new();
    let here = gateway(&cluster);
    let (mut bob, _) = Device::welcomed(&here, hello("bob", "phone")).await;
    let (user, device) = ("bob".parse().unwrap(), "phone".parse().unwrap());
    cluster.unheard(&Command::ForgetDevice { user, device });
    cluster.confirmed.forget_permits(usize::MAX >> 3);
    bob.say(v1::Ack { epoch: 1, seq: 1 }).await;
    assert!(bob.hears_nothing().await);
    assert_eq!(cluster.confirms(), [1], "it was refused, and nobody knows yet");
    bob.say(hello("bob", "phone")).await;
    bob.welcome().await;
    cluster.confirmed.add_permits(1_000);
    assert!(bob.hears_nothing().await);
    bob.say(v1::Ping { nonce: 4, epoch: 1, seq_cli: 0 }).await;
    assert!(matches!(bob.hear().await, Frame::Pong(pong) if pong.nonce == 4));
}
