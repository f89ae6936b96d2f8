//! What goes from shard to shard on one node: refusals return, and a destination that is down fills
//! only its own budget.

use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidemark_store::inspect::Inspector;
use tidemark_store::node::Node;
use tidemark_store::shard;
use tidemark_store_core::status::{self, Stage};
use tidemark_store_core::value::{Content, Origin, Verdict};
use tidemark_store_core::{Command, Read, Reply};
use tidemark_types::{ErrorCode, Recipient, Seq, UserId};

use crate::device::{Device, verdict};
use crate::look;
use crate::node::{config, send, start, start_new, stop, user, users};

const DEADLINE: Duration = Duration::from_secs(60);

/// Who refused the messages of a user, and why, as the user's own mailbox tells it.
async fn refusals(node: &Node, sender: &UserId) -> Vec<(UserId, ErrorCode)> {
    let entries = look::entries(node, sender).await.into_iter();
    let refused = entries.filter_map(|(_, entry)| match entry.content {
        Content::Refused { recipient: Recipient::User(user), code } => Some((user, code)),
        Content::Refused { recipient: Recipient::Group(_), .. } => None,
        Content::Message { .. } | Content::Group(_) => None,
    });
    refused.collect()
}

/// Users on the shard of `like`, beside it.
fn beside(node: &Node, like: &UserId, count: usize) -> Vec<UserId> {
    let shard = |user: &UserId| node.shard_number(&tidemark_types::Id::User(user.clone()));
    let names = (0..).map(|at| user(&format!("other-{at}")));
    names.filter(|name| shard(name) == shard(like)).take(count).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recipient_who_cannot_take_it_does_not_stall_the_stream_and_the_sender_learns_of_it() {
    let dir = TempDir::new().unwrap();
    let config = config(dir.path());
    let node = start_new(&config).await;
    let [alice, _, far] = users();
    let others = beside(&node, &far, 3);
    let [full, blocking, gone] = others.as_slice() else { panic!("three were asked for") };
    let block = Command::Block { user: blocking.clone(), sender: alice.clone(), blocked: true };
    for command in [
        Command::Adopt { user: full.clone(), seq: Seq::MAX },
        block,
        Command::DeleteMailbox { user: gone.clone() },
    ] {
        let reply = node.propose(command).await.unwrap();
        assert!(!matches!(reply, Reply::Rejected(_)), "{reply:?}");
    }

    let device = Device::open(&node, &alice, [1; 16]).await.unwrap();
    let to = [far.clone(), full.clone(), blocking.clone(), gone.clone()];
    for n in 1..=3 {
        verdict(node.propose(send(&device, n, &to)).await).unwrap();
    }
    look::drained(&node).await.unwrap();
    assert_eq!(look::entries(&node, &far).await.len(), 3, "the others' refusals are not his");
    let mut expected = Vec::new();
    for _ in 1..=3 {
        expected.push((full.clone(), ErrorCode::SeqExhausted));
        expected.push((blocking.clone(), ErrorCode::Blocked));
        expected.push((gone.clone(), ErrorCode::NoMailbox));
    }
    let mut found = refusals(&node, &alice).await;
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    stop(node).await.unwrap();
}

/// The refusal comes back later than the acknowledgement of the record; meanwhile nobody may say
/// that the message was delivered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_refused_elsewhere_is_never_called_delivered() {
    let dir = TempDir::new().unwrap();
    let config = config(dir.path());
    let node = start_new(&config).await;
    let [alice, _, far] = users();
    let block = Command::Block { user: far.clone(), sender: alice.clone(), blocked: true };
    node.propose(block).await.unwrap();
    let device = Device::open(&node, &alice, [1; 16]).await.unwrap();
    for n in 1..=20 {
        verdict(node.propose(send(&device, n, std::slice::from_ref(&far))).await).unwrap();
        let origin = Origin::Session { sender: alice.clone(), session: device.session, n };
        let started = Instant::now();
        loop {
            let look = |view: &dyn Read| status::message(view, &origin).unwrap().unwrap();
            match look::home(&node, &alice).look(look).unwrap().recipients[0].1 {
                Stage::Refused(code) => break assert_eq!(code, ErrorCode::Blocked),
                stage => assert_eq!(stage, Stage::Accepted, "send {n}"),
            }
            assert!(started.elapsed() < DEADLINE);
            tokio::task::yield_now().await;
        }
    }
    stop(node).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_sender_is_not_told_is_counted_for_a_look() {
    let dir = TempDir::new().unwrap();
    let config = config(dir.path());
    let node = start_new(&config).await;
    let [alice, near, far] = users();
    let block =
        |user: &UserId| Command::Block { user: user.clone(), sender: alice.clone(), blocked: true };
    for command in [
        // Her mailbox takes the message, and no refusal of it.
        Command::Adopt { user: alice.clone(), seq: Seq::MAX.back(1) },
        block(&near),
        block(&far),
        Command::Silence { user: far.clone(), silent: true },
    ] {
        assert_eq!(node.propose(command).await.unwrap(), Reply::Done);
    }
    let device = Device::open(&node, &alice, [1; 16]).await.unwrap();
    verdict(node.propose(send(&device, 1, &[near, far])).await).unwrap();
    look::drained(&node).await.unwrap();
    stop(node).await.unwrap();

    let report = Inspector::open(&config.data_dir).unwrap().report(None, |_| None).unwrap();
    let counted = report.groups.iter().map(|group| {
        let counts = (group.refusals_unwritable, group.blocked_silently);
        (group.mailboxes.contains_key("user:alice"), counts)
    });
    let counted: Vec<_> = counted.filter(|(_, counts)| *counts != (0, 0)).collect();
    assert!(counted.contains(&(true, (1, 0))), "her shard could not write: {counted:?}");
    assert!(counted.contains(&(false, (0, 1))), "the far one dropped: {counted:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_that_is_down_fills_its_own_budget_and_nobody_elses() {
    let dir = TempDir::new().unwrap();
    let mut config = config(dir.path());
    config.relay.queue_bytes_max = 10_000;
    let node = start_new(&config).await;
    let names = users();
    let [alice, near, far] = &names;
    let device = Device::open(&node, alice, [1; 16]).await.unwrap();
    look::home(&node, far).group().shut_down().await;

    let mut taken = 0;
    let refused = loop {
        match node.propose(send(&device, taken + 1, std::slice::from_ref(far))).await {
            Ok(Reply::Sent(Verdict::Accepted { .. })) => taken += 1,
            other => break other,
        }
        assert!(taken < 1_000, "the outbox has no bound");
    };
    assert!(taken > 10, "sends go on while the destination is down");
    let retry_after = match refused {
        Err(shard::Error::Overloaded { retry_after }) => retry_after,
        other => panic!("{other:?}"),
    };
    assert!(retry_after > Duration::ZERO);
    // What follows the refused send of the session is refused as well, whomever it goes to.
    match node.propose(send(&device, taken + 2, std::slice::from_ref(near))).await {
        Err(shard::Error::OutOfOrder { expected }) => assert_eq!(expected, taken + 1),
        other => panic!("{other:?}"),
    }
    // Others have room.
    let second = Device::open(&node, near, [2; 16]).await.unwrap();
    verdict(node.propose(send(&second, 1, std::slice::from_ref(alice))).await).unwrap();
    stop(node).await.unwrap();

    let node = start(&config).await;
    look::drained(&node).await.unwrap();
    let mut n = taken + 1;
    let started = Instant::now();
    while n <= taken + 2 {
        match node.propose(send(&device, n, std::slice::from_ref(far))).await {
            Ok(Reply::Sent(Verdict::Accepted { .. })) => n += 1,
            other => panic!("{n} after {:?}: {other:?}", started.elapsed()),
        }
    }
    look::drained(&node).await.unwrap();
    let entries = look::entries(&node, far).await;
    assert_eq!(entries.len() as u64, taken + 2);
    assert!(started.elapsed() < DEADLINE);
    stop(node).await.unwrap();
}
