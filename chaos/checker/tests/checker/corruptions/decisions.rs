//! Decisions about senders that do not hold: C16.

use tidemark_checker::Code;
use tidemark_checker::history::{Copy, Event, Nanos, User};
use tidemark_types::ErrorCode;

use super::{Kind, log};
use crate::corrupt::{Message, Tape};

use Code::C16;

pub(super) const KINDS: &[Kind] = &[
    Kind { name: "a block that does not hold", code: C16, also: &[], apply: delivered },
    Kind { name: "a refusal of one who is welcome", code: C16, also: &[], apply: refused },
];

/// The recipient had blocked the sender before it was sent.
fn delivered(tape: &mut Tape) -> Option<()> {
    let (message, entry) = log::some_copy(tape, |_| true)?;
    decide(tape, entry.user, &message, true)
}

/// The recipient had unblocked the sender before it was sent.
fn refused(tape: &mut Tape) -> Option<()> {
    let messages = tape.messages();
    let refusals = tape.entries().into_iter().filter_map(|entry| match entry.copy {
        Copy::Refusal { sender, id: Some(id), recipient, code: ErrorCode::Blocked, .. } => {
            let of = |message: &&Message| (message.sender, message.id) == (sender, id);
            messages.iter().find(of).map(|message| (message.clone(), recipient))
        }
        _ => None,
    });
    let refusals: Vec<_> = refusals.collect();
    let (message, recipient) = tape.any(&refusals)?;
    decide(tape, recipient, &message, false)
}

/// The user decided so about the sender right before this message, and never anything else.
fn decide(tape: &mut Tape, user: User, message: &Message, refused: bool) -> Option<()> {
    let sender = message.sender;
    tape.events.retain(|event| {
        !matches!(event, Event::Decided { user: of, sender: about, .. }
            if (*of, *about) == (user, sender))
    });
    let at = Nanos(message.began.0 - 1);
    let place = tape.events.iter().position(|event| event.at().is_some_and(|time| time > at))?;
    tape.events.insert(place, Event::Decided { asked: at, at, user, sender, refused });
    Some(())
}
