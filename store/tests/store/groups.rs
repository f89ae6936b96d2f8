//! Large groups in a real node: the leader gives what is left to give, also what another start left.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tempfile::TempDir;
use tidemark_store::node::Node;
use tidemark_store_core::command::{BackendSend, Draft};
use tidemark_store_core::group::{GroupAction, GroupCommand, NewGroup, Policy};
use tidemark_store_core::group_read::{self, GroupInfo};
use tidemark_store_core::value::{Content, Verdict};
use tidemark_store_core::{Command, Read, Reply};
use tidemark_types::{ClientMsgId, ContentHash, GroupId, Id, Recipient, Seq, UserId};

use crate::look;
use crate::node::{config, start, start_new, stop, user};

const DEADLINE: Duration = Duration::from_secs(60);

/// An entry takes several portions, however many its commands give.
const MEMBERS: usize = 4_000;

const POSTS: u8 = 20;

fn town() -> GroupId {
    GroupId::new("town").unwrap()
}

fn member(number: usize) -> UserId {
    user(&format!("member-{number}"))
}

async fn change(node: &Node, action: GroupAction) {
    let command = Command::Group(GroupCommand { group: town(), by: None, action });
    assert_eq!(node.propose(command).await.unwrap(), Reply::Done);
}

async fn post(node: &Node, sender: UserId, number: u8) {
    let started = Instant::now();
    while node.time().now().is_none() {
        assert!(started.elapsed() < DEADLINE, "cluster time is not measured");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let to = vec![Recipient::Group(town())];
    let body = Bytes::from(vec![number; 100]);
    let content = ContentHash::of(&to, 1, &body);
    let client_msg_id = ClientMsgId::new(node.time().own(), [number; 10]);
    let draft = Draft { to, kind: 1, client_msg_id, body, act: None };
    let send = Command::BackendSend(BackendSend { sender, content, draft });
    match node.propose(send).await.unwrap() {
        Reply::Sent(Verdict::Accepted { seq: Seq::NONE, .. }) => {}
        other => panic!("{other:?}"),
    }
}

fn info(node: &Node) -> GroupInfo {
    let shard = node.hosted().shard(node.shard_number(&Id::Group(town()))).unwrap();
    shard.look(|view: &dyn Read| group_read::group(view, &town(), None).unwrap().unwrap()).unwrap()
}

/// Waits until the log's entries up to `head` were given to all.
async fn given(node: &Node, head: Seq) {
    let started = Instant::now();
    loop {
        let info = info(node);
        if (info.head, info.given) == (head, head) {
            return;
        }
        assert!(started.elapsed() < DEADLINE, "{info:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The group's seqs in a member's mailbox, in its order.
async fn seqs(node: &Node, user: &UserId) -> Vec<u32> {
    let entries = look::entries(node, user).await.into_iter();
    let of_group = entries.map(|(_, entry)| match entry.content {
        Content::Group(entry) => entry.seq.get(),
        other => panic!("{other:?}"),
    });
    of_group.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stopped_leader_left_is_given_by_the_next_one_in_the_same_order() {
    let dir = TempDir::new().unwrap();
    let config = config(dir.path());
    let node = start_new(&config).await;
    let new = NewGroup {
        owner: member(0),
        members: Vec::new(),
        members_max: 10_000,
        policy: Policy::default(),
    };
    change(&node, GroupAction::Create(new)).await;
    let all: Vec<UserId> = (1..MEMBERS).map(member).collect();
    let mut changes = 1;
    for users in all.chunks(256) {
        change(&node, GroupAction::Add { users: users.to_vec() }).await;
        changes += 1;
    }
    for number in 0..POSTS / 2 {
        post(&node, member(usize::from(number)), number).await;
    }
    let info = info(&node);
    assert!(info.given < info.head, "there is something left: {info:?}");
    stop(node).await.unwrap();

    let node = start(&config).await;
    for number in POSTS / 2..POSTS {
        post(&node, member(usize::from(number)), number).await;
    }
    let head = changes + u32::from(POSTS);
    given(&node, Seq::new(head)).await;
    look::drained(&node).await.unwrap();
    for number in (0..MEMBERS).step_by(61) {
        let joined = match number {
            0 => 1,
            _ => 2 + u32::try_from((number - 1) / 256).unwrap(),
        };
        assert_eq!(seqs(&node, &member(number)).await, (joined..=head).collect::<Vec<_>>());
    }
    stop(node).await.unwrap();
}
