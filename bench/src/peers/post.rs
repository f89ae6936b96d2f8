//! The writing half of a load: one sender's messages, in a closed or an open loop. The same as
//! `sender.rs` does over our own protocol: whom it writes to, how many are in flight, when they are
//! due.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tidemark_env::{Rng, SeededRng};
use tokio::sync::mpsc;

use crate::body::Stamp;
use crate::meter::{Phase, Pulse, count};
use crate::peers::load::{Desk, Fault, Letter, Load, Work, Write};

/// In an open loop so many of one sender's may be in flight, as in our own.
const OPEN_IN_FLIGHT: usize = 128;

/// A sender.
pub(crate) struct Post<W> {
    writer: W,
    composer: Composer,
    /// In a closed loop, how many are in flight.
    in_flight: usize,
    /// In an open loop, when messages are due.
    due: Option<mpsc::Receiver<Duration>>,
    desk: Arc<Desk>,
}

/// What a sender leaves behind.
pub(crate) struct Posted {
    pub(crate) sender: u32,
    /// How many it sent to each recipient.
    pub(crate) sent: Vec<u64>,
    pub(crate) fault: Option<Fault>,
}

/// Whose acknowledgement came, by its due time.
type Acked = BoxFuture<'static, Result<Duration, Fault>>;

impl<W: Write> Post<W> {
    /// Sender `index` of a load; with `due` its loop is open.
    pub(crate) fn new(
        index: u32,
        load: &Load,
        writer: W,
        due: Option<mpsc::Receiver<Duration>>,
        desk: Arc<Desk>,
    ) -> Self {
        count(&desk.meter.counters.senders);
        let open = load.rate.is_some();
        let in_flight = if open { 0 } else { load.in_flight as usize };
        Post { writer, composer: Composer::new(index, load), in_flight, due, desk }
    }

    /// Sends until the run drains, and waits for the acknowledgements.
    pub(crate) async fn run(mut self) -> Posted {
        let fault = self.send().await.err();
        if fault.is_some() {
            self.desk.meter.fault();
        }
        self.desk.meter.sender_done();
        let Composer { index, sent, .. } = self.composer;
        Posted { sender: index, sent, fault }
    }

    async fn send(&mut self) -> Result<(), Fault> {
        let mut phases = self.desk.meter.phases();
        let mut acks = FuturesUnordered::<Acked>::new();
        let mut pulse = Pulse::default();
        let mut drains = false;
        loop {
            while !drains && acks.len() < self.in_flight {
                let ack = self.write(self.desk.meter.now()).await?;
                acks.push(ack);
            }
            if drains && self.due.is_none() && acks.is_empty() {
                return Ok(());
            }
            let has_room = acks.len() < OPEN_IN_FLIGHT;
            tokio::select! {
                Some(acked) = acks.next() => self.desk.meter.acked(acked?, &mut pulse),
                due = next(&mut self.due), if has_room => match due {
                    Some(due) => {
                        let ack = self.write(due).await?;
                        acks.push(ack);
                    }
                    None => self.due = None,
                },
                // The meter outlives its senders, who hold it.
                Ok(()) = phases.changed() => match *phases.borrow_and_update() {
                    Phase::Run => {}
                    Phase::Drain => {
                        drains = true;
                        if let Some(due) = &mut self.due {
                            due.close();
                        }
                    }
                    // What is missing by then is missing.
                    Phase::Finish => return Ok(()),
                },
            }
        }
    }

    async fn write(&mut self, due: Duration) -> Result<Acked, Fault> {
        let letter = self.composer.compose(due, &self.desk);
        count(&self.desk.meter.counters.sent);
        let ack = self.writer.write(letter).await?;
        Ok(ack.map(move |acked| acked.map(|()| due)).boxed())
    }
}

/// The next due time; for ever where there is none to come.
async fn next(due: &mut Option<mpsc::Receiver<Duration>>) -> Option<Duration> {
    match due {
        Some(due) => due.recv().await,
        None => std::future::pending().await,
    }
}

/// Writes a sender's messages.
struct Composer {
    index: u32,
    work: Work,
    /// Messages sent to each recipient.
    sent: Vec<u64>,
    n: u64,
    rng: SeededRng,
}

impl Composer {
    fn new(index: u32, load: &Load) -> Self {
        let sent = vec![0; load.recipients() as usize];
        let rng = SeededRng::new(u64::from(index));
        Composer { index, work: load.work, sent, n: 0, rng }
    }

