//! The book of a run: every send with the answers it had, and every mailbox. All checks compare
//! with it.
//!
//! A million sends make it, so it is laid out flat: a mailbox's entry is the number of a send (of
//! which it must be the canonical copy) or of an odd copy, and a send's recipients are a piece of
//! one long list.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::{Index, Range};

use tidemark_types::{ErrorCode, Seq};

use super::findings::{Clue, Findings};
use super::mailbox::{Mailbox, Place, Replica};
use super::timeline::By;
use crate::history::{Copy, Event, Judgement, Nanos, Op, Origin, Outcome, ReadError, User, Way};

/// Which send, in the order in which they began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Which(u32);

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// A copy of this send, as all of them must be.
    Message(Which),
    /// Another copy: a refusal, or a message as nobody sent it.
    Odd(u32),
}

/// A send: one message, whatever the number of attempts.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) sender: User,
    pub(super) id: u128,
    pub(super) content: u64,
    pub(super) way: Way,
    /// As the first acknowledgement or copy says.
    pub(super) origin: Option<Origin>,
    /// When the first attempt began.
    pub(super) invoked: Nanos,
    /// In order of time.
    pub(super) attempts: Vec<Attempt>,
    /// Where the sender's own copy is.
    pub(super) own: Option<Seq>,
    /// What the operator's checks may have made of it; none if nobody judges it.
    pub(super) judged: Option<Box<Judged>>,
    /// Its recipients, in [`Book`]'s list.
    to: Range<u32>,
}

/// What the operator's checks may have made of a send.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// What its copies may say where it was let pass.
    contents: Vec<u64>,
    /// With which codes it may have been refused.
    codes: Vec<ErrorCode>,
    /// It may have been dropped: its sender has it as it was sent, and nobody else.
    dropped: bool,
    /// What its first copy says.
    said: Option<u64>,
}

/// An attempt at a send.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) op: Op,
    /// When its answer came; none came of an open one.
    pub(super) answered: Option<Nanos>,
    pub(super) outcome: Outcome,
}

/// What became of a send, as its answers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Accepted {
        op: Op,
        at: Nanos,
        seq: Seq,
    },
    /// By an answer that settles it, or since no attempt can have had an effect.
    Refused,
    Unknown,
}

/// What became of a send at one recipient: where the copy is, and where the refusal.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct End {
    pub(super) user: User,
    /// In the recipient's mailbox.
    pub(super) copy: Option<Seq>,
    /// In the sender's mailbox.
    pub(super) refusal: Option<Seq>,
}

/// What a user decided about a sender.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decision {
    pub(super) asked: Nanos,
    pub(super) at: Nanos,
    pub(super) refused: bool,
}

impl Message {
    /// Is this its copy, as all copies must be?
    fn is(&self, copy: &Copy) -> bool {
        match copy {
            Copy::Message { sender, origin, id, content } => {
                (*sender, *id) == (self.sender, self.id)
                    && Some(*origin) == self.origin
                    && Some(*content) == self.said()
            }
            Copy::Refusal { .. } => false,
        }
    }

    /// What its copies say, if that is known.
    fn said(&self) -> Option<u64> {
        self.judged.as_ref().map_or(Some(self.content), |judged| judged.said)
    }

    /// May a copy of it say this? What the first one says, all say.
    pub(super) fn may_say(&self, content: u64) -> bool {
        match &self.judged {
            Some(judged) if judged.said.is_none() => {
                judged.contents.contains(&content) || judged.dropped && content == self.content
            }
            _ => self.said() == Some(content),
        }
    }

    /// May others than its sender have what its copies say?
    pub(super) fn may_pass(&self) -> bool {
        let passes = |judged: &Judged, said| judged.contents.contains(&said);
        self.judged.as_ref().is_none_or(|it| it.said.is_none_or(|said| passes(it, said)))
    }

