//! One seed from its beginning to the verdict.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tidemark_chaos::run::truth;
use tidemark_chaos::words;
use tidemark_checker::history::{Group, Nanos, User};
use tidemark_checker::{Demands, Event, Files, Report, Verdict, check};
use tidemark_store::inspect::Inspector;
use tidemark_store::node::Node;
use tidemark_store::storage::StateDb;
use tidemark_store_core::value::Mailbox;
use tidemark_store_core::{group_read, read};
use tidemark_types::{NodeId, Recipient};

use crate::plan::{ACCEPTED_MIN, FAULTS_MIN, Plan};
use crate::stage::Stage;
use crate::world::World;
use crate::{feed, groups, talk};

/// After the last fault everything must be at rest within this time.
const REST_WITHIN: Duration = Duration::from_secs(180);

/// Whoever is away is told within this time after that: what a dispatcher had leased that is gone comes
/// again first.
const TOLD_WITHIN: Duration = Duration::from_secs(60);

/// Between two looks whether it is.
const LOOK_EVERY: u64 = 50;

/// Steps in which the last questions of the prober are answered, or given up.
const LAST_ANSWERS: u64 = 6_000;

/// A seed's users write at most so many times as long as planned, until enough was accepted and
/// enough faults were felt.
const LOAD_STRETCH: u32 = 2;

/// What a seed showed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shown {
    /// Which seed.
    pub seed: u64,
    /// `holds`, `violated` or `void`.
    pub verdict: String,
    /// Simulated seconds.
    pub seconds: f64,
    /// Sends that were accepted.
    pub accepted: u64,
    /// Recipients' copies.
    pub delivered: u64,
    /// Faults with an effect, by kind.
    pub faults: BTreeMap<String, u64>,
    /// Crash points that were reached.
    pub points: BTreeMap<String, u64>,
    /// Snapshots that became a replica's live state.
    pub installs: u64,
    /// Batches of logs that power cuts have lost.
    pub lost_batches: u64,
    /// Times that a group got another leader.
    pub leader_changes: u64,
    /// Positions at which states were compared.
    pub compared: u64,
    /// The hash of all that happened.
    pub trace: String,
    /// What is wrong, if something is.
    pub wrong: Vec<String>,
}

impl Shown {
    /// How many faults had an effect.
    pub fn fault_count(&self) -> u64 {
        self.faults.values().sum()
    }
}

/// Simulates what a seed stands for; its files are in `folder`.
pub fn run(plan: Plan, folder: &Path, trace: Option<&Path>) -> Result<Shown> {
    let seed = plan.seed;
    let world = World::new(plan.clone(), folder, trace)?;
    world.line(&format_args!("{plan:?}"));
    world.end_with_panics();
    let mut stage = Stage::new(world.clone());
    let mut wrong = Vec::new();
    let mut report = None;
    let mut rest_kept = true;
    match course(&mut stage, &plan) {
        Ok(()) => {
            let (judged, beside) = judge(&mut stage, folder)?;
            rest_kept = beside.is_empty();
            wrong.extend(beside);
            wrong.extend(judged.violations.iter().map(|v| format!("{}: {}", v.code, v.reason)));
            report = Some(judged);
        }
        Err(error) => wrong.push(format!("{error:#}, after {:?}", stage.elapsed())),
    }
    let verdict = match &report {
        None => Verdict::Violated,
        Some(_) if !rest_kept => Verdict::Violated,
        Some(report) => report.verdict,
    };
    let counts = report.map(|report| report.counts).unwrap_or_default();
    let faults: BTreeMap<String, u64> =
        stage.felt().iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect();
    let few = faults.values().sum::<u64>() < FAULTS_MIN as u64;
    let verdict = match verdict {
        Verdict::Holds if few => {
            wrong.push(format!("fewer than {FAULTS_MIN} faults had an effect"));
            Verdict::Void
        }
        verdict => verdict,
    };
    let history = std::fs::read(folder.join("run.history")).context("the history")?;
    world.line(&format_args!("history {:032x}", xxhash_rust::xxh3::xxh3_128(&history)));
    Ok(Shown {
        seed,
        verdict: verdict.to_string(),
        seconds: stage.elapsed().as_secs_f64(),
        accepted: counts.accepted,
        delivered: counts.delivered,
        faults,
        points: stage.points().clone(),
        installs: world.machines.iter().map(|machine| machine.counted().installs).sum(),
        lost_batches: world.machines.iter().map(|machine| machine.counted().lost_batches).sum(),
        leader_changes: world.safety.leader_changes(),
        compared: world.safety.applied_count(),
        trace: format!("{:032x}", world.finish_trace()?),
        wrong,
    })
}

/// Load and faults, then heal, then rest.
fn course(stage: &mut Stage, plan: &Plan) -> Result<()> {
    let world = stage.world.clone();
    let enough = |stage: &Stage| {
        let felt: u64 = stage.felt().values().sum();
        world.accepted() >= ACCEPTED_MIN + ACCEPTED_MIN / 10 && felt >= FAULTS_MIN as u64
    };
    while stage.elapsed() < plan.load
        || !enough(stage) && stage.elapsed() < plan.load * LOAD_STRETCH
    {
        stage.play()?;
        stage.step()?;
    }
    stage.heal()?;
    world.stop_writing();
    world.doubt_all();
    world.line(&"healed");
    let until = stage.elapsed() + REST_WITHIN;
    let mut quiet = false;
    while stage.elapsed() < until {
        for _ in 0..LOOK_EVERY {
            stage.step()?;
        }
        let rests = stage.all_up() && unrest(&world).is_none();
        if rests && quiet {
            return tell(stage);
        }
        if rests {
            world.note(|at| Event::Quiet { at });
            world.stop_asking();
            quiet = true;
            // Until nothing is under way any more that somebody had asked for before.
            for _ in 0..LAST_ANSWERS {
                stage.step()?;
            }
        }
    }
    let why = unrest(&world).unwrap_or_else(|| "a host is down".to_owned());
    anyhow::bail!("not at rest {} s after the last fault: {why}", REST_WITHIN.as_secs())
}

