//! C7: reads of a mailbox's head are linearizable. C8: a page is a piece of the log.
//!
//! ```text
//!   acknowledged, delivered, read ──┐          ┌── sent
//!                                   ▼          ▼
//!   ─────────────────────────────── [asked  at] ───────────► time
//!            the head is not below these   and does not cover these
//! ```

use std::collections::{BTreeMap, HashMap};

use tidemark_types::Seq;

use super::book::{Book, Slot, Which};
use super::findings::{Clue, Findings};
use super::mailbox::Place;
use super::timeline::By;
use crate::history::{Copy, Event, Nanos, Op, User};
use crate::report::Code;

/// A read under way.
#[derive(Debug)]
struct Asked {
    at: Nanos,
    user: User,
    /// Of a page: after which seq.
    after: Option<Seq>,
}

/// A head that was read.
#[derive(Debug)]
struct Head {
    op: Op,
    at: Nanos,
    seq: Seq,
}

/// A page that came.
struct Page<'a> {
    op: Op,
    at: Nanos,
    floor: Seq,
    entries: &'a [(Seq, Copy)],
}

/// The reads of a run.
#[derive(Debug, Default)]
pub(super) struct Reads {
    open: HashMap<Op, Asked>,
    heads: BTreeMap<User, Vec<Head>>,
}

impl Reads {
    pub(super) fn take(&mut self, event: &Event, book: &mut Book, findings: &mut Findings) {
        match event {
            Event::Head { op, at, user } => {
                self.ask(*op, Asked { at: *at, user: *user, after: None }, findings);
            }
            Event::Range { op, at, user, after } => {
                self.ask(*op, Asked { at: *at, user: *user, after: Some(*after) }, findings);
            }
            Event::HeadIs { op, at, seq } => match self.open.remove(op) {
                Some(asked) => {
                    self.head(asked, Head { op: *op, at: *at, seq: *seq }, book, findings)
                }
                None => never_began(*op, findings),
            },
            Event::RangeIs { op, at, floor, entries } => match self.open.remove(op) {
                Some(Asked { at: asked, user, after: Some(after) }) => {
                    let page = Page { op: *op, at: *at, floor: *floor, entries };
                    page.check(user, after, book, findings);
                    page.check_end(user, asked, after, book, findings);
                }
                Some(_) | None => never_began(*op, findings),
            },
            _ => {}
        }
    }

    fn ask(&mut self, op: Op, asked: Asked, findings: &mut Findings) {
        if self.open.insert(op, asked).is_some() {
            findings.flaw(&[Clue::Op(op)], format_args!("{op} began twice"));
        }
    }

    /// C7a, C7b, C7c; the rest is known in the end.
    fn head(&mut self, asked: Asked, head: Head, book: &mut Book, findings: &mut Findings) {
        let Asked { at, user, .. } = asked;
        let clue = Clue::Op(head.op);
        let mailbox = book.mailbox(user);
        if let Some(seen) = mailbox.seen.before(at).filter(|seen| seen.seq > head.seq) {
            let reason = format_args!(
                "{user}: {} was there at {}, and a later read says {}",
                seen.seq, seen.at, head.seq
            );
            findings.add(Code::C7a, Some(user), &[seen.clue(user), clue], reason);
        }
        if let Some(earlier) = mailbox.heads.before(at).filter(|earlier| earlier.seq > head.seq) {
            let reason = format_args!(
                "{user}: the head was {} at {}, and a later read says {}",
                earlier.seq, earlier.at, head.seq
            );
            findings.add(Code::C7b, Some(user), &[earlier.clue(user), clue], reason);
        }
        if mailbox.is_read() && head.seq > mailbox.head() {
            let reason = format_args!(
                "{user}: a read says {}, and in the end the head is {}",
                head.seq,
                mailbox.head()
            );
            findings.add(Code::C7c, Some(user), &[clue, Clue::Mailbox(user)], reason);
        }
        if !mailbox.is_read() && head.seq > Seq::NONE {
            let reason = format_args!("{user}: no replica of the mailbox with this head was read");
            findings.flaw(&[clue], reason);
        }
        mailbox.heads.note(head.at, head.seq, By::Op(head.op));
        self.heads.entry(user).or_default().push(head);
    }

