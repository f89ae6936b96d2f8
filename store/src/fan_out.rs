//! The fan-out of large groups (R10): the shard's leader gives their logs to the members, a portion in
//! each command.
//!
//! ```text
//!   apply ── Effect::FanOut ──► Notify ──► task ── FanOut{group} ──► apply
//!                                           ▲                         │
//!    marks in the state ── groups ──────────┘       the next portion, or the mark is gone
//! ```
//!
//! What is left to do stands in the state, so nothing is kept here: whoever leads next finds the
//! marks. One command of a group is under way at a time, and of a few groups together, so that a
//! large group does not keep the others waiting. It gives way to what clients ask for: portions have a
//! pace, since all who are told of one take processors too; where entries wait behind the one that is
//! given, it rests for as long as a portion took. Half of the outbox is left to clients (R7).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tidemark_store_core::{Command, Fatal, Reply, group_read};
use tidemark_types::{GroupId, ShardId};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::shard::{Hosted, Shard};

/// Groups whose commands are under way together.
const GROUPS_AT_ONCE: usize = 16;

/// After a command came to nothing, after a leader could not make sure that it leads, and while the
/// outbox is half full.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// From one portion to the next: to a full group of 10,000 an append gives the first, and 78 follow.
const PACE: Duration = Duration::from_millis(10);

/// So much that was late is made up for.
const LATE_MAX: Duration = Duration::from_millis(100);

/// Gives what is left to give whenever this node leads the shard; ends when the group stops.
pub async fn run(
    hosted: Arc<Hosted>,
    number: ShardId,
    wake: Arc<Notify>,
    fatal: watch::Sender<Option<String>>,
) {
    let shard = hosted.shard(number).expect("it is there");
    let mut leadership = shard.group().leadership();
    while let Some(term) = leadership.gained().await {
        // Afterwards an entry of this term is applied, so the marks are all there.
        if shard.group().read_index().await.is_err() {
            tokio::time::sleep(AGAIN_AFTER).await;
            continue;
        }
        tokio::select! {
            () = leadership.lost(term) => {}
            Err(error) = give(shard, &wake) => {
                let reason = format!("the groups of shard {number} cannot be read: {error}");
                fatal.send_replace(Some(reason));
                return;
            }
        }
    }
}

/// Gives for ever; ends only when the state cannot be read.
async fn give(shard: &Shard, wake: &Notify) -> Result<Infallible, Fatal> {
    let mut pace = Pace::from(Instant::now());
    let mut first = None;
    loop {
        let mut last = None;
        loop {
            let look = |state: &dyn tidemark_store_core::Read| {
                group_read::waiting(state, last.as_ref(), GROUPS_AT_ONCE)
            };
            let groups = shard.peek(look)?;
            let Some(group) = groups.last().cloned() else { break };
            if let Some(due) = first.take() {
                tokio::time::sleep_until(due).await;
            }
            let began = Instant::now();
            let mut portions: FuturesUnordered<_> =
                groups.into_iter().map(|group| portion(shard, group)).collect();
            let mut then = Then::KeepPace;
            while let Some(wanted) = portions.next().await {
                then = then.max(wanted?);
            }
            match then {
                Then::KeepPace => tokio::time::sleep_until(pace.next(Instant::now())).await,
                Then::Hurry => {
                    tokio::time::sleep(began.elapsed().min(PACE)).await;
                    pace = Pace::from(Instant::now());
                }
                Then::TryAgain => tokio::time::sleep(AGAIN_AFTER).await,
            }
            last = Some(group);
        }
        if last.is_none() {
            // A mark that was set after the look has left a permit.
            wake.notified().await;
            pace = Pace::from(Instant::now());
            // The append gave a portion itself.
            first = Some(pace.next(Instant::now()));
        }
    }
}

/// When portions are due, one after the other.
struct Pace(Instant);

impl Pace {
    fn from(now: Instant) -> Self {
        Pace(now)
    }

    /// When the next one is due, behind one that is over `now`.
    fn next(&mut self, now: Instant) -> Instant {
        self.0 = self.0.max(now - LATE_MAX) + PACE;
        self.0
    }
}

/// What comes after a portion; of several the last one here.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Then {
    /// Nothing waits but what is left of the newest entry, if anything.
    KeepPace,
    /// Entries wait.
    Hurry,
    /// The portion was not given.
    TryAgain,
}

/// Proposes one portion. Who proposes it again does no harm: the position is in the state.
async fn portion(shard: &Shard, group: GroupId) -> Result<Then, Fatal> {
    while shard.is_outbox_half_full()? {
        tokio::time::sleep(AGAIN_AFTER).await;
    }
    match shard.propose(Command::FanOut { group }).await {
        Ok(Reply::FannedOut { behind: false, .. }) => Ok(Then::KeepPace),
        Ok(Reply::FannedOut { behind: true, .. }) => Ok(Then::Hurry),
        Ok(other) => {
            tracing::error!(?other, "no answer to a fan-out");
            Ok(Then::TryAgain)
        }
        Err(error) => {
            tracing::debug!(%error, "a portion is proposed again");
            Ok(Then::TryAgain)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_late_is_made_up_for_but_not_all_of_it() {
        let start = Instant::now() + Duration::from_secs(60);
        let mut pace = Pace::from(start);
        assert_eq!(pace.next(start), start + PACE);
        // It took longer: the one after it is due when it would have been.
        assert_eq!(pace.next(start + 2 * PACE), start + 2 * PACE);
        let much_later = start + Duration::from_secs(9);
        assert_eq!(pace.next(much_later), much_later - LATE_MAX + PACE);
    }
}
