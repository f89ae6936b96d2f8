//! C6: real time and the order of sessions.
//!
//! In the sender's own mailbox, seqs say which send came first, so an acknowledgement before
//! another's beginning must agree with them. Read from the end, each send must have begun before
//! the earliest acknowledgement of all that stand after it.
//!
//! In every mailbox the sends of one session stand in ascending order of their numbers.

use std::collections::HashMap;

use tidemark_types::Seq;

use super::book::{Book, Fate, Slot, Which};
use super::findings::{Clue, Findings};
use super::mailbox::Mailbox;
use crate::history::{Nanos, Op, Origin, User};
use crate::report::Code;

/// Goes through every mailbox.
pub(super) fn check(book: &Book, findings: &mut Findings) {
    for (user, mailbox) in &book.mailboxes {
        real_time(book, *user, mailbox, findings);
        sessions(book, *user, mailbox, findings);
    }
}

fn messages(mailbox: &Mailbox) -> impl DoubleEndedIterator<Item = (Seq, Which)> {
    mailbox.known().filter_map(|(seq, slot)| match slot {
        Slot::Message(which) => Some((seq, which)),
        Slot::Odd(_) => None,
    })
}

fn real_time(book: &Book, user: User, mailbox: &Mailbox, findings: &mut Findings) {
    let own = messages(mailbox).rev().filter(|(_, which)| book[*which].sender == user);
    let mut earliest: Option<(Nanos, Op, Seq)> = None;
    for (seq, which) in own {
        let message = &book[which];
        if let Some((at, op, after)) = earliest.filter(|(at, ..)| *at < message.invoked) {
            findings.counts.out_of_order += 1;
            let clues = [Clue::Op(op), message.clue()];
            let reason = format_args!(
                "{user}: {after} was acknowledged at {at}, and {seq} was sent after that"
            );
            findings.add(Code::C6, Some(user), &clues, reason);
        }
        if let Fate::Accepted { op, at, .. } = message.fate() {
            let this = (at, op, seq);
            earliest = Some(earliest.map_or(this, |earliest| earliest.min(this)));
        }
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
