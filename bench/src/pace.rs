//! Open-loop load: messages are due at fixed times, whatever became of the ones before.
//!
//! A thread of its own wakes for each one, since the runtime's timers have whole milliseconds. A
//! sender that cannot keep up gets its messages late and measures from when they were due.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::meter::{Meter, Phase};

/// Messages that wait for one sender. When it is full the thread waits; the due times do not.
const WAITING_MAX: usize = 4_096;

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
            thread::sleep(due.saturating_sub(meter.now()));
            if *phases.borrow() != Phase::Run || queue.blocking_send(due).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("pace".to_owned()).spawn(pace)?;
    Ok(())
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
