//! What all hosts of a simulation share: its time, its notes, and everything that outlives a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::Result;
use parking_lot::Mutex;
use tidemark_chaos::notes::Notes;
use tidemark_checker::Event;
use tidemark_checker::history::{Group, Nanos};
use tidemark_env::{Clock, Rng, SeededRng};
use tidemark_store::storage::GroupId;
use tidemark_store_core::value::{ClusterMap, NodeAddress, Settings};
use tidemark_token::SigningKey;
use tidemark_types::{ClusterId, NodeId, ShardCount, UnixMs};

use crate::away::Away;
use crate::feed::Feeds;
use crate::interpose;
use crate::machine::Machine;
use crate::phone::Pocket;
use crate::plan::{Dice, GATEWAYS, PHONES, Plan};
use crate::safety::Safety;
use crate::talk::Talk;
use crate::trace::Trace;
use tidemark_chaos::groups::Groups;

/// Where every server listens.
pub const PORT: u16 = 7000;

/// A message can be recalled for so long, and edited for twice as long: short, so that some come too late.
const CHANGED_WITHIN: Duration = Duration::from_secs(2);

/// What all hosts share.
pub struct World {
    /// What the seed stands for.
    pub plan: Plan,
    /// The cluster as it was created.
    pub map: ClusterMap,
    /// The machines of the store nodes.
    pub machines: Vec<Arc<Machine>>,
    /// What devices keep, and what is known of their sends.
    pub pockets: Vec<Arc<Pocket>>,
    /// What is known of devices that are away.
    pub away: Away,
    /// What is known of groups.
    pub groups: Groups,
    /// What was said by those who mark, recall and edit.
    pub talk: Talk,
    /// What has been read of the feeds.
    pub feeds: Feeds,
    /// The history.
    pub notes: Notes,
    /// Checks while it runs.
    pub safety: Safety,
    /// The file with the key for tokens.
    pub key: PathBuf,
    trace: Trace,
    now: Arc<Now>,
    clocks: BTreeMap<String, Arc<HostClock>>,
    draws: Dice,
    /// Messages on their way from one host to another.
    traffic: Mutex<BTreeMap<(String, String), (u64, Duration)>>,
    silent: AtomicBool,
    unasked: AtomicBool,
    accepted: AtomicU64,
    /// The groups that acknowledged a probe since the last fault.
    served: Mutex<BTreeSet<Group>>,
    gateway_lives: Mutex<BTreeMap<usize, u32>>,
    transfer: Mutex<Option<Transfer>>,
}

/// A leadership that is to move.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// Of which group.
    pub group: GroupId,
    /// From whom.
    pub from: NodeId,
    /// To whom.
    pub to: NodeId,
}

/// The time at the beginning of the simulation's step.
struct Now(AtomicU64);

