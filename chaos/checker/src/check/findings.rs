//! What the checks find, until it becomes a report.
//!
//! A check knows which events contradict each other, but holds none of them. It leaves clues, and
//! one more pass over the history finds the events; a history without faults needs none.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use tidemark_types::Seq;

use crate::history::{Device, Event, Group, History, Nanos, Node, Op, RaftFacts, ReadError, User};
use crate::report::{Code, Counts, Report, Verdict, Violation};

/// By what an event is found again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Clue {
    /// An operation, its answer included.
    Op(Op),
    /// What a device did then.
    Device(User, Device, Nanos),
    /// What replicas say of a mailbox.
    Mailbox(User),
    /// What replicas have at a place in it.
    Entry(User, Seq),
    /// What devices took of a place whose entry is removed.
    Seen(User, Seq),
    /// The state hashes of a group at an index.
    Hash(Group, u64),
    /// What a node said of a group.
    Raft(Node, Group, Nanos),
    /// A fault, an effect, a probe, a cost, a decision, a judgement.
    Run(Nanos),
}

impl Clue {
    /// What an event is found by, and what something taken is found by besides.
    fn all(event: &Event) -> impl Iterator<Item = Clue> {
        let seen = match event {
            Event::Taken { user, seq, .. } => Some(Clue::Seen(*user, *seq)),
            _ => None,
        };
        seen.into_iter().chain([Clue::of(event)])
    }

    fn of(event: &Event) -> Clue {
        match event {
            Event::Send { op, .. }
            | Event::Sent { op, .. }
            | Event::Head { op, .. }
            | Event::HeadIs { op, .. }
            | Event::Range { op, .. }
            | Event::RangeIs { op, .. } => Clue::Op(*op),
            Event::Start { at, user, device, .. }
            | Event::Stop { at, user, device }
            | Event::Taken { at, user, device, .. }
            | Event::Gap { at, user, device, .. }
            | Event::CursorIs { at, user, device, .. }
            | Event::Target { at, user, device }
            | Event::Hint { at, user, device, .. } => Clue::Device(*user, *device, *at),
            Event::Mailbox { user, .. } => Clue::Mailbox(*user),
            Event::Entry { user, seq, .. }
            | Event::ReplicaEntry { user, seq, .. }
            | Event::Dropped { user, seq } => Clue::Entry(*user, *seq),
            Event::StateHash { group, index, .. } => Clue::Hash(*group, *index),
            Event::Raft(RaftFacts { at, node, group, .. }) => Clue::Raft(*node, *group, *at),
            Event::Silent { at, .. }
            | Event::Quiet { at }
            | Event::Fault { at, .. }
            | Event::Healed { at, .. }
            | Event::Effect { at, .. }
            | Event::Probe { at, .. }
            | Event::ProbeAck { at, .. }
            | Event::Cost { at, .. }
            | Event::Decided { at, .. }
            | Event::Judged { at, .. } => Clue::Run(*at),
        }
    }
}

/// What was found so far.
#[derive(Debug)]
pub(super) struct Findings {
    pub(super) counts: Counts,
    shown_max: usize,
    wrong: BTreeMap<Code, u64>,
    found: Vec<(Violation, Vec<Clue>)>,
}

impl Findings {
    pub(super) fn new(shown_max: usize) -> Self {
        let (counts, wrong, found) = Default::default();
        Findings { counts, shown_max, wrong, found }
    }

    /// Something is wrong.
    pub(super) fn add(
        &mut self,
        code: Code,
        user: Option<User>,
        clues: &[Clue],
        reason: fmt::Arguments<'_>,
    ) {
        let count = self.wrong.entry(code).or_default();
        *count += 1;
        if *count <= self.shown_max as u64 {
            let violation = Violation { code, reason: reason.to_string(), witness: vec![], user };
            self.found.push((violation, clues.to_vec()));
        }
    }

    /// The history itself is wrong, so that it proves nothing.
    pub(super) fn flaw(&mut self, clues: &[Clue], reason: fmt::Arguments<'_>) {
        self.add(Code::C14, None, clues, reason);
    }

    /// Finds the events of each violation, and judges.
    pub(super) fn report(mut self, history: &impl History) -> Result<Report, ReadError> {
        self.found.sort_by_key(|(violation, _)| violation.code);
        let mut wanted = HashMap::<Clue, Vec<usize>>::new();
        for (at, (_, clues)) in self.found.iter().enumerate() {
            for clue in clues {
                let places = wanted.entry(*clue).or_default();
                if places.last() != Some(&at) {
                    places.push(at);
                }
            }
        }
        let mut violations: Vec<_> = self.found.into_iter().map(|(found, _)| found).collect();
        if !wanted.is_empty() {
            for event in history.events()? {
                let event = event?;
                for at in Clue::all(&event).filter_map(|clue| wanted.get(&clue)).flatten() {
                    violations[*at].witness.push(event.clone());
                }
            }
        }
        let verdict = match self.wrong.keys().find(|code| **code != Code::C14) {
            Some(_) => Verdict::Violated,
            None if self.wrong.is_empty() => Verdict::Holds,
            None => Verdict::Void,
        };
        Ok(Report { verdict, counts: self.counts, wrong: self.wrong, violations })
    }
}
