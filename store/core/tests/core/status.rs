//! How far back a message is looked for; the rest is in the script `message_status`.

use bytes::Bytes;
use tidemark_store_core::Command;
use tidemark_store_core::command::{BackendSend, Draft};
use tidemark_store_core::status::message;
use tidemark_store_core::value::{Origin, Settings};
use tidemark_types::{ClientMsgId, ContentHash, Recipient, ShardId, UnixMs, UserId};

use crate::cluster::Cluster;

const FIRST: u8 = 1;
const LATER: u8 = 2;

/// Alice, alone in her cluster, sends to herself `count` times.
fn fill(cluster: &mut Cluster, alice: &UserId, id: u8, from: u64, count: u64) {
    let sends = (from..from + count).map(|time| {
        let to = vec![Recipient::User(alice.clone())];
        let body = Bytes::from_static(b"x");
        let content = ContentHash::of(&to, 1, &body);
        let client_msg_id = ClientMsgId::new(UnixMs::new(time), [id; 10]);
        let draft = Draft { to, kind: 1, client_msg_id, body, act: None };
        Command::BackendSend(BackendSend { sender: alice.clone(), content, draft })
    });
    let sends = sends.collect();
    cluster.apply(ShardId::new(0), sends);
}

#[test]
fn without_an_acknowledgement_a_message_is_looked_for_among_the_newest() {
    let alice = UserId::new("alice").unwrap();
    let mut cluster = Cluster::new(1, Settings::default());
    let origin = Origin::Backend {
        sender: alice.clone(),
        id: ClientMsgId::new(UnixMs::new(0), [FIRST; 10]),
    };
    let status = |cluster: &Cluster| message(cluster.state(ShardId::new(0)), &origin).unwrap();
    let week = Settings::default().dedup_window;
    let now = UnixMs::new(0).plus(week).plus(week);

    fill(&mut cluster, &alice, FIRST, 0, 1);
    fill(&mut cluster, &alice, LATER, now.get(), 4_095);
    let known = status(&cluster).expect("its acknowledgement is stored");
    cluster.apply(ShardId::new(0), vec![Command::Expire { now }]);
    assert_eq!(status(&cluster), Some(known), "it is the oldest that is looked at");
    fill(&mut cluster, &alice, LATER, now.get() + 4_095, 1);
    assert_eq!(status(&cluster), None);
}
