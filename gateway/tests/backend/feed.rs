//! `Feed`: who may read it, what it tells, waiting for it, and what is refused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidemark_gateway::config::ChecksConfig;
use tidemark_proto::v1::feed_change::What;
use tidemark_proto::v1::feed_client::FeedClient;
use tidemark_proto::v1::messages_client::MessagesClient;
use tidemark_proto::v1::*;
use tidemark_store_core::value::Settings;
use tidemark_types::ErrorCode;

use crate::gateway::{Gateway, bad_field, refused};
use crate::memory::{MemoryStore, NOW};
use crate::messages;

fn read(after: u64) -> ReadFeedRequest {
    ReadFeedRequest { shard: 0, after, limit: 0, wait_ms: 0 }
}

async fn send(gateway: &Gateway, number: u8) {
    let request = messages::request("grace", "alice", number);
    MessagesClient::new(gateway.service()).send(request).await.unwrap();
}

#[tokio::test]
async fn a_reader_is_told_what_happened_and_goes_on_where_it_stopped() {
    let gateway = Gateway::start().await;
    let mut feed = FeedClient::new(gateway.service());
    send(&gateway, 1).await;
    send(&gateway, 2).await;
    let told = feed.read(ReadFeedRequest { limit: 1, ..read(0) }).await.unwrap().into_inner();
    assert_eq!((told.head, told.floor), (2, 0));
    let [FeedRecord { number: 1, time_ms, changes }] = &told.records[..] else {
        panic!("{told:?}")
    };
    assert_eq!(*time_ms, NOW.get());
    let entries = changes.iter().map(|change| match change.what.clone() {
        Some(What::Entry(entry)) => *entry,
        other => panic!("{other:?}"),
    });
    let entries: Vec<FeedEntry> = entries.collect();
    let owners: Vec<_> = entries.iter().map(|it| it.mailbox.clone().unwrap().name).collect();
    assert_eq!(owners, ["alice", "grace"]);
    for FeedEntry { seq, entry, .. } in entries {
        let entry = entry.unwrap();
        assert_eq!((seq, entry.seq), (1, 1));
        assert_eq!(entry.origin, Some(messages::origin("grace", 1)));
    }
    let told = feed.read(read(1)).await.unwrap().into_inner();
    assert_eq!(told.records.iter().map(|it| it.number).collect::<Vec<_>>(), [2]);
    assert_eq!(feed.read(read(2)).await.unwrap().into_inner().records, []);
}

#[tokio::test]
async fn who_waits_has_a_record_when_there_is_one() {
    let gateway = Gateway::start().await;
    let mut feed = FeedClient::new(gateway.service());
    let waiting = tokio::spawn(async move {
        feed.read(ReadFeedRequest { wait_ms: 30_000, ..read(0) }).await.unwrap().into_inner()
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    send(&gateway, 1).await;
    assert_eq!(waiting.await.unwrap().records.len(), 1);
    let (mut feed, began) = (FeedClient::new(gateway.service()), Instant::now());
    let told = feed.read(ReadFeedRequest { wait_ms: 200, ..read(1) }).await.unwrap().into_inner();
    assert_eq!(told.records, []);
    assert!(began.elapsed() >= Duration::from_millis(200));
    // Once when each came, once when there was something or the time was over.
    assert_eq!(gateway.store.queries(), 4, "who waits asks nobody for a read");
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_by_its_field() {
    let gateway = Gateway::start().await;
    let mut feed = FeedClient::new(gateway.service());
    let shard = feed.read(ReadFeedRequest { shard: 2, ..read(0) }).await;
    bad_field(shard, "shard");
    bad_field(feed.read(read(1)).await, "after");
    let off = Arc::new(MemoryStore::with(Settings::default()));
    let off = Gateway::of(off, ChecksConfig::default()).await;
    let failure = refused(FeedClient::new(off.service()).read(read(0)).await);
    assert_eq!(failure.code, ErrorCode::Invalid);
    assert!(failure.message.contains("feed_records_max"), "{failure:?}");
}