    /// C7d: by rising heads, each against the latest beginning among the entries that it covers.
    pub(super) fn finish(self, book: &Book, findings: &mut Findings) {
        for (user, mut heads) in self.heads {
            heads.sort_by_key(|head| head.seq);
            let Some(mailbox) = book.mailboxes.get(&user) else { continue };
            let mut log = mailbox.known().peekable();
            let mut latest: Option<(Nanos, Which, Seq)> = None;
            for head in heads {
                while let Some((seq, slot)) = log.next_if(|(seq, _)| *seq <= head.seq) {
                    if let Slot::Message(which) = slot {
                        latest = latest.max(Some((book[which].invoked, which, seq)));
                    }
                }
                let Some((invoked, which, seq)) = latest.filter(|(at, ..)| *at > head.at) else {
                    continue;
                };
                let clues = [Clue::Op(head.op), book[which].clue(), mailbox.clue(user, seq)];
                let reason = format_args!(
                    "{user}: a read that ended at {} covers {seq}, which was sent at {invoked}",
                    head.at
                );
                findings.add(Code::C7d, Some(user), &clues, reason);
            }
        }
    }
}

impl Page<'_> {
    /// C8: each entry follows the one before it, and is what the log holds there.
    fn check(&self, user: User, after: Seq, book: &mut Book, findings: &mut Findings) {
        let clue = Clue::Op(self.op);
        let mut add = |clues: &[Clue], what: std::fmt::Arguments<'_>| {
            let reason = format_args!("{user}: a page after {after} {what}");
            findings.add(Code::C8, Some(user), clues, reason);
        };
        let mailbox = book.mailbox(user);
        if mailbox.is_read() && self.floor > mailbox.floor() {
            let what = format_args!("has the floor {}, above the final one", self.floor);
            add(&[clue, Clue::Mailbox(user)], what);
        }
        let mut last = after.max(self.floor);
        for (seq, copy) in self.entries {
            if last.next() != Some(*seq) {
                add(&[clue], format_args!("has {seq} right after {last}"));
            }
            last = *seq;
            let place = book.see(user, *seq, copy);
            if differs(book, place, copy) {
                let clues = [clue, book.clue(user, *seq), Clue::Mailbox(user)];
                add(&clues, format_args!("has at {seq} what is not in the final log"));
            }
        }
        for (seq, copy) in self.entries {
            not_before_sent(book, (user, *seq), copy, self.at, clue, findings);
        }
    }

    /// C8: an empty page says that there is no more; what was there before it was asked for
    /// contradicts it.
    fn check_end(
        &self,
        user: User,
        asked: Nanos,
        after: Seq,
        book: &mut Book,
        findings: &mut Findings,
    ) {
        let end = after.max(self.floor);
        let seen = book.mailbox(user).seen.before(asked).filter(|seen| seen.seq > end);
        if let Some(seen) = seen.filter(|_| self.entries.is_empty()) {
            let reason = format_args!(
                "{user}: {} was there at {}, and a later page says that nothing is after {end}",
                seen.seq, seen.at
            );
            findings.add(Code::C8, Some(user), &[seen.clue(user), Clue::Op(self.op)], reason);
        }
    }
}

/// Is at this place of the log something else than was seen?
pub(super) fn differs(book: &Book, place: Place, copy: &Copy) -> bool {
    match place {
        Place::Held(slot) => !book.is(slot, copy),
        Place::Nothing => true,
        Place::Unseen | Place::Unread => false,
    }
}

/// C5: nobody sees a message before its sender begins to send it.
pub(super) fn not_before_sent(
    book: &Book,
    (user, seq): (User, Seq),
    copy: &Copy,
    at: Nanos,
    clue: Clue,
    findings: &mut Findings,
) {
    let Copy::Message { sender, id, .. } = copy else { return };
    let held = match book.mailboxes.get(&user).map(|mailbox| mailbox.at(seq)) {
        Some(Place::Held(Slot::Message(which))) => Some(which),
        _ => book.find(*sender, *id),
    };
    let Some(which) = held.filter(|which| book[*which].invoked > at) else { return };
    let reason = format_args!(
        "{user}: {seq} was seen at {at}, and its sender began to send it at {}",
        book[which].invoked
    );
    findings.add(Code::C5, Some(user), &[clue, book[which].clue()], reason);
}

fn never_began(op: Op, findings: &mut Findings) {
    findings.flaw(&[Clue::Op(op)], format_args!("{op} ended and never began"));
}