    /// May nobody but its sender have it, though it was accepted?
    pub(super) fn may_be_dropped(&self) -> bool {
        let as_sent = |judged: &Judged| judged.said.is_none_or(|said| said == self.content);
        self.judged.as_ref().is_some_and(|judged| judged.dropped && as_sent(judged))
    }

    /// May the operator's checks have refused it with this code?
    pub(super) fn may_be_refused(&self, code: ErrorCode) -> bool {
        self.judged.as_ref().is_some_and(|judged| judged.codes.contains(&code))
    }

    /// This may have become of it, or nothing.
    fn judged(&mut self, judgement: Option<Judgement>) {
        let content = self.content;
        let judged = self.judged.get_or_insert_default();
        match judgement {
            None => {}
            Some(Judgement::Allow) => judged.contents.push(content),
            Some(Judgement::Replace { content }) => judged.contents.push(content),
            Some(Judgement::Refuse { code }) => judged.codes.push(code),
            Some(Judgement::Drop) => judged.dropped = true,
        }
    }

    /// Can a send of this kind have this origin?
    fn fits(&self, origin: Origin) -> bool {
        match self.way {
            Way::Session => matches!(origin, Origin::Session { .. }),
            Way::Backend => origin == Origin::Backend,
        }
    }

    /// What its answers say: any acknowledgement, or a verdict, or that nothing can have happened.
    pub(super) fn fate(&self) -> Fate {
        let accepted = self.attempts.iter().filter_map(|attempt| match attempt {
            Attempt { op, answered: Some(at), outcome: Outcome::Accepted { seq, .. } } => {
                Some((*at, *op, *seq))
            }
            _ => None,
        });
        let refused = |settles: fn(ErrorCode) -> bool| {
            move |attempt: &Attempt| match attempt.outcome {
                Outcome::Refused { code } => settles(code),
                Outcome::Accepted { .. } | Outcome::Unknown => false,
            }
        };
        if let Some((at, op, seq)) = accepted.min() {
            return Fate::Accepted { op, at, seq };
        }
        // A device has repeated the send unseen: what says that one attempt had no effect says
        // nothing of the others.
        let all_are_seen = self.way == Way::Backend;
        if self.attempts.iter().any(refused(ErrorCode::is_final))
            || all_are_seen && self.attempts.iter().all(refused(ErrorCode::has_no_effect))
        {
            return Fate::Refused;
        }
        Fate::Unknown
    }

    /// Its first attempt, by which it is shown.
    pub(super) fn clue(&self) -> Clue {
        Clue::Op(self.attempts[0].op)
    }
}

/// An operation whose answer has not come.
enum Open {
    Send(Which, usize),
    Range(User),
}

/// The book.
#[derive(Debug, Default)]
pub(super) struct Book {
    messages: Vec<Message>,
    ends: Vec<End>,
    odd: Vec<Copy>,
    by_id: HashMap<(User, [u8; 16]), Which>,
    pub(super) mailboxes: BTreeMap<User, Mailbox>,
    /// What users decided about senders, in order of the acknowledgements.
    pub(super) decisions: BTreeMap<(User, User), Vec<Decision>>,
    /// Who may drop without telling what comes from those whom it blocks.
    pub(super) silent: BTreeSet<User>,
    /// Senders and recipients of refusals that may be of sends whose number nobody saw.
    pub(super) nameless: BTreeSet<(User, User)>,
}

impl Index<Which> for Book {
    type Output = Message;

    fn index(&self, which: Which) -> &Message {
        &self.messages[which.0 as usize]
    }
}

impl Book {
    /// Takes everything in that other events are compared with.
    pub(super) fn read(
        events: impl Iterator<Item = Result<Event, ReadError>>,
        findings: &mut Findings,
    ) -> Result<Book, ReadError> {
        let mut book = Book::default();
        let mut open = HashMap::new();
        for event in events {
            book.take(event?, &mut open, findings);
        }
        book.mailboxes.values_mut().for_each(Mailbox::close);
        Ok(book)
    }

