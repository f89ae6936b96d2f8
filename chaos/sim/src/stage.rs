//! The simulation while it runs: one step after the other, with faults between them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use tidemark_checker::Event;
use tidemark_types::NodeId;
use turmoil::{Builder, Sim};

use crate::harm::Harm;
use crate::interpose;
use crate::machine::{Counted, Keep};
use crate::plan::{Dice, GATEWAYS, PHONES, Plan};
use crate::world::{self, PROBER, Transfer, World};
use crate::{phone, prober, servers};

/// A step of the simulation.
pub const TICK: Duration = Duration::from_millis(1);

/// No simulation takes so long.
const NEVER: Duration = Duration::from_secs(24 * 3_600);

/// Segments that a connection holds.
const SEGMENTS: usize = 4_096;

/// A node that ended by itself is started again after this, as a supervisor would.
const RESTART_AFTER: Duration = Duration::from_millis(500);

/// Faults at once, at most.
const FAULTS_AT_ONCE: usize = 2;

/// A fault of the network between hosts that have just nothing to say is given so much more time...
const LONGER: Duration = Duration::from_secs(2);
/// ... and so often.
const LONGER_MAX: u32 = 4;

/// Hosts that talk say something as often: a heartbeat, or a ping of their connection.
const TALKED_WITHIN: Duration = Duration::from_millis(1_200);

/// Faults begin when the cluster has had time to elect its leaders.
const FIRST_FAULT_AFTER: Duration = Duration::from_secs(3);

/// The simulation while it runs.
pub struct Stage {
    sim: Sim<'static>,
    /// What all hosts share.
    pub world: Arc<World>,
    elapsed: Duration,
    /// Hosts that are down, and when they come back.
    down: BTreeMap<String, Duration>,
    active: Vec<Active>,
    next_fault: Duration,
    dice: Dice,
    felt: BTreeMap<&'static str, u64>,
    points: BTreeMap<String, u64>,
}

/// A fault that goes on.
struct Active {
    harm: Harm,
    until: Duration,
    noted: bool,
    traffic: u64,
    counted: Vec<Counted>,
    /// What it has done already.
    effect: u64,
    /// How often it was given more time, since it had done nothing.
    longer: u32,
    /// Of one that flaps: is the network cut now, and until when.
    flap: (bool, Duration),
}

impl Stage {
    /// A cluster whose hosts have just been switched on.
    pub fn new(world: Arc<World>) -> Self {
        let Plan { seed, latency_max, .. } = world.plan;
        let epoch = std::time::UNIX_EPOCH + Duration::from_secs(interpose::EPOCH_SECONDS);
        let mut builder = Builder::new();
        builder
            .rng_seed(seed)
            .epoch(epoch)
            .tick_duration(TICK)
            .simulation_duration(NEVER)
            .min_message_latency(Duration::ZERO)
            .max_message_latency(latency_max)
            .tcp_capacity(SEGMENTS)
            .enable_random_order();
        let mut sim = builder.build();
        for node in world.plan.nodes() {
            let world = world.clone();
            sim.host(world::store(node), move || servers::store(world.clone(), node));
        }
        for number in 0..GATEWAYS {
            let world = world.clone();
            sim.host(world::gateway(number), move || servers::gateway(world.clone(), number));
        }
        for number in 0..PHONES {
            let world = world.clone();
            sim.host(world::phone(number), move || phone::run(world.clone(), number));
        }
        let probed = world.clone();
        sim.host(PROBER, move || prober::run(probed.clone()));
        Stage {
            sim,
            dice: Dice::new(seed, 5),
            world,
            elapsed: Duration::ZERO,
            down: BTreeMap::new(),
            active: Vec::new(),
            next_fault: FIRST_FAULT_AFTER,
            felt: BTreeMap::new(),
            points: BTreeMap::new(),
        }
    }

