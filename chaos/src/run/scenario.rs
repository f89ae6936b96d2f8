//! The scenarios: which faults, at which load.

use std::time::Duration;

use anyhow::{Context, Result};
use tidemark_lab::disk::Cut;
use tidemark_lab::lan::{HERE, Host};
use tidemark_types::{NodeId, ShardId};

use super::fault::{Fault, Harm};
use super::load::Pace;
use super::stage::Stage;
use crate::cluster::Member;
use crate::stores;

/// A scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What it does, in one line.
    pub what: &'static str,
    /// Networks and disks of their own are what it is about.
    pub needs_lab: bool,
    /// What must have been seen of its faults.
    pub effect: &'static str,
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
    PowerCut,
    PowerCutAll,
    Transfer,
    Rolling,
    EmptyDisk,
    Mixed,
}

const KILLED: &str = "processes killed";
const DROPPED: &str = "packets dropped";
const LOST: &str = "unsynced bytes lost";

const fn scenario(
    name: &'static str,
    kind: Kind,
    needs_lab: bool,
    effect: &'static str,
    what: &'static str,
) -> Scenario {
    Scenario { name, what, needs_lab, effect, kind }
}

/// All of them.
pub const SCENARIOS: [Scenario; 13] = [
    scenario(
        "leader-kill",
        Kind::LeaderKill,
        false,
        KILLED,
        "SIGKILL to a shard's leader, at 2,000 sends a second",
    ),
    scenario(
        "follower-kill",
        Kind::FollowerKill,
        false,
        KILLED,
        "SIGKILL to a node, seen by the shards that it does not lead",
    ),
    scenario(
        "gateway-kill",
        Kind::GatewayKill,
        false,
        KILLED,
        "SIGKILL to a gateway: its devices go elsewhere",
    ),
    scenario("kill-all", Kind::KillAll, false, KILLED, "SIGKILL to all store nodes at once"),
    scenario(
        "pause",
        Kind::Pause,
        false,
        "milliseconds paused",
        "SIGSTOP to a node or gateway for 0.2 to 30 s",
    ),
    scenario(
        "partition",
        Kind::Partition,
        true,
        DROPPED,
        "a node cut off from the others: both ways, one way, a bridge, flapping",
    ),
    scenario(
        "blackhole",
        Kind::Blackhole,
        true,
        DROPPED,
        "a node from which and to which nothing goes for 30 to 60 s",
    ),
    scenario(
        "power-cut",
        Kind::PowerCut,
        true,
        LOST,
        "a node's disk loses what was not synced, at the highest load",
    ),
    scenario(
        "power-cut-all",
        Kind::PowerCutAll,
        true,
        LOST,
        "all nodes' disks at once, at the highest load",
    ),
    scenario(
        "transfer",
        Kind::Transfer,
        false,
        "leaders moved",
        "a shard's leadership is handed over",
    ),
    scenario(
        "rolling-restart",
        Kind::Rolling,
        false,
        "processes restarted",
        "each node and gateway in turn is stopped in order",
    ),
    scenario(
        "empty-disk",
        Kind::EmptyDisk,
        true,
        "starts refused",
        "a node comes back on an empty disk, where its vote would lose what was acknowledged",
    ),
    scenario("mixed", Kind::Mixed, false, "", "all of these by chance, one after the other"),
];

/// What `mixed` draws from where it has a lab; without one, from those that need none.
const MIXED: [Kind; 12] = [
    Kind::LeaderKill,
    Kind::FollowerKill,
    Kind::GatewayKill,
    Kind::KillAll,
    Kind::Pause,
    Kind::Partition,
    Kind::Blackhole,
    Kind::PowerCut,
    Kind::PowerCutAll,
    Kind::Transfer,
    Kind::Rolling,
    Kind::EmptyDisk,
];