    fn take(&mut self, event: Event, open: &mut HashMap<Op, Open>, findings: &mut Findings) {
        match event {
            Event::Send { op, .. } => {
                let asked = self.send(event, findings);
                if open.insert(op, asked).is_some() {
                    findings.flaw(&[Clue::Op(op)], format_args!("{op} began twice"));
                }
            }
            Event::Sent { op, at, outcome } => match open.remove(&op) {
                Some(Open::Send(which, attempt)) => self.sent(which, attempt, at, outcome),
                Some(Open::Range(_)) | None => {
                    findings.flaw(&[Clue::Op(op)], format_args!("{op} ended and never began"));
                }
            },
            Event::Range { op, user, .. } => {
                open.insert(op, Open::Range(user));
            }
            Event::RangeIs { op, at, entries, .. } => {
                if let (Some(Open::Range(user)), Some((seq, _))) =
                    (open.remove(&op), entries.last())
                {
                    self.mailbox(user).seen.note(at, *seq, By::Op(op));
                }
            }
            Event::Taken { at, user, device, seq, .. } => {
                self.mailbox(user).seen.note(at, seq, By::Device(device));
            }
            Event::Silent { user, .. } => {
                self.silent.insert(user);
            }
            Event::Decided { asked, at, user, sender, refused } => {
                let decision = Decision { asked, at, refused };
                self.decisions.entry((user, sender)).or_default().push(decision);
            }
            Event::Judged { at, sender, id, judgement } => match self.find(sender, id) {
                Some(which) => self.messages[which.0 as usize].judged(judgement),
                None => findings.flaw(&[Clue::Run(at)], format_args!("nothing sent was judged")),
            },
            Event::Mailbox { node, user, floor, head, digest } => {
                self.mailbox(user).replicas.push(Replica { node, floor, head, digest });
            }
            Event::Entry { user, seq, copy } => {
                let slot = self.slot(&copy);
                let mailbox = self.mailbox(user);
                mailbox.entries.push((seq, slot));
                mailbox.digest.add(seq, &copy);
            }
            Event::ReplicaEntry { node, user, seq, copy } => {
                self.mailbox(user).copies.insert((seq, node), copy);
            }
            Event::Dropped { user, seq } => {
                self.mailbox(user).dropped.insert(seq);
            }
            _ => {}
        }
    }

    /// An attempt began: at a new message, or at one that is known.
    fn send(&mut self, event: Event, findings: &mut Findings) -> Open {
        let Event::Send { op, at, sender, way, id, mut to, content, .. } = event else {
            unreachable!("it is called for sends only");
        };
        to.sort_unstable();
        to.dedup();
        let attempt = Attempt { op, answered: None, outcome: Outcome::Unknown };
        let key = (sender, id.to_le_bytes());
        if let Some(which) = self.by_id.get(&key).copied() {
            let known: Vec<User> = self.ends(which).iter().map(|end| end.user).collect();
            let message = &mut self.messages[which.0 as usize];
            if (message.way, message.content, known) != (way, content, to) {
                let clues = [message.clue(), Clue::Op(op)];
                findings.flaw(&clues, format_args!("{op} is another message under the same id"));
            }
            message.attempts.push(attempt);
            return Open::Send(which, message.attempts.len() - 1);
        }
        let which = Which(number(self.messages.len()));
        let first = number(self.ends.len());
        self.ends.extend(to.into_iter().map(|user| End { user, ..End::default() }));
        self.by_id.insert(key, which);
        self.messages.push(Message {
            sender,
            id,
            content,
            way,
            origin: None,
            invoked: at,
            attempts: vec![attempt],
            own: None,
            judged: None,
            to: first..number(self.ends.len()),
        });
        Open::Send(which, 0)
    }

    fn sent(&mut self, which: Which, attempt: usize, at: Nanos, outcome: Outcome) {
        let message = &mut self.messages[which.0 as usize];
        let Attempt { op, answered, outcome: stored } = &mut message.attempts[attempt];
        let op = *op;
        (*answered, *stored) = (Some(at), outcome);
        let sender = message.sender;
        if let Outcome::Accepted { seq, origin } = outcome {
            message.origin = message.origin.or(origin);
            self.mailbox(sender).seen.note(at, seq, By::Op(op));
        }
    }

