//! C16: what a user decided about a sender holds for every message that is sent after it was
//! acknowledged.
//!
//! ```text
//!   asked ─── at        invoked ─────────── applied?  … the end
//!     decision             send             no other decision was asked after this one
//! ```
//!
//! A message may be under way for long, and is judged by what holds when it arrives. So a send is
//! judged here only if the decision before it is the last one, or all later ones say the same.

use tidemark_types::{ErrorCode, Seq};

use super::book::{Book, Decision};
use super::findings::{Clue, Findings};
use super::mailbox::Place;
use crate::history::{Copy, Nanos, User};
use crate::report::Code;

/// Goes through every send.
pub(super) fn check(book: &Book, findings: &mut Findings) {
    for (which, message) in book.sends() {
        let sender = message.sender;
        for end in book.ends(which).iter().filter(|end| end.user != sender) {
            let user = end.user;
            let Some(decisions) = book.decisions.get(&(user, sender)) else { continue };
            let Some(decision) = holding(decisions, message.invoked) else { continue };
            let decided = Clue::Run(decision.at);
            match (decision.refused, end.copy, end.refusal) {
                (true, Some(seq), _) => {
                    let clues = [decided, message.clue(), book.clue(user, seq)];
                    let reason = format_args!(
                        "{user} has at {seq} what {sender} sent after {user} had refused them"
                    );
                    findings.add(Code::C16, Some(user), &clues, reason);
                }
                (false, _, Some(seq)) if is_decision(book, sender, seq) => {
                    let clues = [decided, message.clue(), book.clue(sender, seq)];
                    let reason = format_args!(
                        "{sender} is told at {seq} that {user} refuses them, who had welcomed them"
                    );
                    findings.add(Code::C16, Some(sender), &clues, reason);
                }
                _ => {}
            }
        }
    }
}

/// The decision that holds for whatever is sent at this time, whenever it arrives.
fn holding(decisions: &[Decision], invoked: Nanos) -> Option<Decision> {
    let last = decisions.iter().rfind(|decision| decision.at < invoked)?;
    let contradicts = |other: &&Decision| other.refused != last.refused && other.at > last.asked;
    match decisions.iter().find(contradicts) {
        Some(_) => None,
        None => Some(*last),
    }
}

/// Is the refusal at this place what a recipient decided, and not that its mailbox is full?
fn is_decision(book: &Book, sender: User, seq: Seq) -> bool {
    let place = book.mailboxes.get(&sender).map(|mailbox| mailbox.at(seq));
    let Some(Place::Held(slot)) = place else { return false };
    matches!(
        book.odd(slot),
        Some(Copy::Refusal { code: ErrorCode::Blocked | ErrorCode::Stranger, .. })
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_contradicted_on_the_way_does_not_hold() {
        let decision =
            |asked, at, refused| Decision { asked: Nanos(asked), at: Nanos(at), refused };
        let holds = |decisions: &[Decision]| {
            holding(decisions, Nanos(100)).map(|decision| (decision.at.0, decision.refused))
        };
        assert_eq!(holds(&[]), None);
        assert_eq!(holds(&[decision(10, 20, true)]), Some((20, true)));
        assert_eq!(holds(&[decision(90, 100, true)]), None, "it was not acknowledged before");
        let (block, unblock) = (decision(10, 20, true), decision(30, 40, false));
        assert_eq!(holds(&[block, unblock]), Some((40, false)));
        assert_eq!(holds(&[block, decision(200, 300, true)]), Some((20, true)));
        assert_eq!(holds(&[block, decision(200, 300, false)]), None);
        assert_eq!(holds(&[decision(10, 35, true), unblock]), None, "at the same time");
    }
}
