//! New entries on their way to devices.

use std::sync::atomic::Ordering;

use tidemark_gateway::limits::Limits;
use tidemark_proto::v1;
use tidemark_proto::v1::server_frame::Frame;
use tidemark_store_core::Command;
use tidemark_store_core::command::{Draft, Judged, Send};
use tidemark_types::{ClientMsgId, ContentHash, ErrorCode, Recipient, SessionId, UnixMs};

use crate::device::{Device, gateway, gateway_with, hello, hello_at, send, text, texts};
use crate::store::Cluster;

fn sync(request_id: u64, seq_cli: u32, limit: u32) -> v1::Sync {
    v1::Sync { request_id, epoch: 1, seq_cli, limit }
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_here_is_delivered_there_in_order() {
    let cluster = Cluster::new();
    let (here, there) = (gateway(&cluster), gateway(&cluster));
    let (mut phone, _) = Device::welcomed(&there, hello("bob", "phone")).await;
    let (mut tablet, _) = Device::welcomed(&here, hello("bob", "tablet")).await;
    let (mut alice, session) = Device::with_session(&here, "alice").await;
    let (mut own, _) = Device::welcomed(&there, hello("alice", "laptop")).await;
    for n in 1..=20 {
        alice.say(send(session, n, &["bob"])).await;
    }
    let wanted: Vec<_> = (1..=20).map(|n| format!("{session}/{n}")).collect();
    for device in [&mut phone, &mut tablet, &mut own] {
        assert_eq!(device.delivered(0, 20).await, wanted);
    }
    // Its own device hears its sends as well, between their acknowledgements.
    let (mut acks, mut copies) = (0, Vec::new());
    while acks < 20 || copies.len() < 20 {
        match alice.hear().await {
            Frame::SendAck(_) => acks += 1,
            Frame::Deliver(run) => copies.extend(run.decoded().unwrap().iter().map(text)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(copies, wanted);
}

#[tokio::test(start_paused = true)]
async fn devices_with_different_cursors_each_get_what_they_lack() {
    let cluster = Cluster::new();
    let here = gateway(&cluster);
    let (alice, session) = Device::with_session(&here, "alice").await;
    for n in 1..=6 {
        alice.say(send(session, n, &["bob"])).await;
    }
    let (mut phone, _) = Device::welcomed(&here, hello_at("bob", "phone", 1, 0)).await;
    assert_eq!(texts(&phone.page().await).len(), 6);
    let (mut tablet, _) = Device::welcomed(&here, hello_at("bob", "tablet", 1, 4)).await;
    assert_eq!(texts(&tablet.page().await).len(), 2);
    alice.say(send(session, 7, &["bob"])).await;
    assert_eq!(phone.delivered(6, 7).await, tablet.delivered(6, 7).await);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_delivered_before_the_last_page_and_nothing_is_missing_after_it() {
    let cluster = Cluster::new();
    let here = gateway(&cluster);
    let (alice, session) = Device::with_session(&here, "alice").await;
    for n in 1..=4 {
        alice.say(send(session, n, &["bob"])).await;
    }
    let (mut bob, _) = Device::welcomed(&here, hello("bob", "phone")).await;
    bob.page().await;
    bob.say(sync(1, 0, 2)).await;
    let page = bob.page().await;
    assert_eq!((page.request_id, page.page.as_ref().unwrap().more), (1, true));
    // Entry 5 comes while the device pages, entry 6 while its last page is under way.
    alice.say(send(session, 5, &["bob"])).await;
    assert!(bob.hears_nothing().await);
    cluster.pages.forget_permits(usize::MAX >> 3);
    bob.say(sync(2, 2, 0)).await;
    assert!(bob.hears_nothing().await);
    alice.say(send(session, 6, &["bob"])).await;
    assert!(bob.hears_nothing().await);
    cluster.pages.add_permits(1_000);
    let page = bob.page().await;
    assert_eq!(texts(&page), ["1/3", "1/4", "1/5"]);
    assert!(!page.page.unwrap().more);
    assert_eq!(bob.delivered(5, 6).await, ["1/6"]);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_does_not_read_gets_a_notice_and_catches_up() {
    let cluster = Cluster::new();
    let here = gateway(&cluster);
    let (mut bob, _) = Device::welcomed(&here, hello("bob", "phone")).await;
    let (mut alice, session) = Device::with_session(&here, "alice").await;
    let sends = 1_000;
    let mut acked = 0;
    for n in 1..=sends {
        alice.say(v1::Send { base: n, ..send(session, n, &["bob"]) }).await;
        while acked < n {
            acked += u64::from(matches!(alice.hear().await, Frame::SendAck(_)));
        }
    }
    // It reads now: what was in the channel, then that there is more than the tail holds.
    let mut received = 0;
    let head = loop {
        match bob.hear().await {
            Frame::Deliver(run) => {
                assert_eq!(run.prev_seq, received);
                received += u32::try_from(run.entries.len()).unwrap();
            }
            Frame::Notice(notice) => break notice.head,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(u64::from(head), sends);
    assert!(u64::from(received) < sends / 2, "{received}: the gateway kept too much");
    let mut request_id = 0;
    loop {
        request_id += 1;
        bob.say(sync(request_id, received, 0)).await;
        let page = bob.page().await.page.unwrap();
        received += u32::try_from(page.entries.len()).unwrap();
        if !page.more {
            break;
        }
    }
    assert_eq!(received, head);
    alice.say(send(session, sends + 1, &["bob"])).await;
    bob.delivered(received, received + 1).await;
}

/// Takes everything up to `last` as a device does, and asks once for what it is told of; what it took,
/// and how many `Deliver`s and `Notice`s there were.
async fn caught_up(device: &mut Device, last: u32) -> (Vec<String>, usize, usize) {
    let (mut taken, mut delivers, mut notices) = (Vec::new(), 0, 0);
    let mut asked = false;
    while taken.len() < last as usize {
        let received = u32::try_from(taken.len()).unwrap();
        let entries = match device.hear().await {
            Frame::Deliver(run) => {
                delivers += 1;
                assert_eq!(run.prev_seq, received, "no Deliver across a gap");
                run.decoded().unwrap()
            }
            Frame::Notice(notice) => {
                notices += 1;
                assert!(notice.head > received, "of what it has");
                if !std::mem::replace(&mut asked, true) {
                    device.say(sync(1, received, 0)).await;
                }
                continue;
            }
            Frame::SyncPage(page) => {
                let page = page.page.unwrap();
                assert_eq!(page.prev_seq, received);
                asked = page.more;
                if page.more {
                    device.say(sync(1, received + page.entries.len() as u32, 0)).await;
                }
                page.entries
            }
            other => panic!("{other:?}"),
        };
        for entry in &entries {
            assert_eq!(entry.seq as usize, taken.len() + 1);
            taken.push(text(entry));
        }
    }
    (taken, delivers, notices)
}

#[tokio::test(start_paused = true)]
async fn where_mailboxes_have_no_room_together_each_device_still_gets_everything_once_in_order() {
    const SENDS: u32 = 100;
    let names: Vec<_> = (0..8).map(|n| format!("member-{n}")).collect();
    let to: Vec<_> = names.iter().map(String::as_str).collect();
    // Eight tails of 100 entries are some 100 kB.
    for (tails_bytes_max, some_delivers, some_notices) in
        [(0, false, true), (20_000, true, true), (1 << 20, true, false)]
    {
        let cluster = Cluster::new();
        let here = gateway_with(&cluster, Limits { tails_bytes_max, ..Limits::default() });
        let mut devices = Vec::new();
        for name in &names {
            devices.push(Device::welcomed(&here, hello(name, "phone")).await.0);
        }
        let (mut alice, session) = Device::with_session(&here, "alice").await;
        for n in 1..=SENDS.into() {
            alice.say(send(session, n, &to)).await;
            while !matches!(alice.hear().await, Frame::SendAck(_)) {}
        }
        let wanted: Vec<_> = (1..=SENDS).map(|n| format!("{session}/{n}")).collect();
        let (mut delivers, mut notices) = (0, 0);
        for device in &mut devices {
            let (taken, delivered, noticed) = caught_up(device, SENDS).await;
            assert_eq!(taken, wanted);
            delivers += delivered;
            notices += noticed;
        }
        let seen = (tails_bytes_max, delivers > 0, notices > 0);
        assert_eq!(seen, (tails_bytes_max, some_delivers, some_notices));
    }
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_is_not_told_is_noticed_and_what_follows_is_delivered() {
    let cluster = Cluster::new();
    let here = gateway(&cluster);
    let (mut bob, _) = Device::welcomed(&here, hello("bob", "phone")).await;
    let (alice, session) = Device::with_session(&here, "alice").await;
    cluster.heads_only.store(true, Ordering::SeqCst);
    alice.say(send(session, 1, &["bob"])).await;
    assert!(matches!(bob.hear().await, Frame::Notice(notice) if notice.head == 1));
    assert!(bob.hears_nothing().await, "one notice for one head");
    cluster.heads_only.store(false, Ordering::SeqCst);
    bob.say(sync(1, 0, 0)).await;
    assert_eq!(texts(&bob.page().await), ["1/1"]);
    alice.say(send(session, 2, &["bob"])).await;
    assert_eq!(bob.delivered(1, 2).await, ["1/2"]);
}

#[tokio::test(start_paused = true)]
async fn after_a_failover_a_higher_head_is_noticed_once() {
    let cluster = Cluster::new();
    let here = gateway(&cluster);
    let (mut bob, _) = Device::welcomed(&here, hello("bob", "phone")).await;
    let (alice, session) = Device::with_session(&here, "alice").await;
    alice.say(send(session, 1, &["bob"])).await;
    bob.delivered(0, 1).await;
    cluster.fail_over(None);
    assert!(bob.hears_nothing().await, "it has all of it");
    // Nobody told of this entry.
    let elsewhere = Send {
        user: "alice".parse().unwrap(),
        device: "phone".parse().unwrap(),
        session: SessionId::new(session).unwrap(),
        n: 2,
        base: 1,
        content: ContentHash::new(2),
        judged: Judged::Allow(Draft {
            to: vec![Recipient::User("bob".parse().unwrap())],
            kind: 1,
            client_msg_id: ClientMsgId::new(UnixMs::new(1), [1; 10]),
            body: "x".into(),
            act: None,
        }),
    };
    cluster.unheard(&Command::Send(elsewhere));
    assert!(bob.hears_nothing().await);
    cluster.fail_over(None);
    assert!(matches!(bob.hear().await, Frame::Notice(notice) if notice.head == 2));
    cluster.fail_over(None);
    assert!(bob.hears_nothing().await);
}

#[tokio::test(start_paused = true)]
async fn a_ping_is_answered_by_the_store_when_nothing_is_live() {
    let cluster = Cluster::new();
    let here = gateway(&cluster);
    let (mut bob, _) = Device::welcomed(&here, hello("bob", "phone")).await;
    let ping = |nonce| v1::Ping { nonce, epoch: 1, seq_cli: 0 };
    cluster.down.store(true, Ordering::SeqCst);
    bob.say(ping(1)).await;
    assert!(matches!(bob.hear().await, Frame::Pong(pong) if pong.nonce == 1));
    cluster.live.store(false, Ordering::SeqCst);
    bob.say(ping(2)).await;
    let (code, error) = bob.error().await;
    assert_eq!((code, error.frame, error.closing), (ErrorCode::Unavailable, 7, false));
    cluster.down.store(false, Ordering::SeqCst);
    bob.say(ping(3)).await;
    assert!(matches!(bob.hear().await, Frame::Pong(pong) if pong.nonce == 3));
}

#[tokio::test(start_paused = true)]
async fn a_page_that_cannot_be_read_is_asked_for_again() {
    let cluster = Cluster::new();
    let here = gateway(&cluster);
    let (mut alice, session) = Device::with_session(&here, "alice").await;
    alice.say(send(session, 1, &["bob"])).await;
    alice.ack().await;
    let (mut bob, _) = Device::welcomed(&here, hello("bob", "phone")).await;
    bob.page().await;
    cluster.blind.store(true, Ordering::SeqCst);
    bob.say(sync(5, 0, 0)).await;
    let (code, error) = bob.error().await;
    assert_eq!((code, error.frame, error.request_id), (ErrorCode::Unavailable, 5, 5));
    assert!(!error.closing);
    // After a Welcome nobody asked: the device is told that it has to.
    let (mut tablet, _) = Device::welcomed(&here, hello("bob", "tablet")).await;
    assert!(matches!(tablet.hear().await, Frame::Notice(notice) if notice.head == 1));
    cluster.blind.store(false, Ordering::SeqCst);
    bob.say(sync(6, 0, 0)).await;
    assert_eq!(bob.page().await.request_id, 6);
}
