//! Who follows the feeds (R20): a back end that reads each shard's from whoever leads, all the time, and
//! folds it. It is told of every change once and in order, and in the end it knows how everything stands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use parking_lot::Mutex;
use tidemark_store::node::Node;
use tidemark_store_client::Client;
use tidemark_store_core::feed::{self, Feed, FeedChange, FeedPage, FeedRecord};
use tidemark_store_core::read::{self, Answer, PageLimits, Query};
use tidemark_store_core::value::Device;
use tidemark_store_core::{Read, devices};
use tidemark_types::{DeviceId, Epoch, Recipient, Seq, ShardId, UnixMs, UserId};

use crate::world::World;

/// What a reader takes at a time.
const PAGE: PageLimits = PageLimits { entries: 256, bytes: 1 << 20 };

/// How long a reader waits to be told that there is more, and what it leaves between two pages.
const WAIT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(100);

/// What has been read of each shard's feed.
#[derive(Default)]
pub struct Feeds(Mutex<BTreeMap<ShardId, Followed>>);

/// How a device stands, as the feed tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stands {
    epoch: Epoch,
    cursor: Seq,
    connected: bool,
    logged_out: UnixMs,
}

/// What a reader knows.
#[derive(Default)]
struct Followed {
    /// How the feed stood when it was last read.
    feed: Feed,
    records: BTreeMap<u64, FeedRecord>,
    /// The last one that it has, or knows to be gone.
    after: u64,
    /// Some were gone before they were read: of what they alone told nothing is known.
    lacks: bool,
    heads: BTreeMap<Recipient, Seq>,
    devices: BTreeMap<(UserId, DeviceId), Stands>,
}

impl Followed {
    fn take(&mut self, FeedPage { feed, records, .. }: FeedPage) -> Result<()> {
        let before = self.feed;
        let goes_on = feed.head >= before.head.max(self.after) && feed.floor >= before.floor;
        ensure!(goes_on, "it stands at {feed:?}, and has stood at {before:?}");
        self.feed = feed;
        if feed.floor > self.after {
            *self = Followed { feed, after: feed.floor, lacks: true, ..Followed::default() };
        }
        for (number, record) in records {
            ensure!(number == self.after + 1, "record {number} follows {}", self.after);
            ensure!(!record.changes.is_empty(), "record {number} tells nothing");
            for change in record.changes.clone() {
                self.fold(change).with_context(|| format!("record {number}"))?;
            }
            self.after = number;
            self.records.insert(number, record);
        }
        Ok(())
    }

    fn fold(&mut self, change: FeedChange) -> Result<()> {
        match change {
            FeedChange::Entry { mailbox, seq } => {
                let before = match self.heads.insert(mailbox.clone(), seq) {
                    None if self.lacks => return Ok(()),
                    before => before.unwrap_or_default(),
                };
                ensure!(before.next() == Some(seq), "{mailbox}: {seq} is told after {before}");
            }
            FeedChange::Device { user, device, epoch, cursor, connected, logged_out } => {
                let stands = Stands { epoch, cursor, connected, logged_out };
                if let Some(before) = self.devices.insert((user.clone(), device.clone()), stands) {
                    let back = epoch == before.epoch && cursor < before.cursor;
                    ensure!(!back, "{user}'s {device} goes back from {before:?} to {stands:?}");
                }
            }
            FeedChange::Forgotten { user, device } => drop(self.devices.remove(&(user, device))),
        }
        Ok(())
    }

    /// What it knows is how things stand, and nothing else is there.
    fn knows(&self, state: &dyn Read) -> Result<()> {
        let ids = read::mailboxes(state, None, usize::MAX)?;
        for id in &ids {
            let head = read::mailbox(state, id)?.head;
            match self.heads.get(id) {
                None => ensure!(self.lacks || head == Seq::NONE, "nothing was told of {id}"),
                Some(told) => ensure!(*told == head, "{id}: told up to {told}, and it is {head}"),
            }
        }
        let mut there = BTreeSet::new();
        for id in ids {
            let Recipient::User(user) = id else { continue };
            for (device, value) in devices::all(state, &user)? {
                let Device { epoch, cursor, connected, logged_out, .. } = value;
                let stands = Stands { epoch, cursor, connected, logged_out };
                let name = (user.clone(), device);
                match self.devices.get(&name) {
                    None => ensure!(self.lacks, "nothing was told of {name:?}"),
                    Some(told) => ensure!(*told == stands, "{name:?}: {told:?}, not {stands:?}"),
                }
                there.insert(name);
            }
        }
        let gone = self.devices.keys().find(|name| !there.contains(name));
        ensure!(gone.is_none(), "nobody was told that {gone:?} was forgotten");
        Ok(())
    }
}

/// Follows the feeds, where there are any.
pub fn start(world: &Arc<World>, client: &Client) {
    if world.plan.feed_records_max == 0 {
        return;
    }
    for shard in world.map.shard_count().into_iter().flat_map(|count| count.shards()) {
        tokio::spawn(follow(world.clone(), client.clone(), shard));
    }
}

async fn follow(world: Arc<World>, client: Client, shard: ShardId) {
    while world.is_asking() {
        let after = world.feeds.0.lock().entry(shard).or_default().after;
        // A hint only: who is not told reads all the same.
        let _ = client.await_feed(shard, after, WAIT).await;
        let query = Query::Feed { shard, after, limits: PAGE };
        if let Ok(answer) = client.query(&query).await {
            let taken = match answer {
                Answer::Feed(page) => world.feeds.0.lock().entry(shard).or_default().take(page),
                other => Err(anyhow::anyhow!("{other:?} to a question for it")),
            };
            if let Err(why) = taken {
                return world.safety.violated(&world, format!("R20: feed of {shard}: {why:#}"));
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What is wrong with the feeds, by what a node that rests holds.
pub fn judge(world: &World) -> Vec<String> {
    let node = world.machines.first().and_then(|machine| machine.running());
    let Some(node) = node.filter(|_| world.plan.feed_records_max > 0) else { return Vec::new() };
    let mut feeds = world.feeds.0.lock();
    let (mut read, mut wrong) = (0, Vec::new());
    for (shard, _) in node.hosted().shards() {
        let followed = feeds.entry(shard).or_default();
        read += followed.records.len();
        if let Err(why) = finish(&node, shard, followed) {
            wrong.push(format!("R20: feed of {shard}: {why:#}"));
        }
    }
    world.line(&format_args!("{read} records of feeds"));
    if read == 0 {
        wrong.push("nobody has read a feed".to_owned());
    }
    wrong
}

/// Reads what there is still, and looks whether what is there is what was read.
fn finish(node: &Node, number: ShardId, followed: &mut Followed) -> Result<()> {
    let shard = node.hosted().shard(number).context("it is on every node")?;
    let seen = followed.records.clone();
    let mut after = shard.look(feed::stands)??.floor;
    loop {
        let page = shard.look(|state| feed::page(state, after, PAGE))??;
        let Some((last, _)) = page.records.last() else { break };
        after = *last;
        let other = page
            .records
            .iter()
            .find(|(number, record)| seen.get(number).is_some_and(|seen| seen != record));
        if let Some((number, record)) = other {
            bail!("record {number} was {:?}, and is {record:?}", seen.get(number));
        }
        let news = page.records.into_iter().filter(|(number, _)| *number > followed.after);
        let records = news.collect();
        followed.take(FeedPage { feed: page.feed, records, entries: Vec::new() })?;
    }
    shard.look(|state| followed.knows(state))?
}