impl Scenario {
    /// The one of this name.
    pub fn named(name: &str) -> Option<&'static Scenario> {
        SCENARIOS.iter().find(|scenario| scenario.name == name)
    }

    /// How fast users write.
    pub(super) fn pace(&self) -> Pace {
        match self.kind {
            Kind::PowerCut | Kind::PowerCutAll => Pace::Closed(16),
            Kind::LeaderKill => Pace::Open(2_000),
            _ => Pace::Open(1_000),
        }
    }

    /// The next fault, by chance.
    pub(super) async fn next(&self, stage: &Stage) -> Result<Fault> {
        let kind = match self.kind {
            Kind::Mixed => {
                let allowed: Vec<Kind> = MIXED
                    .into_iter()
                    .filter(|kind| {
                        stage.cluster.lan().is_some()
                            || !SCENARIOS.iter().any(|s| s.kind == *kind && s.needs_lab)
                    })
                    .collect();
                *stage.pick(&allowed)
            }
            kind => kind,
        };
        draw(kind, stage).await
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

async fn draw(kind: Kind, stage: &Stage) -> Result<Fault> {
    let all = stage.shards();
    let nodes = stage.cluster.ids();
    let node = *stage.pick(&nodes);
    let down = stage.between(seconds(1.0), seconds(4.0));
    let fault = |kind, target: &dyn std::fmt::Display, shards, harm| Fault {
        kind,
        target: target.to_string(),
        shards,
        harm,
    };
    let named = Member::Node;
    Ok(match kind {
        Kind::LeaderKill => {
            let node = stores::leader(&stage.client, *stage.pick(&all)).await?;
            let harm = Harm::Kill(vec![named(node)], down);
            fault("leader-kill", &named(node), stage.led_by(node), harm)
        }
        Kind::FollowerKill => {
            let led = stage.led_by(node);
            let shards = all.into_iter().filter(|shard| !led.contains(shard)).collect();
            fault("follower-kill", &named(node), shards, Harm::Kill(vec![named(node)], down))
        }
        Kind::GatewayKill => {
            let gateway = Member::Gateway(stage.below(stage.gateways as u64) as usize);
            fault("gateway-kill", &gateway, all, Harm::Kill(vec![gateway], down))
        }
        Kind::KillAll => {
            let members = nodes.into_iter().map(named).collect();
            fault("kill", &"all nodes", all, Harm::Kill(members, seconds(0.5)))
        }
        Kind::Pause => pause(stage),
        Kind::Partition => partition(stage, &nodes),
        Kind::Blackhole => {
            let host = named(node).host();
            let others = stage.cluster.members().map(Member::host).chain([HERE]);
            let others = others.filter(|other| *other != host);
            let cuts = others.flat_map(|other| both(host, other)).collect();
            let each = stage.between(seconds(30.0), seconds(60.0));
            fault("blackhole", &named(node), all, Harm::Split { cuts, each, rounds: 1 })
        }
        Kind::PowerCut => {
            let harm = Harm::PowerCut(vec![node], some_cut(stage));
            fault("power-cut", &named(node), all, harm)
        }
        Kind::PowerCutAll => {
            fault("power-cut", &"all nodes", all, Harm::PowerCut(nodes, some_cut(stage)))
        }
        Kind::Transfer => {
            let shard = *stage.pick(&all);
            let target = format!("shard-{shard}");
            fault("transfer", &target, vec![shard], Harm::Transfer(shard))
        }
        Kind::Rolling => fault("rolling-restart", &"all processes", all, Harm::Rolling),
        Kind::EmptyDisk => {
            let others: Vec<NodeId> = nodes.into_iter().filter(|other| *other != node).collect();
            let keeper = *stage.pick(&others);
            let late = others.iter().copied().find(|other| *other != keeper);
            let late = late.context("a cluster of three")?;
            fault("empty-disk", &named(node), all, Harm::EmptyDisk([keeper, node, late]))
        }
        Kind::Mixed => unreachable!("it draws from the others"),
    })
}

fn pause(stage: &Stage) -> Fault {
    let member = *stage.pick(&stage.cluster.members().collect::<Vec<_>>());
    let long = *stage.pick(&[seconds(0.2), seconds(1.0), seconds(5.0), seconds(30.0)]);
    let shards = match member {
        Member::Node(node) => stage.led_by(node),
        Member::Gateway(_) => stage.shards(),
    };
    Fault { kind: "pause", target: member.to_string(), shards, harm: Harm::Pause(member, long) }
}

/// Mostly a plain cut; now and then names and lengths are kept, and some pages.
fn some_cut(stage: &Stage) -> Cut {
    *stage.pick(&[Cut::Plain, Cut::Plain, Cut::Plain, Cut::Torn, Cut::Metadata])
}

fn both(one: Host, other: Host) -> [(Host, Host); 2] {
    [(one, other), (other, one)]
}

fn partition(stage: &Stage, nodes: &[NodeId]) -> Fault {
    let victim = *stage.pick(nodes);
    let host = |node: NodeId| Member::Node(node).host();
    let others: Vec<Host> =
        nodes.iter().filter(|node| **node != victim).map(|node| host(*node)).collect();
    let (me, hold) = (host(victim), stage.between(seconds(4.0), seconds(8.0)));
    let split = |name: &str, cuts: Vec<(Host, Host)>, each, rounds| Fault {
        kind: "partition",
        target: format!("node-{victim} {name}"),
        shards: stage.shards(),
        harm: Harm::Split { cuts, each, rounds },
    };
    let all = || others.iter().flat_map(|other| both(me, *other)).collect::<Vec<(Host, Host)>>();
    match stage.below(5) {
        0 => split("both ways", all(), hold, 1),
        1 => split("says nothing", others.iter().map(|other| (me, *other)).collect(), hold, 1),
        2 => split("hears nothing", others.iter().map(|other| (*other, me)).collect(), hold, 1),
        3 => split("is the bridge", both(others[0], others[1]).to_vec(), hold, 1),
        _ => split("flapping", all(), stage.between(seconds(0.2), seconds(2.0)), 5),
    }
}

/// The shards of a run.
pub(super) fn shards(count: u16) -> Vec<ShardId> {
    (0..count).map(ShardId::new).collect()
}
