//! A history that can be changed, as a broken system would have made it: what several events say
//! of one thing changes in all of them.

use std::collections::BTreeMap;

use rand::rngs::ChaCha8Rng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use tidemark_checker::history::{
    Copy, Device, Digest, Event, Nanos, Op, Origin, Outcome, User, Way,
};
use tidemark_types::Seq;

use crate::model;

pub(crate) struct Tape {
    pub(crate) events: Vec<Event>,
    pub(crate) rng: ChaCha8Rng,
}

/// A message, with all attempts at it.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) sender: User,
    pub(crate) way: Way,
    pub(crate) id: u128,
    pub(crate) to: Vec<User>,
    pub(crate) began: Nanos,
    /// Somebody judges it.
    pub(crate) judged: bool,
    pub(crate) ops: Vec<Op>,
    pub(crate) answers: Vec<(Nanos, Op, Outcome)>,
}

impl Message {
    /// When and with what it was acknowledged first.
    pub(crate) fn ack(&self) -> Option<(Nanos, Op, Seq)> {
        let ack = |(at, op, outcome): &(Nanos, Op, Outcome)| match outcome {
            Outcome::Accepted { seq, .. } => Some((*at, *op, *seq)),
            Outcome::Refused { .. } | Outcome::Unknown => None,
        };
        self.answers.iter().filter_map(ack).min()
    }

    /// Did no answer say anything?
    pub(crate) fn is_unknown(&self) -> bool {
        self.answers.iter().all(|(_, _, outcome)| *outcome == Outcome::Unknown)
    }
}

/// An entry of the final log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) user: User,
    pub(crate) seq: Seq,
    pub(crate) copy: Copy,
}

pub(crate) fn next(seq: Seq) -> Seq {
    seq.next().expect("the mailboxes here are small")
}

/// The message that a copy is of, by sender and id.
pub(crate) fn id_of(copy: &Copy) -> Option<(User, u128)> {
    match copy {
        Copy::Message { sender, id, .. } => Some((*sender, *id)),
        Copy::Refusal { .. } => None,
    }
}

/// Another copy than this.
pub(crate) fn altered(mut copy: Copy) -> Copy {
    match &mut copy {
        Copy::Message { content, .. } => *content = !*content,
        Copy::Refusal { recipient, .. } => recipient.0 += 1,
    }
    copy
}

