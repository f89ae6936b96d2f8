//! `Feed`: what happened in a shard, for back ends that follow (R20). It is kept by the shard; here
//! it is read, and waited for.

use std::time::Duration;

use tidemark_proto::Failure;
use tidemark_proto::v1::feed_change::What;
use tidemark_proto::v1::feed_server::Feed;
use tidemark_proto::v1::{self, FeedDevice, FeedEntry, FeedForgotten};
use tidemark_proto::v1::{ReadFeedRequest, ReadFeedResponse};
use tidemark_store_core::feed::{FeedChange, FeedPage, FeedRecord};
use tidemark_store_core::read::{Answer, PageLimits, Query};
use tidemark_store_core::value::Entry;
use tidemark_types::{ErrorCode, ShardId};
use tonic::{Request, Response, Status};

use super::Backend;
use super::caller::Caller;
use crate::limits::{FEED_ASK_AGAIN, FEED_RECORDS_MAX, FEED_WAIT_MAX, PAGE_BYTES_MAX};
use crate::{entry, failure};

impl Backend {
    async fn read_feed(
        &self,
        caller: Caller,
        request: ReadFeedRequest,
    ) -> Result<ReadFeedResponse, Failure> {
        caller.follow()?;
        if self.store.map().settings.feed_records_max == 0 {
            let text = "the feed is off: the cluster was created with feed_records_max = 0";
            return Err(Failure::new(ErrorCode::Invalid).message(text));
        }
        let ReadFeedRequest { shard, after, limit, wait_ms } = request;
        let records = match usize::try_from(limit) {
            Ok(wanted @ 1..=FEED_RECORDS_MAX) => wanted,
            _ => FEED_RECORDS_MAX,
        };
        let limits = PageLimits { entries: records, bytes: PAGE_BYTES_MAX };
        let shard = self.hosted_shard(shard)?;
        let query = Query::Feed { shard, after, limits };
        let until =
            self.clock.monotonic() + Duration::from_millis(wait_ms.into()).min(FEED_WAIT_MAX);
        loop {
            let page = match self.query(query.clone()).await? {
                Answer::Feed(page) => page,
                other => return Err(failure::of_answer(other)),
            };
            if after > page.feed.head {
                let text = format!("after: {after} is above the head {}", page.feed.head);
                return Err(Failure::new(ErrorCode::Invalid).message(text));
            }
            let waits = page.records.is_empty() && self.clock.monotonic() < until;
            if !waits || *self.leaving.borrow() {
                return Ok(response(page));
            }
            self.await_record(shard, after, until).await;
        }
    }

    /// Waits until the leader says that there is a record after `after`, until the time is over, or until
    /// the gateway leaves.
    async fn await_record(&self, shard: ShardId, after: u64, until: Duration) {
        let mut leaving = self.leaving.subscribe();
        let grows = async {
            loop {
                let left = until.saturating_sub(self.clock.monotonic());
                if left.is_zero() {
                    return;
                }
                match self.store.await_feed(shard, after, left).await {
                    Ok(true) => return,
                    Ok(false) => {}
                    // Nobody may lead just now.
                    Err(_) => tokio::time::sleep(FEED_ASK_AGAIN.min(left)).await,
                }
            }
        };
        tokio::select! {
            () = grows => {}
            _ = leaving.wait_for(|leaving| *leaving) => {}
        }
    }

    fn hosted_shard(&self, shard: u32) -> Result<ShardId, Failure> {
        let shards = self.store.map().shards.len();
        let named = u16::try_from(shard).ok().filter(|shard| usize::from(*shard) < shards);
        named.map(ShardId::new).ok_or_else(|| {
            let text = format!("shard: {shard}, of {shards} that are counted from 0");
            Failure::new(ErrorCode::Invalid).message(text)
        })
    }
}

fn response(page: FeedPage) -> ReadFeedResponse {
    let FeedPage { feed, records, entries } = page;
    let mut entries = entries.into_iter();
    let records = records.into_iter().map(|(number, FeedRecord { time, changes })| {
        let changes = changes.into_iter().map(|it| change(it, &mut entries)).collect();
        v1::FeedRecord { number, time_ms: time.get(), changes }
    });
    let records = records.collect();
    ReadFeedResponse { head: feed.head, floor: feed.floor, records }
}

/// A change, with its entry from those of the page.
fn change(change: FeedChange, entries: &mut impl Iterator<Item = Option<Entry>>) -> v1::FeedChange {
    let what = match change {
        FeedChange::Entry { mailbox, seq } => {
            let entry = entries.next().flatten().map(|it| entry::entry(seq, &it));
            let (mailbox, seq) = (Some(v1::Id::from(&mailbox)), seq.get());
            What::Entry(Box::new(FeedEntry { mailbox, seq, entry }))
        }
        FeedChange::Device { user, device, epoch, cursor, connected, logged_out } => {
            What::Device(FeedDevice {
                user: user.to_string(),
                device: device.to_string(),
                epoch: epoch.get(),
                cursor: cursor.get(),
                connected,
                logged_out_ms: logged_out.get(),
            })
        }
        FeedChange::Forgotten { user, device } => {
            What::Forgotten(FeedForgotten { user: user.to_string(), device: device.to_string() })
        }
    };
    v1::FeedChange { what: Some(what) }
}

#[tonic::async_trait]
impl Feed for Backend {
    async fn read(
        &self,
        request: Request<ReadFeedRequest>,
    ) -> Result<Response<ReadFeedResponse>, Status> {
        let answer = |caller, request| self.read_feed(caller, request);
        self.call("Feed.Read", request, answer).await
    }
}
