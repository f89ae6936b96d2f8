//! C4: what was accepted is there, with one outcome for each recipient. C4b: every attempt got the
//! same acknowledgement. C11: what was refused is nowhere, what is unknown everywhere or nowhere.
//! C6 of sends of which only the acknowledgement says where they were.

use std::collections::{BTreeSet, HashMap};

use tidemark_types::Seq;

use super::book::{Attempt, Book, End, Fate, Message, Which};
use super::findings::{Clue, Findings};
use super::mailbox::{Mailbox, Place};
use crate::history::{Nanos, Outcome, User};
use crate::report::{Code, Counts};

/// Judges every send by where its copies are.
pub(super) fn check(book: &Book, findings: &mut Findings) {
    let (unread, mut unseen) = (Mailbox::default(), Unseen::new());
    for (which, message) in book.sends() {
        let mailbox = |user| book.mailboxes.get(&user).unwrap_or(&unread);
        let ends = book.ends(which);
        let send = Send { which, message, ends, own: mailbox(message.sender), book };
        send.acknowledgements(findings);
        match message.fate() {
            Fate::Accepted { op, seq, .. } => {
                send.accepted(Clue::Op(op), seq, &mut unseen, findings);
            }
            Fate::Refused => send.refused(findings),
            Fate::Unknown => send.unknown(findings),
        }
    }
    all_were_read(book, findings);
}

/// Of a mailbox that nobody read after the run, nothing was judged.
fn all_were_read(book: &Book, findings: &mut Findings) {
    let involved = book.sends().flat_map(|(which, message)| {
        book.ends(which).iter().map(|end| end.user).chain([message.sender])
    });
    let seen = book.mailboxes.iter().filter(|(_, mailbox)| mailbox.seen.last().is_some());
    let involved = involved.chain(seen.map(|(user, _)| *user));
    let unread = |user: &User| book.mailboxes.get(user).is_none_or(|mailbox| !mailbox.is_read());
    let involved: BTreeSet<User> = involved.filter(unread).collect();
    for user in involved {
        findings.flaw(&[], format_args!("{user}: no replica of the mailbox was read"));
    }
}

/// Which acknowledgement says what a place held that was removed before anybody saw it.
type Unseen = HashMap<(User, Seq), Clue>;

/// A send and what it is compared with.
struct Send<'a> {
    which: Which,
    message: &'a Message,
    ends: &'a [End],
    /// The sender's mailbox.
    own: &'a Mailbox,
    book: &'a Book,
}

