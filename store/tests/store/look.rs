//! Reading a node's state as a caller of `Shard::read` does.

use std::time::{Duration, Instant};

use tidemark_store::node::Node;
use tidemark_store::shard::Shard;
use tidemark_store_core::Read;
use tidemark_store_core::key::{ChainKey, Key};
use tidemark_store_core::read::{self, PageAnswer, PageLimits};
use tidemark_store_core::value::{Chain, Entry, Mailbox, Value};
use tidemark_types::{Id, Recipient, Seq, UserId};

/// Small against what the tests send, so that they read several pages.
const LIMITS: PageLimits = PageLimits { entries: 100, bytes: 1 << 20 };

const DEADLINE: Duration = Duration::from_secs(60);

/// The shard on which a user lives.
pub(crate) fn home<'a>(node: &'a Node, user: &UserId) -> &'a Shard {
    node.hosted().shard(node.shard_number(&Id::User(user.clone()))).unwrap()
}

/// A user's mailbox without its entries.
pub(crate) async fn mailbox(node: &Node, user: &UserId) -> Mailbox {
    let id = Recipient::User(user.clone());
    let look = |view: &dyn Read| read::mailbox(view, &id).unwrap();
    home(node, user).read(look).await.unwrap()
}

/// All entries of a user's mailbox, page by page, after checking that they go from floor to head
/// without a hole.
pub(crate) async fn entries(node: &Node, user: &UserId) -> Vec<(Seq, Entry)> {
    let id = Recipient::User(user.clone());
    let look = |view: &dyn Read| {
        let Mailbox { epoch, floor, head, .. } = read::mailbox(view, &id).unwrap();
        let mut entries = Vec::new();
        let mut at = floor;
        while at < head {
            match read::page(view, &id, epoch, at, LIMITS).unwrap() {
                PageAnswer::Page(page) => entries.extend(page.entries),
                other => panic!("{id} at {at}: {other:?}"),
            }
            at = entries.last().map_or(floor, |(seq, _)| *seq);
        }
        let seqs: Vec<_> = entries.iter().map(|(seq, _)| seq.get()).collect();
        assert_eq!(seqs, (floor.get() + 1..=head.get()).collect::<Vec<_>>(), "{id}");
        entries
    };
    home(node, user).read(look).await.unwrap()
}

/// Waits until every outbox is empty: what was accepted is where it goes.
pub(crate) async fn drained(node: &Node) -> Result<(), String> {
    let started = Instant::now();
    for (number, shard) in node.hosted().shards() {
        loop {
            let streams = shard.read(|view| read::outbounds(view).unwrap()).await;
            let streams = streams.map_err(|error| error.to_string())?;
            if streams.iter().all(|(_, stream)| stream.trim == stream.head) {
                break;
            }
            if started.elapsed() > DEADLINE {
                return Err(format!("the outbox of shard {number} stays: {streams:?}"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    Ok(())
}

/// A shard's state hash, and the applied position it belongs to.
pub(crate) async fn hash(shard: &Shard) -> (Option<u64>, Chain) {
    let chain = shard.read(|view| view.get(&ChainKey {}.encode()).unwrap().unwrap()).await;
    (shard.group().status().applied, Chain::decode(&chain.unwrap()).unwrap())
}
