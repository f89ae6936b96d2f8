//! What is wrong in reads and at devices: C7 to C10.

use tidemark_checker::Code;
use tidemark_checker::history::{Copy, Device, Event, Nanos, Op, User};
use tidemark_types::Seq;

use super::Kind;
use crate::corrupt::{Entry, Tape, altered, next};

use Code::{C7a, C7b, C7c, C7d, C8, C9a, C9b, C9c, C9d, C10};

pub(super) const KINDS: &[Kind] = &[
    Kind { name: "a head below what was acknowledged", code: C7a, also: &[C7b], apply: stale },
    Kind { name: "a head that goes back", code: C7b, also: &[C7a], apply: head_back },
    Kind { name: "a head above the end", code: C7c, also: &[C7b, C7d], apply: head_above },
    Kind { name: "a head of the future", code: C7d, also: &[C7b], apply: head_of_future },
    Kind { name: "a page with a hole", code: C8, also: &[], apply: page_hole },
    Kind { name: "a page altered", code: C8, also: &[], apply: page_altered },
    Kind { name: "a page that begins late", code: C8, also: &[], apply: page_late },
    Kind { name: "an empty page before the end", code: C8, also: &[], apply: page_empty },
    Kind { name: "a page with a floor too high", code: C8, also: &[], apply: page_floor },
    Kind { name: "taken twice", code: C9a, also: &[], apply: taken_twice },
    Kind { name: "started too far", code: C9a, also: &[C9b, C9d], apply: started_far },
    Kind { name: "started beyond the end", code: C9a, also: &[C9d], apply: started_beyond },
    Kind { name: "an entry skipped", code: C9b, also: &[C10], apply: skipped },
    Kind { name: "a gap that was none", code: C9b, also: &[], apply: gap_of_nothing },
    Kind { name: "a gap behind the device", code: C9b, also: &[], apply: gap_behind },
    Kind { name: "taken otherwise", code: C9c, also: &[], apply: taken_otherwise },
    Kind { name: "taken at no place", code: C9c, also: &[C9a, C9b], apply: taken_at_none },
    Kind { name: "taken beyond the end", code: C9c, also: &[C9d], apply: taken_beyond },
    Kind { name: "not taken in the end", code: C9d, also: &[C10], apply: not_taken },
    Kind { name: "a cursor that goes back", code: C10, also: &[], apply: cursor_back },
    Kind { name: "a cursor above the head", code: C10, also: &[C9a, C9d], apply: cursor_beyond },
    Kind { name: "a cursor above the device", code: C10, also: &[], apply: cursor_above },
    Kind { name: "a cursor above the start", code: C10, also: &[], apply: cursor_above_start },
];

/// A head that was read: its place, whose, when it was asked for and answered, what it was.
#[derive(Clone, Copy)]
struct Read {
    place: usize,
    user: User,
    asked: Nanos,
    at: Nanos,
    seq: Seq,
}

fn heads(tape: &Tape) -> Vec<Read> {
    let read = |(place, event): (usize, &Event)| match event {
        Event::HeadIs { op, at, seq } => {
            let (user, asked) = (tape.owner(*op)?, tape.asked(*op)?);
            Some(Read { place, user, asked, at: *at, seq: *seq })
        }
        _ => None,
    };
    tape.events.iter().enumerate().filter_map(read).collect()
}

fn set_head(tape: &mut Tape, place: usize, to: Seq) -> Option<()> {
    match &mut tape.events[place] {
        Event::HeadIs { seq, .. } if *seq != to => {
            *seq = to;
            Some(())
        }
        _ => None,
    }
}

fn stale(tape: &mut Tape) -> Option<()> {
    let reads = heads(tape);
    let read = tape.any(&reads)?;
    let seen = tape.seen_before(read.user, read.asked);
    if seen == Seq::NONE {
        return None;
    }
    set_head(tape, read.place, seen.back(1))
}

fn head_back(tape: &mut Tape) -> Option<()> {
    let reads = heads(tape);
    let first = tape.any(&reads)?;
    let later = |it: &&Read| it.user == first.user && it.asked > first.at;
    let later: Vec<Read> = reads.iter().filter(later).copied().collect();
    let later = tape.any(&later)?;
    if first.seq == Seq::NONE {
        return None;
    }
    set_head(tape, later.place, first.seq.back(1))
}

fn head_above(tape: &mut Tape) -> Option<()> {
    let reads = heads(tape);
    let read = tape.any(&reads)?;
    let head = tape.ends(read.user).1;
    set_head(tape, read.place, next(head))
}

