//! Draws a fault of a kind: whom it befalls, and how hard.

use std::fmt::Display;
use std::time::Duration;

use anyhow::Result;
use tidemark_lab::disk::Cut;
use tidemark_lab::lan::{HERE, Host};
use tidemark_lab::packets::Weather;
use tidemark_lab::preload::{Call, Pace};
use tidemark_types::{NodeId, ShardId};

use super::Kind;
use crate::cluster::Member;
use crate::run::fault::{Damage, Fault, Forgets, Harm, NewMajority, Space, Target};
use crate::run::stage::Stage;
use crate::stores;

/// Of so many failing or damaged disks, one is a node's that is needed at once.
const FORGETS_ONE_IN: u64 = 4;

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn fault(kind: &'static str, target: impl Display, shards: Vec<ShardId>, harm: Harm) -> Fault {
    Fault { kind, target: target.to_string(), shards, harm }
}

/// A fault of this kind.
pub(super) async fn draw(kind: Kind, stage: &Stage) -> Result<Fault> {
    let all = stage.shards();
    let nodes = stage.cluster.ids();
    let node = *stage.pick(&nodes);
    Ok(match kind {
        Kind::LeaderKill | Kind::FollowerKill | Kind::GatewayKill | Kind::KillAll => {
            kill(kind, stage, node).await?
        }
        Kind::Pause => pause(stage),
        Kind::Partition => partition(stage, node),
        Kind::Blackhole => blackhole(stage, node),
        Kind::WeakNetwork => weak_network(stage, &nodes),
        Kind::AckLoss => {
            let loss = *stage.pick(&[100, 300, 600]);
            let harm = Harm::LoseFrames(loss, stage.between(seconds(5.0), seconds(10.0)));
            fault("ack-loss", format_args!("{loss} of 1000 frames"), all, harm)
        }
        Kind::PowerCut => {
            let harm = Harm::PowerCut(vec![node], some_cut(stage));
            fault("power-cut", Member::Node(node), all, harm)
        }
        Kind::PowerCutAll => {
            fault("power-cut", "all nodes", all, Harm::PowerCut(nodes, some_cut(stage)))
        }
        Kind::PartKill => new_majority("part-kill", stage, &nodes, false),
        Kind::PauseKill => new_majority("pause-kill", stage, &nodes, true),
        Kind::SlowDisk | Kind::DiskStall | Kind::Eio | Kind::Enospc | Kind::Corrupt => {
            disk(kind, stage, node).await?
        }
        Kind::EmptyDisk => forget("empty-disk", "all of it", Forgets::Everything, stage, &nodes),
        Kind::Clock => clock(stage),
        Kind::Snapshot => {
            let again = stage.below(3) == 0;
            let target = format!("node-{node}{}", if again { " killed meanwhile" } else { "" });
            fault("snapshot", target, all, Harm::Lag { node, again })
        }
        Kind::Transfer => {
            let shard = *stage.pick(&all);
            fault("transfer", format_args!("shard-{shard}"), vec![shard], Harm::Transfer(shard))
        }
        Kind::Rolling => fault("rolling-restart", "all processes", all, Harm::Rolling),
        Kind::ReconnectStorm => {
            let gateway = stage.below(stage.gateways as u64) as usize;
            let rounds = 3 + u32::try_from(stage.below(3))?;
            fault("reconnect-storm", Member::Gateway(gateway), all, Harm::Storm(gateway, rounds))
        }
        Kind::SlowConsumers => {
            let each = stage.between(seconds(20.0), seconds(30.0));
            fault("slow-consumers", "devices", all, Harm::SlowDevices(each))
        }
        Kind::Mixed | Kind::GroupFanout | Kind::PushActs => {
            unreachable!("it draws from the others")
        }
        Kind::Steady => unreachable!("it has no faults"),
    })
}

