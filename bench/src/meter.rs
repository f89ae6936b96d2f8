//! What all devices of a run share: the clock, the phase, the counts and the histograms.
//!
//! ```text
//!   Run ──────────────────────────────► Drain ─────────────► Finish
//!    warm-up │ measured ......... │ no new message, until   devices confirm
//!                                   all have arrived        and leave
//! ```
//!
//! Rates come from the counts at both ends of the measured time. Latencies are those of messages
//! that were *due* in it, however late they arrive, so that a stall is not left out (coordinated
//! omission).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tidemark_env::{Clock, SystemClock};
use tokio::sync::watch;

/// Longer latencies are taken for this, in microseconds.
const LATENCY_MAX_US: u64 = 120_000_000;

/// Three digits: an error of a thousandth at most.
const DIGITS: u8 = 3;

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Messages are sent.
    Run,
    /// No new ones are.
    Drain,
    /// Devices confirm what they have, and leave.
    Finish,
}

/// Counts since the run began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Messages sent for the first time.
    pub(crate) sent: u64,
    /// Copies that those make for recipients.
    pub(crate) copies: u64,
    /// Messages acknowledged.
    pub(crate) acked: u64,
    /// Copies that arrived at recipients' devices.
    pub(crate) delivered: u64,
    /// Copies that arrived at the senders' own devices.
    pub(crate) own: u64,
    /// Pages that devices had to ask for.
    pub(crate) syncs: u64,
    /// Rounds in which a device's sends went again.
    pub(crate) resends: u64,
}

/// Counts, by many threads.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) sent: AtomicU64,
    pub(crate) copies: AtomicU64,
    pub(crate) acked: AtomicU64,
    pub(crate) delivered: AtomicU64,
    pub(crate) own: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) resends: AtomicU64,
    /// Senders that may still send or wait for acknowledgements.
    pub(crate) senders: AtomicU64,
}

/// One more.
pub(crate) fn count(counter: &AtomicU64) {
    add(counter, 1);
}

/// So many more.
pub(crate) fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Relaxed);
}

/// When something of one kind came to one device last.
#[derive(Debug, Default)]
pub(crate) struct Pulse(Option<Duration>);

/// The longest time in which nothing came to one device, of all devices and as far as it was
/// measured. Of a stall it tells how long it was, where quantiles tell how many messages it held up.
#[derive(Default)]
pub(crate) struct Silence(AtomicU64);

impl Silence {
    /// How long it was.
    pub(crate) fn longest(&self) -> Duration {
        Duration::from_nanos(self.0.load(Relaxed))
    }
}

/// A distribution of latencies.
pub(crate) struct Latencies(Mutex<Histogram<u64>>);

impl Latencies {
    fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_MAX_US, DIGITS);
        Latencies(Mutex::new(histogram.expect("the bounds are legal")))
    }

    fn record(&self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(LATENCY_MAX_US);
        self.0.lock().saturating_record(us);
    }

    /// What was recorded.
    pub(crate) fn histogram(&self) -> Histogram<u64> {
        self.0.lock().clone()
    }
}

/// Shared by all devices of a run.
pub(crate) struct Meter {
    pub(crate) clock: SystemClock,
    pub(crate) counters: Counters,
    /// From a message's due time to its acknowledgement.
    pub(crate) acks: Latencies,
    /// From a message's due time to its arrival at the recipient's device.
    pub(crate) arrivals: Latencies,
    /// How long a session was without an acknowledgement.
    pub(crate) ack_silence: Silence,
    /// How long a recipient's device was without a message.
    pub(crate) arrival_silence: Silence,
    phase: watch::Sender<Phase>,
    faulty: AtomicBool,
    /// Both ends of the measured time, by the clock, in nanoseconds.
    from: AtomicU64,
    to: AtomicU64,
}

impl Meter {
    /// A run that warms up.
    pub(crate) fn new() -> Self {
        Meter {
            clock: SystemClock::new(),
            counters: Counters::default(),
            acks: Latencies::new(),
            arrivals: Latencies::new(),
            ack_silence: Silence::default(),
            arrival_silence: Silence::default(),
            phase: watch::Sender::new(Phase::Run),
            faulty: AtomicBool::new(false),
            from: AtomicU64::new(u64::MAX),
            to: AtomicU64::new(u64::MAX),
        }
    }

    /// The time by the run's clock.
    pub(crate) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// The measured time begins: its beginning and the counts so far.
    pub(crate) fn begin(&self) -> (Duration, Counts) {
        let now = self.now();
        self.from.store(nanos(now), Relaxed);
        (now, self.counts())
    }

    /// The measured time ends: its end and the counts so far.
    pub(crate) fn end(&self) -> (Duration, Counts) {
        let now = self.now();
        self.to.store(nanos(now), Relaxed);
        (now, self.counts())
    }

