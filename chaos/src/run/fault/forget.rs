//! A node comes back and lacks what it has acknowledged: its vote must not lose it.
//!
//! ```text
//!   late:   cut off ─────────────── lacks what is acknowledged meanwhile ───────────────► healed
//!   keeper: acknowledges ── killed ────────────────────────────────────────────────────► started
//!   victim: acknowledges ── ends ── forgets, started: refuses ── has it again, started
//! ```
//!
//! Were the victim to forget and to start, it would vote for the late one, and the two would be a
//! majority that never heard of what the other two had acknowledged.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tidemark_lab::preload::Call;
use tidemark_store::node::{log_dir, state_dir};
use tidemark_store::storage::SegmentLog;
use tidemark_types::NodeId;

use super::Effects;
use super::damage::{Target, sync};
use crate::cluster::Member;
use crate::run::stage::Stage;

/// What the victim may forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::run) enum Forgets {
    /// All of it: its disk is an empty one.
    Everything,
    /// What its log holds behind a flipped bit.
    BehindBit,
    /// What it was told to sync when syncs had begun to fail. It must have said so, and ended.
    FailedSyncs,
}

/// How long the late one misses what is acknowledged.
const LATE_FOR: Duration = Duration::from_secs(4);

/// A node that refuses to start has ended by then.
const REFUSES_WITHIN: Duration = Duration::from_secs(10);

/// How long the other two may go on without the one that knows better.
const WITHOUT_KEEPER: Duration = Duration::from_secs(5);

/// A file or folder, and where the true one is meanwhile.
struct Aside {
    is: PathBuf,
    aside: PathBuf,
}

impl Stage {
    /// Does all of it, and undoes it.
    pub(super) async fn forget(
        &mut self,
        [keeper, victim, late]: [NodeId; 3],
        forgets: Forgets,
    ) -> Result<Effects> {
        let host = |node: NodeId| Member::Node(node).host();
        let lan = self.cluster.lan().context("a network of its own")?;
        for other in [keeper, victim] {
            lan.cut(host(late), host(other))?;
            lan.cut(host(other), host(late))?;
        }
        let data = self.cluster.data_dir(victim);
        // What the log holds up to here the other two have as well.
        let known = match forgets {
            Forgets::BehindBit => Some(newest_log(&data)?),
            Forgets::Everything | Forgets::FailedSyncs => None,
        };
        tokio::time::sleep(LATE_FOR).await;
        let mut effects = Effects::new();
        if forgets == Forgets::FailedSyncs {
            effects = self.fail_until_it_ends(victim, Call::Fdatasync, false).await?;
        }
        self.cluster.kill(keeper)?;
        if self.cluster.runs(victim) {
            self.cluster.kill(victim)?;
        }
        let taken = match (forgets, known) {
            (_, Some(known)) => vec![self.flip_behind(&known, &data)?],
            (Forgets::Everything, None) => {
                vec![Aside::moved(log_dir(&data))?, Aside::moved(state_dir(&data))?]
            }
            (_, None) => Vec::new(),
        };
        self.start_again(victim)?;
        if !taken.is_empty() {
            let refused = self.cluster.ends_within(victim, REFUSES_WITHIN).await?.is_some();
            if refused {
                taken.iter().try_for_each(Aside::put_back)?;
                self.start_again(victim)?;
            } else {
                self.amount(&Member::Node(victim), "starts although it has forgotten", 1, 0);
            }
            effects.push((forgets.seen(), u64::from(refused)));
        }
        let lan = self.cluster.lan().context("a network of its own")?;
        for node in [late, keeper, victim] {
            lan.heal(host(node))?;
        }
        tokio::time::sleep(WITHOUT_KEEPER).await;
        self.start_again(keeper)?;
        self.all_ready().await?;
        Ok(effects)
    }

    fn start_again(&mut self, node: NodeId) -> Result<()> {
        self.begin_life(node.into());
        self.cluster.start_member(node)
    }

    /// Flips a bit of a node's log, in the first half of what was written since.
    fn flip_behind(&self, since: &(PathBuf, u64), data: &Path) -> Result<Aside> {
        let newest = newest_log(data)?;
        let from = if newest.0 == since.0 { since.1 } else { 0 };
        ensure!(newest.1 > from, "nothing was written meanwhile");
        let copied = Aside::copied(newest.0)?;
        let mut bytes = fs::read(&copied.is)?;
        let at = usize::try_from(from + self.below((newest.1 - from).div_ceil(2)))?;
        bytes[at] ^= 1 << self.below(8);
        fs::write(&copied.is, bytes)?;
        Ok(copied)
    }
}

impl Forgets {
    /// What is seen of it when the node refuses to start.
    fn seen(self) -> &'static str {
        match self {
            Forgets::BehindBit => "damage found",
            Forgets::Everything | Forgets::FailedSyncs => "starts refused",
        }
    }
}

/// The file that the log was written to last, and how far.
fn newest_log(data: &Path) -> Result<(PathBuf, u64)> {
    let path = Target::LogTail.newest(data)?.context("the log has a newest file")?;
    let length = SegmentLog::written(&path)?;
    Ok((path, length as u64))
}

impl Aside {
    fn of(is: PathBuf) -> Self {
        Aside { aside: is.with_extension("aside"), is }
    }

    /// Nothing is there any more.
    fn moved(is: PathBuf) -> Result<Self> {
        let moved = Aside::of(is);
        fs::rename(&moved.is, &moved.aside)?;
        Ok(moved)
    }

    /// It is there still.
    fn copied(is: PathBuf) -> Result<Self> {
        let copied = Aside::of(is);
        fs::copy(&copied.is, &copied.aside)?;
        Ok(copied)
    }

    /// What a refused start may have left is nobody's.
    fn put_back(&self) -> Result<()> {
        if self.is.is_dir() {
            fs::remove_dir_all(&self.is)?;
        }
        fs::rename(&self.aside, &self.is)?;
        sync(&self.is)
    }
}