impl Tape {
    pub(crate) fn new(seed: u64) -> Self {
        let events = model::history(seed, 600);
        Tape { events, rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// Any of the events for which this holds.
    pub(crate) fn pick(&mut self, holds: impl Fn(&Event) -> bool) -> Option<usize> {
        let found = self.events.iter().enumerate().filter(|(_, event)| holds(event));
        let found: Vec<usize> = found.map(|(at, _)| at).collect();
        found.choose(&mut self.rng).copied()
    }

    /// Any of these.
    pub(crate) fn any<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        of.choose(&mut self.rng).cloned()
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.rng.random()
    }

    pub(crate) fn messages(&self) -> Vec<Message> {
        let mut messages = BTreeMap::<(User, u128), Message>::new();
        let mut by_op = BTreeMap::new();
        for event in &self.events {
            match event {
                Event::Send { op, at, sender, way, id, to, .. } => {
                    let message = messages.entry((*sender, *id)).or_insert_with(|| Message {
                        sender: *sender,
                        way: *way,
                        id: *id,
                        to: to.clone(),
                        began: *at,
                        judged: false,
                        ops: Vec::new(),
                        answers: Vec::new(),
                    });
                    message.ops.push(*op);
                    by_op.insert(*op, (*sender, *id));
                }
                Event::Sent { op, at, outcome } => {
                    let message = by_op.get(op).and_then(|key| messages.get_mut(key));
                    message.expect("it was sent").answers.push((*at, *op, *outcome));
                }
                Event::Judged { sender, id, .. } => {
                    messages.get_mut(&(*sender, *id)).expect("it was sent").judged = true;
                }
                _ => {}
            }
        }
        messages.into_values().collect()
    }

    pub(crate) fn message_of(&self, copy: &Copy) -> Option<Message> {
        let (sender, id) = id_of(copy)?;
        self.messages().into_iter().find(|message| (message.sender, message.id) == (sender, id))
    }

    /// The final logs.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let entry = |event: &Event| match event {
            Event::Entry { user, seq, copy } => Some(Entry { user: *user, seq: *seq, copy: *copy }),
            _ => None,
        };
        self.events.iter().filter_map(entry).collect()
    }

    /// Where a mailbox has a message.
    pub(crate) fn find(&self, user: User, sender: User, id: u128) -> Option<Entry> {
        let is_it = |entry: &Entry| entry.user == user && id_of(&entry.copy) == Some((sender, id));
        self.entries().into_iter().find(is_it)
    }

    /// The floor and the head of a mailbox.
    pub(crate) fn ends(&self, user: User) -> (Seq, Seq) {
        let ends = self.events.iter().find_map(|event| match event {
            Event::Mailbox { user: of, floor, head, .. } if *of == user => Some((*floor, *head)),
            _ => None,
        });
        ends.expect("every mailbox was read")
    }

    pub(crate) fn is_whole(&self, user: User) -> bool {
        self.ends(user).0 == Seq::NONE
    }

    pub(crate) fn is_silent(&self, user: User) -> bool {
        self.events
            .iter()
            .any(|event| matches!(event, Event::Silent { user: of, .. } if *of == user))
    }

    /// Whose mailbox an operation is about.
    pub(crate) fn owner(&self, op: Op) -> Option<User> {
        self.events.iter().find_map(|event| match event {
            Event::Send { op: of, sender: user, .. }
            | Event::Head { op: of, user, .. }
            | Event::Range { op: of, user, .. }
                if *of == op =>
            {
                Some(*user)
            }
            _ => None,
        })
    }

    /// When an operation began.
    pub(crate) fn asked(&self, op: Op) -> Option<Nanos> {
        self.events.iter().find_map(|event| match event {
            Event::Send { op: of, at, .. }
            | Event::Head { op: of, at, .. }
            | Event::Range { op: of, at, .. }
                if *of == op =>
            {
                Some(*at)
            }
            _ => None,
        })
    }

    /// The seqs of a mailbox that were acknowledged or taken before a time, the highest.
    pub(crate) fn seen_before(&self, user: User, time: Nanos) -> Seq {
        let seqs = self.events.iter().filter_map(|event| match event {
            Event::Sent { op, at, outcome: Outcome::Accepted { seq, .. } } if *at < time => {
                (self.owner(*op) == Some(user)).then_some(*seq)
            }
            Event::Taken { at, user: of, seq, .. } if *at < time && *of == user => Some(*seq),
            _ => None,
        });
        seqs.max().unwrap_or_default()
    }

    /// What replicas say of their entries is true again.
    pub(crate) fn refresh(&mut self) {
        let mut digests = BTreeMap::<User, Digest>::new();
        for Entry { user, seq, copy } in self.entries() {
            digests.entry(user).or_default().add(seq, &copy);
        }
        for event in &mut self.events {
            if let Event::Mailbox { user, digest, .. } = event {
                *digest = digests.get(user).copied().unwrap_or_default().value();
            }
        }
    }

    /// Everybody saw another copy at this place.
    pub(crate) fn replace(&mut self, user: User, place: Seq, with: Copy) {
        let owners = self.owners();
        for event in &mut self.events {
            match event {
                Event::Entry { user: of, seq, copy } | Event::Taken { user: of, seq, copy, .. }
                    if (*of, *seq) == (user, place) =>
                {
                    *copy = with;
                }
                Event::RangeIs { op, entries, .. } if owners.get(op) == Some(&user) => {
                    for (_, copy) in entries.iter_mut().filter(|(seq, _)| *seq == place) {
                        *copy = with;
                    }
                }
                _ => {}
            }
        }
        self.refresh();
    }

    fn owners(&self) -> BTreeMap<Op, User> {
        let owner = |event: &Event| match event {
            Event::Send { op, sender: user, .. }
            | Event::Head { op, user, .. }
            | Event::Range { op, user, .. } => Some((*op, *user)),
            _ => None,
        };
        self.events.iter().filter_map(owner).collect()
    }

    /// Two entries were appended in the other order.
    pub(crate) fn swap(&mut self, a: Entry, b: Entry) {
        assert_eq!(a.user, b.user);
        self.replace(a.user, a.seq, b.copy);
        self.replace(b.user, b.seq, a.copy);
        let owners = self.owners();
        for event in &mut self.events {
            if let Event::Sent { op, outcome: Outcome::Accepted { seq, .. }, .. } = event
                && owners.get(op) == Some(&a.user)
            {
                *seq = match *seq {
                    seq if seq == a.seq => b.seq,
                    seq if seq == b.seq => a.seq,
                    seq => seq,
                };
            }
        }
    }

    /// An entry never was: what came after it has the seq before, for everybody. Only an
    /// acknowledgement of it remains.
    pub(crate) fn remove(&mut self, user: User, place: Seq) {
        let owners = self.owners();
        let mut kept = Vec::with_capacity(self.events.len());
        for mut event in std::mem::take(&mut self.events) {
            let its = match &event {
                Event::Sent { op, .. } | Event::HeadIs { op, .. } | Event::RangeIs { op, .. } => {
                    owners.get(op) == Some(&user)
                }
                Event::Range { user: of, .. }
                | Event::Start { user: of, .. }
                | Event::Taken { user: of, .. }
                | Event::Gap { user: of, .. }
                | Event::CursorIs { user: of, .. }
                | Event::Hint { user: of, .. }
                | Event::Mailbox { user: of, .. }
                | Event::Dropped { user: of, .. }
                | Event::Entry { user: of, .. } => *of == user,
                _ => false,
            };
            if !its || shifted(&mut event, place) {
                kept.push(event);
            }
        }
        self.events = kept;
        self.refresh();
    }

    /// One more entry at the end, which nobody took; who is away is told of it.
    pub(crate) fn append(&mut self, user: User, copy: Copy) -> Seq {
        let (_, last) = self.ends(user);
        let seq = next(last);
        for event in &mut self.events {
            if let Event::Mailbox { user: of, head, .. } = event
                && *of == user
            {
                *head = seq;
            }
        }
        let is_its = |event: &Event| match event {
            Event::Mailbox { user: of, .. } | Event::Entry { user: of, .. } => *of == user,
            _ => false,
        };
        let after = self.events.iter().rposition(is_its).expect("every mailbox was read");
        self.events.insert(after + 1, Event::Entry { user, seq, copy });
        let quiet = self.quiet();
        let Event::Quiet { at } = self.events[quiet] else { unreachable!("as found") };
        let hint = |event: &Event| match event {
            Event::Target { user: of, device, .. } if *of == user => {
                Some(Event::Hint { at, user, device: *device, head: seq })
            }
            _ => None,
        };
        let hints: Vec<Event> = self.events.iter().filter_map(hint).collect();
        self.events.splice(quiet..quiet, hints);
        self.refresh();
        seq
    }

    /// Everything that says what this send's number is says another one.
    pub(crate) fn renumber(&mut self, message: &Message, to: Origin) {
        let (key, ops) = ((message.sender, message.id), &message.ops);
        let change = |copy: &mut Copy| match copy {
            Copy::Message { sender, origin, id, .. } if (*sender, *id) == key => *origin = to,
            _ => {}
        };
        for event in &mut self.events {
            match event {
                Event::Sent { op, outcome: Outcome::Accepted { origin, .. }, .. }
                    if ops.contains(op) =>
                {
                    *origin = origin.and(Some(to));
                }
                Event::Entry { copy, .. } | Event::Taken { copy, .. } => change(copy),
                Event::RangeIs { entries, .. } => {
                    entries.iter_mut().for_each(|(_, copy)| change(copy));
                }
                _ => {}
            }
        }
        self.refresh();
    }

    /// The places of a device's events of this kind, in order.
    pub(crate) fn of_device(
        &self,
        (user, device): (User, Device),
        is_it: impl Fn(&Event) -> bool,
    ) -> Vec<usize> {
        let its = |event: &Event| match event {
            Event::Start { user: of, device: which, .. }
            | Event::Stop { user: of, device: which, .. }
            | Event::Taken { user: of, device: which, .. }
            | Event::Gap { user: of, device: which, .. }
            | Event::CursorIs { user: of, device: which, .. } => (*of, *which) == (user, device),
            _ => false,
        };
        let found = self.events.iter().enumerate().filter(|(_, event)| its(event) && is_it(event));
        found.map(|(at, _)| at).collect()
    }

    /// Where the load has ended.
    pub(crate) fn quiet(&self) -> usize {
        let quiet = self.events.iter().position(|event| matches!(event, Event::Quiet { .. }));
        quiet.expect("it came to rest")
    }
}

