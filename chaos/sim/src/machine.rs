//! A store node's machine: its disk, what a power cut leaves of it, and where it is crashed.
//!
//! ```text
//!   log:    batches ──► pending ──► durable          a cut keeps durable, and the first of pending
//!   state:  RocksDB in memory ──► its files          a cut keeps the files, as they are
//!                                                    at that moment
//! ```
//!
//! What a cut tears is no third case: a torn batch is dropped as a whole, and a flush that was cut off
//! leaves a table that no manifest names, as if it had not begun (`docs/adr/0013`).
//!
//! The moment of a cut is exact: a crash point takes the copy in the middle of a step, and from
//! then on the dying node's disk takes nothing and acknowledges nothing. The node itself is gone at
//! the end of the simulation's step; what it does until then reaches no disk.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use parking_lot::Mutex;
use tidemark_store::identity::Identity;
use tidemark_store::node::{Disks, Node};
use tidemark_store::raft::log::{LogOptions, LogStore, LogWriter};
use tidemark_store::storage::{
    Change, GroupId, LogBackend, LogBatch, LogReads, SimulatedDisk, StateDb, Step, Steps,
};
use tidemark_store_core::storage::Writes;
use tidemark_store_core::value::ClusterMap;
use tidemark_types::NodeId;

use crate::plan::{Dice, Plan};
use crate::world::World;

/// A step of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// A batch of the log with entries.
    Append,
    /// One with a vote.
    Vote,
    /// One with a truncation.
    Truncate,
    /// One with a purge.
    Purge,
    /// One with a commit mark.
    Mark,
    /// One of the state's.
    State(Step),
}

/// All of them.
pub const POINTS: [Point; 9] = [
    Point::Append,
    Point::Vote,
    Point::Truncate,
    Point::Purge,
    Point::Mark,
    Point::State(Step::Apply),
    Point::State(Step::Stage),
    Point::State(Step::Flip),
    Point::State(Step::Flush),
];

/// Where a node comes all the time.
pub const OFTEN: [Point; 3] = [Point::Append, Point::Mark, Point::State(Step::Apply)];

/// Where a node seldom comes: on each machine it crashes at one of these the first time that it does.
const SELDOM: [Point; 4] = [
    Point::Truncate,
    Point::State(Step::Stage),
    Point::State(Step::Flip),
    Point::State(Step::Flush),
];

/// Before a step or after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Before it begins.
    Before,
    /// After it was done, before anybody is told.
    After,
}

/// Where a node is to crash.
#[derive(Clone, Copy, Debug)]
pub struct Armed {
    /// At which step.
    pub point: Point,
    /// Before or after it.
    pub when: When,
    /// How often it goes well before.
    pub spare: u64,
}

impl fmt::Display for Armed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.when, self.point)
    }
}

/// What all crash points are called.
pub fn crash_points() -> impl Iterator<Item = String> {
    let both = |point| [When::Before, When::After].map(|when| Armed { point, when, spare: 0 });
    POINTS.into_iter().flat_map(both).map(|armed| armed.to_string())
}

/// What of the batches that are not durable a cut keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// All: the process died, the machine lives.
    All,
    /// The first ones, as many as chance has it: the power was lost.
    Some,
}

/// The writer of a node's log, which the node's own task steps.
pub type Writer = Arc<Mutex<LogWriter<LogDisk>>>;

/// A store node's machine.
pub struct Machine {
    /// The node.
    pub node: NodeId,
    identity: Identity,
    folder: PathBuf,
    world: std::sync::Weak<World>,
    inner: Mutex<Inner>,
    dice: Dice,
    /// It acknowledges what is not on the disk: the simulation must notice.
    lies: bool,
}

struct Inner {
    lives: u32,
    log: SimulatedDisk,
    state: PathBuf,
    /// What a cut left: the node of this life has no disk any more.
    left: Option<(SimulatedDisk, PathBuf)>,
    armed: Option<Armed>,
    /// Where it crashes the first time that it comes there.
    seldom: Option<Armed>,
    hit: Option<Armed>,
    /// The next write fails.
    broken: bool,
    failed_writes: u64,
    /// In this life.
    has_failed: bool,
    /// How long an fsync takes.
    fsync: Duration,
    slow_commits: u64,
    lost_batches: u64,
    /// Snapshots that became the live state.
    installs: u64,
    writer: Option<Writer>,
    /// The power goes off: what is written now reaches no disk for certain.
    going: bool,
    running: Option<Arc<Node>>,
    fatal: Option<String>,
}

/// Of a machine's life, for a fault's effect.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    /// Commits that were slow.
    pub slow_commits: u64,
    /// Writes that failed.
    pub failed_writes: u64,
    /// Batches that cuts have lost.
    pub lost_batches: u64,
    /// Snapshots that became the live state.
    pub installs: u64,
}