fn head_of_future(tape: &mut Tape) -> Option<()> {
    let reads = heads(tape);
    let read = tape.any(&reads)?;
    let later = tape.entries().into_iter().filter(|entry| {
        let began = tape.message_of(&entry.copy).map(|message| message.began);
        entry.user == read.user && began > Some(read.at)
    });
    // The first of them, so that the read covers none but this one.
    let later: Entry = later.min_by_key(|entry| entry.seq)?;
    set_head(tape, read.place, later.seq)
}

/// A page with at least so many entries, all of them in the final log.
fn some_page(tape: &mut Tape, least: usize) -> Option<(usize, Op)> {
    let place = tape.pick(|event| match event {
        Event::RangeIs { entries, .. } => entries.len() >= least,
        _ => false,
    })?;
    let Event::RangeIs { op, entries, .. } = &tape.events[place] else { return None };
    let (op, first) = (*op, entries.first().map(|(seq, _)| *seq));
    let floor = tape.ends(tape.owner(op)?).0;
    first.is_none_or(|first| first > floor).then_some((place, op))
}

fn entries_at(tape: &mut Tape, place: usize) -> Option<&mut Vec<(Seq, Copy)>> {
    match &mut tape.events[place] {
        Event::RangeIs { entries, .. } => Some(entries),
        _ => None,
    }
}

fn page_hole(tape: &mut Tape) -> Option<()> {
    let (place, _) = some_page(tape, 3)?;
    entries_at(tape, place)?.remove(1);
    Some(())
}

fn page_altered(tape: &mut Tape) -> Option<()> {
    let (place, _) = some_page(tape, 1)?;
    let (_, copy) = entries_at(tape, place)?.first_mut()?;
    *copy = altered(*copy);
    Some(())
}

fn page_late(tape: &mut Tape) -> Option<()> {
    let (place, _) = some_page(tape, 2)?;
    entries_at(tape, place)?.remove(0);
    Some(())
}

fn page_empty(tape: &mut Tape) -> Option<()> {
    let (place, op) = some_page(tape, 1)?;
    let seen = tape.seen_before(tape.owner(op)?, tape.asked(op)?);
    let entries = entries_at(tape, place)?;
    if entries.first()?.0 > seen {
        return None;
    }
    entries.clear();
    Some(())
}

fn page_floor(tape: &mut Tape) -> Option<()> {
    let (place, op) = some_page(tape, 0)?;
    let final_floor = tape.ends(tape.owner(op)?).0;
    if let Event::RangeIs { floor, entries, .. } = &mut tape.events[place] {
        *floor = next(final_floor);
        entries.retain(|(seq, _)| *seq > next(final_floor));
    }
    Some(())
}

/// Something that a device took, of the final log, at its place among the events.
fn some_taken(tape: &mut Tape) -> Option<(usize, (User, Device), Seq)> {
    let place = tape.pick(|event| matches!(event, Event::Taken { .. }))?;
    let Event::Taken { user, device, seq, .. } = tape.events[place] else { return None };
    (seq > tape.ends(user).0).then_some((place, (user, device), seq))
}

fn taken_twice(tape: &mut Tape) -> Option<()> {
    let (place, ..) = some_taken(tape)?;
    let again = tape.events[place].clone();
    tape.events.insert(place, again);
    Some(())
}

fn started_far(tape: &mut Tape) -> Option<()> {
    let place = tape.pick(|event| matches!(event, Event::Start { .. }))?;
    let Event::Start { user, device, .. } = tape.events[place] else { return None };
    let starts = tape.of_device((user, device), |event| matches!(event, Event::Start { .. }));
    let taken = tape.of_device((user, device), |event| {
        matches!(event, Event::Start { .. } | Event::Taken { .. } | Event::Gap { .. })
    });
    let high = taken.iter().filter(|at| **at < place).map(|at| match &tape.events[*at] {
        Event::Taken { seq, .. } | Event::Gap { to: seq, .. } => *seq,
        Event::Start { cursor, .. } => *cursor,
        _ => Seq::NONE,
    });
    let far = next(high.max()?);
    if starts.first() == Some(&place) {
        return None;
    }
    if let Event::Start { cursor, .. } = &mut tape.events[place] {
        *cursor = far;
    }
    Some(())
}

/// A new device, so that nothing else says where it was.
fn started_beyond(tape: &mut Tape) -> Option<()> {
    let place = tape.pick(|event| matches!(event, Event::Start { .. }))?;
    let Event::Start { user, .. } = tape.events[place] else { return None };
    let (quiet, cursor) = (tape.quiet(), next(tape.ends(user).1));
    let at = tape.events[quiet].at()?;
    tape.events.insert(quiet, Event::Start { at, user, device: Device(9), cursor });
    Some(())
}

