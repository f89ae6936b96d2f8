//! Random blows to a history, which may break a promise or not: any event gone, doubled, or with
//! something else in it.

use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use tidemark_checker::history::{Copy, Event, Judgement, Nanos, Origin, Outcome, RaftFacts, User};
use tidemark_types::{ErrorCode, Seq};

use crate::corrupt::Tape;

/// Deals one blow; false if nothing changed.
pub(crate) fn strike(tape: &mut Tape) -> bool {
    let before = tape.events.clone();
    let place = tape.rng.random_range(0..tape.events.len());
    let other = tape.rng.random_range(0..tape.events.len());
    let event = before[place].clone();
    match tape.rng.random_range(0..10) {
        0 => drop(tape.events.remove(place)),
        1 => tape.events.insert(place, event.clone()),
        2 => borrow(&mut tape.events[place], &before[other]),
        _ => change(&mut tape.events[place], &mut tape.rng),
    }
    // What a replica says of its entries is true, unless that was struck.
    if !matches!(event, Event::Mailbox { .. }) {
        tape.refresh();
    }
    tape.events != before
}

/// An event has the copy or the answer of another one.
fn borrow(event: &mut Event, other: &Event) {
    match (event, other) {
        (
            Event::Taken { copy, .. } | Event::Entry { copy, .. },
            Event::Taken { copy: other, .. } | Event::Entry { copy: other, .. },
        ) => *copy = *other,
        (Event::Sent { outcome, .. }, Event::Sent { outcome: other, .. }) => *outcome = *other,
        (Event::HeadIs { seq, .. }, Event::HeadIs { seq: other, .. })
        | (Event::CursorIs { seq, .. }, Event::CursorIs { seq: other, .. }) => *seq = *other,
        (Event::RangeIs { entries, .. }, Event::RangeIs { entries: other, .. }) => {
            entries.clone_from(other);
        }
        _ => {}
    }
}

fn near(seq: &mut Seq, rng: &mut ChaCha8Rng) {
    let by = rng.random_range(1..=3);
    *seq = if rng.random_bool(0.5) { seq.back(by) } else { Seq::new(seq.get() + by) };
}

fn other_time(at: &mut Nanos, rng: &mut ChaCha8Rng) {
    let by = rng.random_range(1..200_000);
    at.0 = if rng.random_bool(0.5) { at.0.saturating_sub(by) } else { at.0 + by };
}

fn other_user(user: &mut User, rng: &mut ChaCha8Rng) {
    user.0 = rng.random_range(0..6);
}

fn number(of: &mut u64, rng: &mut ChaCha8Rng) {
    *of = if rng.random_bool(0.5) { of.saturating_sub(1) } else { *of + 1 };
}

fn other_origin(origin: &mut Origin, rng: &mut ChaCha8Rng) {
    match origin {
        Origin::Session { session, .. } if rng.random_bool(0.3) => number(session, rng),
        Origin::Session { n, .. } => number(n, rng),
        Origin::Backend => *origin = Origin::Session { session: 1, n: 1 },
    }
}

fn other_code(code: &mut ErrorCode, rng: &mut ChaCha8Rng) {
    *code = ErrorCode::ALL[rng.random_range(0..ErrorCode::ALL.len())];
}

fn other_copy(copy: &mut Copy, rng: &mut ChaCha8Rng) {
    match copy {
        Copy::Message { sender, origin, id, content } => match rng.random_range(0..4) {
            0 => other_user(sender, rng),
            1 => other_origin(origin, rng),
            2 => *id = !*id,
            _ => *content = !*content,
        },
        Copy::Refusal { sender, origin, id, recipient, code } => match rng.random_range(0..5) {
            0 => other_user(sender, rng),
            1 => other_origin(origin, rng),
            2 => *id = id.map(|id| !id),
            3 => other_user(recipient, rng),
            _ => other_code(code, rng),
        },
    }
}

