//! A run while it goes on: the cluster, the load, and who looks at it.

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tidemark_checker::Event;
use tidemark_checker::history::Nanos;
use tidemark_env::SeededRng;
use tidemark_store_client::Client;
use tidemark_types::{NodeId, ShardId};

use super::facts::{Facts, Lives};
use super::fault::{Effects, Fault};
use super::load::{Counts, Person};
use super::probe::Probes;
use super::scenario::{self, SCENARIOS, Scenario};
use crate::air::Air;
use crate::cluster::{Cluster, NotReady};
use crate::notes::Notes;
use crate::stores::NoLeader;

/// Between two faults, so that each is seen apart.
const CALM: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(5)];

/// How often a fault that had no effect is tried again once the time is up.
const OVERTIME_MAX: u32 = 3;

/// How long shards may take to serve again after a fault.
const SERVE_WITHIN: Duration = Duration::from_secs(60);

/// A run while it goes on.
pub(super) struct Stage {
    pub(super) cluster: Cluster,
    pub(super) client: Client,
    pub(super) notes: Notes,
    pub(super) probes: Probes,
    pub(super) facts: Facts,
    pub(super) lives: Lives,
    pub(super) air: Air,
    pub(super) people: Vec<Arc<Person>>,
    pub(super) counts: Arc<Counts>,
    pub(super) rng: Arc<SeededRng>,
    pub(super) shard_count: u16,
    pub(super) gateways: usize,
    pub(super) felt: Vec<Felt>,
    pub(super) unsynced_bytes_lost: u64,
    /// Why the cluster did not come back after a fault; then nothing more is done to it.
    pub(super) down: Option<String>,
}

/// A fault and what it cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Felt {
    /// The name of its own scenario, without `-all`.
    pub kind: String,
    /// Whom it befell.
    pub target: String,
    /// When it began, in milliseconds since the run did.
    pub at_ms: u64,
    /// The longest time between two acknowledgements of a probe in the shards concerned.
    pub unavailable_ms: u64,
}

/// A fault that has begun.
struct Begun {
    at: Nanos,
    /// How often shards had changed their leaders before.
    leader_changes: u64,
}

/// Frames that are lost while something else happens.
pub(super) struct Losses {
    /// As it is told.
    pub(super) fault: Fault,
    /// How many.
    pub(super) of_thousand: u32,
    /// For how long, at least.
    pub(super) each: Duration,
}

impl Stage {
    /// Injects one fault after the other until the time is up. One that had no effect proves nothing,
    /// and another one of its scenario follows.
    pub(super) async fn play(&mut self, scenario: &'static Scenario, seconds: u64) -> Result<()> {
        if !scenario.has_faults() {
            self.keep_still(Duration::from_secs(seconds)).await;
            return Ok(());
        }
        let began = Instant::now();
        let left = || Duration::from_secs(seconds).saturating_sub(began.elapsed());
        let (mut owed, mut overtime) = (None, 0);
        while self.down.is_none() {
            let calm = self.between(CALM[0], CALM[1]);
            let is_over = left() < calm + CALM[0];
            if is_over && (owed.is_none() || overtime == OVERTIME_MAX) {
                tokio::time::sleep(left()).await;
                break;
            }
            overtime += u32::from(is_over);
            tokio::time::sleep(calm).await;
            let next = owed.unwrap_or_else(|| scenario.next(self));
            let fault = match next.fault(self).await {
                Err(error) if error.is::<NoLeader>() => {
                    self.give_up(&next.name, &error);
                    break;
                }
                fault => fault?,
            };
            let losses = scenario.beside(next, self).await?;
            owed = self.strike(next, fault, losses).await?;
        }
        Ok(())
    }

    /// Nothing is done: whoever leads goes on.
    async fn keep_still(&self, time: Duration) {
        let known = CALM[1].min(time);
        tokio::time::sleep(known).await;
        let changes = || self.facts.leaders.lock().changes;
        let before = changes();
        tokio::time::sleep(time - known).await;
        self.amount(&"cluster", "leaders changed without a fault", changes() - before, 0);
    }

