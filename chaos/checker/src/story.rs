//! One mailbox's part of a history.

use std::collections::HashSet;

use crate::history::{Copy, Event, Op, ReadError, User};

/// The events of one mailbox, in the order of those it is taken from: what its user sends, what is
/// sent to it, what is read and taken of it, what replicas hold. With them the faults, which are
/// every mailbox's.
#[derive(Debug)]
pub struct Story<I> {
    events: I,
    user: User,
    /// Its operations that have no answer yet.
    open: HashSet<Op>,
}

impl<I: Iterator<Item = Result<Event, ReadError>>> Story<I> {
    /// The part of `events` that is `user`'s.
    pub fn of(events: I, user: User) -> Self {
        Story { events, user, open: HashSet::new() }
    }

    fn is_in(&mut self, event: &Event) -> bool {
        let own = |user: &User| *user == self.user;
        match event {
            Event::Send { op, sender, to, .. } => {
                let is_in = own(sender) || to.iter().any(own);
                if is_in {
                    self.open.insert(*op);
                }
                is_in
            }
            Event::Head { op, user, .. } | Event::Range { op, user, .. } => {
                let is_in = own(user);
                if is_in {
                    self.open.insert(*op);
                }
                is_in
            }
            Event::Sent { op, .. } | Event::HeadIs { op, .. } | Event::RangeIs { op, .. } => {
                self.open.remove(op)
            }
            Event::Entry { user, copy, .. } | Event::ReplicaEntry { user, copy, .. } => {
                own(user) || self.tells_of(copy)
            }
            Event::Start { user, .. }
            | Event::Stop { user, .. }
            | Event::Taken { user, .. }
            | Event::Gap { user, .. }
            | Event::CursorIs { user, .. }
            | Event::Silent { user, .. }
            | Event::Target { user, .. }
            | Event::Hint { user, .. }
            | Event::Mailbox { user, .. }
            | Event::Dropped { user, .. } => own(user),
            Event::Decided { user, sender, .. } => own(user) || own(sender),
            Event::Judged { sender, .. } => own(sender),
            Event::Quiet { .. } | Event::Fault { .. } | Event::Healed { .. } => true,
            Event::StateHash { .. }
            | Event::Raft(_)
            | Event::Effect { .. }
            | Event::Probe { .. }
            | Event::ProbeAck { .. }
            | Event::Cost { .. } => false,
        }
    }

    /// Is it a refusal by this user, which lies in the sender's mailbox?
    fn tells_of(&self, copy: &Copy) -> bool {
        matches!(copy, Copy::Refusal { recipient, .. } if *recipient == self.user)
    }
}

impl<I: Iterator<Item = Result<Event, ReadError>>> Iterator for Story<I> {
    type Item = Result<Event, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let event = self.events.next()?;
            match &event {
                Ok(event) if !self.is_in(event) => {}
                Ok(_) | Err(_) => return Some(event),
            }
        }
    }
}
