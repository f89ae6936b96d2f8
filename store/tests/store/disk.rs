//! A disk that is nearly full, and a state that was found damaged.

use std::fs;

use tempfile::TempDir;
use tidemark_store::config::DiskConfig;
use tidemark_store::node::{NodeError, state_dir};
use tidemark_store::shard;
use tidemark_store_core::{Command, Reply};
use tidemark_types::{Epoch, Seq};

use crate::device::{Device, device, verdict};
use crate::look;
use crate::node::{config, refusal, send, start, start_new, stop, users};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_little_space_left_messages_are_refused_and_the_rest_goes_on() {
    let dir = TempDir::new().unwrap();
    let mut config = config(dir.path());
    config.disk = DiskConfig { free_bytes_min: u64::MAX, free_bytes_reserve: 0 };
    let node = start_new(&config).await;
    let [alice, near, far] = users();
    let phone = Device::open(&node, &alice, [1; 16]).await.unwrap();
    let both = [near.clone(), far.clone()];
    let refused = node.propose(send(&phone, 1, &both)).await.expect_err("there is no space");
    assert!(matches!(refused, shard::Error::NoSpace { free } if free > 0), "{refused}");
    assert!(refused.retry_after().is_some());
    // Its followers wait for it, as for any send that was refused unproposed.
    let next = node.propose(send(&phone, 2, &both)).await.expect_err("the first comes first");
    assert!(matches!(next, shard::Error::OutOfOrder { expected: 1 }), "{next}");
    let (user, epoch, seq) = (alice.clone(), Epoch::FIRST, Seq::NONE);
    let confirmed = node.propose(Command::Confirm { user, device: device(), epoch, seq }).await;
    assert!(matches!(confirmed, Ok(Reply::Confirmed { .. })), "{confirmed:?}");
    assert_eq!(look::entries(&node, &alice).await, [], "a refusal had an effect");
    stop(node).await.unwrap();

    config.disk = DiskConfig { free_bytes_min: 0, free_bytes_reserve: 0 };
    let node = start(&config).await;
    verdict(node.propose(send(&phone, 1, &both)).await).unwrap();
    look::drained(&node).await.unwrap();
    assert_eq!(look::entries(&node, &far).await.len(), 1);
    stop(node).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_shards_records_wait_for_space_where_they_come_from() {
    let dir = TempDir::new().unwrap();
    let mut config = config(dir.path());
    let node = start_new(&config).await;
    let [alice, near, far] = users();
    let phone = Device::open(&node, &alice, [1; 16]).await.unwrap();
    let shard = look::home(&node, &far);
    shard.group().shut_down().await;
    verdict(node.propose(send(&phone, 1, &[near, far.clone()])).await).unwrap();
    stop(node).await.unwrap();

    config.disk = DiskConfig { free_bytes_min: u64::MAX, free_bytes_reserve: u64::MAX };
    let node = start(&config).await;
    let waits = node.outbox_bytes(look::home(&node, &alice).group().id()).unwrap();
    assert!(waits > 0, "the record left without space");
    stop(node).await.unwrap();

    config.disk = DiskConfig { free_bytes_min: 0, free_bytes_reserve: 0 };
    let node = start(&config).await;
    look::drained(&node).await.unwrap();
    assert_eq!(look::entries(&node, &far).await.len(), 1);
    stop(node).await.unwrap();
}

/// What an earlier run leaves that found a damaged block.
fn mark(config: &tidemark_store::config::StoreConfig) {
    fs::write(state_dir(&config.data_dir).with_extension("damaged"), "a test says so").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_state_comes_back_from_the_log() {
    let dir = TempDir::new().unwrap();
    let config = config(dir.path());
    let node = start_new(&config).await;
    let [alice, near, _] = users();
    let phone = Device::open(&node, &alice, [1; 16]).await.unwrap();
    for n in 1..=50 {
        verdict(node.propose(send(&phone, n, std::slice::from_ref(&near))).await).unwrap();
    }
    let before = look::entries(&node, &near).await;
    stop(node).await.unwrap();
    mark(&config);
    let node = start(&config).await;
    assert_eq!(look::entries(&node, &near).await, before);
    assert!(
        state_dir(dir.path()).with_extension("set-aside").exists(),
        "kept for a person to look at"
    );
    verdict(node.propose(send(&phone, 51, &[near])).await).unwrap();
    stop(node).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_state_that_nobody_else_has_refuses_to_start() {
    let dir = TempDir::new().unwrap();
    let mut config = config(dir.path());
    config.raft.snapshot_entries = 20;
    config.raft.keep_entries = 5;
    let node = start_new(&config).await;
    let [alice, near, _] = users();
    let phone = Device::open(&node, &alice, [1; 16]).await.unwrap();
    let group = look::home(&node, &alice).group().clone();
    let mut n = 0;
    while group.status().purged.is_none() {
        n += 1;
        verdict(node.propose(send(&phone, n, std::slice::from_ref(&near))).await).unwrap();
        assert!(n < 10_000, "the log is never purged");
    }
    drop(group);
    stop(node).await.unwrap();
    mark(&config);
    let refused = refusal(&config).await;
    assert!(matches!(refused, NodeError::StateLost { .. }), "{refused}");
}
