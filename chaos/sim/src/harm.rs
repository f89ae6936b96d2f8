//! The faults that a seed draws, and what each is called.

use std::time::Duration;

use tidemark_store::storage::GroupId;
use tidemark_types::{NodeId, ShardId};

use crate::machine::{Armed, Keep, OFTEN, POINTS, Point, When};
use crate::plan::{Dice, FAR_AHEAD_MS, GATEWAYS, PHONES, Plan};
use crate::world::{self, Transfer, World};

/// What is done to the cluster.
#[derive(Clone, Debug)]
pub enum Harm {
    /// Store nodes die, all at one moment.
    Crash {
        /// Which ones.
        nodes: Vec<NodeId>,
        /// What their disks keep.
        keep: Keep,
    },
    /// A store node crashes in the middle of a step of its disk.
    Point {
        /// Which one.
        node: NodeId,
        /// Where.
        armed: Armed,
    },
    /// A gateway dies.
    Gateway(usize),
    /// A host of devices dies.
    Phone(usize),
    /// What these hosts send those is lost; with `both`, the reverse as well.
    Cut {
        /// From where.
        from: Vec<String>,
        /// To where.
        to: Vec<String>,
        /// In both directions.
        both: bool,
    },
    /// As [`Harm::Cut`] in both directions, again and again for short times.
    Flap {
        /// Between these.
        from: Vec<String>,
        /// And those.
        to: Vec<String>,
    },
    /// What these send each other is held back, and comes all at once in the end.
    Hold {
        /// Between these.
        from: Vec<String>,
        /// And those.
        to: Vec<String>,
    },
    /// What these send each other takes long.
    Delay {
        /// Between these.
        from: Vec<String>,
        /// And those.
        to: Vec<String>,
        /// How long, at most.
        latency: Duration,
    },
    /// A store node's wall clock jumps, and jumps back in the end.
    Clock {
        /// Which one.
        node: NodeId,
        /// By how much.
        ms: i64,
    },
    /// A store node's fsyncs take long.
    SlowDisk {
        /// Which one.
        node: NodeId,
        /// How long.
        fsync: Duration,
    },
    /// A store node's next fsync fails.
    Eio(NodeId),
    /// An operator moves a leadership.
    Transfer(Transfer),
}

/// What faults are called in the history, in any order.
pub const KINDS: [&str; 16] = [
    "kill-all",
    "store-kill",
    "power-cut-all",
    "power-cut",
    "crash-point",
    "gateway-kill",
    "phone-kill",
    "partition",
    "one-way",
    "flapping",
    "hold",
    "delay",
    "clock",
    "slow-disk",
    "eio",
    "transfer",
];

