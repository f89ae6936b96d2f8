//! What is wrong below the messages and with the run: C12 to C15.

use tidemark_checker::Code;
use tidemark_checker::history::{
    Device, Event, Group, Nanos, Node, Op, Outcome, RaftFacts, User, Way,
};
use tidemark_types::Seq;

use super::Kind;
use crate::corrupt::Tape;
use crate::model::groups;

use Code::{C9d, C12, C13, C14, C15};

pub(super) const KINDS: &[Kind] = &[
    Kind { name: "two leaders of a term", code: C12, also: &[], apply: two_leaders },
    Kind { name: "a term that goes back", code: C12, also: &[C13], apply: term_back },
    Kind { name: "a purge undone by a restart", code: C12, also: &[], apply: purge_back },
    Kind { name: "applied goes back", code: C12, also: &[], apply: applied_back },
    Kind { name: "committed goes back", code: C12, also: &[], apply: committed_back },
    Kind { name: "applied above committed", code: C12, also: &[], apply: applied_above },
    Kind { name: "applied above the log", code: C12, also: &[], apply: above_log },
    Kind { name: "purged above the snapshot", code: C12, also: &[], apply: purged_above },
    Kind { name: "a group that does not come back", code: C13, also: &[], apply: no_probe },
    Kind { name: "a group that comes back late", code: C13, also: &[], apply: late_probe },
    Kind { name: "a group back after the next fault", code: C13, also: &[], apply: no_return },
    Kind { name: "no rest", code: C13, also: &[], apply: no_rest },
    Kind { name: "rest before the last fault", code: C13, also: &[C9d, C14], apply: early_rest },
    Kind { name: "no leader in the end", code: C13, also: &[], apply: no_leader },
    Kind { name: "a fault without its effect", code: C14, also: &[], apply: no_effect },
    Kind { name: "a fault with another effect", code: C14, also: &[], apply: other_effect },
    Kind { name: "a last fault without its effect", code: C14, also: &[], apply: last_effect },
    Kind { name: "a fault that does not end", code: C14, also: &[], apply: no_end },
    Kind { name: "nothing accepted", code: C14, also: &[], apply: nothing_accepted },
    Kind { name: "an answer to nothing", code: C14, also: &[], apply: answer_to_nothing },
    Kind { name: "two messages of one id", code: C14, also: &[], apply: id_again },
    Kind { name: "a mailbox that nobody read", code: C14, also: &[], apply: unread },
    Kind { name: "a head that nobody can know", code: C14, also: &[], apply: unread_head },
    Kind { name: "a question twice", code: C14, also: &[], apply: asked_twice },
    Kind { name: "a cursor of no device", code: C14, also: &[], apply: cursor_of_none },
    Kind { name: "a send after the rest", code: C14, also: &[], apply: late_send },
    Kind { name: "a device that never started", code: C14, also: &[], apply: never_started },
    Kind { name: "a bound passed", code: C15, also: &[], apply: cost },
];

/// Two facts of a replica, one after the other, for which this holds.
fn some_pair(tape: &mut Tape, fits: impl Fn(&RaftFacts, &RaftFacts) -> bool) -> Option<usize> {
    let facts = tape.events.iter().enumerate().filter_map(|(place, event)| match event {
        Event::Raft(facts) => Some((place, *facts)),
        _ => None,
    });
    let facts: Vec<(usize, RaftFacts)> = facts.collect();
    let before = |at: usize| {
        let (_, now) = facts[at];
        let its = |(_, it): &&(usize, RaftFacts)| (it.node, it.group) == (now.node, now.group);
        facts[..at].iter().rev().find(its).map(|(_, before)| *before)
    };
    let pairs =
        (0..facts.len()).filter(|at| before(*at).is_some_and(|it| fits(&it, &facts[*at].1)));
    let pairs: Vec<usize> = pairs.map(|at| facts[at].0).collect();
    tape.any(&pairs)
}

fn change(tape: &mut Tape, place: usize, change: impl Fn(&mut RaftFacts)) -> Option<()> {
    match &mut tape.events[place] {
        Event::Raft(facts) => change(facts),
        _ => return None,
    }
    Some(())
}

/// The second one is new to the history, so that nothing else of it is wrong.
fn two_leaders(tape: &mut Tape) -> Option<()> {
    let place = tape.pick(|event| matches!(event, Event::Raft(facts) if facts.leads))?;
    let Event::Raft(mut facts) = tape.events[place] else { return None };
    facts.node = Node(facts.node.0 + 1_000);
    tape.events.insert(place, Event::Raft(facts));
    Some(())
}

fn term_back(tape: &mut Tape) -> Option<()> {
    let place = some_pair(tape, |before, now| before.term > 0 && !now.leads)?;
    change(tape, place, |facts| facts.term = 0)
}