fn skipped(tape: &mut Tape) -> Option<()> {
    let (place, who, seq) = some_taken(tape)?;
    let all = tape.of_device(who, |event| !matches!(event, Event::CursorIs { .. }));
    let after = all.iter().find(|at| **at > place)?;
    match &tape.events[*after] {
        Event::Taken { seq: after, .. } if *after == next(seq) => {}
        _ => return None,
    }
    tape.events.remove(place);
    Some(())
}

fn gap_of_nothing(tape: &mut Tape) -> Option<()> {
    let (place, (user, device), to) = some_taken(tape)?;
    let Event::Taken { at, .. } = tape.events[place] else { return None };
    tape.events[place] = Event::Gap { at, user, device, to };
    Some(())
}

fn gap_behind(tape: &mut Tape) -> Option<()> {
    let place = tape.pick(|event| matches!(event, Event::Taken { .. }))?;
    let Event::Taken { at, user, device, seq, .. } = tape.events[place] else { return None };
    tape.events.insert(place + 1, Event::Gap { at, user, device, to: seq });
    Some(())
}

fn taken_otherwise(tape: &mut Tape) -> Option<()> {
    let (place, ..) = some_taken(tape)?;
    if let Event::Taken { copy, .. } = &mut tape.events[place] {
        *copy = altered(*copy);
    }
    Some(())
}

/// 0 is the place before the first one.
fn taken_at_none(tape: &mut Tape) -> Option<()> {
    let place = tape.pick(|event| matches!(event, Event::Taken { .. }))?;
    let mut none = tape.events[place].clone();
    if let Event::Taken { seq, .. } = &mut none {
        *seq = Seq::NONE;
    }
    tape.events.insert(place, none);
    Some(())
}

/// The last that a device took, if it took it at the end of the run.
fn last_taken(tape: &mut Tape) -> Option<usize> {
    let (_, who, _) = some_taken(tape)?;
    let last = *tape.of_device(who, |event| !matches!(event, Event::CursorIs { .. })).last()?;
    matches!(tape.events[last], Event::Taken { .. }).then_some(last)
}

fn taken_beyond(tape: &mut Tape) -> Option<()> {
    let last = last_taken(tape)?;
    let mut beyond = tape.events[last].clone();
    let quiet = tape.quiet();
    let now = tape.events[quiet].at()?;
    if let Event::Taken { at, seq, .. } = &mut beyond {
        (*at, *seq) = (now, next(*seq));
    }
    tape.events.insert(quiet, beyond);
    Some(())
}

fn not_taken(tape: &mut Tape) -> Option<()> {
    let last = last_taken(tape)?;
    tape.events.remove(last);
    Some(())
}

fn cursor_back(tape: &mut Tape) -> Option<()> {
    let place = tape.pick(|event| matches!(event, Event::CursorIs { .. }))?;
    let Event::CursorIs { at: before, user, device, seq: high, .. } = tape.events[place] else {
        return None;
    };
    let reads = tape.of_device((user, device), |event| matches!(event, Event::CursorIs { .. }));
    let later = |at: &&usize| match &tape.events[**at] {
        Event::CursorIs { asked, .. } => *asked > before,
        _ => false,
    };
    let later = *reads.iter().find(later)?;
    if high == Seq::NONE {
        return None;
    }
    if let Event::CursorIs { seq, .. } = &mut tape.events[later] {
        *seq = high.back(1);
    }
    Some(())
}

/// The device says that it is there, too.
fn cursor_beyond(tape: &mut Tape) -> Option<()> {
    started_beyond(tape)?;
    let quiet = tape.quiet();
    let Event::Start { at, user, device, cursor: seq } = tape.events[quiet - 1] else {
        return None;
    };
    tape.events.insert(quiet, Event::CursorIs { asked: at, at, user, device, seq });
    Some(())
}

/// Before a device's application begins, its cursor is the start that it is given.
fn cursor_above_start(tape: &mut Tape) -> Option<()> {
    let place = tape.pick(|event| matches!(event, Event::Start { .. }))?;
    let Event::Start { at, user, device, cursor } = tape.events[place] else { return None };
    let starts = tape.of_device((user, device), |event| matches!(event, Event::Start { .. }));
    if starts.first() != Some(&place) || cursor >= tape.ends(user).1 {
        return None;
    }
    let seq = next(cursor);
    tape.events.insert(place, Event::CursorIs { asked: at, at, user, device, seq });
    // It is found by the start alone.
    let later = tape.of_device((user, device), |event| matches!(event, Event::CursorIs { .. }));
    later.iter().skip(1).rev().for_each(|at| drop(tape.events.remove(*at)));
    Some(())
}

fn cursor_above(tape: &mut Tape) -> Option<()> {
    let place = tape.pick(|event| matches!(event, Event::CursorIs { .. }))?;
    if let Event::CursorIs { seq, .. } = &mut tape.events[place] {
        *seq = Seq::new(seq.get() + 1_000);
    }
    Some(())
}