impl Harm {
    /// What it is called in the history.
    pub fn kind(&self) -> &'static str {
        match self {
            Harm::Crash { nodes, keep: Keep::All } if nodes.len() > 1 => "kill-all",
            Harm::Crash { keep: Keep::All, .. } => "store-kill",
            Harm::Crash { nodes, keep: Keep::Some } if nodes.len() > 1 => "power-cut-all",
            Harm::Crash { keep: Keep::Some, .. } => "power-cut",
            Harm::Point { .. } => "crash-point",
            Harm::Gateway(_) => "gateway-kill",
            Harm::Phone(_) => "phone-kill",
            Harm::Cut { both: true, .. } => "partition",
            Harm::Cut { both: false, .. } => "one-way",
            Harm::Flap { .. } => "flapping",
            Harm::Hold { .. } => "hold",
            Harm::Delay { .. } => "delay",
            Harm::Clock { .. } => "clock",
            Harm::SlowDisk { .. } => "slow-disk",
            Harm::Eio(_) => "eio",
            Harm::Transfer(_) => "transfer",
        }
    }

    /// Whom it befalls.
    pub fn target(&self) -> String {
        match self {
            Harm::Crash { nodes, .. } => {
                nodes.iter().map(|node| world::store(*node)).collect::<Vec<_>>().join(" ")
            }
            Harm::Point { node, armed } => format!("{} {armed}", world::store(*node)),
            Harm::Gateway(number) => world::gateway(*number),
            Harm::Phone(number) => world::phone(*number),
            Harm::Cut { from, to, .. }
            | Harm::Flap { from, to }
            | Harm::Hold { from, to }
            | Harm::Delay { from, to, .. } => format!("{} to {}", from.join(" "), to.join(" ")),
            Harm::Clock { node, ms } => format!("{} {ms} ms", world::store(*node)),
            Harm::SlowDisk { node, fsync } => format!("{} {fsync:?}", world::store(*node)),
            Harm::Eio(node) => world::store(*node),
            Harm::Transfer(Transfer { group, from, to }) => format!("{group} from {from} to {to}"),
        }
    }

    /// Whether it may come to nothing: a point that is never reached, a link over which nothing is sent
    /// meanwhile, a disk on which nothing is written, a clock that nobody asks. It is a fault only once
    /// it was felt.
    pub fn may_miss(&self) -> bool {
        !matches!(self, Harm::Crash { .. } | Harm::Gateway(_) | Harm::Phone(_))
    }

    /// The hosts between which it changes the network.
    pub fn links(&self) -> Option<(&[String], &[String])> {
        match self {
            Harm::Cut { from, to, .. }
            | Harm::Flap { from, to }
            | Harm::Hold { from, to }
            | Harm::Delay { from, to, .. } => Some((from, to)),
            Harm::Crash { .. }
            | Harm::Point { .. }
            | Harm::Gateway(_)
            | Harm::Phone(_)
            | Harm::Clock { .. }
            | Harm::SlowDisk { .. }
            | Harm::Eio(_)
            | Harm::Transfer(_) => None,
        }
    }

    /// The store nodes whose machines it touches.
    pub fn nodes(&self) -> Vec<NodeId> {
        match self {
            Harm::Crash { nodes, .. } => nodes.clone(),
            Harm::Point { node, .. }
            | Harm::Clock { node, .. }
            | Harm::SlowDisk { node, .. }
            | Harm::Eio(node) => vec![*node],
            Harm::Gateway(_)
            | Harm::Phone(_)
            | Harm::Cut { .. }
            | Harm::Flap { .. }
            | Harm::Hold { .. }
            | Harm::Delay { .. }
            | Harm::Transfer(_) => Vec::new(),
        }
    }

    /// The next one of a run, and how long it lasts.
    pub fn draw(world: &World, dice: &Dice) -> (Harm, Duration) {
        let node = victim(world, dice);
        if world.plan.clocks && dice.chance(0.5) {
            return (Harm::Clock { node, ms: FAR_AHEAD_MS }, dice.ms(2_500, 6_000));
        }
        let keep = dice.of(&[Keep::All, Keep::Some, Keep::Some]);
        let (harm, lasts) = match dice.between(0, 99) {
            0..=15 => (Harm::Crash { nodes: vec![node], keep }, dice.ms(100, 4_000)),
            16..=22 => {
                (Harm::Crash { nodes: world.plan.nodes().collect(), keep }, dice.ms(100, 2_000))
            }
            23..=42 => {
                let (point, when) = (dice.of(&POINTS), dice.of(&[When::Before, When::After]));
                let point = if world.plan.votes { Point::Vote } else { point };
                let spare = dice.between(0, if OFTEN.contains(&point) { 12 } else { 1 });
                let armed = Armed { point, when, spare };
                (Harm::Point { node, armed }, dice.ms(2_000, 6_000))
            }
            43..=49 => {
                (Harm::Gateway(index(dice.between(0, GATEWAYS as u64 - 1))), dice.ms(100, 3_000))
            }
            50..=55 => {
                (Harm::Phone(index(dice.between(0, PHONES as u64 - 1))), dice.ms(100, 3_000))
            }
            56..=79 => network(&world.plan, dice, node),
            80..=85 => {
                let ms = dice.of(&[-3_600_000, -70_000, -5_000, 5_000, 70_000, FAR_AHEAD_MS]);
                (Harm::Clock { node, ms }, dice.ms(2_500, 6_000))
            }
            86..=93 => (Harm::SlowDisk { node, fsync: dice.ms(30, 1_800) }, dice.ms(4_000, 7_000)),
            94..=96 => (Harm::Eio(node), dice.ms(2_000, 4_000)),
            _ => match transfer(world, dice) {
                Some(transfer) => (Harm::Transfer(transfer), dice.ms(1_000, 3_000)),
                None => (Harm::Eio(node), dice.ms(2_000, 4_000)),
            },
        };
        (harm, lasts)
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or_default()
}

