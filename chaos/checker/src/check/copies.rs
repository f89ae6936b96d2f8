//! C3: no message is twice in one mailbox. C5: every entry was asked for. C18: what is judged says what
//! somebody let pass, the same everywhere.
//!
//! On the way each send is told where its copies and refusals are, for the checks after this one.

use std::collections::HashSet;
use std::mem;

use tidemark_types::Seq;

use super::book::{Book, Slot, Which};
use super::findings::{Clue, Findings};
use super::mailbox::Mailbox;
use crate::history::{Copy, Nanos, Origin, User, Way};
use crate::report::Code;

/// Goes through every mailbox.
pub(super) fn check(book: &mut Book, findings: &mut Findings) {
    let numbers = Numbers::of(book, findings);
    let mut mailboxes = mem::take(&mut book.mailboxes);
    for (user, mailbox) in &mut mailboxes {
        mailbox.settle();
        let mut span = None;
        for (seq, slot) in mailbox.known() {
            let entry = Entry { user: *user, seq, mailbox };
            match (slot, book.odd(slot).copied()) {
                (Slot::Message(which), _) => {
                    entry.message(book, which, findings);
                    span = widened(span, book[which].invoked);
                }
                (Slot::Odd(_), Some(copy)) => match copy {
                    Copy::Message { .. } => entry.stranger(book, copy, findings),
                    Copy::Refusal { sender, recipient, .. } => match numbers.refused(book, copy) {
                        Some(which) => entry.refusal(book, which, recipient, findings),
                        None if mailbox.may_hide_after(Seq::NONE)
                            && numbers.unseen.contains(&(sender, recipient)) =>
                        {
                            book.nameless.insert((sender, recipient));
                        }
                        None => entry.phantom_refusal(recipient, findings),
                    },
                },
                (Slot::Odd(_), None) => unreachable!("an odd slot has a copy"),
            }
        }
        mailbox.span = span;
    }
    book.mailboxes = mailboxes;
}

fn widened(span: Option<(Nanos, Nanos)>, at: Nanos) -> Option<(Nanos, Nanos)> {
    let (first, last) = span.unwrap_or((at, at));
    Some((first.min(at), last.max(at)))
}

/// Where an entry is.
#[derive(Clone, Copy)]
struct Entry<'a> {
    user: User,
    seq: Seq,
    mailbox: &'a Mailbox,
}

