//! C12: what nodes say of Raft. C13, of it: in the end each group has a leader.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::findings::{Clue, Findings};
use crate::history::{Event, Group, Nanos, Node, RaftFacts};
use crate::report::Code;

/// What nodes said.
#[derive(Debug, Default)]
pub(super) struct Raft {
    /// Who led a group in a term, and when it said so first.
    leaders: HashMap<(Group, u64), (Node, Nanos)>,
    /// What each replica said last.
    last: BTreeMap<(Group, Node), RaftFacts>,
}

fn clue(facts: &RaftFacts) -> Clue {
    Clue::Raft(facts.node, facts.group, facts.at)
}

impl Raft {
    pub(super) fn take(&mut self, event: &Event, findings: &mut Findings) {
        let Event::Raft(facts) = event else { return };
        self.leader(facts, findings);
        in_order(facts, findings);
        if let Some(before) = self.last.insert((facts.group, facts.node), *facts) {
            never_back(&before, facts, findings);
        }
    }

    /// A term has one leader.
    fn leader(&mut self, facts: &RaftFacts, findings: &mut Findings) {
        let RaftFacts { at, node, group, term, leads, .. } = *facts;
        if !leads {
            return;
        }
        let (first, since) = *self.leaders.entry((group, term)).or_insert((node, at));
        if first != node {
            let clues = [Clue::Raft(first, group, since), clue(facts)];
            let reason = format_args!("{group}: {first} and {node} both lead in term {term}");
            findings.add(Code::C12, None, &clues, reason);
        }
    }

    /// C13: of the replicas with the highest term, one leads.
    pub(super) fn finish(self, findings: &mut Findings) {
        let mut groups = BTreeMap::<Group, Vec<RaftFacts>>::new();
        for ((group, _), facts) in self.last {
            groups.entry(group).or_default().push(facts);
        }
        for (group, facts) in groups {
            let term = facts.iter().map(|facts| facts.term).max();
            if !facts.iter().any(|facts| facts.leads && Some(facts.term) == term) {
                let clues: Vec<Clue> = facts.iter().map(clue).collect();
                let reason = format_args!("{group} has no leader in the end");
                findings.add(Code::C13, None, &clues, reason);
            }
        }
    }
}

fn add(clues: &[Clue], facts: &RaftFacts, what: fmt::Arguments<'_>, findings: &mut Findings) {
    let RaftFacts { node, group, .. } = facts;
    findings.add(Code::C12, None, clues, format_args!("{node} in {group}: {what}"));
}

/// purged <= snapshot <= applied, and applied <= committed and last.
fn in_order(facts: &RaftFacts, findings: &mut Findings) {
    let RaftFacts { purged, snapshot, applied, last, .. } = *facts;
    let committed = facts.committed.unwrap_or(applied);
    let pairs = [
        (("purged", purged), ("snapshot", snapshot)),
        (("snapshot", snapshot), ("applied", applied)),
        (("applied", applied), ("committed", committed)),
        (("applied", applied), ("last", last)),
    ];
    for ((low, a), (high, b)) in pairs {
        if a > b {
            add(&[clue(facts)], facts, format_args!("{low} {a} is above {high} {b}"), findings);
        }
    }
}

/// Terms are durable. The rest is not: the state has no WAL, commit marks and purges have no fsync of
/// their own, since without them entries are only there again. It never goes back while a node lives.
fn never_back(before: &RaftFacts, facts: &RaftFacts, findings: &mut Findings) {
    let lives_on = before.life == facts.life;
    let positions = [
        ("term", Some(before.term), Some(facts.term), true),
        ("purged", Some(before.purged), Some(facts.purged), lives_on),
        ("snapshot", Some(before.snapshot), Some(facts.snapshot), lives_on),
        ("applied", Some(before.applied), Some(facts.applied), lives_on),
        ("committed", before.committed, facts.committed, lives_on),
    ];
    for (name, before_it, now, must_hold) in positions {
        let (Some(was), Some(is)) = (before_it, now) else { continue };
        if must_hold && is < was {
            let clues = [clue(before), clue(facts)];
            add(&clues, facts, format_args!("{name} was {was} and is {is}"), findings);
        }
    }
}