async fn kill(kind: Kind, stage: &Stage, node: NodeId) -> Result<Fault> {
    let all = stage.shards();
    let down = stage.between(seconds(1.0), seconds(4.0));
    Ok(match kind {
        Kind::LeaderKill => {
            let node = stores::leader(&stage.client, *stage.pick(&all)).await?;
            let harm = Harm::Kill(vec![node.into()], down);
            fault("leader-kill", Member::Node(node), stage.led_by(node), harm)
        }
        Kind::FollowerKill => {
            let led = stage.led_by(node);
            let shards = all.into_iter().filter(|shard| !led.contains(shard)).collect();
            let harm = Harm::Kill(vec![node.into()], down);
            fault("follower-kill", Member::Node(node), shards, harm)
        }
        Kind::GatewayKill => {
            let gateway = Member::Gateway(stage.below(stage.gateways as u64) as usize);
            fault("gateway-kill", gateway, all, Harm::Kill(vec![gateway], down))
        }
        _ => {
            let spared = (stage.below(3) == 0).then_some(node);
            let members = stage.cluster.ids().into_iter().filter(|node| Some(*node) != spared);
            let harm = Harm::Kill(members.map(Member::Node).collect(), seconds(0.5));
            match spared {
                Some(node) => fault("kill", format_args!("all but node-{node}"), all, harm),
                None => fault("kill", "all nodes", all, harm),
            }
        }
    })
}

fn pause(stage: &Stage) -> Fault {
    let member = *stage.pick(&stage.cluster.members().collect::<Vec<_>>());
    let long = *stage.pick(&[seconds(0.2), seconds(1.0), seconds(5.0), seconds(30.0)]);
    fault("pause", member, felt(stage, member), Harm::Pause(member, long))
}

/// The shards that feel it when a member is slow or gone: those that a node leads; all, if it leads
/// none or is a gateway.
fn felt(stage: &Stage, member: Member) -> Vec<ShardId> {
    let led = match member {
        Member::Node(node) => stage.led_by(node),
        Member::Gateway(_) => Vec::new(),
    };
    if led.is_empty() { stage.shards() } else { led }
}

/// Mostly a plain cut; now and then names and lengths are kept, and some pages.
fn some_cut(stage: &Stage) -> Cut {
    *stage.pick(&[Cut::Plain, Cut::Plain, Cut::Plain, Cut::Torn, Cut::Metadata])
}

fn both(one: Host, other: Host) -> [(Host, Host); 2] {
    [(one, other), (other, one)]
}

fn host(node: NodeId) -> Host {
    Member::Node(node).host()
}

fn partition(stage: &Stage, victim: NodeId) -> Fault {
    if stage.below(3) == 0 {
        return partition_of_gateway(stage, victim);
    }
    let others = stage.cluster.ids().into_iter().filter(|node| *node != victim).map(host);
    let others: Vec<Host> = others.collect();
    let (me, hold) = (host(victim), stage.between(seconds(4.0), seconds(8.0)));
    let split = |name: &str, cuts: Vec<(Host, Host)>, each, rounds| {
        let harm = Harm::Split { cuts, each, rounds };
        fault("partition", format_args!("node-{victim} {name}"), stage.shards(), harm)
    };
    let all = || others.iter().flat_map(|other| both(me, *other)).collect::<Vec<(Host, Host)>>();
    match stage.below(6) {
        0 => split("both ways", all(), hold, 1),
        1 => split("says nothing", others.iter().map(|other| (me, *other)).collect(), hold, 1),
        2 => split("hears nothing", others.iter().map(|other| (*other, me)).collect(), hold, 1),
        3 => split("is the bridge", both(others[0], others[1]).to_vec(), hold, 1),
        4 => split(
            "and all others alone",
            [all(), both(others[0], others[1]).into()].concat(),
            hold,
            1,
        ),
        _ => split("flapping", all(), stage.between(seconds(0.2), seconds(2.0)), 5),
    }
}