fn purge_back(tape: &mut Tape) -> Option<()> {
    let place = some_pair(tape, |before, now| before.life == now.life && before.purged > 0)?;
    change(tape, place, |facts| facts.purged = 0)
}

fn applied_back(tape: &mut Tape) -> Option<()> {
    let place =
        some_pair(tape, |before, now| before.life == now.life && before.applied > now.snapshot)?;
    change(tape, place, |facts| facts.applied = facts.snapshot)
}

fn committed_back(tape: &mut Tape) -> Option<()> {
    let place = some_pair(tape, |before, now| {
        before.life == now.life && now.committed.is_some() && before.committed > Some(now.applied)
    })?;
    change(tape, place, |facts| facts.committed = Some(facts.applied))
}

fn applied_above(tape: &mut Tape) -> Option<()> {
    let place = some_pair(tape, |_, now| now.applied > 0)?;
    change(tape, place, |facts| facts.committed = Some(facts.applied - 1))
}

fn above_log(tape: &mut Tape) -> Option<()> {
    let place = some_pair(tape, |_, now| now.applied > 0)?;
    change(tape, place, |facts| facts.last = facts.applied - 1)
}

fn purged_above(tape: &mut Tape) -> Option<()> {
    let place = some_pair(tape, |_, now| now.purged > 0)?;
    change(tape, place, |facts| facts.snapshot = facts.purged - 1)
}

fn no_probe(tape: &mut Tape) -> Option<()> {
    let served = |event: &Event| matches!(event, Event::ProbeAck { group: Group(1), .. });
    tape.events.retain(|event| !served(event));
    Some(())
}

fn late_probe(tape: &mut Tape) -> Option<()> {
    let end = tape.events[tape.quiet()].at()?.0 + 60_000_000_000;
    for event in &mut tape.events {
        match event {
            Event::ProbeAck { group: Group(1), at } | Event::Quiet { at } => *at = Nanos(end),
            _ => {}
        }
    }
    Some(())
}

/// Another fault follows a minute later, and only after that one all groups serve.
fn no_return(tape: &mut Tape) -> Option<()> {
    let healed = |event: &Event| matches!(event, Event::Healed { .. });
    let healed = tape.events.iter().rposition(healed)?;
    let served = |event: &Event| matches!(event, Event::ProbeAck { group: Group(1), .. });
    let mut after = tape.events.split_off(healed);
    after.retain(|event| !served(event));
    tape.events.append(&mut after);
    let quiet = tape.quiet();
    let at = |seconds: u64| Some(Nanos(tape.events[quiet].at()?.0 + seconds * 1_000_000_000));
    let (begins, ends, serves, rests) = (at(60)?, at(61)?, at(62)?, at(63)?);
    let (kind, target, name) =
        ("kill".to_owned(), "node 0".to_owned(), "leaders changed".to_owned());
    let fault = Event::Fault { at: begins, kind: kind.clone(), target: target.clone() };
    let healed = Event::Healed { at: ends, kind: kind.clone(), target };
    let effect = Event::Effect { at: ends, kind, name, amount: 1 };
    let serves = groups().map(|group| Event::ProbeAck { at: serves, group });
    let rests = Event::Quiet { at: rests };
    let all = [fault, healed, effect].into_iter().chain(serves).chain([rests]);
    drop(tape.events.splice(quiet..=quiet, all));
    Some(())
}

fn no_rest(tape: &mut Tape) -> Option<()> {
    let quiet = tape.quiet();
    tape.events.remove(quiet);
    Some(())
}

fn early_rest(tape: &mut Tape) -> Option<()> {
    let healed = |event: &Event| matches!(event, Event::Healed { .. });
    let place = tape.events.iter().rposition(healed)?;
    let before = tape.events[place].at()?.0 - 1;
    let quiet = tape.quiet();
    tape.events[quiet] = Event::Quiet { at: Nanos(before) };
    Some(())
}

fn no_leader(tape: &mut Tape) -> Option<()> {
    for event in &mut tape.events {
        if let Event::Raft(facts) = event
            && facts.group == Group(0)
        {
            facts.leads = false;
        }
    }
    Some(())
}

fn no_effect(tape: &mut Tape) -> Option<()> {
    tape.pick(|event| matches!(event, Event::Effect { .. }))?;
    for event in &mut tape.events {
        if let Event::Effect { amount, .. } = event {
            *amount = 0;
        }
    }
    Some(())
}

fn other_effect(tape: &mut Tape) -> Option<()> {
    tape.pick(|event| matches!(event, Event::Effect { .. }))?;
    for event in &mut tape.events {
        if let Event::Effect { name, .. } = event {
            "packets dropped".clone_into(name);
        }
    }
    Some(())
}

