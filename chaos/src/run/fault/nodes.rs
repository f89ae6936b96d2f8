//! Processes: killed, paused, stopped in order, behind the log.

use std::time::{Duration, Instant};

use anyhow::Result;
use tidemark_types::{NodeId, ShardId};

use super::Effects;
use crate::cluster::{LOOK, Member, PATIENCE};
use crate::run::stage::Stage;
use crate::stores;

/// States that a node took from others since it started.
const INSTALLED: &str = "store_snapshot_seconds_count";

/// What a node's log says when it begins to take one.
const RECEIVING: &str = "receiving a snapshot";

impl Stage {
    pub(super) async fn kill(&mut self, members: &[Member], down: Duration) -> Result<Effects> {
        for member in members {
            self.cluster.kill(*member)?;
        }
        tokio::time::sleep(down).await;
        self.revive(members).await?;
        Ok(vec![("processes killed", members.len() as u64)])
    }

    pub(super) async fn pause(&mut self, member: Member, down: Duration) -> Result<Effects> {
        self.cluster.pause(member)?;
        let (until, mut paused) = (Instant::now() + down, Duration::ZERO);
        while Instant::now() < until {
            let from = Instant::now();
            tokio::time::sleep(LOOK).await;
            if self.cluster.is_stopped(member)? {
                paused += from.elapsed();
            }
        }
        self.cluster.resume(member)?;
        self.cluster.ready(member).await?;
        Ok(vec![("milliseconds paused", u64::try_from(paused.as_millis())?)])
    }

    pub(super) async fn transfer(&mut self, shard: ShardId) -> Result<Effects> {
        let from = stores::leader(&self.client, shard).await?;
        let others: Vec<NodeId> =
            self.cluster.ids().into_iter().filter(|node| *node != from).collect();
        let to = *self.pick(&others);
        let group = u32::from(shard.get());
        match self.client.transfer_leader(group, from, to).await {
            Ok(_) => Ok(vec![("leaders moved", 1)]),
            // It may have moved by itself just before.
            Err(error) => {
                eprintln!("shard {shard} did not move from {from} to {to}: {error}");
                Ok(Vec::new())
            }
        }
    }

    pub(super) async fn roll(&mut self) -> Result<Effects> {
        let members: Vec<Member> = self.cluster.members().collect();
        for member in &members {
            self.cluster.terminate(*member).await?;
            self.revive(&[*member]).await?;
        }
        Ok(vec![("processes restarted", members.len() as u64)])
    }

    pub(super) async fn lag(&mut self, node: NodeId, again: bool) -> Result<Effects> {
        let had = self.last_logs(node).await?;
        self.cluster.kill(node)?;
        self.outrun(node, &had).await?;
        let mut killed = 0;
        if again {
            let before = self.said(node, RECEIVING)?;
            self.begin_life(node.into());
            self.cluster.start_member(node)?;
            let from = Instant::now();
            while self.said(node, RECEIVING)? == before && from.elapsed() < PATIENCE {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            self.cluster.kill(node)?;
            killed = 1;
        }
        self.revive(&[node.into()]).await?;
        let installed = self.cluster.metric(node, INSTALLED).await? as u64;
        Ok(vec![("snapshots installed", installed), ("killed while it took one", killed)])
    }

    /// The last entry of each shard that a node has.
    async fn last_logs(&self, node: NodeId) -> Result<Vec<(u32, u64)>> {
        let groups = self.client.status(node).await?.groups;
        let shards = groups.iter().filter(|group| group.group < u32::from(self.shard_count));
        Ok(shards.map(|group| (group.group, group.last_log)).collect())
    }

    /// Waits until another node has purged what this one had of some shard.
    async fn outrun(&self, away: NodeId, had: &[(u32, u64)]) -> Result<()> {
        let from = Instant::now();
        let others = self.cluster.ids().into_iter().filter(|node| *node != away);
        for node in others.cycle() {
            let groups = self.client.status(node).await.map(|status| status.groups);
            let purged = |(group, last): &(u32, u64)| {
                let mut found = groups.iter().flatten().filter(|found| found.group == *group);
                found.any(|found| found.purged > *last)
            };
            // The run goes on without an effect if the load is too small for it.
            if had.iter().any(purged) || from.elapsed() > PATIENCE {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// How often a node's log says something.
    pub(super) fn said(&self, node: NodeId, what: &str) -> Result<usize> {
        Ok(self.cluster.log_text(node)?.matches(what).count())
    }
}
