//! What a device sends, to whom, and when: closed loop (a number always in flight) or open loop
//! (messages are due at fixed times).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidemark_env::{Clock, Rng, SeededRng};
use tidemark_proto::v1;
use tidemark_types::limits::SEND_WINDOW;
use tidemark_types::{ClientMsgId, IdKind, UserId};
use tokio::sync::mpsc;

use crate::body::{Bodies, Stamp};
use crate::meter::{Meter, count};
use crate::outbox::{Answered, Outbox, Wrong};

/// What makes a message due.
pub(crate) enum Load {
    /// The acknowledgement of another one, with so many in flight.
    Closed(usize),
    /// Its time, as the pace tells; none once there are no more.
    Open(Option<mpsc::Receiver<Duration>>),
}

/// In an open loop so many may be in flight, as with the SDK: half of the server's window, so that
/// sends that go again fit as well.
const OPEN_IN_FLIGHT: usize = 128;

/// Whom a sender writes to: some of all recipients.
pub(crate) struct Correspondents {
    /// All recipients of the run.
    pub(crate) all: Arc<[UserId]>,
    /// Which of them are this sender's, by their place in the list.
    pub(crate) mine: Vec<u32>,
}

/// The sending half of a device.
pub(crate) struct Sender {
    /// Its number, which stands in its messages.
    pub(crate) index: u32,
    outbox: Outbox,
    to: Correspondents,
    /// Messages sent to each of `to.mine`.
    sent: Vec<u64>,
    load: Load,
    bodies: Arc<Bodies>,
    meter: Arc<Meter>,
    rng: SeededRng,
    /// No new message may be sent.
    drains: bool,
    /// Set while sends wait to go again: when.
    resume: Option<Duration>,
    done: bool,
}

impl Sender {
    /// Sender number `index`, in its new session.
    pub(crate) fn new(
        index: u32,
        session: u64,
        to: Correspondents,
        load: Load,
        bodies: Arc<Bodies>,
        meter: Arc<Meter>,
    ) -> Self {
        count(&meter.counters.senders);
        Sender {
            index,
            outbox: Outbox::new(session),
            sent: vec![0; to.mine.len()],
            to,
            load,
            bodies,
            meter,
            rng: SeededRng::new(u64::from(index)),
            drains: false,
            resume: None,
            done: false,
        }
    }

    /// How many messages went to which recipient.
    pub(crate) fn sent(&self) -> impl Iterator<Item = (u32, u64)> {
        self.to.mine.iter().copied().zip(self.sent.iter().copied())
    }

    /// How many messages were sent.
    pub(crate) fn total(&self) -> u64 {
        self.outbox.next() - 1
    }

    /// The next send of a closed loop, if one may go.
    pub(crate) fn next(&mut self) -> Option<v1::Send> {
        let Load::Closed(in_flight) = self.load else { return None };
        let room = self.has_room(in_flight) && !self.drains;
        room.then(|| self.compose(self.meter.now()))
    }

    /// May one more go, with at most so many in flight? One answer that is late holds up the
    /// server's window.
    fn has_room(&self, in_flight_max: usize) -> bool {
        let has_window = (self.outbox.span() as u64) < SEND_WINDOW;
        has_window && self.outbox.unanswered() < in_flight_max && !self.outbox.is_stalled()
    }

    /// Waits for the next time a message is due or sends go again; for ever when there is none.
    pub(crate) async fn due(&mut self) -> Due {
        if let Some(at) = self.resume {
            tokio::time::sleep(at.saturating_sub(self.meter.now())).await;
            return Due::Resend;
        }
        let room = self.has_room(OPEN_IN_FLIGHT);
        match &mut self.load {
            Load::Open(Some(queue)) if room => match queue.recv().await {
                Some(due) => Due::Message(due),
                None => Due::NoMore,
            },
            Load::Open(_) | Load::Closed(_) => std::future::pending().await,
        }
    }

    /// What is to be sent, now that something is due.
    pub(crate) fn take(&mut self, due: Due) -> Vec<v1::Send> {
        match due {
            Due::Message(due) => vec![self.compose(due)],
            Due::Resend => {
                self.resume = None;
                count(&self.meter.counters.resends);
                self.outbox.resend()
            }
            Due::NoMore => {
                self.load = Load::Open(None);
                self.settle();
                Vec::new()
            }
        }
    }

    /// An answer came.
    pub(crate) fn answered(&mut self, ack: v1::SendAck) -> Result<(), Wrong> {
        match self.outbox.answered(ack)? {
            Answered::Accepted { due } => self.meter.acked(due),
            Answered::Later => {}
        }
        if let Some(pause) = self.outbox.pause() {
            self.resume = Some(self.meter.now() + pause);
        }
        self.settle();
        Ok(())
    }

    /// Sends no new messages but those that are due already.
    pub(crate) fn drain(&mut self) {
        self.drains = true;
        if let Load::Open(Some(queue)) = &mut self.load {
            queue.close();
        }
        self.settle();
    }

    /// Once all is sent and acknowledged, this sender no longer counts.
    fn settle(&mut self) {
        let over = self.drains && !matches!(self.load, Load::Open(Some(_)));
        if over && self.outbox.unanswered() == 0 && !self.done {
            self.done = true;
            self.meter.sender_done();
        }
    }

    fn compose(&mut self, due: Duration) -> v1::Send {
        let choices = self.sent.len() as u64;
        let choice = if choices > 1 { self.rng.number() % choices } else { 0 };
        let choice = usize::try_from(choice).expect("below a length");
        self.sent[choice] += 1;
        let recipient = usize::try_from(self.to.mine[choice]).expect("a place in a list");
        let name = self.to.all[recipient].to_string();
        let to = v1::Id { kind: IdKind::User as i32, name };
        let (n, k) = (self.outbox.next(), self.sent[choice]);
        let body = self.bodies.write(&Stamp { sender: self.index, n, k, due });
        let mut random = [0; 10];
        self.rng.fill(&mut random);
        let id = ClientMsgId::new(self.meter.clock.wall(), random);
        count(&self.meter.counters.sent);
        self.outbox.push(to, body, Bytes::copy_from_slice(id.as_bytes()), due)
    }
}

/// What is due.
#[derive(Debug)]
pub(crate) enum Due {
    /// A message, and since when.
    Message(Duration),
    /// Sends that were not taken go again.
    Resend,
    /// There will be no more messages.
    NoMore,
}