    /// The simulated time.
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// Faults that had an effect, by kind.
    pub fn felt(&self) -> &BTreeMap<&'static str, u64> {
        &self.felt
    }

    /// Crash points that were reached.
    pub fn points(&self) -> &BTreeMap<String, u64> {
        &self.points
    }

    /// One step, and what must hold after it.
    pub fn step(&mut self) -> Result<()> {
        self.world.begin_step(self.elapsed);
        self.sim.step().map_err(|error| anyhow!("{error}"))?;
        self.elapsed += TICK;
        self.world.begin_step(self.elapsed);
        self.bury()?;
        self.world.safety.look(&self.world);
        self.restart();
        match &self.world.safety.violations()[..] {
            [] => Ok(()),
            [first, ..] => bail!("{first}"),
        }
    }

    /// Ends what has ended itself, or lost its power in this step.
    fn bury(&mut self) -> Result<()> {
        for machine in self.world.machines.clone() {
            let host = world::store(machine.node);
            if self.down.contains_key(&host) {
                continue;
            }
            let hit = machine.take_hit();
            let fatal = machine.fatal();
            if !machine.is_cut() && fatal.is_none() {
                continue;
            }
            if let Some(reason) = fatal.filter(|_| !machine.is_cut()) {
                if !machine.has_failed() {
                    let what = format!("{host} stopped by itself: {reason}");
                    self.world.safety.violated(&self.world, what);
                }
                // What was not on the disk when a write failed may be there or not.
                machine.break_disk(false);
            }
            let lasts = RESTART_AFTER + self.dice.ms(0, 1_500);
            self.crash(machine.node, Keep::Some, self.elapsed + lasts)?;
            if let Some(armed) = hit {
                *self.points.entry(armed.to_string()).or_default() += 1;
                self.hit(Harm::Point { node: machine.node, armed }, lasts);
            }
        }
        Ok(())
    }

    /// A crash point was reached: only now it is a fault.
    fn hit(&mut self, harm: Harm, lasts: Duration) {
        self.active.retain(|active| {
            !matches!(active.harm, Harm::Point { .. }) || active.harm.nodes() != harm.nodes()
        });
        let mut active = self.activate(harm, lasts);
        active.effect = 1;
        self.note_begin(&mut active);
        self.active.push(active);
    }

    /// Ends a store node's life.
    fn crash(&mut self, node: NodeId, keep: Keep, back: Duration) -> Result<()> {
        let machine = self.world.machine(node).clone();
        let host = world::store(node);
        machine.end(keep)?;
        if keep == Keep::Some {
            // Nobody is told: a machine without power sends no packet.
            self.isolate(&host);
        }
        self.world.line(&format_args!("{host} is down"));
        self.sim.crash(host.as_str());
        self.down.insert(host, back);
        Ok(())
    }

    fn isolate(&mut self, host: &str) {
        for other in hosts(&self.world.plan).filter(|other| other != host) {
            self.sim.partition(host, other.as_str());
        }
    }

    fn restart(&mut self) {
        let due: Vec<String> = self
            .down
            .iter()
            .filter(|(_, at)| **at <= self.elapsed)
            .map(|(h, _)| h.clone())
            .collect();
        for host in due {
            self.down.remove(&host);
            self.world.line(&format_args!("{host} comes back"));
            for other in hosts(&self.world.plan).filter(|other| *other != host) {
                self.sim.repair(host.as_str(), other.as_str());
            }
            self.cut_again();
            self.sim.bounce(host.as_str());
        }
    }

    /// What is cut or held stays so, though something else was repaired.
    fn cut_again(&mut self) {
        let down: Vec<String> = self.down.keys().cloned().collect();
        for host in down.iter().filter(|host| host.starts_with("store")) {
            self.isolate(host);
        }
        for active in &self.active {
            match &active.harm {
                Harm::Cut { from, to, both } => cut(&self.sim, from, to, *both),
                Harm::Flap { from, to } if active.flap.0 => cut(&self.sim, from, to, true),
                Harm::Hold { from, to } => {
                    pairs(from, to, |one, other| self.sim.hold(one, other));
                }
                _ => {}
            }
        }
    }

    /// Lets faults begin and end, as chance has it.
    pub fn play(&mut self) -> Result<()> {
        self.end_due()?;
        self.flap();
        if self.elapsed < self.next_fault {
            return Ok(());
        }
        let calm = u64::try_from(self.world.plan.calm.as_millis())?;
        self.next_fault = self.elapsed + self.dice.ms(calm / 2, calm * 3 / 2);
        let (harm, lasts) = Harm::draw(&self.world, &self.dice);
        if self.active.len() < FAULTS_AT_ONCE && self.is_free(&harm) {
            self.begin(harm, lasts)?;
        }
        Ok(())
    }

    /// Two faults do not share a machine, or the network: each must be seen apart.
    fn is_free(&self, harm: &Harm) -> bool {
        let host_down = match harm {
            Harm::Gateway(number) => self.down.contains_key(&world::gateway(*number)),
            Harm::Phone(number) => self.down.contains_key(&world::phone(*number)),
            _ => harm.nodes().iter().any(|node| self.down.contains_key(&world::store(*node))),
        };
        // Between hosts that have nothing to say to each other nothing is lost.
        let mut idle = harm.links().is_some();
        if let Some((from, to)) = harm.links() {
            pairs(from, to, |one, other| idle &= !self.world.talk(one, other, TALKED_WITHIN));
        }
        let shared = self.active.iter().any(|active| {
            let links = active.harm.links().is_some() && harm.links().is_some();
            links || active.harm.nodes().iter().any(|node| harm.nodes().contains(node))
        });
        !host_down && !idle && !shared
    }

    fn begin(&mut self, harm: Harm, lasts: Duration) -> Result<()> {
        let mut active = self.activate(harm.clone(), lasts);
        let back = self.elapsed + lasts;
        match &harm {
            Harm::Crash { nodes, keep } => {
                for node in nodes {
                    self.crash(*node, *keep, back)?;
                }
                active.effect = nodes.len() as u64;
            }
            Harm::Gateway(number) => active.effect = self.kill(world::gateway(*number), back),
            Harm::Phone(number) => active.effect = self.kill(world::phone(*number), back),
            Harm::Point { node, armed } => self.world.machine(*node).arm(Some(*armed)),
            Harm::Cut { from, to, both } => cut(&self.sim, from, to, *both),
            Harm::Flap { .. } => {}
            Harm::Hold { from, to } => pairs(from, to, |one, other| self.sim.hold(one, other)),
            Harm::Delay { from, to, latency } => pairs(from, to, |one, other| {
                self.sim.set_link_max_message_latency(one, other, *latency);
            }),
            Harm::Clock { node, ms } => self.world.clock(&world::store(*node)).jump(*ms),
            Harm::SlowDisk { node, fsync } => self.world.machine(*node).set_fsync(*fsync),
            Harm::Eio(node) => self.world.machine(*node).break_disk(true),
            Harm::Transfer(transfer) => self.world.wish(*transfer),
        }
        if !harm.may_miss() {
            self.note_begin(&mut active);
        }
        self.active.push(active);
        Ok(())
    }

    fn kill(&mut self, host: String, back: Duration) -> u64 {
        self.world.line(&format_args!("{host} is down"));
        self.sim.crash(host.as_str());
        self.down.insert(host, back);
        1
    }

    fn activate(&self, harm: Harm, lasts: Duration) -> Active {
        let counted = harm.nodes().iter().map(|node| self.world.machine(*node).counted()).collect();
        let traffic = self.traffic(&harm);
        let until = self.elapsed + lasts;
        Active {
            harm,
            until,
            noted: false,
            traffic,
            counted,
            effect: 0,
            longer: 0,
            flap: (false, self.elapsed),
        }
    }

    /// Messages between the hosts that a fault of the network keeps apart.
    fn traffic(&self, harm: &Harm) -> u64 {
        let mut traffic = 0;
        if let Some((from, to)) = harm.links() {
            let one_way = matches!(harm, Harm::Cut { both: false, .. });
            pairs(from, to, |one, other| {
                traffic += self.world.traffic(one, other);
                if !one_way {
                    traffic += self.world.traffic(other, one);
                }
            });
        }
        traffic
    }

    fn note_begin(&self, active: &mut Active) {
        active.noted = true;
        let (kind, target) = (active.harm.kind().to_owned(), active.harm.target());
        self.world.note(|at| Event::Fault { at, kind, target });
    }

    fn end_due(&mut self) -> Result<()> {
        while let Some(at) = self.active.iter().position(|active| active.until <= self.elapsed) {
            let idle = self.traffic(&self.active[at].harm) == self.active[at].traffic;
            let active = &mut self.active[at];
            if active.harm.links().is_some() && idle && active.longer < LONGER_MAX {
                active.longer += 1;
                active.until += LONGER;
                continue;
            }
            let active = self.active.remove(at);
            self.end(active)?;
        }
        Ok(())
    }

    fn end(&mut self, mut active: Active) -> Result<()> {
        let links = self.traffic(&active.harm) - active.traffic;
        match &active.harm {
            Harm::Crash { .. } | Harm::Gateway(_) | Harm::Phone(_) => {}
            Harm::Point { node, .. } => self.world.machine(*node).arm(None),
            Harm::Cut { from, to, .. } | Harm::Flap { from, to } => {
                active.effect += links;
                pairs(from, to, |one, other| self.sim.repair(one, other));
            }
            Harm::Hold { from, to } => {
                active.effect += links;
                pairs(from, to, |one, other| self.sim.release(one, other));
            }
            Harm::Delay { from, to, .. } => {
                active.effect += links;
                let usual = self.world.plan.latency_max;
                pairs(from, to, |one, other| {
                    self.sim.set_link_max_message_latency(one, other, usual);
                });
            }
            Harm::Clock { node, ms } => {
                let clock = self.world.clock(&world::store(*node));
                active.effect += clock.asked();
                clock.jump(-ms);
            }
            Harm::SlowDisk { node, .. } => {
                let machine = self.world.machine(*node);
                active.effect += machine.counted().slow_commits - active.counted[0].slow_commits;
                machine.set_fsync(self.world.plan.fsync);
            }
            Harm::Eio(node) => {
                let machine = self.world.machine(*node);
                active.effect += machine.counted().failed_writes - active.counted[0].failed_writes;
                machine.break_disk(false);
            }
            Harm::Transfer(Transfer { group, from, .. }) => {
                active.effect += u64::from(self.world.safety.leader(*group) != Some(*from));
            }
        }
        self.cut_again();
        if !active.noted && active.effect > 0 {
            self.note_begin(&mut active);
        }
        self.note_end(&active);
        Ok(())
    }

    fn note_end(&mut self, active: &Active) {
        if !active.noted {
            return;
        }
        let (kind, target) = (active.harm.kind(), active.harm.target());
        self.world.note(|at| Event::Healed { at, kind: kind.to_owned(), target });
        let amount = active.effect;
        self.world.note(|at| Event::Effect {
            at,
            kind: kind.to_owned(),
            name: "effect".to_owned(),
            amount,
        });
        if amount > 0 {
            *self.felt.entry(kind).or_default() += 1;
        }
    }

    /// Cuts and joins what flaps.
    fn flap(&mut self) {
        for at in 0..self.active.len() {
            let Active { harm: Harm::Flap { from, to }, flap: (is_cut, until), .. } =
                &self.active[at]
            else {
                continue;
            };
            if *until > self.elapsed {
                continue;
            }
            let (from, to, cuts) = (from.clone(), to.clone(), !is_cut);
            match cuts {
                true => cut(&self.sim, &from, &to, true),
                false => pairs(&from, &to, |one, other| self.sim.repair(one, other)),
            }
            self.active[at].flap = (cuts, self.elapsed + self.dice.ms(30, 400));
            if !cuts {
                self.cut_again();
            }
        }
    }

    /// Ends all faults. Hosts that are down come back by themselves.
    pub fn heal(&mut self) -> Result<()> {
        while let Some(active) = self.active.pop() {
            self.end(active)?;
        }
        self.world.machines.iter().for_each(|machine| machine.spare());
        Ok(())
    }

    /// Is every host up?
    pub fn all_up(&self) -> bool {
        self.down.is_empty()
    }

    /// Ends all store nodes at once, for good; their disks keep everything that was written.
    pub fn stop(&mut self) -> Result<()> {
        for node in self.world.plan.nodes() {
            self.crash(node, Keep::All, NEVER)?;
        }
        Ok(())
    }
}

fn hosts(plan: &Plan) -> impl Iterator<Item = String> + use<> {
    let servers = plan.nodes().map(world::store).chain((0..GATEWAYS).map(world::gateway));
    servers.chain((0..PHONES).map(world::phone)).chain([PROBER.to_owned()])
}

fn pairs(from: &[String], to: &[String], mut each: impl FnMut(&str, &str)) {
    for one in from {
        for other in to {
            each(one, other);
        }
    }
}

fn cut(sim: &Sim<'static>, from: &[String], to: &[String], both: bool) {
    pairs(from, to, |one, other| match both {
        true => sim.partition(one, other),
        false => sim.partition_oneway(one, other),
    });
}
