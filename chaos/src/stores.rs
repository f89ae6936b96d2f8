//! What the stores say of themselves, and waiting until they say what is wanted.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use tidemark_store::storage::GroupId;
use tidemark_store_client::Client;
use tidemark_types::{NodeId, ShardId};

use crate::cluster::{LOOK, PATIENCE};

/// The cluster's shards.
pub fn shards(client: &Client) -> Result<impl Iterator<Item = ShardId> + use<>> {
    let count = client.map().shard_count();
    Ok(count.context("the map has a legal number of shards")?.shards())
}

/// Waits until some node says itself that it leads the shard: others may remember a leader that
/// is gone.
pub async fn leader(client: &Client, shard: ShardId) -> Result<NodeId> {
    let group = GroupId::shard(shard).get();
    let from = Instant::now();
    while from.elapsed() < PATIENCE {
        for node in client.map().nodes.keys() {
            let Ok(status) = client.status(*node).await else { continue };
            let mut groups = status.groups.iter().filter(|found| found.group == group);
            if groups.any(|found| found.leader == node.get()) {
                return Ok(*node);
            }
        }
        tokio::time::sleep(LOOK).await;
    }
    bail!("shard {shard} has no leader")
}

/// Waits until every outbox is empty and every replica of every group has applied the same last
/// entry. All nodes must be up.
pub async fn settled(client: &Client) -> Result<()> {
    let from = Instant::now();
    loop {
        let mut applied = BTreeMap::<u32, Vec<(u64, u64)>>::new();
        let mut outboxes = 0;
        for node in client.map().nodes.keys() {
            for group in client.status(*node).await?.groups {
                outboxes += group.outbox_bytes;
                applied.entry(group.group).or_default().push((group.last_log, group.applied));
            }
        }
        let level = |replicas: &Vec<(u64, u64)>| {
            let (last, _) = replicas[0];
            replicas.iter().all(|replica| *replica == (last, last))
        };
        if outboxes == 0 && applied.values().all(level) {
            return Ok(());
        }
        if from.elapsed() > PATIENCE {
            bail!("the replicas do not level out: {outboxes} bytes in outboxes, {applied:?}");
        }
        tokio::time::sleep(LOOK).await;
    }
}