/// A store node: often one that leads something.
fn victim(world: &World, dice: &Dice) -> NodeId {
    let any = NodeId::new(dice.between(1, world.plan.stores));
    let number = u16::try_from(dice.between(0, u64::from(world.plan.shards) - 1)).unwrap_or(0);
    let leader = world.safety.leader(GroupId::shard(ShardId::new(number)));
    if dice.chance(0.5) { leader.unwrap_or(any) } else { any }
}

/// A leadership, and somebody else's.
fn transfer(world: &World, dice: &Dice) -> Option<Transfer> {
    let number = u16::try_from(dice.between(0, u64::from(world.plan.shards) - 1)).ok()?;
    let group = GroupId::shard(ShardId::new(number));
    let from = world.safety.leader(group)?;
    let others: Vec<NodeId> = world.plan.nodes().filter(|node| *node != from).collect();
    Some(Transfer { group, from, to: dice.of(&others) })
}

fn network(plan: &Plan, dice: &Dice, node: NodeId) -> (Harm, Duration) {
    let one = vec![world::store(node)];
    let others: Vec<String> =
        plan.nodes().filter(|other| *other != node).map(world::store).collect();
    // Of five nodes two may stay together.
    let (with, without) = others.split_at(index(dice.between(0, plan.stores / 2 - 1)));
    let minority = [&one[..], with].concat();
    let stores: Vec<String> = plan.nodes().map(world::store).collect();
    let gateways: Vec<String> = (0..GATEWAYS).map(world::gateway).collect();
    let gateway = vec![gateways[index(dice.between(0, GATEWAYS as u64 - 1))].clone()];
    let phone = vec![world::phone(index(dice.between(0, PHONES as u64 - 1)))];
    let (from, to) = match dice.between(0, 9) {
        // A minority from all others, or a node from one of them only.
        0..=3 => (minority, without.to_vec()),
        4 | 5 => (one, vec![others[index(dice.between(0, plan.stores - 2))].clone()]),
        6 => (gateway, stores),
        7 => (gateway, one),
        8 => (phone, gateway),
        _ => (phone, gateways),
    };
    let (from, to) = if dice.chance(0.5) { (from, to) } else { (to, from) };
    let lasts = dice.ms(1_500, 6_000);
    let harm = match dice.between(0, 9) {
        0..=3 => Harm::Cut { from, to, both: true },
        4 | 5 => Harm::Cut { from, to, both: false },
        6 => Harm::Flap { from, to },
        7 | 8 => Harm::Hold { from, to },
        _ => Harm::Delay { from, to, latency: dice.ms(50, 800) },
    };
    (harm, lasts)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_list_of_kinds_has_every_kind() {
        let node = NodeId::new(1);
        let (one, both) = (|| vec![node], || vec![node, NodeId::new(2)]);
        let (from, to) = (Vec::<String>::new, Vec::<String>::new);
        let armed = Armed { point: Point::Vote, when: When::Before, spare: 0 };
        let group = GroupId::shard(ShardId::new(0));
        let (latency, fsync) = (Duration::ZERO, Duration::ZERO);
        let harms = [
            Harm::Crash { nodes: one(), keep: Keep::All },
            Harm::Crash { nodes: both(), keep: Keep::All },
            Harm::Crash { nodes: one(), keep: Keep::Some },
            Harm::Crash { nodes: both(), keep: Keep::Some },
            Harm::Point { node, armed },
            Harm::Gateway(0),
            Harm::Phone(0),
            Harm::Cut { from: from(), to: to(), both: true },
            Harm::Cut { from: from(), to: to(), both: false },
            Harm::Flap { from: from(), to: to() },
            Harm::Hold { from: from(), to: to() },
            Harm::Delay { from: from(), to: to(), latency },
            Harm::Clock { node, ms: 0 },
            Harm::SlowDisk { node, fsync },
            Harm::Eio(node),
            Harm::Transfer(Transfer { group, from: node, to: NodeId::new(2) }),
        ];
        let kinds: BTreeSet<_> = harms.iter().map(Harm::kind).collect();
        assert_eq!(kinds, KINDS.into_iter().collect());
    }
}