impl Machine {
    /// A new machine with a node of this cluster on it, which was never started.
    pub fn create(
        node: NodeId,
        map: &ClusterMap,
        folder: &Path,
        world: std::sync::Weak<World>,
        plan: &Plan,
    ) -> Result<Self> {
        let folder = folder.join(format!("store-{node}"));
        fs::create_dir_all(&folder)?;
        let state = folder.join("state-0");
        drop(StateDb::create(&state)?);
        let rare = Dice::new(plan.seed, 200 + node.get());
        let seldom = (!plan.votes).then(|| Armed {
            point: rare.of(&SELDOM),
            when: rare.of(&[When::Before, When::After]),
            spare: 0,
        });
        let inner = Inner {
            lives: 0,
            log: SimulatedDisk::default(),
            state,
            left: None,
            armed: None,
            seldom,
            hit: None,
            broken: false,
            failed_writes: 0,
            has_failed: false,
            fsync: plan.fsync,
            slow_commits: 0,
            lost_batches: 0,
            installs: 0,
            writer: None,
            going: false,
            running: None,
            fatal: None,
        };
        let (inner, dice) = (Mutex::new(inner), Dice::new(plan.seed, 100 + node.get()));
        let identity = Identity::new(node, map.clone())?;
        let lies = plan.lying_disks;
        Ok(Machine { node, identity, folder, world, inner, dice, lies })
    }

    /// Who lives on it.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Begins a life: what the node finds on its disk, and the writer of its log.
    pub fn start(self: &Arc<Self>) -> Result<(Disks, Writer)> {
        let (disk, state) = {
            let mut inner = self.inner.lock();
            if let Some((log, state)) = inner.left.take() {
                (inner.log, inner.state) = (log, state);
                inner.lives += 1;
            }
            (inner.fatal, inner.has_failed, inner.going) = (None, false, false);
            (inner.log.clone(), inner.state.clone())
        };
        let life = self.lives();
        let log = LogDisk { machine: self.clone(), disk, life };
        let steps = Arc::new(StateSteps { machine: self.clone(), life });
        let state = StateDb::open_simulated(&state, steps)?;
        let (log, writer) = LogStore::open(log, LogOptions::default())?;
        let writer = Arc::new(Mutex::new(writer));
        self.inner.lock().writer = Some(writer.clone());
        let identity = self.identity.clone();
        Ok((Disks { identity, log, log_thread: None, state }, writer))
    }

    /// How often it was started again.
    pub fn lives(&self) -> u32 {
        self.inner.lock().lives
    }

    /// The node runs.
    pub fn runs(&self, node: Arc<Node>) {
        self.inner.lock().running = Some(node);
    }

    /// The node, while it runs.
    pub fn running(&self) -> Option<Arc<Node>> {
        self.inner.lock().running.clone()
    }

    /// The node cannot go on.
    pub fn dies(&self, reason: String) {
        self.inner.lock().fatal.get_or_insert(reason);
    }

    /// Why it cannot go on, if it cannot.
    pub fn fatal(&self) -> Option<String> {
        self.inner.lock().fatal.clone()
    }

    /// Was its power cut in this life?
    pub fn is_cut(&self) -> bool {
        self.inner.lock().left.is_some()
    }

    /// Ends its node's life between two steps of the simulation. Where the power is lost, what the
    /// node had handed to its log is being written at this moment.
    pub fn end(&self, keep: Keep) -> Result<()> {
        let writer = {
            let mut inner = self.inner.lock();
            inner.going = keep == Keep::Some;
            inner.running = None;
            inner.writer.take().filter(|_| inner.going && inner.left.is_none())
        };
        if let Some(writer) = writer {
            // It fails, as everything that the node asks of its disk from now on.
            let _ = writer.lock().step();
        }
        self.cut(keep)
    }

    /// Cuts it off from its disk, which stays as it is now.
    fn cut(&self, keep: Keep) -> Result<()> {
        let mut inner = self.inner.lock();
        if inner.left.is_some() {
            return Ok(());
        }
        let pending = inner.log.pending();
        let kept = match keep {
            Keep::All => pending,
            Keep::Some => usize::try_from(self.dice.between(0, pending as u64))?,
        };
        inner.lost_batches += (pending - kept) as u64;
        let log = inner.log.after_power_cut(kept);
        let state = self.folder.join(format!("state-{}", inner.lives + 1));
        copy(&inner.state, &state).context("the files of the state")?;
        inner.left = Some((log, state));
        inner.armed = None;
        Ok(())
    }

    /// Lets it crash at a step to come.
    pub fn arm(&self, armed: Option<Armed>) {
        self.inner.lock().armed = armed;
    }

    /// It crashes nowhere any more.
    pub fn spare(&self) {
        let mut inner = self.inner.lock();
        (inner.armed, inner.seldom) = (None, None);
    }

    /// Where it crashed, once.
    pub fn take_hit(&self) -> Option<Armed> {
        self.inner.lock().hit.take()
    }

    /// Has a write failed in this life of the node?
    pub fn has_failed(&self) -> bool {
        self.inner.lock().has_failed
    }

    /// Lets its next write fail; or heals it.
    pub fn break_disk(&self, broken: bool) {
        self.inner.lock().broken = broken;
    }

