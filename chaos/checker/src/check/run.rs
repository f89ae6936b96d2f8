//! C13: it recovers and comes to rest. C14: the run proves something. C15: costs.

use std::collections::BTreeMap;

use super::Demands;
use super::findings::{Clue, Findings};
use crate::history::{Event, Group, Nanos};
use crate::report::{Code, Counts};

/// The course of a run.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// When each group was probed first, and acknowledged since the last fault ended.
    probed: BTreeMap<Group, Nanos>,
    served: BTreeMap<Group, Nanos>,
    /// Faults by kind and target: when they began last, and how many have not ended.
    faults: BTreeMap<(String, String), (Nanos, i64)>,
    /// How many of all have not ended.
    open: i64,
    /// What was seen since the last fault of each kind began. One without an effect is repeated until
    /// it has one.
    effects: BTreeMap<String, BTreeMap<String, u64>>,
    healed: Option<Nanos>,
    quiet: Option<Nanos>,
    sent: Option<Nanos>,
}

impl Run {
    pub(super) fn take(&mut self, event: &Event, demands: &Demands, findings: &mut Findings) {
        match event {
            Event::Send { at, .. } => self.sent = Some(*at),
            Event::Quiet { at } => self.quiet = Some(*at),
            Event::Fault { at, kind, target } => {
                if self.open == 0 {
                    self.recovery(*at, demands, findings);
                }
                self.open += 1;
                self.effects.remove(kind);
                let (began, open) = self.fault(kind, target);
                *began = *at;
                *open += 1;
            }
            Event::Healed { at, kind, target } => {
                self.open -= 1;
                self.fault(kind, target).1 -= 1;
                self.healed = Some(*at);
                self.served.clear();
            }
            Event::Effect { kind, name, amount, .. } => {
                let effects = self.effects.entry(kind.clone()).or_default();
                *effects.entry(name.clone()).or_default() += amount;
            }
            Event::Probe { at, group } => {
                self.probed.entry(*group).or_insert(*at);
            }
            Event::ProbeAck { at, group } => {
                self.served.entry(*group).or_insert(*at);
            }
            Event::Cost { at, process, what, amount, bound } if amount > bound => {
                let reason = format_args!("{process}: {what} {amount}, at most {bound}");
                findings.add(Code::C15, None, &[Clue::Run(*at)], reason);
            }
            _ => {}
        }
    }

    fn fault(&mut self, kind: &str, target: &str) -> &mut (Nanos, i64) {
        self.faults.entry((kind.to_owned(), target.to_owned())).or_default()
    }

    /// The rest is known in the end.
    pub(super) fn finish(self, demands: &Demands, findings: &mut Findings) {
        self.recovery(Nanos(u64::MAX), demands, findings);
        self.rest(findings);
        self.vacuity(demands, findings);
    }

    /// C13: each probed group serves soon after a fault ended, if the next one leaves it the time.
    fn recovery(&self, next: Nanos, demands: &Demands, findings: &mut Findings) {
        for (group, probed) in &self.probed {
            let since = self.healed.unwrap_or(*probed);
            let soon = Nanos(since.0.saturating_add(demands.recovery.0));
            let served = self.served.get(group);
            if soon <= next && served.is_none_or(|at| *at > soon) {
                let mut clues = vec![Clue::Run(since)];
                clues.extend(served.copied().map(Clue::Run));
                let reason =
                    format_args!("{group} did not acknowledge a probe from {since} to {soon}");
                findings.add(Code::C13, None, &clues, reason);
            }
        }
    }

    /// C13: all comes to rest after the last fault. C14: and the load stays away.
    fn rest(&self, findings: &mut Findings) {
        let Some(quiet) = self.quiet.filter(|quiet| Some(*quiet) >= self.healed) else {
            let clues: Vec<Clue> = self.healed.map(Clue::Run).into_iter().collect();
            return findings.add(Code::C13, None, &clues, format_args!("it never came to rest"));
        };
        if let Some(sent) = self.sent.filter(|sent| *sent > quiet) {
            let reason = format_args!("a send began at {sent}, after all was quiet at {quiet}");
            findings.flaw(&[Clue::Run(quiet)], reason);
        }
    }

    /// C14: faults had effects and ended, and enough was accepted.
    fn vacuity(&self, demands: &Demands, findings: &mut Findings) {
        for ((kind, target), (at, open)) in &self.faults {
            if *open != 0 {
                let reason = format_args!("{kind} on {target} and its ends do not match");
                findings.flaw(&[Clue::Run(*at)], reason);
            }
            let effects = self.effects.get(kind);
            let amount = |name: &String| effects.and_then(|effects| effects.get(name)).copied();
            let lacks = match demands.effects.get(kind) {
                Some(names) => names.iter().find(|name| amount(name).unwrap_or(0) == 0),
                None => None,
            };
            let any = effects.is_some_and(|effects| effects.values().any(|amount| *amount > 0));
            if let Some(name) = lacks {
                findings.flaw(&[Clue::Run(*at)], format_args!("{kind} had no {name}"));
            } else if !any {
                findings.flaw(&[Clue::Run(*at)], format_args!("{kind} had no effect"));
            }
        }
        let Counts { accepted, refused, unknown, .. } = findings.counts;
        let sends = accepted + refused + unknown;
        if accepted < demands.accepted_min {
            let least = demands.accepted_min;
            findings.flaw(&[], format_args!("{accepted} sends were accepted, at least {least}"));
        }
        if (accepted as f64) < demands.accepted_share_min * sends as f64 {
            let least = demands.accepted_share_min;
            let reason =
                format_args!("{accepted} of {sends} sends were accepted, at least {least}");
            findings.flaw(&[], reason);
        }
    }
}
