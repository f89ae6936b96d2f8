//! Devices that are away and not told, or told of what is not there: C17.

use tidemark_checker::Code;
use tidemark_checker::history::{Device, Event, User};

use super::Kind;
use crate::corrupt::{Tape, next};

use Code::{C14, C17};

pub(super) const KINDS: &[Kind] = &[
    Kind { name: "a device that nobody wakes", code: C17, also: &[], apply: untold },
    Kind { name: "a device that is told of less than it lacks", code: C17, also: &[], apply: less },
    Kind { name: "a device that goes away and is not told", code: C17, also: &[], apply: leaves },
    Kind { name: "a hint of what is not there", code: C17, also: &[], apply: beyond },
    Kind { name: "a hint for a device without a target", code: C14, also: &[], apply: no_target },
];

/// A device that is told of something, which it lacks in the end.
fn sleeper(tape: &mut Tape) -> Option<(User, Device)> {
    let at = tape.pick(|event| matches!(event, Event::Hint { .. }))?;
    let Event::Hint { user, device, .. } = tape.events[at] else { unreachable!("as picked") };
    let lives = tape.of_device((user, device), |event| {
        matches!(event, Event::Start { .. } | Event::Stop { .. })
    });
    let away = matches!(tape.events[*lives.last()?], Event::Stop { .. });
    let taken = tape.events.iter().filter_map(|event| match event {
        Event::Taken { user: of, device: which, seq, .. }
        | Event::Gap { user: of, device: which, to: seq, .. }
        | Event::Start { user: of, device: which, cursor: seq, .. }
            if (*of, *which) == (user, device) =>
        {
            Some(*seq)
        }
        _ => None,
    });
    let lacks = taken.max().unwrap_or_default() < tape.ends(user).1;
    (away && lacks).then_some((user, device))
}

fn is_told(event: &Event, (user, device): (User, Device)) -> bool {
    matches!(event, Event::Hint { user: of, device: which, .. } if (*of, *which) == (user, device))
}

fn untold(tape: &mut Tape) -> Option<()> {
    let sleeper = sleeper(tape)?;
    tape.events.retain(|event| !is_told(event, sleeper));
    Some(())
}

fn less(tape: &mut Tape) -> Option<()> {
    let (user, device) = sleeper(tape)?;
    let (_, last) = tape.ends(user);
    for event in tape.events.iter_mut().filter(|event| is_told(event, (user, device))) {
        if let Event::Hint { head, .. } = event {
            *head = (*head).min(last.back(1));
        }
    }
    Some(())
}

/// It has a target, took less than there is, and ran in the end; now it stops before it took the rest.
fn leaves(tape: &mut Tape) -> Option<()> {
    let at = tape.pick(|event| matches!(event, Event::Target { .. }))?;
    let Event::Target { user, device, .. } = tape.events[at] else { unreachable!("as picked") };
    let its = tape.of_device((user, device), |event| !matches!(event, Event::CursorIs { .. }));
    let last = *its.last()?;
    let Event::Taken { at, seq, .. } = tape.events[last] else { return None };
    if seq != tape.ends(user).1 || its.iter().any(|at| *at != last && takes(&tape.events[*at], seq))
    {
        return None;
    }
    tape.events[last] = Event::Stop { at, user, device };
    tape.events.retain(|event| {
        let cursor = matches!(event, Event::CursorIs { user: of, device: which, .. }
            if (*of, *which) == (user, device));
        !cursor && !is_told(event, (user, device))
    });
    Some(())
}

fn takes(event: &Event, place: tidemark_types::Seq) -> bool {
    match event {
        Event::Taken { seq, .. } | Event::Gap { to: seq, .. } => *seq == place,
        Event::Start { cursor, .. } => *cursor == place,
        _ => false,
    }
}

fn beyond(tape: &mut Tape) -> Option<()> {
    let at = tape.pick(|event| matches!(event, Event::Hint { .. }))?;
    let Event::Hint { user, .. } = tape.events[at] else { unreachable!("as picked") };
    let (_, last) = tape.ends(user);
    if let Event::Hint { head, .. } = &mut tape.events[at] {
        *head = next(last);
    }
    Some(())
}

fn no_target(tape: &mut Tape) -> Option<()> {
    let sleeper = sleeper(tape)?;
    tape.events.retain(
        |event| !matches!(event, Event::Target { user, device, .. } if (*user, *device) == sleeper),
    );
    Some(())
}