    /// How long an fsync takes from now on.
    pub fn set_fsync(&self, fsync: Duration) {
        self.inner.lock().fsync = fsync;
    }

    /// How long an fsync takes.
    pub fn fsync(&self) -> Duration {
        self.inner.lock().fsync
    }

    /// What was counted.
    pub fn counted(&self) -> Counted {
        let Inner { slow_commits, failed_writes, lost_batches, installs, .. } = *self.inner.lock();
        Counted { slow_commits, failed_writes, lost_batches, installs }
    }

    /// What a cut left of the log and of the state.
    pub fn left(&self) -> Option<(SimulatedDisk, PathBuf)> {
        self.inner.lock().left.clone()
    }

    /// A step begins, or was done, in this life of the node.
    fn step(&self, life: u32, points: &[Point], when: When) -> io::Result<()> {
        let hit = {
            let mut inner = self.inner.lock();
            if inner.left.is_some() || inner.lives != life {
                return Err(io::Error::other("the power is off"));
            }
            let flips = when == When::After && points == [Point::State(Step::Flip)];
            inner.installs += u64::from(flips);
            let here = |armed: &Armed| armed.when == when && points.contains(&armed.point);
            let spared = inner.armed.as_mut().filter(|armed| here(armed) && armed.spare > 0);
            let hit = match spared {
                Some(armed) => {
                    armed.spare -= 1;
                    None
                }
                None => inner.armed.take_if(|armed| here(armed)),
            };
            let hit = hit.or_else(|| inner.seldom.take_if(|armed| here(armed)));
            inner.hit = inner.hit.or(hit);
            hit
        };
        let Some(hit) = hit else { return Ok(()) };
        self.cut(Keep::Some).map_err(io::Error::other)?;
        if let Some(world) = self.world.upgrade() {
            world.line(&format_args!("store-{} crashes {hit}", self.node));
        }
        Err(io::Error::other("the power went off"))
    }

    fn is_going(&self) -> bool {
        self.inner.lock().going
    }

    fn write_fails(&self) -> bool {
        let mut inner = self.inner.lock();
        inner.failed_writes += u64::from(inner.broken);
        inner.has_failed |= inner.broken;
        inner.broken
    }

    fn commit_was_slow(&self) {
        self.inner.lock().slow_commits += 1;
    }

    /// Notes that a commit takes long.
    pub fn notice(&self, fsync: Duration, healthy: Duration) {
        if fsync > healthy {
            self.commit_was_slow();
        }
    }
}

/// Files of a table never change once they are written; of the others RocksDB writes on.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        match source.extension().is_some_and(|extension| extension == "sst") {
            true => fs::hard_link(source, target)?,
            false => drop(fs::copy(source, target)?),
        }
    }
    Ok(())
}

/// The log's disk in one life of the node.
pub struct LogDisk {
    machine: Arc<Machine>,
    disk: SimulatedDisk,
    life: u32,
}

fn points(batch: &LogBatch) -> Vec<Point> {
    let mut points: Vec<Point> = batch
        .writes
        .iter()
        .map(|write| match write.change {
            Change::Vote(_) => Point::Vote,
            Change::Committed(_) => Point::Mark,
            Change::Entry { .. } => Point::Append,
            Change::Truncate { .. } => Point::Truncate,
            Change::Purge { .. } => Point::Purge,
        })
        .collect();
    points.sort_unstable();
    points.dedup();
    points
}

impl LogBackend for LogDisk {
    fn reads(&self) -> Arc<dyn LogReads> {
        Arc::new(self.disk.clone())
    }

    fn commit(&mut self, batch: LogBatch) -> io::Result<()> {
        let points = points(&batch);
        // Written, and not on the disk yet: a crash from here on may keep it, or not.
        let written = LogBatch { durable: false, ..batch };
        let durable = batch.durable;
        if self.machine.is_cut() || self.machine.lives() != self.life {
            return Err(io::Error::other("the power is off"));
        }
        self.disk.commit(written)?;
        if self.machine.is_going() {
            return Err(io::Error::other("the power goes off"));
        }
        if self.machine.write_fails() {
            return Err(io::Error::other("the disk failed (simulated EIO)"));
        }
        self.machine.step(self.life, &points, When::Before)?;
        if durable && !self.machine.lies {
            self.disk.commit(LogBatch { writes: Vec::new(), durable })?;
        }
        self.machine.step(self.life, &points, When::After)
    }
}

/// Looks on while the state of one life of the node changes.
struct StateSteps {
    machine: Arc<Machine>,
    life: u32,
}

impl Steps for StateSteps {
    fn before(&self, step: Step) -> io::Result<()> {
        self.machine.step(self.life, &[Point::State(step)], When::Before)
    }

    fn after(&self, step: Step) -> io::Result<()> {
        self.machine.step(self.life, &[Point::State(step)], When::After)
    }

    fn applied(&self, group: GroupId, writes: &Writes, position: &[u8]) {
        if let Some(world) = self.machine.world.upgrade() {
            world.safety.applied(&world, self.machine.node, group, writes, position);
        }
    }
}