fn other_outcome(outcome: &mut Outcome, rng: &mut ChaCha8Rng) {
    match (&mut *outcome, rng.random_range(0..4)) {
        (Outcome::Accepted { seq, .. }, 0 | 1) => near(seq, rng),
        (Outcome::Accepted { origin: Some(origin), .. }, 2) => other_origin(origin, rng),
        (Outcome::Refused { code }, 0..3) => other_code(code, rng),
        (Outcome::Unknown, 0..3) => {
            let seq = Seq::new(rng.random_range(0..30));
            *outcome = Outcome::Accepted { seq, origin: None };
        }
        (Outcome::Accepted { .. }, _) => {
            let mut code = ErrorCode::Invalid;
            other_code(&mut code, rng);
            *outcome = Outcome::Refused { code };
        }
        _ => *outcome = Outcome::Unknown,
    }
}

fn other_page(floor: &mut Seq, entries: &mut Vec<(Seq, Copy)>, rng: &mut ChaCha8Rng) {
    match rng.random_range(0..4) {
        0 => near(floor, rng),
        1 => entries.clear(),
        2 => drop(entries.pop()),
        _ if entries.is_empty() => {}
        _ => {
            let place = rng.random_range(0..entries.len());
            match rng.random_range(0..3) {
                0 => near(&mut entries[place].0, rng),
                1 => other_copy(&mut entries[place].1, rng),
                _ => drop(entries.remove(place)),
            }
        }
    }
}

fn other_facts(facts: &mut RaftFacts, rng: &mut ChaCha8Rng) {
    match rng.random_range(0..8) {
        0 => number(&mut facts.term, rng),
        1 => facts.leads = !facts.leads,
        2 => number(&mut facts.last, rng),
        3 => number(&mut facts.applied, rng),
        4 => number(&mut facts.snapshot, rng),
        5 => number(&mut facts.purged, rng),
        6 => facts.life += 1,
        _ => facts.committed = facts.committed.map(|at| at.saturating_sub(1)),
    }
}

fn other_judgement(judgement: &mut Option<Judgement>, rng: &mut ChaCha8Rng) {
    *judgement = match rng.random_range(0..4) {
        0 => None,
        1 => Some(Judgement::Allow),
        2 => Some(Judgement::Replace { content: rng.random() }),
        _ => Some(Judgement::Drop),
    };
}

/// Something else in one field.
fn change(event: &mut Event, rng: &mut ChaCha8Rng) {
    let in_time = rng.random_bool(0.2);
    match event {
        Event::Send { at, .. }
        | Event::Sent { at, .. }
        | Event::Head { at, .. }
        | Event::HeadIs { at, .. }
        | Event::Range { at, .. }
        | Event::RangeIs { at, .. }
        | Event::Taken { at, .. }
        | Event::Gap { at, .. }
        | Event::Start { at, .. }
        | Event::CursorIs { at, .. }
            if in_time =>
        {
            other_time(at, rng);
        }
        Event::Send { sender, id, to, content, .. } => match rng.random_range(0..4) {
            0 => other_user(sender, rng),
            1 => *id = !*id,
            2 => other_user(&mut to[0], rng),
            _ => *content = !*content,
        },
        Event::Sent { outcome, .. } => other_outcome(outcome, rng),
        Event::Head { user, .. } => other_user(user, rng),
        Event::HeadIs { seq, .. } | Event::CursorIs { seq, .. } | Event::Dropped { seq, .. } => {
            near(seq, rng);
        }
        Event::Range { after, .. } => near(after, rng),
        Event::RangeIs { floor, entries, .. } => other_page(floor, entries, rng),
        Event::Start { cursor, .. } => near(cursor, rng),
        Event::Taken { seq, copy, .. } => match rng.random_range(0..2) {
            0 => near(seq, rng),
            _ => other_copy(copy, rng),
        },
        Event::Gap { to, .. } => near(to, rng),
        Event::Silent { user, .. } => other_user(user, rng),
        Event::Mailbox { floor, head, digest, .. } => match rng.random_range(0..3) {
            0 => near(floor, rng),
            1 => near(head, rng),
            _ => *digest = !*digest,
        },
        Event::Entry { user, seq, copy } => match rng.random_range(0..4) {
            0 => other_user(user, rng),
            1 => near(seq, rng),
            _ => other_copy(copy, rng),
        },
        Event::StateHash { index, hash, .. } => match rng.random_range(0..2) {
            0 => number(index, rng),
            _ => *hash = !*hash,
        },
        Event::Raft(facts) => other_facts(facts, rng),
        Event::Judged { judgement, .. } => other_judgement(judgement, rng),
        _ => {}
    }
}