impl Clock for Now {
    fn wall(&self) -> UnixMs {
        UnixMs::new(interpose::EPOCH_SECONDS * 1_000).plus(self.monotonic())
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

/// The clock of a host. Its wall clock may be wrong.
pub struct HostClock {
    now: Arc<Now>,
    wrong_ms: AtomicI64,
    asked: AtomicU64,
}

impl HostClock {
    /// Lets the wall clock jump.
    pub fn jump(&self, ms: i64) {
        self.wrong_ms.fetch_add(ms, Ordering::Relaxed);
        self.asked.store(0, Ordering::Relaxed);
    }

    /// How often the wall clock was asked since it jumped last.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Clock for HostClock {
    fn wall(&self) -> UnixMs {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let since = i64::try_from(self.monotonic().as_millis()).unwrap_or(i64::MAX);
        let wrong = self.wrong_ms.load(Ordering::Relaxed);
        let epoch = i64::try_from(interpose::EPOCH_SECONDS * 1_000).unwrap_or(i64::MAX);
        UnixMs::new(u64::try_from(epoch.saturating_add(since).saturating_add(wrong)).unwrap_or(0))
    }

    fn monotonic(&self) -> Duration {
        // Within a step a host's own time goes on.
        turmoil::sim_elapsed().unwrap_or_else(|| self.now.monotonic())
    }
}

/// The host of a store node.
pub fn store(node: NodeId) -> String {
    format!("store-{node}")
}

/// The host of a gateway.
pub fn gateway(number: usize) -> String {
    format!("gateway-{number}")
}

/// A host of devices.
pub fn phone(number: usize) -> String {
    format!("phone-{number}")
}

/// The host of whoever asks the store without pause.
pub const PROBER: &str = "prober";

/// Where the servers of hosts listen.
pub fn addresses(hosts: impl Iterator<Item = String>) -> Vec<String> {
    hosts.map(|host| format!("{host}:{PORT}")).collect()
}

impl World {
    /// A new one, with its files in `folder`.
    pub fn new(plan: Plan, folder: &Path, trace: Option<&Path>) -> Result<Arc<Self>> {
        let now = Arc::new(Now(AtomicU64::new(0)));
        let trace = Trace::new(trace)?;
        let notes = Notes::by_clock(&folder.join("run.history"), now.clone())?;
        let draws = Dice::new(plan.seed, 2);
        let map = map(&plan, &draws)?;
        let key = folder.join("key.hs256");
        SigningKey::generate_hs256(&key, &SeededRng::new(draws.number()))?;
        let hosts = plan.nodes().map(store).chain((0..GATEWAYS).map(gateway));
        let hosts = hosts.chain((0..PHONES).map(phone)).chain([PROBER.to_owned()]);
        let clocks = hosts.map(|host| (host, Arc::new(HostClock::of(now.clone())))).collect();
        let mut failed = None;
        let world = Arc::new_cyclic(|world: &Weak<World>| {
            let machines =
                plan.nodes().map(|node| Machine::create(node, &map, folder, world.clone(), &plan));
            let mut made = Vec::new();
            for machine in machines {
                match machine {
                    Ok(machine) => made.push(Arc::new(machine)),
                    Err(error) => failed = Some(error),
                }
            }
            World {
                pockets: Pocket::all(&plan),
                away: Away::default(),
                groups: Groups::default(),
                talk: Talk::default(),
                feeds: Feeds::default(),
                silent: AtomicBool::new(false),
                unasked: AtomicBool::new(false),
                accepted: AtomicU64::new(0),
                served: Mutex::default(),
                plan,
                map,
                machines: made,
                notes,
                safety: Safety::default(),
                key,
                trace,
                now,
                clocks,
                draws,
                traffic: Mutex::default(),
                gateway_lives: Mutex::default(),
                transfer: Mutex::default(),
            }
        });
        match failed {
            Some(error) => Err(error),
            None => Ok(world),
        }
    }

    /// The time at the beginning of this step.
    pub fn now(&self) -> Duration {
        self.now.monotonic()
    }

    /// A step begins.
    pub fn begin_step(&self, at: Duration) {
        let nanos = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        self.now.0.store(nanos, Ordering::Relaxed);
        interpose::at(nanos);
    }

    /// The clock of a host.
    ///
    /// # Panics
    /// If there is no such host.
    pub fn clock(&self, host: &str) -> Arc<HostClock> {
        self.clocks.get(host).expect("a host of this world").clone()
    }

    /// Randomness for somebody who begins a life.
    pub fn rng(&self) -> Arc<dyn Rng> {
        Arc::new(SeededRng::new(self.draws.number()))
    }

    /// The machine of a node.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn machine(&self, node: NodeId) -> &Arc<Machine> {
        let found = self.machines.iter().find(|machine| machine.node == node);
        found.expect("a node of this world")
    }

    /// Do users write still?
    pub fn is_writing(&self) -> bool {
        !self.silent.load(Ordering::Relaxed)
    }

    /// Users write no more.
    pub fn stop_writing(&self) {
        self.silent.store(true, Ordering::Relaxed);
    }

    /// Does the prober ask still?
    pub fn is_asking(&self) -> bool {
        !self.unasked.load(Ordering::Relaxed)
    }

    /// The prober asks no more.
    pub fn stop_asking(&self) {
        self.unasked.store(true, Ordering::Relaxed);
    }

    /// A group has acknowledged a probe.
    pub fn serves(&self, group: Group) {
        self.served.lock().insert(group);
    }

    /// From now on every group must show anew that it serves.
    pub fn doubt_all(&self) {
        self.served.lock().clear();
    }

    /// Has the group shown that it serves?
    pub fn is_served(&self, group: Group) -> bool {
        self.served.lock().contains(&group)
    }

    /// A send was accepted.
    pub fn accepts(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// How many sends were accepted.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Notes an event of the history.
    pub fn note(&self, event: impl FnOnce(Nanos) -> Event) {
        self.notes.note(|at| {
            let event = event(at);
            self.trace.line(at.0, &format_args!("{event:?}"));
            event
        });
    }

    /// Traces what is no event of the history.
    pub fn line(&self, what: &dyn Display) {
        self.trace.line(self.now.0.load(Ordering::Relaxed), what);
    }

    /// These bytes left for another host.
    pub fn sent(&self, from: &str, to: &str, bytes: &[u8]) {
        self.trace.bytes(self.now.0.load(Ordering::Relaxed), from, to, bytes);
        let mut traffic = self.traffic.lock();
        let (count, last) = traffic.entry((from.to_owned(), to.to_owned())).or_default();
        (*count, *last) = (*count + 1, self.now());
    }

    /// How many messages left for another host so far.
    pub fn traffic(&self, from: &str, to: &str) -> u64 {
        let pair = (from.to_owned(), to.to_owned());
        self.traffic.lock().get(&pair).map(|(count, _)| *count).unwrap_or_default()
    }

    /// Did one of them send something to the other within this time?
    pub fn talk(&self, one: &str, other: &str, within: Duration) -> bool {
        let traffic = self.traffic.lock();
        let last = |from: &str, to: &str| traffic.get(&(from.to_owned(), to.to_owned())).copied();
        let last = last(one, other).max(last(other, one));
        last.is_some_and(|(_, at)| at + within >= self.now())
    }

    /// A gateway begins a life; which one.
    pub fn gateway_starts(&self, number: usize) -> u32 {
        let mut lives = self.gateway_lives.lock();
        let life = lives.entry(number).or_default();
        *life += 1;
        *life
    }

    /// Somebody shall move a leadership.
    pub fn wish(&self, transfer: Transfer) {
        *self.transfer.lock() = Some(transfer);
    }

    /// Which leadership shall move, if one shall.
    pub fn take_wish(&self) -> Option<Transfer> {
        self.transfer.lock().take()
    }

    /// A panic of whatever is simulated ends the process, with 1: nothing that went on after it
    /// would show anything.
    pub fn end_with_panics(&self) {
        let (trace, now) = (self.trace.clone(), self.now.clone());
        std::panic::set_hook(Box::new(move |panic| {
            let at = now.monotonic();
            eprintln!("{panic}\nat {at:?} of the simulation");
            trace.line(u64::try_from(at.as_nanos()).unwrap_or(u64::MAX), &panic);
            trace.save();
            std::process::exit(1);
        }));
    }

    /// The hash of everything that was traced.
    pub fn finish_trace(&self) -> Result<u128> {
        self.trace.finish()
    }
}

impl HostClock {
    fn of(now: Arc<Now>) -> Self {
        HostClock { now, wrong_ms: AtomicI64::new(0), asked: AtomicU64::new(0) }
    }
}

fn map(plan: &Plan, draws: &Dice) -> Result<ClusterMap> {
    let cluster = (u128::from(draws.number()) << 64 | u128::from(draws.number())).to_be_bytes();
    let address = |node| NodeAddress { grpc: format!("{}:{PORT}", store(node)) };
    let addresses = plan.nodes().map(|node| (node, address(node))).collect();
    let settings = Settings {
        mailbox_entries_max: plan.mailbox_entries_max,
        keep: plan.keep,
        hard_keep: plan.keep,
        feed_records_max: plan.feed_records_max,
        recall_within: CHANGED_WITHIN,
        edit_within: CHANGED_WITHIN * 2,
        ..Settings::default()
    };
    let shards = ShardCount::new(plan.shards)?;
    Ok(ClusterMap::new(ClusterId::from_bytes(cluster)?, shards, addresses, settings))
}
