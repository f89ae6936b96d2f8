//! Who removes what mailboxes need not keep any longer (R14): a slow walk over all mailboxes of the
//! shards that this node leads, again and again.
//!
//! It only finds out whom to ask about; apply judges. What it judges by is the time of the last
//! `Expire`, which a majority measured (R17), so a wrong clock removes nothing.

use std::sync::Weak;
use std::time::Duration;

use tidemark_store_core::value::Mailbox;
use tidemark_store_core::{Command, Fatal, Reply, read, retention};
use tidemark_types::Recipient;

use super::Node;
use crate::metrics;
use crate::shard::{self, Shard};

/// Mailboxes that are looked at together.
const MAILBOXES_PER_LOOK: usize = 128;

/// Between two looks, so that a walk takes a small part of a processor.
const PAUSE: Duration = Duration::from_millis(50);

/// Walks until the node is dropped, with `every` between the beginnings of two walks at least.
pub(super) async fn run(node: Weak<Node>, every: Duration) {
    let mut walk = tokio::time::interval(every);
    walk.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        walk.tick().await;
        let Some(shards) = node.upgrade().map(|node| node.identity.shards()) else { return };
        for number in shards.shards() {
            let mut after = None;
            let mut seen = Seen::default();
            loop {
                let Some(node) = node.upgrade() else { return };
                let Some(shard) = node.hosted.shard(number) else { break };
                if !shard.group().is_leader() {
                    break;
                }
                match look(shard, after, &mut seen).await {
                    Ok(Some(last)) => after = Some(last),
                    Ok(None) => {
                        let Seen { mailboxes, entries, floors } = seen;
                        metrics::walked(
                            &shard.group().id().to_string(),
                            mailboxes,
                            entries,
                            floors,
                        );
                        break;
                    }
                    Err(error) => {
                        tracing::debug!(%number, %error, "retention stops; the next walk tries again");
                        break;
                    }
                }
                drop(node);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// What a walk through a shard's mailboxes has seen so far.
#[derive(Default)]
struct Seen {
    mailboxes: u64,
    /// That they keep.
    entries: u64,
    /// That they no longer keep.
    floors: u64,
}

impl Seen {
    fn see(&mut self, Mailbox { floor, head, .. }: &Mailbox) {
        let (floor, head) = (u64::from(floor.get()), u64::from(head.get()));
        self.mailboxes += 1;
        self.entries += head.saturating_sub(floor);
        self.floors += floor;
    }
}

/// Looks at some mailboxes after `after`, and removes what need not be kept of them; the last one.
async fn look(
    shard: &Shard,
    after: Option<Recipient>,
    seen: &mut Seen,
) -> Result<Option<Recipient>, shard::Error> {
    let (last, due) = shard.look(|state| {
        let Some(facts) = read::shard(state)? else { return Ok((None, Vec::new())) };
        let ids = read::mailboxes(state, after.as_ref(), MAILBOXES_PER_LOOK)?;
        let mut due = Vec::new();
        for id in &ids {
            seen.see(&read::mailbox(state, id)?);
            if retention::is_due(state, &facts, id)? {
                due.push(id.clone());
            }
        }
        Ok::<_, Fatal>((ids.last().cloned(), due))
    })??;
    for mailbox in due {
        retain(shard, mailbox).await?;
    }
    Ok(last)
}

async fn retain(shard: &Shard, mailbox: Recipient) -> Result<(), shard::Error> {
    loop {
        metrics::retained();
        match shard.propose(Command::Retain { mailbox: mailbox.clone() }).await? {
            Reply::Retained { more: true, .. } => {}
            _ => return Ok(()),
        }
    }
}
