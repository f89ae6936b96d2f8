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
//! large group does not keep the others waiting. It gives way to what clients ask for: after each
//! portion it rests for as long as that took, and half of the outbox is left to them (R7).

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

/// The longest rest after a portion: a group of 10,000 takes 20 of them.
const REST_MAX: Duration = Duration::from_millis(20);

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
    loop {
        let mut behind = None;
        loop {
            let look = |state: &dyn tidemark_store_core::Read| {
                group_read::waiting(state, behind.as_ref(), GROUPS_AT_ONCE)
            };
            let groups = shard.peek(look)?;
            let Some(last) = groups.last().cloned() else { break };
            let mut portions: FuturesUnordered<_> =
                groups.into_iter().map(|group| portion(shard, group)).collect();
            let mut failed = false;
            while let Some(done) = portions.next().await {
                failed |= !done?;
            }
            if failed {
                tokio::time::sleep(AGAIN_AFTER).await;
            }
            behind = Some(last);
        }
        if behind.is_none() {
            // A mark that was set after the look has left a permit.
            wake.notified().await;
        }
    }
}

/// Proposes one portion; was it given? Who proposes it again does no harm: the position is in the
/// state.
async fn portion(shard: &Shard, group: GroupId) -> Result<bool, Fatal> {
    while shard.is_outbox_half_full()? {
        tokio::time::sleep(AGAIN_AFTER).await;
    }
    let began = Instant::now();
    match shard.propose(Command::FanOut { group }).await {
        Ok(Reply::FannedOut { .. }) => {
            tokio::time::sleep(began.elapsed().min(REST_MAX)).await;
            Ok(true)
        }
        Ok(other) => {
            tracing::error!(?other, "no answer to a fan-out");
            Ok(false)
        }
        Err(error) => {
            tracing::debug!(%error, "a portion is proposed again");
            Ok(false)
        }
    }
}