impl Send<'_> {
    fn add(&self, code: Code, user: User, clues: &[Clue], findings: &mut Findings, what: &str) {
        let Message { sender, invoked, .. } = self.message;
        let reason = format_args!("a send of {sender} at {invoked} {what}");
        findings.add(code, Some(user), clues, reason);
    }

    /// C4b: whatever says what the verdict is, says the same.
    fn acknowledgements(&self, findings: &mut Findings) {
        let attempts = &self.message.attempts;
        if attempts.len() == 1 {
            return;
        }
        let verdict = |attempt: &&Attempt| match attempt.outcome {
            Outcome::Accepted { .. } => true,
            Outcome::Refused { code } => code.is_final(),
            Outcome::Unknown => false,
        };
        let mut verdicts = attempts.iter().filter(verdict);
        let Some(first) = verdicts.next() else { return };
        if let Some(other) = verdicts.find(|attempt| !agree(attempt.outcome, first.outcome)) {
            let clues = [Clue::Op(first.op), Clue::Op(other.op)];
            let what = "was answered in two ways";
            self.add(Code::C4b, self.message.sender, &clues, findings, what);
        }
    }

    fn accepted(&self, ack: Clue, seq: Seq, unseen: &mut Unseen, findings: &mut Findings) {
        findings.counts.accepted += 1;
        let sender = self.message.sender;
        match self.message.own {
            Some(own) if own == seq => {}
            Some(own) => {
                let what = format!("was acknowledged with {seq} and is at {own}");
                let clues = [ack, self.own.clue(sender, own), self.own.clue(sender, seq)];
                self.add(Code::C4, sender, &clues, findings, &what);
            }
            None if self.own.at(seq) == Place::Unseen => {
                findings.counts.removed += 1;
                let seen = self.own.seen.before(self.message.invoked);
                if let Some(seen) = seen.filter(|seen| seen.seq > seq) {
                    let what = format!("was acknowledged with {seq}, and {} was there", seen.seq);
                    let clues = [seen.clue(sender), ack];
                    self.add(Code::C6, sender, &clues, findings, &what);
                }
                if let Some(other) = unseen.insert((sender, seq), ack) {
                    let what = format!("was acknowledged with {seq}, as another one was");
                    self.add(Code::C4, sender, &[other, ack], findings, &what);
                }
            }
            None if self.own.at(seq) == Place::Unread => {}
            None => {
                count_loss(&mut findings.counts, self.own, self.message.invoked);
                let what = format!("was acknowledged with {seq} and is not there");
                let clues = [ack, Clue::Mailbox(sender), self.own.clue(sender, seq)];
                self.add(Code::C4, sender, &clues, findings, &what);
            }
        }
        self.outcomes(Code::C4, ack, seq, findings);
    }

    fn refused(&self, findings: &mut Findings) {
        findings.counts.refused += 1;
        let traces = self.traces();
        if let Some((user, _)) = traces.first() {
            let clues = self.clues(&traces);
            self.add(Code::C11, *user, &clues, findings, "was refused, and is there");
        }
    }

    fn unknown(&self, findings: &mut Findings) {
        findings.counts.unknown += 1;
        if let Some(own) = self.message.own {
            findings.counts.happened += 1;
            return self.outcomes(Code::C11, self.message.clue(), own, findings);
        }
        // Where the sender's own copy may have been removed unseen, it may have happened.
        if self.own.may_hide_after(self.seen_before(self.own)) {
            return;
        }
        let traces = self.traces();
        if let Some((user, _)) = traces.first() {
            let clues = self.clues(&traces);
            let what = "is there, and not in its sender's mailbox";
            self.add(Code::C11, *user, &clues, findings, what);
        }
    }

    /// Each recipient has a copy, or refused, and not both. `own` is the seq of the sender's copy.
    fn outcomes(&self, code: Code, first: Clue, own: Seq, findings: &mut Findings) {
        let sender = self.message.sender;
        if self.is_dropped(own) {
            findings.counts.dropped += 1;
            return;
        }
        for End { user, copy, refusal } in self.recipients() {
            match (copy, refusal) {
                (Some(_), None) => findings.counts.delivered += 1,
                (None, Some(_)) => findings.counts.turned_away += 1,
                (Some(copy), Some(refusal)) => {
                    findings.counts.duplicated += 1;
                    let clues =
                        [first, self.book.clue(*user, *copy), self.book.clue(sender, *refusal)];
                    let what = format!("reached {user}, and its sender was told that it did not");
                    self.add(code, *user, &clues, findings, &what);
                }
                (None, None) => self.no_outcome(code, first, own, *user, findings),
            }
        }
    }

    /// Was it dropped, as its verdict says where its sender has it, and nobody else has anything? Of a
    /// verdict that retention has removed only the judgements remain.
    fn is_dropped(&self, own: Seq) -> bool {
        let has_nothing = |end: &End| end.copy.is_none() && end.refusal.is_none();
        let by_verdict = own <= self.own.floor() || self.own.dropped.contains(&own);
        by_verdict
            && self.message.may_be_dropped()
            && self.recipients().next().is_some()
            && self.recipients().all(has_nothing)
    }

    /// A recipient has neither. It may have been removed unseen, the copy from the recipient's
    /// mailbox or the refusal from the sender's, or the recipient may be silent.
    fn no_outcome(&self, code: Code, first: Clue, own: Seq, user: User, findings: &mut Findings) {
        let Some(theirs) = self.book.mailboxes.get(&user).filter(|theirs| theirs.is_read()) else {
            return;
        };
        if self.book.silent.contains(&user) {
            findings.counts.silenced += 1;
        } else if theirs.may_hide_after(self.seen_before(theirs))
            || self.own.may_hide_after(own)
            || self.may_be_nameless(user)
        {
            findings.counts.removed += 1;
        } else {
            count_loss(&mut findings.counts, theirs, self.message.invoked);
            let what = format!("has no outcome for {user}: no copy there, no refusal told");
            self.add(code, user, &[first, Clue::Mailbox(user)], findings, &what);
        }
    }

    /// May a refusal by this recipient be of this send, whose number nobody saw?
    fn may_be_nameless(&self, user: User) -> bool {
        let Message { sender, origin, .. } = self.message;
        origin.is_none() && self.book.nameless.contains(&(*sender, user))
    }

    /// A seq below which the send cannot be, since it was seen before the send began.
    fn seen_before(&self, mailbox: &Mailbox) -> Seq {
        let known = [&mailbox.seen, &mailbox.heads];
        let known = known.iter().filter_map(|known| known.before(self.message.invoked));
        known.map(|point| point.seq).max().unwrap_or(Seq::NONE)
    }

    /// The recipients but the sender.
    fn recipients(&self) -> impl Iterator<Item = &End> {
        self.ends.iter().filter(|end| end.user != self.message.sender)
    }

    /// Where anything of it is.
    fn traces(&self) -> Vec<(User, Seq)> {
        let sender = self.message.sender;
        let own = self.message.own.map(|seq| (sender, seq));
        let ends = self.recipients().flat_map(|end| {
            let copy = end.copy.map(|seq| (end.user, seq));
            copy.into_iter().chain(end.refusal.map(|seq| (sender, seq)))
        });
        own.into_iter().chain(ends).collect()
    }

    /// All attempts, and the first thing that is there.
    fn clues(&self, traces: &[(User, Seq)]) -> Vec<Clue> {
        let attempts = self.book[self.which].attempts.iter().map(|attempt| Clue::Op(attempt.op));
        let trace = traces.first().map(|(user, seq)| self.book.clue(*user, *seq));
        attempts.chain(trace).collect()
    }
}

/// Do two verdicts say the same? Not every answer says which send it is of.
fn agree(one: Outcome, other: Outcome) -> bool {
    match (one, other) {
        (
            Outcome::Accepted { seq: a, origin: Some(by) },
            Outcome::Accepted { seq: b, origin: Some(of) },
        ) => (a, by) == (b, of),
        (Outcome::Accepted { seq: a, .. }, Outcome::Accepted { seq: b, .. }) => a == b,
        (one, other) => one == other,
    }
}

/// Where in the life of a mailbox a loss lies.
fn count_loss(counts: &mut Counts, mailbox: &Mailbox, invoked: Nanos) {
    counts.lost += 1;
    let part = match mailbox.span {
        None => &mut counts.losses.whole,
        Some((first, _)) if invoked < first => &mut counts.losses.prefix,
        Some((_, last)) if invoked > last => &mut counts.losses.suffix,
        Some(_) => &mut counts.losses.middle,
    };
    *part += 1;
}
