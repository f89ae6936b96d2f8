//! C18: what the operator's checks have said of a send is what became of it.
//!
//! ```text
//!   judged: allow ──┐
//!   judged: drop  ──┼──► the first one that is committed: for every attempt, at every recipient
//!   judged: refuse ─┘
//! ```
//!
//! Whoever judges may say something else of each attempt, so that of several judgements any may have been
//! the first. That all copies say the same is looked at where they are (`copies`), and that what was refused
//! is nowhere, like every refusal, with the sends (C11).

use tidemark_types::ErrorCode;

use super::book::{Book, Message};
use super::findings::{Clue, Findings};
use crate::history::Outcome;
use crate::report::Code;

/// Goes through every send.
pub(super) fn check(book: &Book, findings: &mut Findings) {
    for (which, message) in book.sends() {
        refusals(message, findings);
        if message.may_pass() {
            continue;
        }
        for end in book.ends(which).iter().filter(|end| end.user != message.sender) {
            let Some(seq) = end.copy else { continue };
            let clues = [message.clue(), book.clue(end.user, seq)];
            let (user, sender) = (end.user, message.sender);
            let reason = format_args!("{user} has at {seq} a message of {sender} that was dropped");
            findings.add(Code::C18, Some(user), &clues, reason);
        }
    }
}

/// Nobody is told that a check refuses what no check has refused.
fn refusals(message: &Message, findings: &mut Findings) {
    for attempt in &message.attempts {
        let Outcome::Refused { code } = attempt.outcome else { continue };
        let by_a_check = matches!(code, ErrorCode::Filtered | ErrorCode::HookRefused);
        if by_a_check && !message.may_be_refused(code) {
            let sender = message.sender;
            let reason = format_args!("{sender} is told {code} of what nobody has refused");
            findings.add(Code::C18, Some(sender), &[Clue::Op(attempt.op)], reason);
        }
    }
}
