//! What passes by: that somebody types, and who is there.

use tidemark_proto::v1;
use tidemark_proto::v1::server_frame::Frame;
use tidemark_store_core::Command;

use crate::device::{Device, gateway, hello};
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
