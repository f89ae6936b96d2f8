//! Every way in which a system can break its promises here gives the code for it.

mod course;
mod decisions;
mod hints;
mod judged;
mod log;
mod reads;

use std::collections::BTreeSet;

use tidemark_checker::history::{Copy, Event, Nanos};
use tidemark_checker::report::Losses;
use tidemark_checker::{Code, Report, Verdict, Violation};

use tidemark_types::Seq;

use crate::corrupt::Tape;
use crate::judged::judge;

/// Histories in which each kind must show.
const SEEDS_EACH: usize = 8;

/// Of so many, since not each has what a kind needs.
const SEEDS_MAX: u64 = 400;

/// A way to break a history.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// What it must be found as.
    pub(crate) code: Code,
    /// As what it may be found besides, since it contradicts these too.
    also: &'static [Code],
    /// None if the history has nothing that could be broken so.
    pub(crate) apply: fn(&mut Tape) -> Option<()>,
}

pub(crate) fn kinds() -> impl Iterator<Item = &'static Kind> {
    let kinds = log::KINDS.iter().chain(reads::KINDS).chain(course::KINDS);
    kinds.chain(decisions::KINDS).chain(hints::KINDS).chain(judged::KINDS)
}

#[test]
fn each_kind_gives_its_code() {
    let problems: Vec<String> = kinds().flat_map(problems).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// What is wrong with how a kind is found, in the first histories that have what it breaks.
fn problems(kind: &Kind) -> Vec<String> {
    let (mut problems, mut shown) = (Vec::new(), 0);
    for seed in 0..SEEDS_MAX {
        let mut tape = Tape::new(seed);
        let before = tape.events.clone();
        if shown == SEEDS_EACH {
            break;
        }
        if (kind.apply)(&mut tape).is_some() {
            shown += 1;
            assert_ne!(tape.events, before, "{}, seed {seed}: nothing changed", kind.name);
            let report = judge(&tape.events);
            let problem = problem(kind, &report);
            problems.extend(
                problem.map(|what| format!("{}, seed {seed}: {what}: {report}", kind.name)),
            );
        }
    }
    if shown < SEEDS_EACH {
        problems.push(format!("{}: only {shown} histories have what it breaks", kind.name));
    }
    problems
}

fn problem(Kind { code, also, .. }: &Kind, report: &Report) -> Option<String> {
    let found: BTreeSet<Code> = report.wrong.keys().copied().collect();
    if !found.contains(code) {
        return Some(format!("it is not found as {code}"));
    }
    if let Some(strange) = found.iter().find(|found| *found != code && !also.contains(found)) {
        return Some(format!("it is found as {strange}"));
    }
    let void = found.iter().all(|found| *found == Code::C14);
    if report.verdict != if void { Verdict::Void } else { Verdict::Violated } {
        return Some("the verdict is wrong".to_owned());
    }
    // What never happened has no witness.
    let needs = |found: &&Violation| !matches!(found.code, Code::C13 | Code::C14);
    let shown = |found: &Violation| (1..=12).contains(&found.witness.len());
    let bare = report.violations.iter().filter(needs).find(|found| !shown(found))?;
    Some(format!("{} events are the witness of: {}", bare.witness.len(), bare.reason))
}

#[test]
fn what_replicas_differ_in_is_shown() {
    let mut tape = Tape::new(2);
    log::otherwise(&mut tape).expect("there are messages");
    let report = judge(&tape.events);
    let [Violation { code: Code::C2, witness, .. }] = &report.violations[..] else {
        panic!("{report}");
    };
    let copies: Vec<(Seq, Copy)> = witness
        .iter()
        .filter_map(|event| match event {
            Event::ReplicaEntry { seq, copy, .. } => Some((*seq, *copy)),
            _ => None,
        })
        .collect();
    assert!(copies.len() > 1, "{witness:?}");
    assert!(copies.iter().all(|(seq, _)| *seq == copies[0].0), "{witness:?}");
    assert!(copies.iter().any(|(_, copy)| *copy != copies[0].1), "{witness:?}");
}

/// A recipient's copy that is lost lies before, among or after what its mailbox holds.
#[test]
fn where_a_loss_lies_is_told() {
    let mut told = Losses::default();
    for seed in 0..200 {
        let mut tape = Tape::new(seed);
        let Some((message, entry)) = log::some_copy(&mut tape, |message| message.ack().is_some())
        else {
            continue;
        };
        let mut others: Vec<Nanos> = tape
            .entries()
            .into_iter()
            .filter(|other| other.user == entry.user && other.seq != entry.seq)
            .filter_map(|other| tape.message_of(&other.copy))
            .map(|other| other.began)
            .collect();
        others.sort_unstable();
        tape.remove(entry.user, entry.seq);
        let expected = match (others.first(), others.last()) {
            (None, _) | (_, None) => Losses { whole: 1, ..Losses::default() },
            (Some(first), _) if message.began < *first => Losses { prefix: 1, ..Losses::default() },
            (_, Some(last)) if message.began > *last => Losses { suffix: 1, ..Losses::default() },
            _ => Losses { middle: 1, ..Losses::default() },
        };
        let report = judge(&tape.events);
        assert_eq!((report.counts.lost, report.counts.losses), (1, expected), "seed {seed}");
        told.prefix += expected.prefix;
        told.middle += expected.middle;
        told.suffix += expected.suffix;
    }
    assert!(told.prefix > 0 && told.middle > 0 && told.suffix > 0, "{told:?}");
}

#[test]
fn every_code_has_a_kind() {
    let covered: BTreeSet<Code> = kinds().map(|kind| kind.code).collect();
    assert_eq!(covered.into_iter().collect::<Vec<_>>(), Code::ALL);
}