    fn compose(&mut self, due: Duration, desk: &Desk) -> Letter {
        let to = self.recipient();
        let sent = &mut self.sent[to as usize];
        *sent += 1;
        self.n += 1;
        let (sender, n, k) = (self.index, self.n, *sent);
        let body = desk.bodies.write(&Stamp { sender, n, k, due });
        Letter { sender, to, k, body }
    }

    fn recipient(&mut self) -> u32 {
        let any = |rng: &mut SeededRng, of: u32| {
            u32::try_from(rng.number() % u64::from(of.max(1))).expect("below a u32")
        };
        match self.work {
            Work::Stored { users } => any(&mut self.rng, users),
            Work::Shared => self.index,
            Work::Inboxes => {
                let users = u32::try_from(self.sent.len()).expect("a load's own number");
                // Any but itself: the one that many places further on.
                (self.index + 1 + any(&mut self.rng, users.saturating_sub(1))) % users
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::body::Bodies;
    use crate::meter::Meter;
    use crate::peers::load::Ack;

    fn load(work: Work) -> Load {
        let second = Duration::from_secs(1);
        Load {
            work,
            senders: 4,
            in_flight: 3,
            rate: None,
            connections: 1,
            body: 64,
            warmup: second,
            measured: second,
            threads: 2,
        }
    }

    fn desk() -> Arc<Desk> {
        Arc::new(Desk { meter: Arc::new(Meter::new()), bodies: Bodies::new(64) })
    }

    fn recipients(index: u32, work: Work) -> BTreeSet<u32> {
        let mut composer = Composer::new(index, &load(work));
        (0..200).map(|_| composer.recipient()).collect()
    }

    #[test]
    fn whom_a_sender_writes_to_is_the_works() {
        assert_eq!(recipients(3, Work::Shared), BTreeSet::from([3]));
        assert_eq!(recipients(3, Work::Inboxes), BTreeSet::from([0, 1, 2]));
        assert_eq!(recipients(1, Work::Stored { users: 5 }), (0..5).collect());
    }

    #[test]
    fn letters_to_one_recipient_are_numbered_without_a_hole() {
        let (desk, mut composer) = (desk(), Composer::new(2, &load(Work::Inboxes)));
        let mut last = [0; 4];
        for n in 1..=100 {
            let letter = composer.compose(Duration::ZERO, &desk);
            let stamp = desk.bodies.read(&letter.body).expect("just written");
            last[letter.to as usize] += 1;
            assert_eq!((stamp.n, stamp.k, stamp.sender), (n, last[letter.to as usize], 2));
            assert_eq!(letter.k, stamp.k);
        }
        assert_eq!(composer.sent, last);
    }

    /// Acknowledges after a moment, and says how many were in flight at most.
    struct Slow {
        sends: mpsc::Sender<()>,
        fails_at: u64,
    }

    impl Write for Slow {
        async fn write(&mut self, letter: Letter) -> Result<Ack, Fault> {
            self.sends.try_send(()).map_err(Fault::write)?;
            let fails = letter.k >= self.fails_at;
            Ok(async move {
                tokio::time::sleep(Duration::from_millis(5)).await;
                if fails { Err(Fault::ack("refused")) } else { Ok(()) }
            }
            .boxed())
        }
    }

    async fn run(fails_at: u64) -> (Posted, u64, Arc<Desk>) {
        let (desk, (sends, mut sent)) = (desk(), mpsc::channel(1_000));
        let writer = Slow { sends, fails_at };
        let post = Post::new(0, &load(Work::Shared), writer, None, desk.clone());
        let posting = tokio::spawn(post.run());
        for _ in 0..9 {
            sent.recv().await.expect("it sends");
        }
        desk.meter.enter(Phase::Drain);
        let posted = posting.await.expect("no panic");
        (posted, desk.meter.counts().acked, desk)
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_loop_keeps_its_window_full_and_drains() {
        let (posted, acked, desk) = run(u64::MAX).await;
        assert!(posted.fault.is_none());
        assert_eq!(posted.sent[0], acked);
        assert!(desk.meter.all_senders_are_done());
        assert!((9..=12).contains(&acked), "{acked}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_message_is_a_fault() {
        let (posted, _, desk) = run(7).await;
        assert!(matches!(posted.fault, Some(Fault::Ack(_))));
        assert!(desk.meter.is_faulty());
    }
}
