//! What passes by: that somebody types, and who is there.

use std::sync::atomic::Ordering;

use tidemark_gateway::limits::Limits;
use tidemark_proto::convert::error_code;
use tidemark_proto::v1;
use tidemark_proto::v1::server_frame::Frame;
use tidemark_store_core::Command;
use tidemark_types::ErrorCode;

use crate::device::{Device, gateway, gateway_with, hello};
use crate::store::Cluster;

fn to(user: &str, typing: bool) -> v1::Typing {
    v1::Typing { user: user.to_owned(), typing }
}

#[tokio::test(start_paused = true)]
async fn who_types_is_told_wherever_the_other_one_is() {
    let cluster = Cluster::new();
    let (here, there) = (gateway(&cluster), gateway(&cluster));
    let (alice, _) = Device::welcomed(&here, hello("alice", "phone")).await;
    let (mut bob, _) = Device::welcomed(&there, hello("bob", "phone")).await;
    alice.say(to("bob", true)).await;
    assert_eq!(bob.hear().await, Frame::Typing(to("alice", true)));
    alice.say(to("bob", false)).await;
    assert_eq!(bob.hear().await, Frame::Typing(to("alice", false)));
    // Nobody is there, and nobody waits.
    alice.say(to("carol", true)).await;
    let (mut carol, _) = Device::welcomed(&there, hello("carol", "phone")).await;
    assert!(carol.hears_nothing().await);
}

#[tokio::test(start_paused = true)]
async fn who_is_blocked_is_not_heard_and_sees_nothing() {
    let cluster = Cluster::new();
    let here = gateway(&cluster);
    let (mut alice, _) = Device::welcomed(&here, hello("alice", "phone")).await;
    let (mut bob, _) = Device::welcomed(&here, hello("bob", "phone")).await;
    let ask = |request_id| v1::Presence { request_id, user: "bob".to_owned() };
    alice.say(ask(1)).await;
    let Frame::PresenceReply(reply) = alice.hear().await else { panic!("another frame") };
    assert!(reply.request_id == 1 && reply.status.expect("known").online);
    let (user, sender) = ("bob".parse().unwrap(), "alice".parse().unwrap());
    cluster.apply(&Command::Block { user, sender, blocked: true });
    alice.say(to("bob", true)).await;
    assert!(bob.hears_nothing().await);
    alice.say(ask(2)).await;
    let Frame::PresenceReply(reply) = alice.hear().await else { panic!("another frame") };
    assert_eq!(reply.status, Some(v1::PresenceStatus::default()));
}

#[tokio::test(start_paused = true)]
async fn typing_that_comes_too_fast_is_dropped() {
    let cluster = Cluster::new();
    let here = gateway(&cluster);
    let (alice, _) = Device::welcomed(&here, hello("alice", "phone")).await;
    let (mut bob, _) = Device::welcomed(&here, hello("bob", "phone")).await;
    let mut heard = 0;
    for number in 0..50 {
        alice.say(to("bob", number % 2 == 0)).await;
    }
    while !bob.hears_nothing().await {
        heard += 1;
    }
    assert!((1..=8).contains(&heard), "{heard}");
}

fn watching(users: &[&str]) -> v1::WatchPresence {
    v1::WatchPresence { users: users.iter().map(|&user| user.to_owned()).collect() }
}

/// Who is said to be there, or not.
async fn change(device: &mut Device) -> (String, bool) {
    match device.hear().await {
        Frame::PresenceChange(v1::PresenceChange { user, status }) => {
            (user, status.expect("it is told").online)
        }
        other => panic!("{other:?}"),
    }
}

fn is(user: &str, online: bool) -> (String, bool) {
    (user.to_owned(), online)
}

