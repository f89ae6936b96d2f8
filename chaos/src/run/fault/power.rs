//! Disks' power, alone and as part of a new majority.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use tidemark_lab::disk::{Cut, Loss};
use tidemark_types::NodeId;

use super::{Effects, Target};
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

/// How often a power cut that lost nothing is repeated.
const CUTS_MAX: u32 = 10;

/// The load between two of them.
const BETWEEN_CUTS: [Duration; 2] = [Duration::from_millis(500), Duration::from_millis(1_500)];

/// Is this file a part of a node's log or state? Beside these are what databases tell of themselves.
fn is_part(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let log = [Target::LogTail, Target::LogManifest];
    let parts = [log, [Target::StateTable, Target::StateManifest]].concat();
    name == "CURRENT" || parts.iter().any(|part| part.fits(&name))
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
        let files = losses.values().flat_map(|Loss(files)| files);
        let lost = files.filter(|(path, _)| is_part(path)).map(|(_, bytes)| bytes).sum::<u64>();
        self.unsynced_bytes_lost += lost;
        lost
    }

    pub(super) async fn new_majority(&mut self, recipe: &NewMajority) -> Result<Effects> {
        let NewMajority { alone, cut, away, paused, how, each } = *recipe;
        self.hide(alone, paused)?;
        tokio::time::sleep(each).await;
        let lost = self.cut_until_it_loses(cut, how).await?;
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

    /// Cuts a node's power, and again while it lost nothing: a disk may have just written all. The
    /// node is down then.
    async fn cut_until_it_loses(&mut self, node: NodeId, how: Cut) -> Result<u64> {
        for attempt in 1.. {
            let losses = self.cluster.cut_power(&[node], how, self.rng.as_ref())?;
            let lost = self.count(&losses);
            if lost > 0 || attempt == CUTS_MAX {
                return Ok(lost);
            }
            self.revive(&[node.into()]).await?;
            let soon = self.between(BETWEEN_CUTS[0], BETWEEN_CUTS[1]);
            tokio::time::sleep(soon).await;
        }
        unreachable!("attempts end")
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
