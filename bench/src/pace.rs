//! Open-loop load: messages are due at fixed times, whatever became of the ones before; or all at once.
//!
//! A thread of its own wakes for them, on every millisecond at which there are some: a load that woke for each
//! of 12,000 a second would interrupt the servers as often, on the processors that it shares with them. A message
//! that waits for the millisecond, or for a sender that cannot keep up, counts from when it was due.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::mpsc;

use crate::meter::{Meter, Phase};

/// Messages that wait for one sender. When it is full the thread waits; the due times do not.
const WAITING_MAX: usize = 4_096;

/// How far apart the thread wakes, at the least.
const TICK: Duration = Duration::from_millis(1);

/// When each message is due.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    start: Duration,
    rate: u32,
}

impl Schedule {
    /// From `start` on, `rate` in a second, at least 1.
    fn new(start: Duration, rate: u32) -> Self {
        Schedule { start, rate: rate.max(1) }
    }

    /// When message `index`, from 0, is due. Computed from the start, so that no error adds up.
    fn due(&self, index: u64) -> Duration {
        let rate = u64::from(self.rate);
        let rest = index % rate * 1_000_000_000 / rate;
        self.start + Duration::from_secs(index / rate) + Duration::from_nanos(rest)
    }

    /// The first tick at which something that is due then has come due.
    fn tick(&self, due: Duration) -> Duration {
        let ticks = (due - self.start).as_nanos().div_ceil(TICK.as_nanos());
        self.start + TICK * u32::try_from(ticks).expect("no run takes weeks")
    }
}

/// A queue of due messages for each of `senders`.
pub(crate) fn queues(
    senders: usize,
) -> (Vec<mpsc::Sender<Duration>>, Vec<mpsc::Receiver<Duration>>) {
    (0..senders).map(|_| mpsc::channel(WAITING_MAX)).unzip()
}

/// Hands due messages to the senders in turn, until the phase changes or they are gone.
pub(crate) fn start(
    meter: Arc<Meter>,
    rate: u32,
    queues: Vec<mpsc::Sender<Duration>>,
) -> io::Result<()> {
    let phases = meter.phases();
    let pace = move || {
        let schedule = Schedule::new(meter.now(), rate);
        for (index, queue) in (0..).zip(queues.iter().cycle()) {
            let due = schedule.due(index);
            thread::sleep(schedule.tick(due).saturating_sub(meter.now()));
            if *phases.borrow() != Phase::Run || queue.blocking_send(due).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("pace".to_owned()).spawn(pace)?;
    Ok(())
}

/// Hands each sender so many messages that are due at once. It is done when the last ones were handed
/// over, or their senders are gone.
pub(crate) async fn burst(meter: &Meter, queues: Vec<mpsc::Sender<Duration>>, counts: &[u64]) {
    let hand = async |queue: mpsc::Sender<Duration>, count: u64| {
        for _ in 0..count {
            if queue.send(meter.now()).await.is_err() {
                return;
            }
        }
    };
    join_all(queues.into_iter().zip(counts).map(|(queue, count)| hand(queue, *count))).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_that_divides_no_second_keeps_its_pace() {
        let start = Duration::from_millis(500);
        for rate in [1, 3, 7, 1_000, 999_983] {
            let schedule = Schedule::new(start, rate);
            assert_eq!(schedule.due(0), start);
            for seconds in [1, 60, 3_600] {
                let due = schedule.due(u64::from(rate) * seconds);
                assert_eq!(due, start + Duration::from_secs(seconds), "{rate}");
            }
        }
    }

    #[test]
    fn messages_are_due_one_after_the_other() {
        let schedule = Schedule::new(Duration::ZERO, 3);
        let due: Vec<_> = (0..5).map(|index| schedule.due(index).as_millis()).collect();
        assert_eq!(due, [0, 333, 666, 1_000, 1_333]);
    }

    #[test]
    fn what_is_due_waits_for_the_next_tick_and_no_longer() {
        let start = Duration::from_micros(500);
        let schedule = Schedule::new(start, 4_000);
        let waits: Vec<_> =
            (0..6).map(|at| schedule.tick(schedule.due(at)) - schedule.due(at)).collect();
        assert_eq!(
            waits.iter().map(Duration::as_micros).collect::<Vec<_>>(),
            [0, 750, 500, 250, 0, 750]
        );
    }

    #[tokio::test]
    async fn a_burst_gives_each_sender_its_count_and_ends() {
        let meter = Meter::new();
        let (senders, mut receivers) = queues(3);
        let counts = [2, 0, WAITING_MAX as u64 + 5];
        let drained = async {
            let mut drained = Vec::new();
            for receiver in &mut receivers {
                let mut count = 0;
                while receiver.recv().await.is_some() {
                    count += 1;
                }
                drained.push(count);
            }
            drained
        };
        let ((), drained) = tokio::join!(burst(&meter, senders, &counts), drained);
        assert_eq!(drained, counts);
        let (senders, receivers) = queues(1);
        drop(receivers);
        burst(&meter, senders, &[5]).await;
    }

    #[test]
    fn due_messages_go_to_the_senders_in_turn_until_the_run_ends() {
        let meter = Arc::new(Meter::new());
        let (senders, mut receivers) = queues(2);
        start(meter.clone(), 1_000, senders).expect("a thread");
        let due: Vec<_> =
            (0..6).map(|at| receivers[at % 2].blocking_recv().expect("due")).collect();
        assert!(due.is_sorted());
        assert_eq!(due[5] - due[0], Duration::from_millis(5));
        meter.enter(Phase::Drain);
        for receiver in &mut receivers {
            while receiver.blocking_recv().is_some() {}
        }
    }
}
