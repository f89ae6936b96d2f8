//! Asks every group for a commit, twenty times a second, and remembers when it got one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use parking_lot::Mutex;
use tidemark_checker::Event;
use tidemark_checker::history::{Group, Nanos};
use tidemark_store_client::Client;
use tidemark_store_core::Command;
use tidemark_types::{CounterId, Id, ShardId};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::notes::Notes;

/// Between two probes of a group.
const EVERY: Duration = Duration::from_millis(50);

/// Probes of a group that wait for an answer.
const OPEN_MAX: usize = 100;

/// The probes of a run.
pub(super) struct Probes {
    acked: Arc<Mutex<BTreeMap<ShardId, Vec<Nanos>>>>,
    notes: Notes,
    _tasks: JoinSet<()>,
}

impl Probes {
    /// Probes every shard until this is dropped.
    pub(super) fn start(client: &Client, notes: &Notes) -> Result<Self> {
        let acked = Arc::<Mutex<BTreeMap<ShardId, Vec<Nanos>>>>::default();
        let mut tasks = JoinSet::new();
        for shard in crate::stores::shards(client)? {
            let counter = counter_on(client, shard)?;
            let command = Arc::new(Command::Allocate { counter, count: 1, id: None });
            let (client, notes, acked) = (client.clone(), notes.clone(), acked.clone());
            tasks.spawn(async move {
                let open = Arc::new(Semaphore::new(OPEN_MAX));
                let mut ticks = tokio::time::interval(EVERY);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    ticks.tick().await;
                    let Ok(open) = open.clone().try_acquire_owned() else { continue };
                    let group = Group(u32::from(shard.get()));
                    notes.note(|at| Event::Probe { at, group });
                    let (client, notes) = (client.clone(), notes.clone());
                    let (command, acked) = (command.clone(), acked.clone());
                    tokio::spawn(async move {
                        let attempt = async { client.submit(&command).await?.reply().await };
                        if attempt.await.is_ok() {
                            let at = notes.note(|at| Event::ProbeAck { at, group });
                            acked.lock().entry(shard).or_default().push(at);
                        }
                        drop(open);
                    });
                }
            });
        }
        Ok(Probes { acked, notes: notes.clone(), _tasks: tasks })
    }

    /// Waits until each of these shards has acknowledged a probe from now on.
    pub(super) async fn served(&self, shards: &[ShardId]) {
        let now = self.notes.now();
        let last = |shard| self.acked.lock().get(shard).and_then(|acks| acks.last().copied());
        for shard in shards {
            while last(shard) <= Some(now) {
                tokio::time::sleep(EVERY).await;
            }
        }
    }

    /// Acknowledgements so far.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acked.lock().values().map(|acks| acks.len() as u64).sum()
    }

    /// The longest time between two acknowledgements of a probe, in any of these shards, since just
    /// before `since`.
    pub(super) fn longest_gap(&self, shards: &[ShardId], since: Nanos) -> Duration {
        let (acked, now) = (self.acked.lock(), self.notes.now());
        let gaps = shards.iter().map(|shard| {
            let acks = acked.get(shard).map_or(&[][..], Vec::as_slice);
            let from = acks.partition_point(|at| *at < since).saturating_sub(1);
            let acks = acks[from..].iter().copied().chain([now]);
            let before = acks.clone();
            acks.skip(1).zip(before).map(|(ack, before)| ack.0.saturating_sub(before.0)).max()
        });
        Duration::from_nanos(gaps.flatten().max().unwrap_or_default())
    }
}

/// A counter that lives on this shard.
fn counter_on(client: &Client, shard: ShardId) -> Result<CounterId> {
    let names = (0..).map(|number| CounterId::new(format!("probe-{number}")));
    for counter in names {
        let counter = counter?;
        if client.shard_of(&Id::Counter(counter.clone())) == shard {
            return Ok(counter);
        }
    }
    unreachable!("some name lives there")
}
