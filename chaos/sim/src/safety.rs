//! What must hold at every moment, looked at after every step: one leader in a term, positions that
//! never go back, equal states at equal positions. The rest is the checker's, in the end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tidemark_checker::Event;
use tidemark_checker::history::{Group as GroupNumber, Nanos, Node as NodeNumber, RaftFacts};
use tidemark_checker::report::Code;
use tidemark_store::node::Node;
use tidemark_store::raft::machine::Applied;
use tidemark_store::storage::GroupId;
use tidemark_store_core::key::{ChainKey, Key};
use tidemark_store_core::storage::Writes;
use tidemark_store_core::value::{Chain, Value};
use tidemark_types::NodeId;

use crate::world::World;

/// Checks while a simulation runs.
#[derive(Default)]
pub struct Safety {
    inner: Mutex<Inner>,
    applied: AtomicU64,
}

#[derive(Default)]
struct Inner {
    violations: Vec<String>,
    /// Who led a group in a term.
    leaders: BTreeMap<(GroupId, u64), NodeId>,
    /// Who leads it now, as far as was seen.
    leading: BTreeMap<GroupId, (u64, NodeId)>,
    last: BTreeMap<(NodeId, GroupId), RaftFacts>,
    /// The state hash behind an entry, and who had it first.
    hashes: BTreeMap<(GroupId, u64), (u128, NodeId)>,
    leader_changes: u64,
}

impl Safety {
    /// Something is wrong: the simulation ends.
    pub fn violated(&self, world: &World, what: String) {
        world.line(&format_args!("VIOLATED: {what}"));
        self.inner.lock().violations.push(what);
    }

    /// What was wrong so far.
    pub fn violations(&self) -> Vec<String> {
        self.inner.lock().violations.clone()
    }

    /// How often a group changed its leader.
    pub fn leader_changes(&self) -> u64 {
        self.inner.lock().leader_changes
    }

    /// Positions whose states were compared.
    pub fn applied_count(&self) -> u64 {
        self.applied.load(Ordering::Relaxed)
    }

    /// Who leads a group, when last seen.
    pub fn leader(&self, group: GroupId) -> Option<NodeId> {
        self.inner.lock().leading.get(&group).map(|(_, node)| *node)
    }

    /// A replica has applied entries; every replica that comes to the same entry must have the same
    /// state hash there.
    pub fn applied(
        &self,
        world: &World,
        node: NodeId,
        group: GroupId,
        writes: &Writes,
        position: &[u8],
    ) {
        let index = Applied::decode(Some(position)).ok().and_then(|at| Some(at.last?.index));
        let chain = writes.get(&ChainKey {}.encode()).and_then(|value| value.as_deref());
        let hash = chain.and_then(|chain| Chain::decode(chain).ok());
        let (Some(index), Some(Chain { hash })) = (index, hash) else { return };
        self.applied.fetch_add(1, Ordering::Relaxed);
        let known = *self.inner.lock().hashes.entry((group, index)).or_insert((hash, node));
        if known.0 != hash {
            let (_, other) = known;
            let what = format!(
                "{}: {group}: nodes {other} and {node} differ behind entry {index}",
                Code::C2
            );
            self.violated(world, what);
        }
    }

    /// Looks at every replica that runs.
    pub fn look(&self, world: &World) {
        for machine in &world.machines {
            if let Some(node) = machine.running().filter(|_| !machine.is_cut()) {
                self.look_at(world, &node, machine.lives());
            }
        }
    }

    fn look_at(&self, world: &World, node: &Node, life: u32) {
        let id = node.identity().node;
        for (number, group) in node.hosted().groups() {
            let (status, leads) = (group.status(), group.leads());
            if let Some(term) = leads {
                self.leads(world, number, term, id);
            }
            let facts = RaftFacts {
                at: Nanos::default(),
                node: NodeNumber(id.get()),
                life,
                group: GroupNumber(number.get()),
                term: status.term,
                leads: leads == Some(status.term),
                last: status.last_log.unwrap_or_default(),
                committed: None,
                applied: status.applied.unwrap_or_default(),
                snapshot: status.snapshot.unwrap_or_default(),
                purged: status.purged.unwrap_or_default(),
            };
            let before = self.inner.lock().last.insert((id, number), facts);
            if before == Some(facts) {
                continue;
            }
            world.note(|at| Event::Raft(RaftFacts { at, ..facts }));
            if let Some(what) = before.and_then(|before| goes_back(&before, &facts)) {
                self.violated(world, format!("{}: node {id}, {number}: {what}", Code::C12));
            }
        }
    }

    fn leads(&self, world: &World, group: GroupId, term: u64, node: NodeId) {
        let mut inner = self.inner.lock();
        let first = *inner.leaders.entry((group, term)).or_insert(node);
        if inner.leading.get(&group).is_none_or(|(known, _)| *known < term) {
            inner.leading.insert(group, (term, node));
            inner.leader_changes += 1;
        }
        drop(inner);
        if first != node {
            let what =
                format!("{}: {group}: {first} and {node} both lead in term {term}", Code::C12);
            self.violated(world, what);
        }
    }
}

/// What of a replica's positions went back, that never may.
fn goes_back(before: &RaftFacts, now: &RaftFacts) -> Option<String> {
    let lives_on = before.life == now.life;
    let positions = [
        ("term", before.term, now.term, true),
        ("purged", before.purged, now.purged, lives_on),
        ("applied", before.applied, now.applied, lives_on),
        ("snapshot", before.snapshot, now.snapshot, lives_on),
    ];
    let gone = positions.iter().find(|(_, before, now, must)| *must && now < before);
    gone.map(|(name, before, now, _)| format!("{name} was {before} and is {now}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_never_goes_back_and_what_is_applied_or_purged_only_with_a_life() {
        let facts = |life, term, applied, purged| RaftFacts {
            at: Nanos::default(),
            node: NodeNumber(1),
            life,
            group: GroupNumber(0),
            term,
            leads: false,
            last: 9,
            committed: None,
            applied,
            snapshot: 0,
            purged,
        };
        let before = facts(0, 2, 5, 4);
        assert_eq!(goes_back(&before, &before), None);
        assert_eq!(goes_back(&before, &facts(1, 2, 3, 1)), None);
        assert!(goes_back(&before, &facts(0, 2, 3, 4)).is_some());
        assert!(goes_back(&before, &facts(0, 2, 5, 1)).is_some());
        assert!(goes_back(&before, &facts(1, 1, 5, 4)).is_some());
    }
}
