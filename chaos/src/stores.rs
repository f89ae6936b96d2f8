//! What the stores say of themselves, and waiting until they say what is wanted.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use tidemark_store::storage::GroupId;
use tidemark_store_client::Client;
use tidemark_types::{NodeId, ShardId};

use crate::cluster::{LOOK, PATIENCE};

/// No node leads this shard, though it was waited for.
#[derive(Debug)]
pub struct NoLeader(pub ShardId);

impl fmt::Display for NoLeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {} has no leader", self.0)
    }
}

impl std::error::Error for NoLeader {}

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
    Err(NoLeader(shard).into())
}

/// Waits until every outbox is empty and every replica of every group has applied the same last
/// entry: which one, by the group's number. All nodes must be up.
pub async fn settled(client: &Client) -> Result<BTreeMap<u32, u64>> {
    let from = Instant::now();
    loop {
        let mut applied = BTreeMap::<u32, Vec<(u64, u64)>>::new();
        let mut outboxes = 0;
        for node in client.map().nodes.keys() {
            let status = match client.status(*node).await {
                Err(error) if from.elapsed() < PATIENCE => {
                    eprintln!("node {node} does not say how it stands: {error}");
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
                status => status?,
            };
            for group in status.groups {
                outboxes += group.outbox_bytes;
                applied.entry(group.group).or_default().push((group.last_log, group.applied));
            }
        }
        let level = |replicas: &Vec<(u64, u64)>| {
            let (last, _) = replicas[0];
            replicas.iter().all(|replica| *replica == (last, last))
        };
        let nodes = client.map().nodes.len();
        let all = |replicas: &Vec<(u64, u64)>| replicas.len() == nodes && level(replicas);
        if outboxes == 0 && !applied.is_empty() && applied.values().all(all) {
            let last = |(group, replicas): (u32, Vec<(u64, u64)>)| (group, replicas[0].0);
            return Ok(applied.into_iter().map(last).collect());
        }
        if from.elapsed() > PATIENCE {
            bail!("the replicas do not level out: {outboxes} bytes in outboxes, {applied:?}");
        }
        tokio::time::sleep(LOOK).await;
    }
}