/// What is left of an event of a mailbox whose entry at `place` never was; false if nothing is.
fn shifted(event: &mut Event, place: Seq) -> bool {
    let shift = |seq: &mut Seq| {
        if *seq >= place {
            *seq = seq.back(1);
        }
    };
    match event {
        Event::Sent { outcome: Outcome::Accepted { seq, .. }, .. } if *seq > place => shift(seq),
        Event::Taken { seq, .. } | Event::Entry { seq, .. } | Event::Dropped { seq, .. }
            if *seq == place =>
        {
            return false;
        }
        Event::Taken { seq, .. }
        | Event::Entry { seq, .. }
        | Event::Dropped { seq, .. }
        | Event::HeadIs { seq, .. }
        | Event::CursorIs { seq, .. }
        | Event::Range { after: seq, .. }
        | Event::Start { cursor: seq, .. }
        | Event::Gap { to: seq, .. }
        | Event::Hint { head: seq, .. }
        | Event::Mailbox { head: seq, .. } => shift(seq),
        Event::RangeIs { entries, .. } => {
            let was_empty = entries.is_empty();
            entries.retain(|(seq, _)| *seq != place);
            entries.iter_mut().for_each(|(seq, _)| shift(seq));
            // An empty page would say that there is no more.
            return was_empty || !entries.is_empty();
        }
        _ => {}
    }
    true
}
