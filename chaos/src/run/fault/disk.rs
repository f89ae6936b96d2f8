//! Slow, stalled, failing and full disks.

use std::time::Duration;

use anyhow::{Context, Result};
use tidemark_lab::ballast::Ballast;
use tidemark_lab::preload::Call;
use tidemark_lab::throttle::Throttle;
use tidemark_types::NodeId;

use super::Effects;
use crate::cluster::Member;
use crate::run::stage::Stage;

/// What of a disk's space is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::run) enum Space {
    /// So many bytes: new messages are refused.
    Bytes(u64),
    /// Nothing at all.
    Nothing,
}

/// Durable commits of the log, and those within what is slow and what is a stall.
const COMMITS: &str = "store_log_fsync_seconds_count";
const NOT_SLOW: &str = "store_log_fsync_seconds_bucket{le=\"0.05\"}";
const NO_STALL: &str = "store_log_fsync_seconds_bucket{le=\"2\"}";

/// Sends that a node refused for lack of room.
const REFUSED: &str = "store_proposals_refused_total";

/// A call that nobody makes in this time does not fail: disks are busy under load.
const CALLED_WITHIN: Duration = Duration::from_secs(20);

/// A node that was told of a failure has stopped in this time.
const STOPS_WITHIN: Duration = Duration::from_secs(10);

/// Between two looks at a full disk.
const BETWEEN_READS: Duration = Duration::from_millis(500);

impl Stage {
    pub(super) async fn slow_disk(
        &mut self,
        node: NodeId,
        writes_per_second: Option<u32>,
        each: Duration,
    ) -> Result<Effects> {
        let (what, bound) = match writes_per_second {
            Some(_) => ("commits over 50 ms", NOT_SLOW),
            None => ("commits over 2 s", NO_STALL),
        };
        let before = self.slow_commits(node, bound).await?;
        let device = self.cluster.disk(node)?.device()?;
        let mut throttle = Throttle::create(self.cluster.process_id(node)?, device)?;
        match writes_per_second {
            Some(rate) => throttle.slow(rate)?,
            None => throttle.stall()?,
        }
        tokio::time::sleep(each).await;
        drop(throttle);
        self.all_ready().await?;
        let slow = self.slow_commits(node, bound).await?;
        Ok(vec![(what, slow.saturating_sub(before))])
    }

    /// Durable commits of a node's log that took longer.
    async fn slow_commits(&self, node: NodeId, bound: &str) -> Result<u64> {
        let all = self.cluster.metric(node, COMMITS).await?;
        Ok((all - self.cluster.metric(node, bound).await?) as u64)
    }

    pub(super) async fn fail_call(
        &mut self,
        node: NodeId,
        call: Call,
        once: bool,
    ) -> Result<Effects> {
        let seen = self.fail_until_it_ends(node, call, once).await?;
        if !self.cluster.runs(node) {
            self.revive(&[node.into()]).await?;
        }
        Ok(seen)
    }

    /// Lets a call of a node fail, which must end it.
    pub(super) async fn fail_until_it_ends(
        &mut self,
        node: NodeId,
        call: Call,
        once: bool,
    ) -> Result<Effects> {
        let preload = self.cluster.preload(node)?;
        let before = preload.failed(call)?;
        preload.fail(call, once)?;
        let mut ended = self.cluster.ends_within(node, CALLED_WITHIN).await?;
        let preload = self.cluster.preload(node)?;
        preload.mend(call)?;
        let failed = preload.failed(call)? - before;
        // It may have failed just now.
        if ended.is_none() && failed > 0 {
            ended = self.cluster.ends_within(node, STOPS_WITHIN).await?;
        }
        if ended.is_none() && failed > 0 {
            let what = format!("goes on after {} failed", call.name());
            self.amount(&Member::Node(node), &what, failed, 0);
        }
        let stopped = u64::from(ended.is_some());
        Ok(vec![("calls failed", failed), ("processes that stopped by it", stopped)])
    }

    pub(super) async fn fill_disk(
        &mut self,
        node: NodeId,
        space: Space,
        each: Duration,
    ) -> Result<Effects> {
        let data = self.cluster.disk(node)?.data();
        let folder = data.parent().context("data is a folder of the disk")?;
        let before = self.cluster.metric(node, REFUSED).await?;
        let ballast = match space {
            Space::Bytes(bytes) => Ballast::leave(folder, bytes)?,
            Space::Nothing => Ballast::fill(folder)?,
        };
        let (mut reads, mut refused) = (0, 0);
        let until = tokio::time::Instant::now() + each;
        let mut ended = None;
        while ended.is_none() && tokio::time::Instant::now() < until {
            reads += self.read_all().await;
            if let Ok(now) = self.cluster.metric(node, REFUSED).await {
                refused = (now - before) as u64;
            }
            ended = self.cluster.ends_within(node, BETWEEN_READS).await?;
        }
        drop(ballast);
        // With nothing left it cannot write its log, and must stop.
        if ended.is_some() {
            self.revive(&[node.into()]).await?;
        }
        self.all_ready().await?;
        Ok(vec![
            ("sends refused or a process stopped", refused + u64::from(ended.is_some())),
            ("reads answered meanwhile", reads),
        ])
    }

    /// Asks for every user's head; how many were told.
    async fn read_all(&self) -> u64 {
        let heads = self.people.iter().map(|person| person.head(&self.client));
        let heads = futures::future::join_all(heads).await;
        heads.into_iter().filter(Result::is_ok).count() as u64
    }
}
