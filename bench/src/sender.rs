//! What a device sends, to whom, and when: closed loop (a number always in flight) or open loop
//! (messages are due at fixed times).

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tidemark_env::{Clock, Rng, SeededRng};
use tidemark_proto::v1;
use tidemark_types::limits::{SEND_WINDOW, SEND_WINDOW_BYTES};
use tidemark_types::{ClientMsgId, GroupId, IdKind, Recipient, UserId};
use tokio::sync::mpsc;

use crate::body::{Bodies, Stamp};
use crate::meter::{Meter, Pulse, add, count};
use crate::outbox::{Answered, Outbox, Wrong};

/// What makes a message due.
pub(crate) enum Load {
    /// The acknowledgement of another one, with so many in flight.
    Closed(usize),
    /// Its time, as the pace tells; none once there are no more.
    Open(Option<mpsc::Receiver<Duration>>),
}

/// In an open loop so many may be in flight at most, as with the SDK: half of the server's window, so
/// that sends that go again fit as well.
const OPEN_IN_FLIGHT_MAX: usize = 128;

/// Whom a sender writes to: some of all recipients.
pub(crate) struct Correspondents {
    /// All recipients of the run.
    pub(crate) all: Arc<[UserId]>,
    /// Which of them are this sender's, by their place in the list; at least one.
    pub(crate) mine: Vec<u32>,
    /// Which of those a message goes to.
    pub(crate) aim: Aim,
}

/// Which of a sender's recipients a message goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    /// One, drawn for each message.
    One,
    /// All of them.
    All,
    /// All of them, by the group whose members they are.
    Group(GroupId),
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
    pulse: Pulse,
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
            pulse: Pulse::default(),
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
        let in_window = SEND_WINDOW_BYTES / self.bodies.bytes();
        let room = self.has_room(in_window.clamp(1, OPEN_IN_FLIGHT_MAX));
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
            Answered::Accepted { due } => self.meter.acked(due, &mut self.pulse),
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
        let chosen = self.choose();
        self.sent[chosen.clone()].iter_mut().for_each(|sent| *sent += 1);
        // Those who get each message got as many as one another.
        let (n, k) = (self.outbox.next(), self.sent[chosen.start]);
        let copies = chosen.len() as u64;
        let to: Vec<v1::Id> = match &self.to.aim {
            Aim::Group(group) => vec![v1::Id::from(&Recipient::Group(group.clone()))],
            Aim::One | Aim::All => self.to.mine[chosen].iter().map(|at| self.id(*at)).collect(),
        };
        let body = self.bodies.write(&Stamp { sender: self.index, n, k, due });
        let mut random = [0; 10];
        self.rng.fill(&mut random);
        let id = ClientMsgId::new(self.meter.clock.wall(), random);
        count(&self.meter.counters.sent);
        add(&self.meter.counters.copies, copies);
        self.outbox.push(to, body, id.as_bytes().to_vec(), due)
    }

    /// Whom the next message goes to, by their places in `to.mine`.
    fn choose(&self) -> Range<usize> {
        let choices = self.sent.len();
        if self.to.aim != Aim::One || choices == 1 {
            return 0..choices;
        }
        let choice = usize::try_from(self.rng.number() % choices as u64).expect("below a length");
        choice..choice + 1
    }

    fn id(&self, place: u32) -> v1::Id {
        let place = usize::try_from(place).expect("a place in a list");
        v1::Id { kind: IdKind::User as i32, name: self.to.all[place].to_string() }
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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn sender(aim: Aim, in_flight: usize) -> Sender {
        let all: Vec<_> =
            ["a", "b", "c", "d"].map(|name| UserId::new(name).expect("a name")).into();
        let to = Correspondents { all: all.into(), mine: vec![0, 2, 3], aim };
        let (bodies, meter) = (Arc::new(Bodies::new(64)), Arc::new(Meter::new()));
        Sender::new(5, 1, to, Load::Closed(in_flight), bodies, meter)
    }

    /// Whom each message went to, and which one to each of them it says it is.
    fn sends(sender: &mut Sender) -> Vec<(Vec<String>, u64)> {
        let bodies = Bodies::new(64);
        std::iter::from_fn(|| sender.next())
            .map(|send| {
                let k = bodies.read(&send.body).expect("as it was written").k;
                (send.to.into_iter().map(|to| to.name).collect(), k)
            })
            .collect()
    }

    #[test]
    fn a_message_goes_to_one_of_the_senders_own_and_each_is_counted() {
        let mut sender = sender(Aim::One, 60);
        let sends = sends(&mut sender);
        let mut counts = BTreeMap::<String, u64>::new();
        for (to, k) in &sends {
            assert_eq!(to.len(), 1);
            let count = counts.entry(to[0].clone()).or_default();
            *count += 1;
            assert_eq!(*k, *count);
        }
        let names: BTreeSet<_> = counts.keys().map(String::as_str).collect();
        assert_eq!(names, ["a", "c", "d"].into());
        let told: Vec<_> = sender.sent().collect();
        assert_eq!(told, [(0, counts["a"]), (2, counts["c"]), (3, counts["d"])]);
        assert_eq!(sender.meter.counts().copies, 60);
    }

    #[test]
    fn a_message_to_a_group_names_the_group_and_is_each_members_next() {
        let mut sender = sender(Aim::Group(GroupId::new("g").expect("a name")), 2);
        assert_eq!(sends(&mut sender), [(vec!["g".to_owned()], 1), (vec!["g".to_owned()], 2)]);
        assert_eq!(sender.sent().collect::<Vec<_>>(), [(0, 2), (2, 2), (3, 2)]);
        assert_eq!(sender.meter.counts().copies, 6);
    }

    #[test]
    fn a_message_to_all_is_each_ones_next() {
        let mut sender = sender(Aim::All, 3);
        let all = || ["a", "c", "d"].map(str::to_owned).to_vec();
        assert_eq!(sends(&mut sender), [(all(), 1), (all(), 2), (all(), 3)]);
        assert_eq!(sender.sent().collect::<Vec<_>>(), [(0, 3), (2, 3), (3, 3)]);
        let counts = sender.meter.counts();
        assert_eq!((counts.sent, counts.copies), (3, 9));
    }
}
