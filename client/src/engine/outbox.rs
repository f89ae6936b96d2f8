//! The sends without an outcome, in the order in which they were made.
//!
//! ```text
//!   front                         next                 end
//!     │  ·  settled  ·  settled     │  ·   ·   ·   ·    │
//!     └── unsettled, or the end     └── sent again      └── the id of the next send
//!                                       from here
//! ```
//!
//! Every question costs the same however much it holds: a send is found by its id, and what is
//! settled leaves when everything before it has left. Invariant: the front is not settled.

use std::collections::{BTreeMap, VecDeque};

use tidemark_proto::v1;

use crate::store::OutboxId;

/// The sends without an outcome.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    front: OutboxId,
    /// By id from the front; none once it is settled.
    slots: VecDeque<Option<v1::Send>>,
    unsettled: usize,
    /// The next send to go out on this connection.
    next: OutboxId,
    /// Unsettled sends between front and next, and the bytes of their bodies.
    in_flight: usize,
    in_flight_bytes: usize,
}

impl Outbox {
    /// What a store holds; the next send gets the id `end` or a higher one.
    pub(super) fn restore(mut saved: BTreeMap<OutboxId, v1::Send>, end: OutboxId) -> Self {
        let unsettled = saved.len();
        let end = saved.last_key_value().map_or(end, |(last, _)| last.plus(1).max(end));
        let front = saved.first_key_value().map_or(end, |(first, _)| *first);
        let slots = (0..end.since(front)).map(|at| saved.remove(&front.plus(at))).collect();
        Outbox { front, slots, unsettled, next: front, in_flight: 0, in_flight_bytes: 0 }
    }

    /// The first unsettled send, or the end.
    pub(super) fn front(&self) -> OutboxId {
        self.front
    }

    /// The id of the next send.
    pub(super) fn end(&self) -> OutboxId {
        self.front.plus(self.slots.len() as u64)
    }

    /// How many have no outcome.
    pub(super) fn len(&self) -> usize {
        self.unsettled
    }

    /// A send without an outcome.
    pub(super) fn get(&self, id: OutboxId) -> Option<&v1::Send> {
        self.slots.get(self.place(id)?)?.as_ref()
    }

    /// The next send to go out.
    pub(super) fn next(&self) -> OutboxId {
        self.next
    }

    /// How many went out and have no answer.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Bytes of their bodies.
    pub(super) fn in_flight_bytes(&self) -> usize {
        self.in_flight_bytes
    }

    /// The next one went out, or was settled before.
    pub(super) fn pass(&mut self) {
        if let Some(send) = self.get(self.next) {
            self.in_flight_bytes += send.body.len();
            self.in_flight += 1;
        }
        self.next = self.next.plus(1);
    }

    /// This one goes out next, and all behind it again.
    pub(super) fn go_back(&mut self, to: OutboxId) {
        while self.next > to.max(self.front) {
            self.next = OutboxId::new(self.next.get() - 1);
            if let Some(send) = self.get(self.next) {
                self.in_flight_bytes -= send.body.len();
                self.in_flight -= 1;
            }
        }
    }

    /// Adds a send.
    pub(super) fn push(&mut self, send: v1::Send) -> OutboxId {
        let id = self.end();
        self.slots.push_back(Some(send));
        self.unsettled += 1;
        id
    }

    /// Takes out a send that has an outcome now.
    pub(super) fn settle(&mut self, id: OutboxId) -> Option<v1::Send> {
        let place = self.place(id)?;
        let send = self.slots.get_mut(place)?.take()?;
        self.unsettled -= 1;
        if id < self.next {
            self.in_flight_bytes -= send.body.len();
            self.in_flight -= 1;
        }
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.front = self.front.plus(1);
        }
        self.next = self.next.max(self.front);
        Some(send)
    }

    fn place(&self, id: OutboxId) -> Option<usize> {
        usize::try_from(id.get().checked_sub(self.front.get())?).ok()
    }
}