#[tokio::test(start_paused = true)]
async fn who_watches_is_told_who_comes_and_who_goes() {
    let cluster = Cluster::new();
    let (here, there) = (gateway(&cluster), gateway(&cluster));
    let (mut alice, _) = Device::welcomed(&here, hello("alice", "phone")).await;
    let (mut desk, _) = Device::welcomed(&here, hello("alice", "desk")).await;
    alice.say(watching(&["bob", "carol"])).await;
    let mut told = [change(&mut alice).await, change(&mut alice).await];
    told.sort();
    assert_eq!(told, [is("bob", false), is("carol", false)], "how it is");
    let (bob, _) = Device::welcomed(&there, hello("bob", "phone")).await;
    assert_eq!(change(&mut alice).await, is("bob", true));
    // Another of her devices, later, is told for itself.
    desk.say(watching(&["bob"])).await;
    assert_eq!(change(&mut desk).await, is("bob", true));
    assert_eq!(change(&mut alice).await, is("bob", true), "once more, which does no harm");
    drop(bob);
    assert_eq!(change(&mut alice).await, is("bob", false));
    assert_eq!(change(&mut desk).await, is("bob", false));
    // She watches somebody else instead.
    alice.say(watching(&["carol"])).await;
    let (_bob, _) = Device::welcomed(&there, hello("bob", "phone")).await;
    assert_eq!(change(&mut desk).await, is("bob", true));
    assert!(alice.hears_nothing().await);
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_at_once_was_not_away() {
    let cluster = Cluster::new();
    let (here, there) = (gateway(&cluster), gateway(&cluster));
    let (mut alice, _) = Device::welcomed(&here, hello("alice", "phone")).await;
    let (_bob, _) = Device::welcomed(&there, hello("bob", "phone")).await;
    alice.say(watching(&["bob"])).await;
    assert_eq!(change(&mut alice).await, is("bob", true));
    // His device is logged out, and at once there is another.
    let (user, device) = ("bob".parse().unwrap(), "phone".parse().unwrap());
    cluster.apply(&Command::LogOut { user, device });
    let (_desk, _) = Device::welcomed(&here, hello("bob", "desk")).await;
    for _ in 0..10 {
        assert!(alice.hears_nothing().await);
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_blocked_sees_one_who_goes() {
    let cluster = Cluster::new();
    let here = gateway(&cluster);
    let (mut alice, _) = Device::welcomed(&here, hello("alice", "phone")).await;
    let (_bob, _) = Device::welcomed(&here, hello("bob", "phone")).await;
    alice.say(watching(&["bob"])).await;
    assert_eq!(change(&mut alice).await, is("bob", true));
    let block = |blocked| {
        let (user, sender) = ("bob".parse().unwrap(), "alice".parse().unwrap());
        cluster.apply(&Command::Block { user, sender, blocked });
    };
    block(true);
    let Frame::PresenceChange(told) = alice.hear().await else { panic!("another frame") };
    assert_eq!(told.status, Some(v1::PresenceStatus::default()), "nothing is known of him");
    block(false);
    assert_eq!(change(&mut alice).await, is("bob", true));
}

#[tokio::test(start_paused = true)]
async fn who_may_not_follow_a_user_is_told_and_may_name_that_one_again() {
    let cluster = Cluster::new();
    let here = gateway(&cluster);
    let (mut alice, _) = Device::welcomed(&here, hello("alice", "phone")).await;
    cluster.crowded.store(true, Ordering::SeqCst);
    alice.say(watching(&["bob"])).await;
    let Frame::Error(error) = alice.hear().await else { panic!("another frame") };
    assert_eq!((error.frame, error.closing), (11, false));
    let failure = error.failure.expect("a reason");
    assert_eq!(error_code(failure.code), ErrorCode::Overloaded);
    assert!(failure.retry_after_ms > 0);
    cluster.crowded.store(false, Ordering::SeqCst);
    alice.say(watching(&[])).await;
    alice.say(watching(&["bob"])).await;
    assert_eq!(change(&mut alice).await, is("bob", false));
}

#[tokio::test(start_paused = true)]
async fn a_device_watches_as_many_as_it_may() {
    let cluster = Cluster::new();
    let here = gateway_with(&cluster, Limits { presence_max: 2, ..Limits::default() });
    let (mut alice, _) = Device::welcomed(&here, hello("alice", "phone")).await;
    alice.say(watching(&["bob"])).await;
    assert_eq!(change(&mut alice).await, is("bob", false));
    alice.say(watching(&["bob", "carol", "dave"])).await;
    let Frame::Error(error) = alice.hear().await else { panic!("another frame") };
    assert_eq!((error.frame, error.closing), (11, false));
    assert_eq!(error_code(error.failure.expect("a reason").code), ErrorCode::Invalid);
    // Nothing has changed.
    let (_bob, _) = Device::welcomed(&here, hello("bob", "phone")).await;
    assert_eq!(change(&mut alice).await, is("bob", true));
}
