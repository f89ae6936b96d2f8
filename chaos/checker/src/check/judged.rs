//! C18: what the operator's checks have said of a send is what became of it.
//!
//! ```text
//!   judged: allow ──┐
//!   judged: drop  ──┼──► the first one that is committed: for every attempt, at every recipient
//!   judged: refuse ─┘
//! ```
//!
//! Whoever judges may say something else of each attempt, so that of several judgements any may have been
//! the first. Whether that was to drop it is what its sender's own entry says: what is merely missing is
//! lost (C4), though somebody said "drop" of it. That all copies say the same is looked at where they are
//! (`copies`), and that what was refused is nowhere, like every refusal, with the sends (C11).

use tidemark_types::ErrorCode;

use super::book::{Book, Message};
use super::findings::{Clue, Findings};
use crate::history::Outcome;
use crate::report::Code;

/// Goes through every send.
pub(super) fn check(book: &Book, findings: &mut Findings) {
    for (which, message) in book.sends() {
        refusals(message, findings);
        let (sender, fallen) = (message.sender, book.has_fallen(message));
        if fallen && !message.may_be_dropped() {
            let reason = format_args!("a message of {sender} was dropped, and nobody said so");
            findings.add(Code::C18, Some(sender), &[message.clue()], reason);
        }
        if message.may_pass() && !fallen {
            continue;
        }
        for end in book.ends(which).iter().filter(|end| end.user != sender) {
            let told = end.refusal.filter(|_| fallen).map(|seq| (sender, seq));
            let Some((user, seq)) = end.copy.map(|seq| (end.user, seq)).or(told) else { continue };
            let clues = [message.clue(), book.clue(user, seq)];
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
