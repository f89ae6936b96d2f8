//! The scenarios: which faults, at which load, and what must be seen of them.

mod draw;

use anyhow::Result;
use tidemark_types::ShardId;

use super::fault::{Fault, Harm};
use super::load::{Pace, Shape};
use super::stage::{Losses, Stage};

/// A scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What it does, in one line.
    pub what: &'static str,
    /// Networks and disks of their own are what it is about.
    pub needs_lab: bool,
    /// What must have been seen of its faults, all of it.
    pub effects: &'static [&'static str],
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    LeaderKill,
    FollowerKill,
    GatewayKill,
    KillAll,
    Pause,
    Partition,
    Blackhole,
    WeakNetwork,
    AckLoss,
    PowerCut,
    PowerCutAll,
    PartKill,
    PauseKill,
    SlowDisk,
    DiskStall,
    Eio,
    Enospc,
    Corrupt,
    EmptyDisk,
    Clock,
    Snapshot,
    Transfer,
    Rolling,
    ReconnectStorm,
    SlowConsumers,
    GroupFanout,
    PushActs,
    Steady,
    Mixed,
}

const fn scenario(
    name: &'static str,
    kind: Kind,
    needs_lab: bool,
    effects: &'static [&'static str],
    what: &'static str,
) -> Scenario {
    Scenario { name, what, needs_lab, effects, kind }
}

const KILLED: &[&str] = &["processes killed"];
const DROPPED: &[&str] = &["packets dropped"];
const LOST: &[&str] = &["unsynced bytes lost"];
const NEEDED: &[&str] = &["unsynced bytes lost", "commits of the new majority"];

/// All of them.
#[rustfmt::skip]
pub const SCENARIOS: &[Scenario] = &[
    scenario("leader-kill", Kind::LeaderKill, false, &["processes killed", "leaders changed"],
        "a shard's leader is killed, at 2,000 sends a second"),
    scenario("follower-kill", Kind::FollowerKill, false, KILLED,
        "a node is killed; felt by the shards that it does not lead"),
    scenario("gateway-kill", Kind::GatewayKill, false, KILLED,
        "a gateway is killed; its devices go to another"),
    scenario("kill-all", Kind::KillAll, false, KILLED,
        "all nodes are killed at once, or all but one"),
    scenario("pause", Kind::Pause, false, &["milliseconds paused"],
        "a process is stopped for 0.2 to 30 s and goes on"),
    scenario("partition", Kind::Partition, true, DROPPED,
        "nodes or gateways do not hear each other: both ways, one way, a bridge, all alone, flapping"),
    scenario("blackhole", Kind::Blackhole, true, DROPPED,
        "nothing comes from or to a node for 30 to 60 s"),
    scenario("weak-network", Kind::WeakNetwork, true, &["packets lost", "packets late"],
        "up to 30 % loss, up to 500 ms delay, packets that overtake, resets"),
    scenario("ack-loss", Kind::AckLoss, false,
        &["SendAck frames dropped", "Deliver frames dropped", "Ack frames dropped"],
        "SendAck, Deliver and Ack frames are lost between devices and gateways"),
    scenario("power-cut", Kind::PowerCut, true, LOST,
        "a node's disk loses its power, at the highest load"),
    scenario("power-cut-all", Kind::PowerCutAll, true, LOST,
        "all nodes' disks at once, at the highest load"),
    scenario("part-kill", Kind::PartKill, true, NEEDED,
        "a node is cut off for 30 s, another loses its power, and these two are the majority"),
    scenario("pause-kill", Kind::PauseKill, true, NEEDED,
        "the same with a node that is paused"),
    scenario("slow-disk", Kind::SlowDisk, true, &["commits over 50 ms"],
        "a node's disk takes 5 to 40 writes a second"),
    scenario("disk-stall", Kind::DiskStall, true, &["commits over 2 s"],
        "a node's disk takes nothing for 10 s"),
    scenario("eio", Kind::Eio, true, &["calls failed", "processes that stopped by it"],
        "a sync, write or read of a node's disk fails"),
    scenario("enospc", Kind::Enospc, true,
        &["sends refused or a process stopped", "reads answered meanwhile"],
        "a node's disk has little space left, or none"),
    scenario("corrupt", Kind::Corrupt, true, &["damage found"],
        "bits of a node's log or state are flipped, or a file ends half-way"),
    scenario("empty-disk", Kind::EmptyDisk, true, &["starts refused"],
        "a node comes back on an empty disk, where its vote would lose what was acknowledged"),
    scenario("clock", Kind::Clock, false, &["seconds wrong"],
        "a wall clock jumps by an hour, runs half as fast again, or is a month ahead"),
    scenario("snapshot", Kind::Snapshot, false, &["snapshots installed"],
        "a node comes back when the log no longer reaches back, and is killed meanwhile"),
    scenario("transfer", Kind::Transfer, false, &["leaders moved"],
        "a shard's leadership is handed over"),
    scenario("rolling-restart", Kind::Rolling, false, &["processes restarted"],
        "each node and gateway in turn is stopped in order"),
    scenario("reconnect-storm", Kind::ReconnectStorm, false,
        &["connections cut", "connections made anew"],
        "all devices of a gateway, of 600, come back at once, again and again"),
    scenario("slow-consumers", Kind::SlowConsumers, false, &["entries not read meanwhile"],
        "devices that do not read, or take their time, get most of the messages"),
    scenario("group-fanout", Kind::GroupFanout, false, &[],
        "messages to a group of 1,800 are given to its members while nodes and gateways are killed"),
    scenario("push-acts", Kind::PushActs, false, &[],
        "devices are away and woken, marks, recalls, log-outs, checked sends, while nodes and gateways are killed"),
    scenario("steady", Kind::Steady, false, &[],
        "nothing at all, at 2,000 sends a second: no shard may change its leader"),
    scenario("mixed", Kind::Mixed, false, &[], "all faults by chance, one after the other; frames are lost beside one in three"),
];

