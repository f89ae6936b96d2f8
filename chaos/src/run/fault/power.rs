//! Disks' power, alone and as part of a new majority.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use tidemark_lab::disk::{Cut, Loss};
use tidemark_types::NodeId;

use super::Effects;
use crate::cluster::{Member, PATIENCE};
use crate::run::stage::Stage;

/// One node misses what the other two write; then one of these loses its power, and the third is
/// gone: what counts is what is on the disk of the second.
#[derive(Clone, Copy, Debug)]
pub(in crate::run) struct NewMajority {
    /// Misses everything.
    pub alone: NodeId,
    /// Loses its power, and is needed at once.
    pub cut: NodeId,
    /// Gone when the first is back.
    pub away: NodeId,
    /// They are paused; else nothing reaches them.
    pub paused: bool,
    /// What the power cut spares.
    pub how: Cut,
    /// How long the first misses everything.
    pub each: Duration,
}

impl Stage {
    pub(super) async fn cut_power(&mut self, nodes: &[NodeId], cut: Cut) -> Result<Effects> {
        let losses = self.cluster.cut_power(nodes, cut, self.rng.as_ref())?;
        let lost = self.count(&losses);
        let members: Vec<Member> = nodes.iter().copied().map(Member::Node).collect();
        self.revive(&members).await?;
        Ok(vec![("unsynced bytes lost", lost)])
    }

    fn count(&mut self, losses: &BTreeMap<NodeId, Loss>) -> u64 {
        let lost = losses.values().map(Loss::bytes).sum();
        self.unsynced_bytes_lost += lost;
        lost
    }

    pub(super) async fn new_majority(&mut self, recipe: &NewMajority) -> Result<Effects> {
        let NewMajority { alone, cut, away, paused, how, each } = *recipe;
        self.hide(alone, paused)?;
        tokio::time::sleep(each).await;
        let losses = self.cluster.cut_power(&[cut], how, self.rng.as_ref())?;
        let lost = self.count(&losses);
        // Before the other one is back, or nobody would need the disk.
        self.hide(away, paused)?;
        let mut dropped = self.show(alone, paused)?;
        self.begin_life(cut.into());
        self.cluster.start_member(cut)?;
        let before = self.probes.acknowledged();
        let shards = self.shards();
        let _ = tokio::time::timeout(PATIENCE, self.probes.served(&shards)).await;
        let commits = self.probes.acknowledged() - before;
        dropped += self.show(away, paused)?;
        self.all_ready().await?;
        let mut effects =
            vec![("unsynced bytes lost", lost), ("commits of the new majority", commits)];
        if !paused {
            effects.push(("packets dropped", dropped));
        }
        Ok(effects)
    }

    fn hide(&self, node: NodeId, paused: bool) -> Result<()> {
        match paused {
            true => self.cluster.pause(node),
            false => self.isolate(Member::Node(node).host()),
        }
    }

    /// The node is there again; packets that were dropped meanwhile.
    fn show(&self, node: NodeId, paused: bool) -> Result<u64> {
        if paused {
            self.cluster.resume(node)?;
            return Ok(0);
        }
        self.rejoin(Member::Node(node).host())
    }
}