impl Entry<'_> {
    fn clue(self) -> Clue {
        self.clue_of(self.seq)
    }

    /// By what another entry of the mailbox is shown.
    fn clue_of(self, seq: Seq) -> Clue {
        self.mailbox.clue(self.user, seq)
    }

    /// The copy of a send, as it was sent.
    fn message(self, book: &mut Book, which: Which, findings: &mut Findings) {
        let Entry { user, seq, .. } = self;
        match self.put(book, which) {
            Put::Here => {}
            Put::Again(first) => self.again(book, which, first, findings),
            Put::NotAddressed => {
                let reason = format_args!("{user} has at {seq} what was not sent there");
                findings.add(Code::C5, Some(user), &[book[which].clue(), self.clue()], reason);
            }
        }
    }

    /// A message as nobody sent it: under another origin, with other content, or not at all.
    fn stranger(self, book: &mut Book, copy: Copy, findings: &mut Findings) {
        let Copy::Message { sender, origin, id, content } = copy else { return };
        let Entry { user, seq, .. } = self;
        let mut add = |code, clues: &[Clue], what: &str| {
            let reason = format_args!("{user} has at {seq} a message of {sender} {what}");
            findings.add(code, Some(user), clues, reason);
        };
        let Some(which) = book.find(sender, id) else {
            return add(Code::C5, &[self.clue()], "that was never sent");
        };
        let clues = [book[which].clue(), self.clue()];
        if !book[which].may_say(content) {
            return match book[which].judged {
                Some(_) => add(Code::C18, &clues, "as nobody let it pass, or not as elsewhere"),
                None => add(Code::C5, &clues, "with other content than was sent"),
            };
        }
        match self.put(book, which) {
            // Taken twice, each time under a number of its own.
            Put::Again(first) => self.again(book, which, first, findings),
            Put::NotAddressed => add(Code::C5, &clues, "that was not sent there"),
            Put::Here => {
                let reason = format!("under {origin:?}, which is not that of its other copies");
                add(Code::C5, &clues, &reason);
            }
        }
    }

    /// That a recipient refused a send; it stands in the sender's mailbox, once.
    fn refusal(self, book: &mut Book, which: Which, recipient: User, findings: &mut Findings) {
        let Entry { user, seq, .. } = self;
        let told_right = book[which].sender == user && recipient != user;
        let end = book.end_mut(which, recipient).filter(|_| told_right);
        let Some(end) = end else { return self.phantom_refusal(recipient, findings) };
        if let Some(first) = end.refusal.replace(seq) {
            findings.counts.duplicated += 1;
            let clues = [book[which].clue(), self.clue_of(first), self.clue()];
            let reason =
                format_args!("{user} is told at {first} and at {seq} that {recipient} refused");
            findings.add(Code::C4, Some(user), &clues, reason);
        }
    }

    fn phantom_refusal(self, recipient: User, findings: &mut Findings) {
        let Entry { user, seq, .. } = self;
        let reason = format_args!(
            "{user} is told at {seq} that {recipient} refused what was not sent there"
        );
        findings.add(Code::C5, Some(user), &[self.clue()], reason);
    }

    /// Tells the send that a copy is here.
    fn put(self, book: &mut Book, which: Which) -> Put {
        let Entry { user, seq, .. } = self;
        let place = match book[which].sender == user {
            true => book.own_mut(which),
            false => match book.end_mut(which, user) {
                Some(end) => &mut end.copy,
                None => return Put::NotAddressed,
            },
        };
        match place {
            Some(first) => Put::Again(*first),
            None => {
                *place = Some(seq);
                Put::Here
            }
        }
    }

    fn again(self, book: &Book, which: Which, first: Seq, findings: &mut Findings) {
        let Entry { user, seq, .. } = self;
        findings.counts.duplicated += 1;
        let clues = [book[which].clue(), self.clue_of(first), self.clue()];
        let reason =
            format_args!("{user} has a message of {} at {first} and at {seq}", book[which].sender);
        findings.add(Code::C3, Some(user), &clues, reason);
    }
}

/// Whether a copy has a place at its send.
enum Put {
    Here,
    /// There is one already.
    Again(Seq),
    NotAddressed,
}

/// The sends of sessions by sender, session and number.
struct Numbers {
    known: Vec<((User, u64, u64), Which)>,
    /// Sender and recipients of those whose number nobody saw, since no answer came and retention
    /// removed every copy. A refusal of one of them cannot be told from a phantom.
    unseen: HashSet<(User, User)>,
}

impl Numbers {
    /// No two sends have the same number.
    fn of(book: &Book, findings: &mut Findings) -> Numbers {
        let mut numbers = Numbers { known: Vec::new(), unseen: HashSet::new() };
        for (which, message) in book.sends() {
            match (message.origin, message.way) {
                (Some(Origin::Session { session, n }), _) => {
                    numbers.known.push(((message.sender, session, n), which));
                }
                (None, Way::Session) => {
                    let ends = book.ends(which).iter().map(|end| (message.sender, end.user));
                    numbers.unseen.extend(ends);
                }
                (Some(Origin::Backend) | None, _) => {}
            }
        }
        numbers.known.sort_unstable();
        for pair in numbers.known.windows(2) {
            let [(number, a), (other, b)] = pair else { continue };
            if number == other {
                findings.counts.duplicated += 1;
                let (sender, session, n) = number;
                let clues = [book[*a].clue(), book[*b].clue()];
                let reason =
                    format_args!("{sender}: two messages are send {n} of session {session}");
                findings.add(Code::C3, Some(*sender), &clues, reason);
            }
        }
        numbers
    }

    /// The send that a refusal is of.
    fn refused(&self, book: &Book, copy: Copy) -> Option<Which> {
        match copy {
            Copy::Refusal { sender, origin: Origin::Session { session, n }, .. } => {
                let number = (sender, session, n);
                let found = self.known.binary_search_by_key(&number, |(number, _)| *number);
                found.ok().map(|at| self.known[at].1)
            }
            Copy::Refusal { sender, origin: Origin::Backend, id, .. } => {
                let which = id.and_then(|id| book.find(sender, id));
                which.filter(|which| book[*which].way == Way::Backend)
            }
            Copy::Message { .. } => None,
        }
    }
}