impl Scenario {
    /// The one of this name.
    pub fn named(name: &str) -> Option<&'static Scenario> {
        SCENARIOS.iter().find(|scenario| scenario.name == name)
    }

    /// The kind of its faults.
    pub(super) fn fault_kind(&self) -> &'static str {
        self.name.trim_end_matches("-all")
    }

    /// Does it have any? Else nothing may happen.
    pub(super) fn has_faults(&self) -> bool {
        self.kind != Kind::Steady
    }

    /// What users do.
    pub(super) fn shape(&self) -> Shape {
        // Three on each shard, about.
        const USERS: u32 = 24;
        let checked = self.has_checks();
        let open = |rate| Shape { users: USERS, pace: Pace::Open(rate), heavy: false, checked };
        match self.kind {
            Kind::PowerCut | Kind::PowerCutAll | Kind::PartKill | Kind::PauseKill => {
                Shape { pace: Pace::PEAK, ..open(0) }
            }
            Kind::LeaderKill | Kind::Steady | Kind::Mixed => open(2_000),
            Kind::ReconnectStorm => Shape { users: 300, ..open(600) },
            Kind::SlowConsumers => Shape { heavy: true, ..open(400) },
            Kind::GroupFanout | Kind::PushActs => open(300),
            _ => open(1_000),
        }
    }

    /// The stores' configuration.
    pub(super) fn stores(&self) -> &'static str {
        match self.kind {
            // A log so short that a node which is away for some seconds needs a snapshot.
            Kind::Snapshot => "[raft]\nsnapshot_entries = 300\nkeep_entries = 100\n",
            // The power goes while states are written out, logs purged and segments changed.
            Kind::PowerCut | Kind::PowerCutAll => {
                "[raft]\nsnapshot_entries = 300\nkeep_entries = 100\nsegment_bytes = 524288\n"
            }
            // A disk that keeps some pages of what was not synced has a segment's among them.
            Kind::PartKill | Kind::PauseKill => "[raft]\nsegment_bytes = 524288\n",
            // The state is on the disk soon, and soon the log no longer reaches back to it. It has more
            // than one segment.
            Kind::Corrupt => {
                "[raft]\nsnapshot_entries = 300\nkeep_entries = 500\nsegment_bytes = 262144\n"
            }
            // Every call is made all the time: the log's manifest is written with its segments.
            Kind::Eio => "[raft]\nsegment_bytes = 65536\n",
            Kind::Mixed => {
                "[raft]\nsnapshot_entries = 2000\nkeep_entries = 1000\nsegment_bytes = 1048576\n"
            }
            _ => "",
        }
    }

    /// Are there groups beside the users?
    pub(super) fn has_groups(&self) -> bool {
        matches!(self.kind, Kind::GroupFanout | Kind::Mixed)
    }

    /// Do two users mark, recall and edit beside the others?
    pub(super) fn has_talk(&self) -> bool {
        matches!(self.kind, Kind::PushActs | Kind::Mixed)
    }

    /// Are there devices that are away and woken, and others that are logged out?
    pub(super) fn has_sleepers(&self) -> bool {
        matches!(self.kind, Kind::PushActs | Kind::Mixed)
    }

    /// Do vendors' services wake some of them? Not where a gateway's clock is an hour ahead: they take
    /// no token of such a one.
    pub(super) fn has_vendors(&self) -> bool {
        self.kind == Kind::PushActs
    }

    /// Do gateways check sends?
    pub(super) fn has_checks(&self) -> bool {
        matches!(self.kind, Kind::PushActs | Kind::Mixed)
    }

    /// Does it draw its faults from other scenarios'?
    fn draws(&self, other: &Scenario) -> bool {
        match self.kind {
            Kind::Mixed => {
                use Kind::{GroupFanout, PushActs, Steady};
                !matches!(other.kind, Kind::Mixed | Steady | GroupFanout | PushActs)
            }
            // What has an effect at any load: power takes nothing where little is written.
            Kind::GroupFanout | Kind::PushActs => {
                use Kind::{FollowerKill, GatewayKill, KillAll, LeaderKill};
                matches!(other.kind, LeaderKill | FollowerKill | GatewayKill | KillAll)
            }
            _ => false,
        }
    }

    /// Must something stand between the processes and the system?
    pub(super) fn preload(&self) -> bool {
        use Kind::{Clock, Eio, Mixed, PartKill, PauseKill, PowerCut, PowerCutAll};
        matches!(self.kind, Clock | Eio | Mixed | PartKill | PauseKill | PowerCut | PowerCutAll)
    }

    /// The scenario of the next fault: itself, or one by chance.
    pub(super) fn next(&'static self, stage: &Stage) -> &'static Scenario {
        let lab = stage.cluster.lan().is_some();
        let fits = |other: &&Scenario| self.draws(other) && (lab || !other.needs_lab);
        let scenarios: Vec<_> = SCENARIOS.iter().filter(fits).collect();
        if scenarios.is_empty() {
            return self;
        }
        scenarios[stage.below(scenarios.len() as u64) as usize]
    }

    /// In the mix frames are lost beside one fault in three.
    pub(super) async fn beside(&self, next: &Scenario, stage: &Stage) -> Result<Option<Losses>> {
        let alone = self.kind != Kind::Mixed || next.kind == Kind::AckLoss || stage.below(3) != 0;
        if alone {
            return Ok(None);
        }
        let fault = draw::draw(Kind::AckLoss, stage).await?;
        let Harm::LoseFrames(of_thousand, each) = fault.harm else { return Ok(None) };
        Ok(Some(Losses { fault, of_thousand, each }))
    }

    /// One of its faults, by chance.
    pub(super) async fn fault(&self, stage: &Stage) -> Result<Fault> {
        draw::draw(self.kind, stage).await
    }
}

/// The shards of a run.
pub(super) fn shards(count: u16) -> Vec<ShardId> {
    (0..count).map(ShardId::new).collect()
}
