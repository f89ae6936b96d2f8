//! C6: real time and the order of sessions.
//!
//! A mailbox only grows, so a send stands after whatever was acknowledged, taken or shown in that
//! mailbox before the send began.
//!
//! In every mailbox the sends of one session stand in ascending order of their numbers.

use std::collections::HashMap;

use tidemark_types::Seq;

use super::book::{Book, Slot, Which};
use super::findings::Findings;
use super::mailbox::Mailbox;
use crate::history::{Origin, User};
use crate::report::Code;

/// Goes through every mailbox.
pub(super) fn check(book: &Book, findings: &mut Findings) {
    for (user, mailbox) in &book.mailboxes {
        real_time(book, *user, mailbox, findings);
        sessions(book, *user, mailbox, findings);
    }
}

fn messages(mailbox: &Mailbox) -> impl Iterator<Item = (Seq, Which)> {
    mailbox.known().filter_map(|(seq, slot)| match slot {
        Slot::Message(which) => Some((seq, which)),
        Slot::Odd(_) => None,
    })
}

fn real_time(book: &Book, user: User, mailbox: &Mailbox, findings: &mut Findings) {
    for (seq, which) in messages(mailbox) {
        let message = &book[which];
        let seen = mailbox.seen.before(message.invoked).filter(|seen| seen.seq > seq);
        let Some(seen) = seen else { continue };
        findings.counts.out_of_order += 1;
        let clues = [seen.clue(user), message.clue()];
        let reason = format_args!(
            "{user}: {} was there at {}, and {seq} was sent after that",
            seen.seq, seen.at
        );
        findings.add(Code::C6, Some(user), &clues, reason);
    }
}

fn sessions(book: &Book, user: User, mailbox: &Mailbox, findings: &mut Findings) {
    let mut last = HashMap::<(User, u64), (u64, Seq)>::new();
    for (seq, which) in messages(mailbox) {
        let sender = book[which].sender;
        let Some(Origin::Session { session, n }) = book[which].origin else { continue };
        if let Some((before, at)) = last.insert((sender, session), (n, seq))
            && n < before
        {
            findings.counts.out_of_order += 1;
            let clues = [mailbox.clue(user, at), mailbox.clue(user, seq)];
            let reason = format_args!(
                "{user}: send {n} of {sender}'s session {session} stands after send {before}"
            );
            findings.add(Code::C6, Some(user), &clues, reason);
        }
    }
}