    /// Injects a fault of this scenario, and has frames lost meanwhile, and as long as they say at
    /// least; the scenario of the one that had no effect.
    async fn strike(
        &mut self,
        scenario: &'static Scenario,
        fault: Fault,
        losses: Option<Losses>,
    ) -> Result<Option<&'static Scenario>> {
        let losing = losses.map(|losses| {
            let begun = self.begin(&losses.fault);
            let (before, least) = (self.air.lost(), Instant::now() + losses.each);
            self.air.lose(losses.of_thousand);
            (losses.fault, begun, before, least)
        });
        let begun = self.begin(&fault);
        let effects = match self.inflict(&fault.harm).await {
            Err(error) if error.is::<NotReady>() || error.is::<NoLeader>() => {
                self.give_up(&format_args!("{} {}", fault.kind, fault.target), &error);
                vec![("processes that did not come back", 1)]
            }
            effects => effects?,
        };
        let mut ended = vec![(Some(scenario), fault, begun, effects)];
        if let Some((fault, begun, before, least)) = losing {
            tokio::time::sleep_until(least.into()).await;
            self.air.lose(0);
            let scenario = Scenario::named(fault.kind);
            ended.push((scenario, fault, begun, self.frames_lost(before)));
        }
        for (_, Fault { kind, target, .. }, ..) in &ended {
            let (kind, target) = ((*kind).to_owned(), target.clone());
            self.notes.note(|at| Event::Healed { at, kind, target });
        }
        let mut owed = None;
        for (scenario, fault, begun, effects) in ended {
            if !self.account(fault, begun, effects).await? {
                owed = owed.or(scenario);
            }
        }
        Ok(owed)
    }

    /// A fault begins.
    fn begin(&self, Fault { kind, target, .. }: &Fault) -> Begun {
        let leader_changes = self.facts.leaders.lock().changes;
        *self.counts.fault.lock() = Some(kind);
        let (kind, target) = ((*kind).to_owned(), target.clone());
        let at = self.notes.note(|at| Event::Fault { at, kind, target });
        Begun { at, leader_changes }
    }

    /// Waits until the shards serve that an undone fault befell, and writes down what it cost; did it
    /// have an effect?
    async fn account(&mut self, fault: Fault, begun: Begun, mut effects: Effects) -> Result<bool> {
        let Begun { at, leader_changes } = begun;
        let Fault { kind, target, shards, .. } = fault;
        // Whether they do is the checker's to say.
        let within = if self.down.is_none() { SERVE_WITHIN } else { Duration::ZERO };
        let served = tokio::time::timeout(within, self.probes.served(&shards)).await.is_ok();
        let changes = self.facts.leaders.lock().changes - leader_changes;
        effects.push(("leaders changed", changes));
        for (name, amount) in &effects {
            let (kind, name, amount) = (kind.to_owned(), (*name).to_owned(), *amount);
            self.notes.note(|at| Event::Effect { at, kind, name, amount });
        }
        let gap = self.probes.longest_gap(&shards, at);
        let said: Vec<String> =
            effects.iter().map(|(name, amount)| format!("{amount} {name}")).collect();
        let (at_ms, unavailable_ms) = (at.0 / 1_000_000, u64::try_from(gap.as_millis())?);
        println!(
            "{:>7.1} s  {kind} {target}: {}, {} shards, unavailable {unavailable_ms} ms{}",
            at_ms as f64 / 1e3,
            said.join(", "),
            shards.len(),
            if served { "" } else { ", and still so" },
        );
        let had_effect = had_effect(kind, &effects);
        if had_effect {
            self.felt.push(Felt { kind: kind.to_owned(), target, at_ms, unavailable_ms });
        }
        Ok(had_effect)
    }

    /// The cluster does not come back: nothing more is done to it, and it has not kept its promise.
    fn give_up(&mut self, after: &dyn Display, why: &anyhow::Error) {
        eprintln!("{after}: {why:#}");
        self.amount(&"cluster", "times that it did not come back", 1, 0);
        self.down = Some(format!("{why:#}"));
    }

    /// All shards.
    pub(super) fn shards(&self) -> Vec<ShardId> {
        scenario::shards(self.shard_count)
    }

    /// The shards that a node led when last heard of.
    pub(super) fn led_by(&self, node: NodeId) -> Vec<ShardId> {
        let led = self.facts.leaders.lock().led_by(node);
        let numbers = led.into_iter().filter_map(|group| u16::try_from(group).ok());
        numbers.filter(|number| *number < self.shard_count).map(ShardId::new).collect()
    }
}

/// Was everything seen that must be seen of a fault of this kind?
fn had_effect(kind: &str, effects: &Effects) -> bool {
    let seen = |name: &&str| effects.iter().any(|(seen, amount)| seen == name && *amount > 0);
    let scenario = SCENARIOS.iter().find(|scenario| scenario.fault_kind() == kind);
    scenario.is_some_and(|scenario| scenario.effects.iter().all(seen))
}