/// It is no excuse that an earlier one had it.
fn last_effect(tape: &mut Tape) -> Option<()> {
    let effect = |event: &Event| matches!(event, Event::Effect { .. });
    let mut effects = tape.events.iter_mut().filter(|event| effect(event));
    let last = effects.next_back()?;
    effects.next_back()?;
    if let Event::Effect { amount, .. } = last {
        *amount = 0;
    }
    Some(())
}

fn no_end(tape: &mut Tape) -> Option<()> {
    let place = tape.pick(|event| matches!(event, Event::Healed { .. }))?;
    tape.events.remove(place);
    Some(())
}

fn nothing_accepted(tape: &mut Tape) -> Option<()> {
    for event in &mut tape.events {
        if let Event::Sent { outcome, .. } = event
            && matches!(outcome, Outcome::Accepted { .. })
        {
            *outcome = Outcome::Unknown;
        }
    }
    Some(())
}

fn answer_to_nothing(tape: &mut Tape) -> Option<()> {
    let answered = |event: &Event| match event {
        Event::HeadIs { op, .. } | Event::RangeIs { op, .. } => Some(*op),
        _ => None,
    };
    let place = tape.pick(|event| answered(event).is_some())?;
    let of = answered(&tape.events[place])?;
    let is_its = |event: &Event| match event {
        Event::Head { op, .. } | Event::Range { op, .. } => *op == of,
        _ => false,
    };
    tape.events.retain(|event| !is_its(event));
    Some(())
}

/// Attempts at one message say the same, or the runner gave one id to two.
fn id_again(tape: &mut Tape) -> Option<()> {
    let place = tape.pick(|event| matches!(event, Event::Send { way: Way::Backend, .. }))?;
    let mut again = tape.events[place].clone();
    if let Event::Send { op, content, .. } = &mut again {
        (*op, *content) = (Op(u64::MAX), !*content);
    }
    tape.events.insert(place + 1, again);
    Some(())
}

fn unread(tape: &mut Tape) -> Option<()> {
    let user = tape.messages().first()?.sender;
    tape.events.retain(|event| match event {
        Event::Mailbox { user: of, .. } | Event::Entry { user: of, .. } => *of != user,
        _ => true,
    });
    Some(())
}

/// Of a mailbox that no replica was asked for.
fn unread_head(tape: &mut Tape) -> Option<()> {
    let place = tape.pick(|event| matches!(event, Event::Head { .. }))?;
    let Event::Head { op: of, user, .. } = &mut tape.events[place] else { return None };
    let of = *of;
    *user = User(1_000);
    let is_its = |event: &Event| match event {
        Event::HeadIs { op, seq, .. } => *op == of && *seq > Seq::NONE,
        _ => false,
    };
    tape.events.iter().any(is_its).then_some(())
}

fn asked_twice(tape: &mut Tape) -> Option<()> {
    let place = tape.pick(|event| matches!(event, Event::Head { .. } | Event::Range { .. }))?;
    let again = tape.events[place].clone();
    tape.events.insert(place, again);
    Some(())
}

fn cursor_of_none(tape: &mut Tape) -> Option<()> {
    let place = tape.pick(|event| matches!(event, Event::CursorIs { .. }))?;
    match &mut tape.events[place] {
        Event::CursorIs { device, seq, .. } if *seq > Seq::NONE => *device = Device(9),
        _ => return None,
    }
    Some(())
}

fn late_send(tape: &mut Tape) -> Option<()> {
    let quiet = tape.quiet();
    let at = Nanos(tape.events[quiet].at()?.0 + 1);
    let (id, content) = (u128::from(tape.number()), tape.number());
    let (op, sender, device, way) = (Op(u64::MAX), User(0), Device(0), Way::Session);
    let send = Event::Send { op, at, sender, device, way, id, to: vec![User(1)], content };
    tape.events.insert(quiet + 1, send);
    Some(())
}

fn never_started(tape: &mut Tape) -> Option<()> {
    let place = tape.pick(|event| matches!(event, Event::Start { cursor: Seq::NONE, .. }))?;
    let Event::Start { user, device, .. } = tape.events[place] else { return None };
    let starts = tape.of_device((user, device), |event| matches!(event, Event::Start { .. }));
    let taken = tape.of_device((user, device), |event| matches!(event, Event::Taken { .. }));
    if starts != [place] || taken.is_empty() {
        return None;
    }
    tape.events.remove(place);
    Some(())
}

fn cost(tape: &mut Tape) -> Option<()> {
    let place = tape.pick(|event| matches!(event, Event::Cost { .. }))?;
    if let Event::Cost { amount, bound, .. } = &mut tape.events[place] {
        *amount = *bound + 1;
    }
    Some(())
}