/// A gateway and a node, or its devices, do not hear each other.
fn partition_of_gateway(stage: &Stage, node: NodeId) -> Fault {
    let gateway = Member::Gateway(stage.below(stage.gateways as u64) as usize);
    let me = gateway.host();
    let (name, other) = match stage.below(2) {
        0 => (format!("node-{node}"), host(node)),
        _ => ("devices".to_owned(), HERE),
    };
    let (how, cuts) = match stage.below(3) {
        0 => ("and {} are apart", both(me, other).to_vec()),
        1 => ("does not hear {}", vec![(other, me)]),
        _ => ("is not heard by {}", vec![(me, other)]),
    };
    let target = format!("{gateway} {}", how.replace("{}", &name));
    let harm = Harm::Split { cuts, each: stage.between(seconds(4.0), seconds(8.0)), rounds: 1 };
    fault("partition", target, stage.shards(), harm)
}

fn blackhole(stage: &Stage, node: NodeId) -> Fault {
    let me = host(node);
    let others = stage.cluster.members().map(Member::host).chain([HERE]);
    let others = others.filter(|other| *other != me);
    let cuts = others.flat_map(|other| both(me, other)).collect();
    let each = stage.between(seconds(30.0), seconds(60.0));
    let harm = Harm::Split { cuts, each, rounds: 1 };
    fault("blackhole", Member::Node(node), stage.shards(), harm)
}

fn weak_network(stage: &Stage, nodes: &[NodeId]) -> Fault {
    let weather =
        |loss, delay, jitter| Weather { loss, delay: seconds(delay), jitter: seconds(jitter) };
    let (name, weather) = *stage.pick(&[
        ("30 % loss", weather(0.3, 0.001, 0.010)),
        ("500 ms", weather(0.01, 0.400, 0.200)),
        ("30 % loss, 500 ms", weather(0.3, 0.450, 0.100)),
        ("reordering", weather(0.02, 0.005, 0.080)),
    ]);
    let resets = *stage.pick(&[0.0, 0.0, 0.005]);
    let stores: Vec<Host> = nodes.iter().copied().map(host).collect();
    let gateways: Vec<Host> = (0..stage.gateways).map(|at| Member::Gateway(at).host()).collect();
    let heard = |host: &Host, others: &[Host]| {
        (*host, others.iter().copied().filter(|other| other != host).collect::<Vec<_>>())
    };
    let (whom, links) = match stage.below(3) {
        0 => ("stores", stores.iter().map(|one| heard(one, &stores)).collect()),
        1 => ("devices", gateways.iter().map(|one| heard(one, &[HERE])).collect()),
        _ => {
            let all = [&stores[..], &gateways].concat();
            ("stores and gateways", all.iter().map(|one| heard(one, &all)).collect())
        }
    };
    let each = stage.between(seconds(8.0), seconds(15.0));
    let resetting = if resets > 0.0 { ", resets" } else { "" };
    let target = format!("{whom}: {name}{resetting}");
    fault("weak-network", target, stage.shards(), Harm::Weaken { links, weather, resets, each })
}

/// The three nodes of a cluster.
fn in_any_order(stage: &Stage, nodes: &[NodeId]) -> [NodeId; 3] {
    let first = stage.below(nodes.len() as u64) as usize;
    // The next one, or the one after it.
    let second = (first + 1 + stage.below(2) as usize) % nodes.len();
    let third = (0..nodes.len()).find(|at| *at != first && *at != second).unwrap_or(second);
    [first, second, third].map(|at| nodes[at])
}

fn forget(
    kind: &'static str,
    what: &str,
    forgets: Forgets,
    stage: &Stage,
    nodes: &[NodeId],
) -> Fault {
    let roles @ [keeper, victim, _] = in_any_order(stage, nodes);
    let target = format!("node-{victim} forgets {what}, without node-{keeper}");
    fault(kind, target, stage.shards(), Harm::Forget(roles, forgets))
}

