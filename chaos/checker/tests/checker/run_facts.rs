//! The part of the model that is below the messages: nodes, terms, faults, probes, costs.

use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use tidemark_checker::history::{Event, Group, Nanos, Node, RaftFacts};

use crate::model::groups;

/// A replica of a group. It forgets its state when its node dies, and keeps its log.
#[derive(Clone, Copy)]
struct Replica {
    term: u64,
    applied: u64,
    snapshot: u64,
    purged: u64,
    /// What it said last can only have grown since.
    committed: u64,
}

struct Raft {
    term: u64,
    leader: usize,
    last: u64,
    replicas: Vec<Replica>,
}

pub(crate) struct Cluster {
    lives: Vec<u32>,
    rafts: Vec<Raft>,
    fault: Option<(String, String)>,
}

impl Cluster {
    pub(crate) fn new(nodes: usize) -> Self {
        let replica = Replica { term: 1, applied: 1, snapshot: 0, purged: 0, committed: 1 };
        let raft = |leader| Raft { term: 1, leader, last: 1, replicas: vec![replica; nodes] };
        let rafts = groups().map(|group| raft(group.0 as usize % nodes)).collect();
        Cluster { lives: vec![0; nodes], rafts, fault: None }
    }

    pub(crate) fn nodes(&self) -> u64 {
        self.lives.len() as u64
    }

    pub(crate) fn step(&mut self, at: Nanos, rng: &mut ChaCha8Rng, events: &mut Vec<Event>) {
        let (group, node) =
            (rng.random_range(0..self.rafts.len()), rng.random_range(0..self.lives.len()));
        match rng.random_range(0..12) {
            0 => self.elect(group, node),
            1 => self.fault(at, node, events),
            2 => self.cost(at, rng, events),
            3 => events.extend(probe(at, group)),
            4..7 => {
                self.rafts[group].advance(node, rng);
                let Replica { applied: index, .. } = self.rafts[group].replicas[node];
                let hash = (u128::from(index) << 64) | group as u128;
                let (node, group) = (Node(node as u64), Group(group as u32));
                events.push(Event::StateHash { at, node, group, index, hash });
            }
            _ => {
                self.rafts[group].advance(node, rng);
                events.push(self.facts(at, group, node, rng.random_bool(0.7)));
            }
        }
    }

    fn elect(&mut self, group: usize, node: usize) {
        let raft = &mut self.rafts[group];
        raft.term += 1;
        raft.leader = node;
        raft.replicas[node].term = raft.term;
    }

    /// A node dies; or the one that is dead comes back, without what was not durable.
    fn fault(&mut self, at: Nanos, node: usize, events: &mut Vec<Event>) {
        if let Some((kind, target)) = self.fault.take() {
            events.push(Event::Healed { at, kind, target });
            return;
        }
        self.lives[node] += 1;
        for raft in &mut self.rafts {
            let replica = &mut raft.replicas[node];
            replica.applied = replica.snapshot;
            if raft.leader == node {
                raft.leader = (node + 1) % self.lives.len();
                raft.term += 1;
                raft.replicas[raft.leader].term = raft.term;
            }
        }
        let (kind, target, name) = ("kill".to_owned(), format!("node {node}"), "leaders changed");
        events.push(Event::Fault { at, kind: kind.clone(), target: target.clone() });
        let effect = Event::Effect { at, kind: kind.clone(), name: name.to_owned(), amount: 1 };
        events.push(effect);
        self.fault = Some((kind, target));
    }

    fn cost(&self, at: Nanos, rng: &mut ChaCha8Rng, events: &mut Vec<Event>) {
        let (process, what) = ("store 1".to_owned(), "memory, bytes".to_owned());
        let amount = rng.random_range(0..=1_000);
        events.push(Event::Cost { at, process, what, amount, bound: 1_000 });
    }

    fn facts(&self, at: Nanos, group: usize, node: usize, says_committed: bool) -> Event {
        let raft = &self.rafts[group];
        let Replica { term, applied, snapshot, purged, committed } = raft.replicas[node];
        Event::Raft(RaftFacts {
            at,
            node: Node(node as u64),
            life: self.lives[node],
            group: Group(group as u32),
            term,
            leads: raft.leader == node && term == raft.term,
            last: raft.last,
            committed: says_committed.then_some(committed),
            applied,
            snapshot,
            purged,
        })
    }

    /// The fault ends, every group serves and has a leader. Says how late it is.
    pub(crate) fn heal(&mut self, at: Nanos, events: &mut Vec<Event>) -> Nanos {
        if let Some((kind, target)) = self.fault.take() {
            events.push(Event::Healed { at, kind, target });
        }
        let mut now = at;
        for group in 0..self.rafts.len() {
            now = Nanos(now.0 + 10_000);
            events.extend(probe(now, group));
            for node in 0..self.lives.len() {
                now = Nanos(now.0 + 10_000);
                self.rafts[group].replicas[node].term = self.rafts[group].term;
                events.push(self.facts(now, group, node, true));
            }
        }
        now
    }
}

fn probe(at: Nanos, group: usize) -> [Event; 2] {
    let group = Group(group as u32);
    [Event::Probe { at, group }, Event::ProbeAck { at: Nanos(at.0 + 1), group }]
}

impl Raft {
    /// The log grows, and a replica comes some way after it.
    fn advance(&mut self, node: usize, rng: &mut ChaCha8Rng) {
        self.last += rng.random_range(0..10);
        let replica = &mut self.replicas[node];
        replica.term = self.term;
        replica.committed = rng.random_range(replica.committed.max(replica.applied)..=self.last);
        replica.applied = rng.random_range(replica.applied..=replica.committed);
        replica.snapshot = rng.random_range(replica.snapshot..=replica.applied);
        replica.purged = rng.random_range(replica.purged..=replica.snapshot);
    }
}
