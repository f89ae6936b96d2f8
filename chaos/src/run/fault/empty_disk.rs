//! A node comes back on an empty disk under its old name: it must refuse to start.
//!
//! ```text
//!   late:   cut off ─────────────────────────── lacks what is acknowledged meanwhile ──► healed
//!   keeper: acknowledges ── killed ──────────────────────────────────────────────────► started
//!   victim: acknowledges ── killed ── disk emptied, started: refuses ── disk back, started
//! ```
//!
//! Were it to start, it would vote for the late one, and the two would be a majority that never
//! heard of what the other two had acknowledged.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tidemark_store::node::{log_dir, state_dir};
use tidemark_types::NodeId;

use super::Effects;
use crate::cluster::{LOOK, Member};
use crate::run::stage::Stage;

/// How long the late one misses what is acknowledged.
const LATE_FOR: Duration = Duration::from_secs(4);

/// A node that refuses to start has ended by then.
const REFUSES_WITHIN: Duration = Duration::from_secs(10);

/// How long the other two may go on without the one that knows better.
const WITHOUT_KEEPER: Duration = Duration::from_secs(5);

impl Stage {
    /// Does all of it, and undoes it.
    pub(super) async fn empty_disk(
        &mut self,
        [keeper, victim, late]: [NodeId; 3],
    ) -> Result<Effects> {
        let host = |node: NodeId| Member::Node(node).host();
        let lan = self.cluster.lan().context("a network of its own")?;
        for other in [keeper, victim] {
            lan.cut(host(late), host(other))?;
            lan.cut(host(other), host(late))?;
        }
        tokio::time::sleep(LATE_FOR).await;
        self.cluster.kill(keeper)?;
        self.cluster.kill(victim)?;
        let data = self.cluster.data_dir(victim);
        let aside = [log_dir(&data), state_dir(&data)].map(|is| (is.with_extension("aside"), is));
        for (aside, is) in &aside {
            fs::rename(is, aside)?;
        }
        self.start_again(victim)?;
        let refused = self.ended(victim).await?;
        if refused {
            for (aside, is) in &aside {
                put_back(aside, is)?;
            }
            self.start_again(victim)?;
        }
        let lan = self.cluster.lan().context("a network of its own")?;
        for node in [late, keeper, victim] {
            lan.heal(host(node))?;
        }
        tokio::time::sleep(WITHOUT_KEEPER).await;
        self.start_again(keeper)?;
        self.all_ready().await?;
        Ok(vec![("starts refused", u64::from(refused))])
    }

    fn start_again(&mut self, node: NodeId) -> Result<()> {
        self.begin_life(node.into());
        self.cluster.start_member(node)
    }

    /// Does it end by itself soon?
    async fn ended(&mut self, node: NodeId) -> Result<bool> {
        let from = Instant::now();
        while from.elapsed() < REFUSES_WITHIN {
            if self.cluster.has_ended(node)? {
                return Ok(true);
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(false)
    }
}

/// What the refused start may have left is nobody's.
fn put_back(aside: &PathBuf, is: &PathBuf) -> Result<()> {
    if is.exists() {
        fs::remove_dir_all(is)?;
    }
    Ok(fs::rename(aside, is)?)
}