fn new_majority(kind: &'static str, stage: &Stage, nodes: &[NodeId], paused: bool) -> Fault {
    let [alone, cut, away] = in_any_order(stage, nodes);
    let (how, each) = (some_cut(stage), seconds(30.0));
    let target = format!("node-{cut} needed with node-{alone}");
    let recipe = NewMajority { alone, cut, away, paused, how, each };
    fault(kind, target, stage.shards(), Harm::NewMajority(recipe))
}

async fn disk(kind: Kind, stage: &Stage, node: NodeId) -> Result<Fault> {
    let led = |node: NodeId| felt(stage, node.into());
    Ok(match kind {
        Kind::SlowDisk => {
            let rate = *stage.pick(&[5, 10, 20, 40]);
            let each = stage.between(seconds(5.0), seconds(12.0));
            let target = format!("node-{node}, {rate} writes a second");
            fault("slow-disk", target, led(node), Harm::SlowDisk(node, Some(rate), each))
        }
        Kind::DiskStall => {
            let harm = Harm::SlowDisk(node, None, seconds(10.0));
            fault("disk-stall", Member::Node(node), led(node), harm)
        }
        Kind::Eio if stage.below(FORGETS_ONE_IN) == 0 => {
            let nodes = stage.cluster.ids();
            forget("eio", "failed syncs", Forgets::FailedSyncs, stage, &nodes)
        }
        Kind::Eio => {
            let calls = [Call::Fdatasync, Call::Write, Call::Fsync, Call::Pwrite, Call::Pread];
            let (call, once) = (*stage.pick(&calls), stage.below(2) == 0);
            let target = format!("node-{node}, {}{}", call.name(), if once { " once" } else { "" });
            fault("eio", target, led(node), Harm::FailCall(node, call, once))
        }
        Kind::Enospc => {
            // A leader: it is the one that refuses.
            let node = stores::leader(&stage.client, *stage.pick(&stage.shards())).await?;
            let (name, space) = *stage.pick(&[
                ("512 MiB left", Space::Bytes(512 << 20)),
                ("64 MiB left", Space::Bytes(64 << 20)),
                ("nothing left", Space::Nothing),
            ]);
            let each = stage.between(seconds(5.0), seconds(10.0));
            let target = format!("node-{node}, {name}");
            fault("enospc", target, led(node), Harm::FillDisk(node, space, each))
        }
        Kind::Corrupt if stage.below(FORGETS_ONE_IN) == 0 => {
            let nodes = stage.cluster.ids();
            forget("corrupt", "what is behind a flipped bit", Forgets::BehindBit, stage, &nodes)
        }
        _ => {
            let (name, target, cut_short) = *stage.pick(&[
                ("the log's newest segment, a flipped bit", Target::LogTail, false),
                ("an older segment of the log, flipped bits", Target::LogSegment, false),
                ("an older segment of the log, cut short", Target::LogSegment, true),
                ("the log's manifest, cut short", Target::LogManifest, true),
                ("the log's manifest, flipped bits", Target::LogManifest, false),
                ("state, flipped bits", Target::StateTable, false),
                ("state, cut short", Target::StateTable, true),
                ("the state's manifest, cut short", Target::StateManifest, true),
            ]);
            let harm = Harm::Damage(node, Damage { target, cut_short });
            fault("corrupt", format_args!("node-{node}, {name}"), stage.shards(), harm)
        }
    })
}

fn clock(stage: &Stage) -> Fault {
    let member = *stage.pick(&stage.cluster.members().collect::<Vec<_>>());
    let (name, pace) = *stage.pick(&[
        ("an hour ahead", Pace::Off(3_600)),
        ("an hour behind", Pace::Off(-3_600)),
        ("half as fast again", Pace::Fast(500_000)),
        ("a month ahead", Pace::Off(30 * 24 * 3_600)),
    ]);
    // Half as fast again must be seconds wrong, which is what a server tells.
    let each = stage.between(seconds(10.0), seconds(15.0));
    let target = format!("{member}, {name}");
    fault("clock", target, stage.shards(), Harm::SetClock(member, pace, each))
}
