//! Wall clocks that are wrong.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use tidemark_lab::preload::Pace;

use super::Effects;
use crate::cluster::{Member, PATIENCE};
use crate::run::stage::Stage;

/// A node looks at its clock this often, and so does what stands between it and the clock.
const NOTICED: Duration = Duration::from_secs(2);

impl Stage {
    pub(super) async fn set_clock(
        &mut self,
        member: Member,
        pace: Pace,
        each: Duration,
    ) -> Result<Effects> {
        self.cluster.preload(member)?.set_clock(pace)?;
        tokio::time::sleep(each).await;
        let clock = self.clock(member).await?;
        let now = SystemTime::now();
        let off = clock.duration_since(now).or_else(|_| now.duration_since(clock));
        self.cluster.preload(member)?.set_clock(Pace::Right)?;
        tokio::time::sleep(NOTICED).await;
        if let Member::Node(node) = member {
            // What an operator does who has repaired the clock.
            let from = tokio::time::Instant::now();
            while !self.client.clock(node).await?.trusted {
                self.client.trust_clock(node).await?;
                tokio::time::sleep(NOTICED).await;
                if from.elapsed() > PATIENCE {
                    self.amount(&member, "does not trust its clock again", 1, 0);
                    break;
                }
            }
        }
        self.all_ready().await?;
        // Told in whole seconds: one of them may be an illusion.
        let seconds = off.unwrap_or_default().as_secs();
        Ok(vec![("seconds wrong", seconds.saturating_sub(1))])
    }

    /// A member's wall clock as it tells it itself. A gateway does so in the head of an HTTP answer,
    /// which never goes back: after a clock that was ahead it shows that one still.
    async fn clock(&self, member: Member) -> Result<SystemTime> {
        match member {
            Member::Node(node) => {
                let wall = self.client.clock(node).await?.wall;
                Ok(UNIX_EPOCH + Duration::from_millis(wall.get()))
            }
            Member::Gateway(_) => self.cluster.clock(member).await,
        }
    }
}