/// Waits until whoever is away was told. Who was not is the checker's to say.
fn tell(stage: &mut Stage) -> Result<()> {
    let until = stage.elapsed() + TOLD_WITHIN;
    let world = stage.world.clone();
    let told = || {
        let node = world.machines.first().and_then(|machine| machine.running());
        let head = |user| node.as_ref().and_then(|node| mailbox(node, user)).map(|it| it.head);
        let mut users = (0..world.plan.users).map(User);
        users.all(|user| head(user).is_some_and(|head| world.away.is_told(user, head)))
    };
    while stage.elapsed() < until && !told() {
        for _ in 0..LOOK_EVERY {
            stage.step()?;
        }
    }
    Ok(())
}

/// Why it is not at rest yet.
fn unrest(world: &World) -> Option<String> {
    let nodes: Vec<Arc<Node>> =
        world.machines.iter().filter_map(|machine| machine.running()).collect();
    if nodes.len() < world.machines.len() {
        return Some("a store node is down".to_owned());
    }
    if let Some(reason) = nodes.iter().find_map(|node| unlevel(node)) {
        return Some(reason);
    }
    for (shard, _) in nodes[0].hosted().shards() {
        if !world.is_served(Group(u32::from(shard.get()))) {
            return Some(format!("shard {shard} has not acknowledged a probe"));
        }
    }
    for (number, shard) in nodes[0].hosted().shards() {
        match shard.look(|view| group_read::waiting(view, None, 1)) {
            Ok(Ok(waiting)) if waiting.is_empty() => {}
            other => {
                return Some(format!("shard {number} has not given its groups all: {other:?}"));
            }
        }
    }
    for (number, group) in nodes[0].hosted().groups() {
        let applied = group.status().applied;
        for other in &nodes[1..] {
            let found = other.hosted().groups().find(|(id, _)| *id == number);
            if found.is_none_or(|(_, group)| group.status().applied != applied) {
                return Some(format!("{number}: its replicas are not at the same entry"));
            }
        }
    }
    if !world.talk.is_over() {
        return Some("somebody has not said all that is to be said".to_owned());
    }
    for pocket in &world.pockets {
        let (user, device) = (pocket.user, pocket.device);
        if !pocket.is_settled() {
            return Some(format!("{user}'s {device} has sends without an outcome"));
        }
        let head = mailbox(&nodes[0], user).map(|mailbox| mailbox.head);
        if head.is_none_or(|head| pocket.cursor() < head) {
            let cursor = pocket.cursor();
            return Some(format!("{user}'s {device} is at {cursor}, the head is {head:?}"));
        }
    }
    None
}

fn unlevel(node: &Node) -> Option<String> {
    if let Err(reason) = node.readiness() {
        return Some(reason);
    }
    for (number, group) in node.hosted().groups() {
        let status = group.status();
        if status.applied != status.last_log {
            return Some(format!("{number}: {:?} of {:?}", status.applied, status.last_log));
        }
        match node.outbox_bytes(number) {
            Ok(0) => {}
            other => return Some(format!("{number}: its outbox: {other:?}")),
        }
    }
    None
}

fn mailbox(node: &Node, user: User) -> Option<Mailbox> {
    let mailbox = Recipient::User(words::name(user));
    let shard = node.hosted().shard(node.shard_number(&mailbox.id()))?;
    shard.look(|view| read::mailbox(view, &mailbox)).ok()?.ok()
}

/// R14, R17: what mailboxes hold is younger than what is kept, whatever one clock said.
fn kept(world: &World) {
    let node = world.machines.first().and_then(|machine| machine.running());
    let floor = |user| node.as_ref().and_then(|node| mailbox(node, user)).map(|it| it.floor);
    let floors = (0..world.plan.users).map(User).filter_map(floor);
    let removed: u64 = floors.map(|floor| u64::from(floor.get())).sum();
    world.line(&format_args!("{removed} entries were removed"));
    if world.plan.keeps_all() {
        world.notes.amount(&"retention", "entries removed before their time", removed, 0);
    }
}

/// What every replica's disk holds in the end, and the checker's verdict on the whole history; beside it what is
/// wrong with what is not in the history: groups, acts and feeds.
fn judge(stage: &mut Stage, folder: &Path) -> Result<(Report, Vec<String>)> {
    let world = stage.world.clone();
    kept(&world);
    let mut wrong = feed::judge(&world);
    stage.stop()?;
    let mut replicas: Vec<(NodeId, Inspector)> = Vec::new();
    for machine in &world.machines {
        let (log, state) = machine.left().context("a disk was cut off")?;
        let state = StateDb::open_read_only(&state)?;
        let identity = machine.identity().clone();
        replicas.push((machine.node, Inspector::of(identity, Box::new(log), state)));
    }
    if let Some((_, inspector)) = replicas.first() {
        wrong.extend(groups::judge(&world, inspector)?);
        wrong.extend(talk::judge(&world, inspector)?);
    }
    truth::read_from(replicas, &world.notes)?;
    world.notes.finish()?;
    let demands = Demands {
        accepted_min: ACCEPTED_MIN,
        recovery: Nanos(60_000_000_000),
        ..Demands::default()
    };
    let report = check(&Files::default().whole(folder.join("run.history")), &demands)?;
    Ok((report, wrong))
}
