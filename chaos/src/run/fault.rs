//! What is done to a cluster, and undone.

use std::time::Duration;

use anyhow::{Context, Result};
use tidemark_env::Rng;
use tidemark_lab::disk::Cut;
use tidemark_lab::lan::Host;
use tidemark_types::{NodeId, ShardId};

use super::stage::Stage;
use crate::cluster::Member;
use crate::stores;

/// A fault, ready to be injected.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    /// The name of its own scenario, without `-all`.
    pub kind: &'static str,
    /// Whom it befalls.
    pub target: String,
    /// The shards that may feel it.
    pub shards: Vec<ShardId>,
    /// What is done.
    pub harm: Harm,
}

/// What is done, and for how long.
#[derive(Clone, Debug)]
pub(super) enum Harm {
    /// SIGKILL, and started again later.
    Kill(Vec<Member>, Duration),
    /// SIGSTOP, and SIGCONT later.
    Pause(Member, Duration),
    /// What one host sends does not reach the other, in rounds of so long with as long a pause.
    Split {
        /// From whom to whom nothing goes.
        cuts: Vec<(Host, Host)>,
        /// How long a round takes.
        each: Duration,
        /// How many there are.
        rounds: u32,
    },
    /// The power of these nodes' disks, all at once, and started again.
    PowerCut(Vec<NodeId>, Cut),
    /// A shard's leadership is handed to another node.
    Transfer(ShardId),
    /// A node comes back on an empty disk while one that knows better is down, and one that lacks
    /// what was acknowledged is there: the one that knows, the node, the one that lacks it.
    EmptyDisk([NodeId; 3]),
    /// Each node and each gateway in turn is stopped in order and started again.
    Rolling,
}

/// What was seen of it: packets dropped, bytes lost.
pub(super) type Effects = Vec<(&'static str, u64)>;

impl Stage {
    /// Does it, undoes it, and waits until every process says that it is ready; what was seen of it.
    pub(super) async fn inflict(&mut self, harm: &Harm) -> Result<Effects> {
        match harm {
            Harm::Kill(members, down) => {
                for member in members {
                    self.cluster.kill(*member)?;
                }
                tokio::time::sleep(*down).await;
                self.revive(members).await?;
                Ok(vec![("processes killed", members.len() as u64)])
            }
            Harm::Pause(member, down) => {
                self.cluster.pause(*member)?;
                tokio::time::sleep(*down).await;
                self.cluster.resume(*member)?;
                self.cluster.ready(*member).await?;
                Ok(vec![("milliseconds paused", u64::try_from(down.as_millis())?)])
            }
            Harm::Split { cuts, each, rounds } => self.split(cuts, *each, *rounds).await,
            Harm::PowerCut(nodes, cut) => self.cut_power(nodes, *cut).await,
            Harm::Transfer(shard) => self.transfer(*shard).await,
            Harm::EmptyDisk(roles) => self.empty_disk(*roles).await,
            Harm::Rolling => self.roll().await,
        }
    }

    async fn revive(&mut self, members: &[Member]) -> Result<()> {
        for member in members {
            if let Member::Node(node) = member {
                *self.lives.lock().entry(*node).or_default() += 1;
            }
        }
        self.cluster.start_members(members.iter().copied()).await
    }

    async fn split(
        &mut self,
        cuts: &[(Host, Host)],
        each: Duration,
        rounds: u32,
    ) -> Result<Effects> {
        let mut dropped = 0;
        for round in 0..rounds {
            if round > 0 {
                tokio::time::sleep(each).await;
            }
            let lan = self.cluster.lan().context("a network of its own")?;
            for (from, to) in cuts {
                lan.cut(*from, *to)?;
            }
            tokio::time::sleep(each).await;
            for member in self.cluster.members() {
                dropped += lan.heal(member.host())?;
            }
        }
        self.all_ready().await?;
        Ok(vec![("packets dropped", dropped)])
    }

    async fn cut_power(&mut self, nodes: &[NodeId], cut: Cut) -> Result<Effects> {
        let losses = self.cluster.cut_power(nodes, cut, self.rng.as_ref())?;
        let lost = losses.values().map(tidemark_lab::disk::Loss::bytes).sum();
        self.unsynced_bytes_lost += lost;
        let members: Vec<Member> = nodes.iter().copied().map(Member::Node).collect();
        self.revive(&members).await?;
        Ok(vec![("unsynced bytes lost", lost)])
    }

    async fn transfer(&mut self, shard: ShardId) -> Result<Effects> {
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

    async fn roll(&mut self) -> Result<Effects> {
        let members: Vec<Member> = self.cluster.members().collect();
        for member in &members {
            self.cluster.terminate(*member).await?;
            self.revive(&[*member]).await?;
        }
        Ok(vec![("processes restarted", members.len() as u64)])
    }

    pub(super) async fn all_ready(&mut self) -> Result<()> {
        for member in self.cluster.members().collect::<Vec<_>>() {
            self.cluster.ready(member).await?;
        }
        Ok(())
    }

    /// One of them, by chance.
    pub(super) fn pick<'a, T>(&self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len() as u64) as usize]
    }

    /// A number below `bound`, by chance.
    pub(super) fn below(&self, bound: u64) -> u64 {
        self.rng.number() % bound
    }

    /// A time between these, by chance.
    pub(super) fn between(&self, least: Duration, most: Duration) -> Duration {
        least + (most - least).mul_f64(self.rng.unit())
    }
}