    /// A user's mailbox; an empty one if nothing is known of it.
    pub(super) fn mailbox(&mut self, user: User) -> &mut Mailbox {
        self.mailboxes.entry(user).or_default()
    }

    /// What an entry is. The first copy of a send that nobody acknowledged says its origin, and of one that
    /// is judged what became of it.
    fn slot(&mut self, copy: &Copy) -> Slot {
        if let Copy::Message { sender, origin, id, content } = copy
            && let Some(which) = self.find(*sender, *id)
        {
            let message = &mut self.messages[which.0 as usize];
            if message.origin.is_none() && message.fits(*origin) {
                message.origin = Some(*origin);
            }
            if message.origin == Some(*origin) && message.may_say(*content) {
                message.judged.iter_mut().for_each(|judged| judged.said = Some(*content));
            }
            if message.is(copy) {
                return Slot::Message(which);
            }
        }
        self.odd.push(*copy);
        Slot::Odd(number(self.odd.len() - 1))
    }

    /// Is this what the slot holds?
    pub(super) fn is(&self, slot: Slot, copy: &Copy) -> bool {
        match slot {
            Slot::Message(which) => self[which].is(copy),
            Slot::Odd(_) => self.odd(slot) == Some(copy),
        }
    }

    /// The copy in an odd slot.
    pub(super) fn odd(&self, slot: Slot) -> Option<&Copy> {
        match slot {
            Slot::Message(_) => None,
            Slot::Odd(at) => Some(&self.odd[at as usize]),
        }
    }

    /// An entry was seen: what is at its place. What was removed since is written down now.
    pub(super) fn see(&mut self, user: User, seq: Seq, copy: &Copy) -> Place {
        let place = self.mailbox(user).at(seq);
        if place == Place::Unseen {
            let slot = self.slot(copy);
            self.mailbox(user).removed.insert(seq, slot);
            return Place::Held(slot);
        }
        place
    }

    /// By what the entry at a place is shown.
    pub(super) fn clue(&self, user: User, seq: Seq) -> Clue {
        self.mailboxes.get(&user).map_or(Clue::Seen(user, seq), |mailbox| mailbox.clue(user, seq))
    }

    /// The send with this sender and id.
    pub(super) fn find(&self, sender: User, id: u128) -> Option<Which> {
        self.by_id.get(&(sender, id.to_le_bytes())).copied()
    }

    /// Every send.
    pub(super) fn sends(&self) -> impl Iterator<Item = (Which, &Message)> {
        self.messages.iter().enumerate().map(|(at, message)| (Which(number(at)), message))
    }

    /// A send's recipients and what became of it there, by user. The sender may be among them.
    pub(super) fn ends(&self, which: Which) -> &[End] {
        let Range { start, end } = self[which].to;
        &self.ends[start as usize..end as usize]
    }

    /// What became of it at one recipient; none if it was not sent there.
    pub(super) fn end_mut(&mut self, which: Which, user: User) -> Option<&mut End> {
        let Range { start, end } = self[which].to;
        let ends = &mut self.ends[start as usize..end as usize];
        let at = ends.binary_search_by_key(&user, |end| end.user).ok()?;
        Some(&mut ends[at])
    }

    /// Is the verdict of it that it is dropped, as far as its sender's own copy is there to say so?
    pub(super) fn has_fallen(&self, message: &Message) -> bool {
        let own = message.own.zip(self.mailboxes.get(&message.sender));
        own.is_some_and(|(seq, mailbox)| mailbox.dropped.contains(&seq))
    }

    /// The sender's own copy is here.
    pub(super) fn own_mut(&mut self, which: Which) -> &mut Option<Seq> {
        &mut self.messages[which.0 as usize].own
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).expect("a history has fewer than 4 billion sends and copies")
}