    /// A message that was due then is acknowledged; the pulse is its session's.
    pub(crate) fn acked(&self, due: Duration, pulse: &mut Pulse) {
        count(&self.counters.acked);
        let now = self.now();
        self.beat(pulse, now, &self.ack_silence);
        if self.is_measured(due) {
            self.acks.record(now.saturating_sub(due));
        }
    }

    /// A message that was due then arrived at its recipient, whose device's the pulse is.
    pub(crate) fn arrived(&self, due: Duration, pulse: &mut Pulse) {
        count(&self.counters.delivered);
        let now = self.now();
        self.beat(pulse, now, &self.arrival_silence);
        if self.is_measured(due) {
            self.arrivals.record(now.saturating_sub(due));
        }
    }

    /// A silence ends. One that began before the measured time counts from there, one that ends after
    /// it counts whole.
    fn beat(&self, pulse: &mut Pulse, now: Duration, silence: &Silence) {
        let since = pulse.0.replace(now).map_or(0, nanos);
        if since < self.to.load(Relaxed) {
            let lasted = nanos(now).saturating_sub(since.max(self.from.load(Relaxed)));
            silence.0.fetch_max(lasted, Relaxed);
        }
    }

    fn is_measured(&self, due: Duration) -> bool {
        let due = nanos(due);
        self.from.load(Relaxed) <= due && due < self.to.load(Relaxed)
    }

    /// The counts so far.
    pub(crate) fn counts(&self) -> Counts {
        let Counters { sent, copies, acked, delivered, own, syncs, resends, senders: _ } =
            &self.counters;
        Counts {
            sent: sent.load(Relaxed),
            copies: copies.load(Relaxed),
            acked: acked.load(Relaxed),
            delivered: delivered.load(Relaxed),
            own: own.load(Relaxed),
            syncs: syncs.load(Relaxed),
            resends: resends.load(Relaxed),
        }
    }

    /// A sender has sent all it had to, and has all acknowledgements.
    pub(crate) fn sender_done(&self) {
        self.counters.senders.fetch_sub(1, Relaxed);
    }

    /// Have all senders?
    pub(crate) fn all_senders_are_done(&self) -> bool {
        self.counters.senders.load(Relaxed) == 0
    }

    /// A device met something that voids the run.
    pub(crate) fn fault(&self) {
        self.faulty.store(true, Relaxed);
    }

    /// Is the run void?
    pub(crate) fn is_faulty(&self) -> bool {
        self.faulty.load(Relaxed)
    }

    /// Goes on to the next phase.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// To learn when the phase changes.
    pub(crate) fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_due_in_the_measured_time_is_in_the_histogram() {
        let meter = Meter::new();
        let acked = |due| meter.acked(due, &mut Pulse::default());
        let arrived = |due| meter.arrived(due, &mut Pulse::default());
        let before = meter.now();
        acked(before);
        let (from, counts) = meter.begin();
        assert_eq!(counts.acked, 1);
        acked(before);
        acked(from);
        arrived(from);
        let (to, counts) = meter.end();
        assert_eq!((counts.acked, counts.delivered), (3, 1));
        // It was due in time and is late: that is what must not be left out.
        arrived(from);
        arrived(to);
        assert_eq!(meter.acks.histogram().len(), 1);
        assert_eq!(meter.arrivals.histogram().len(), 2);
        assert_eq!(meter.counts().delivered, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silence_counts_as_far_as_it_was_measured() {
        let pass = async |ms| tokio::time::sleep(Duration::from_millis(ms)).await;
        let meter = Meter::new();
        let (mut quiet, mut busy) = (Pulse::default(), Pulse::default());
        let ack = |pulse: &mut Pulse| {
            meter.acked(Duration::ZERO, pulse);
            meter.ack_silence.longest().as_millis()
        };
        assert_eq!(ack(&mut quiet), 0);
        pass(500).await;
        assert_eq!(ack(&mut busy), 0, "nothing is measured yet");
        meter.begin();
        pass(30).await;
        assert_eq!(ack(&mut busy), 30);
        pass(10).await;
        assert_eq!(ack(&mut busy), 30);
        assert_eq!(ack(&mut quiet), 40, "it began before, and counts from the beginning");
        pass(1).await;
        meter.end();
        pass(60).await;
        assert_eq!(ack(&mut quiet), 61, "it began in time, and is late");
        pass(900).await;
        assert_eq!(ack(&mut quiet), 61);
        assert_eq!(meter.arrival_silence.longest(), Duration::ZERO);
    }

    #[test]
    fn a_latency_is_kept_to_a_thousandth_and_an_endless_one_counts() {
        let latencies = Latencies::new();
        latencies.record(Duration::from_micros(123_456));
        latencies.record(Duration::from_secs(600));
        let histogram = latencies.histogram();
        let low = histogram.value_at_quantile(0.1) as f64;
        assert!((low / 123_456.0 - 1.0).abs() < 0.001, "{low}");
        assert!(histogram.max() >= LATENCY_MAX_US);
    }
}
