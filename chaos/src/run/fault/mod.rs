//! What is done to a cluster, and undone.
//!
//! | file | what is hurt |
//! |---|---|
//! | `nodes` | processes: killed, paused, stopped in order, behind the log |
//! | `network` | what goes between hosts: cut, lost, late |
//! | `power` | disks' power, alone and as part of a new majority |
//! | `disk` | slow, stalled, failing and full disks |
//! | `damage` | files of a node |
//! | `forget` | what a node has acknowledged and lacks when it comes back |
//! | `clock` | wall clocks |
//! | `devices` | what goes between devices and gateways |
//!
//! Each harm says what was seen of it in the system's own or the product's own counters, never what
//! was asked for.

mod clock;
mod damage;
mod devices;
mod disk;
mod forget;
mod network;
mod nodes;
mod power;

use std::fmt::Display;
use std::time::Duration;

use anyhow::Result;
use tidemark_env::Rng;
use tidemark_lab::disk::Cut;
use tidemark_lab::lan::Host;
use tidemark_lab::packets::Weather;
use tidemark_lab::preload::{Call, Pace};
use tidemark_types::{NodeId, ShardId};

pub(super) use damage::{Damage, Target};
pub(super) use disk::Space;
pub(super) use forget::Forgets;
pub(super) use power::NewMajority;

use super::stage::Stage;
use crate::cluster::Member;

/// A fault, ready to be injected.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    /// The name of its own scenario, without `-all`.
    pub kind: &'static str,
    /// Whom it befalls.
    pub target: String,
    /// The shards that may feel it.
    pub shards: Vec<ShardId>,
    /// What is done.
    pub harm: Harm,
}

/// What is done, and for how long.
#[derive(Clone, Debug)]
pub(super) enum Harm {
    /// SIGKILL, and started again later.
    Kill(Vec<Member>, Duration),
    /// SIGSTOP, and SIGCONT later.
    Pause(Member, Duration),
    /// Each node and each gateway in turn is stopped in order and started again.
    Rolling,
    /// A shard's leadership is handed to another node.
    Transfer(ShardId),
    /// A node is away until the others' logs no longer reach back, and perhaps killed once more
    /// while it takes the state.
    Lag {
        /// Which one.
        node: NodeId,
        /// It is killed while it takes the first state.
        again: bool,
    },
    /// What one host sends does not reach the other, in rounds of so long with as long a pause.
    Split {
        /// From whom to whom nothing goes.
        cuts: Vec<(Host, Host)>,
        /// How long a round takes.
        each: Duration,
        /// How many there are.
        rounds: u32,
    },
    /// What these hosts hear from these others is lost, late and in another order.
    Weaken {
        /// Who hears badly, and whom.
        links: Vec<(Host, Vec<Host>)>,
        /// How badly.
        weather: Weather,
        /// The share of packets that resets a connection.
        resets: f64,
        /// How long.
        each: Duration,
    },
    /// The power of these nodes' disks, all at once, and started again.
    PowerCut(Vec<NodeId>, Cut),
    /// A node comes back from a power cut and is needed at once.
    NewMajority(NewMajority),
    /// A node's disk takes so many writes a second, or none.
    SlowDisk(NodeId, Option<u32>, Duration),
    /// A call to a node's disk fails, once or from now on.
    FailCall(NodeId, Call, bool),
    /// A node's disk has little space left.
    FillDisk(NodeId, Space, Duration),
    /// A node's file is damaged while it is down.
    Damage(NodeId, Damage),
    /// A node forgets what it has acknowledged while one that knows better is down, and one that lacks
    /// it is there: the one that knows, the node, the one that lacks it.
    Forget([NodeId; 3], Forgets),
    /// A wall clock is wrong.
    SetClock(Member, Pace, Duration),
    /// Of a thousand frames between devices and gateways so many are lost.
    LoseFrames(u32, Duration),
    /// All connections to a gateway are cut, then all to the next one, so many times.
    Storm(usize, u32),
    /// Some devices do not read, or take their time.
    SlowDevices(Duration),
}

/// What was seen of it: packets dropped, bytes lost.
pub(super) type Effects = Vec<(&'static str, u64)>;

impl Stage {
    /// Does it, undoes it, and waits until every process says that it is ready; what was seen of it.
    pub(super) async fn inflict(&mut self, harm: &Harm) -> Result<Effects> {
        match harm {
            Harm::Kill(members, down) => self.kill(members, *down).await,
            Harm::Pause(member, down) => self.pause(*member, *down).await,
            Harm::Rolling => self.roll().await,
            Harm::Transfer(shard) => self.transfer(*shard).await,
            Harm::Lag { node, again } => self.lag(*node, *again).await,
            Harm::Split { cuts, each, rounds } => self.split(cuts, *each, *rounds).await,
            Harm::Weaken { links, weather, resets, each } => {
                self.weaken(links, *weather, *resets, *each).await
            }
            Harm::PowerCut(nodes, cut) => self.cut_power(nodes, *cut).await,
            Harm::NewMajority(recipe) => self.new_majority(recipe).await,
            Harm::SlowDisk(node, rate, each) => self.slow_disk(*node, *rate, *each).await,
            Harm::FailCall(node, call, once) => self.fail_call(*node, *call, *once).await,
            Harm::FillDisk(node, space, each) => self.fill_disk(*node, *space, *each).await,
            Harm::Damage(node, damage) => self.damage(*node, *damage).await,
            Harm::Forget(roles, forgets) => self.forget(*roles, *forgets).await,
            Harm::SetClock(member, pace, each) => self.set_clock(*member, *pace, *each).await,
            Harm::LoseFrames(loss, each) => self.lose_frames(*loss, *each).await,
            Harm::Storm(gateway, rounds) => self.storm(*gateway, *rounds).await,
            Harm::SlowDevices(each) => self.slow_devices(*each).await,
        }
    }

    /// Starts processes again, and waits until they are ready.
    async fn revive(&mut self, members: &[Member]) -> Result<()> {
        for member in members {
            self.begin_life(*member);
        }
        self.cluster.start_members(members.iter().copied()).await
    }

    /// A process is about to start again.
    fn begin_life(&self, member: Member) {
        if let Member::Node(node) = member {
            *self.lives.lock().entry(node).or_default() += 1;
        }
    }

    async fn all_ready(&mut self) -> Result<()> {
        for member in self.cluster.members().collect::<Vec<_>>() {
            self.cluster.ready(member).await?;
        }
        Ok(())
    }

    /// See [`Notes::amount`](crate::notes::Notes::amount).
    pub(super) fn amount(&self, process: &dyn Display, what: &str, amount: u64, bound: u64) {
        self.notes.amount(process, what, amount, bound);
    }

    /// One of them, by chance.
    pub(super) fn pick<'a, T>(&self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len() as u64) as usize]
    }

    /// A number below `bound`, by chance.
    pub(super) fn below(&self, bound: u64) -> u64 {
        self.rng.number() % bound
    }

    /// A time between these, by chance.
    pub(super) fn between(&self, least: Duration, most: Duration) -> Duration {
        least + (most - least).mul_f64(self.rng.unit())
    }
}
