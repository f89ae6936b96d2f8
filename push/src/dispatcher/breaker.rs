//! Whether a provider is asked at all.
//!
//! ```text
//!            refused once, or failures in a row
//!   Closed ──────────────────────────────────────► Open ◄──────┐
//!      ▲                                             │ pause    │ fails: a longer pause
//!      └──────────────── succeeds ──────────────── Probing ─────┘
//! ```

use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row, over all devices, that open it: beyond what a bad moment makes.
pub(super) const FAILURES_MAX: u32 = 20;

/// The first pause.
pub(super) const PAUSE_FIRST: Duration = Duration::from_secs(10);

/// The longest one: a service that is back is used again this soon.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(600);

#[derive(Debug)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant, pause: Duration },
    Probing { pause: Duration },
}

/// What may be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// Everything.
    Open,
    /// One attempt, to see.
    Probe,
    /// Nothing, until that attempt has an outcome.
    Wait,
    /// Nothing, until then.
    Shut(Instant),
}

/// Did it change for those who look on?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// No.
    None,
    /// From letting through to not. A probe that fails is no such change: it is said once.
    Opened,
    /// Back.
    Closed,
}

/// A provider's breaker.
#[derive(Debug)]
pub(super) struct Breaker(State);

impl Breaker {
    pub(super) fn new() -> Self {
        Breaker(State::Closed { failures: 0 })
    }

    pub(super) fn gate(&self, now: Instant) -> Gate {
        match self.0 {
            State::Closed { .. } => Gate::Open,
            State::Open { until, .. } if now < until => Gate::Shut(until),
            State::Open { .. } => Gate::Probe,
            State::Probing { .. } => Gate::Wait,
        }
    }

    /// An attempt starts, which the gate allows.
    pub(super) fn start(&mut self) {
        if let State::Open { pause, .. } = self.0 {
            self.0 = State::Probing { pause };
        }
    }

    /// The service answered as one that works.
    pub(super) fn succeeded(&mut self) -> Change {
        // What had started before it opened says nothing about now.
        match self.0 {
            State::Open { .. } => return Change::None,
            State::Closed { .. } | State::Probing { .. } => {}
        }
        match std::mem::replace(&mut self.0, State::Closed { failures: 0 }) {
            State::Closed { .. } => Change::None,
            State::Open { .. } | State::Probing { .. } => Change::Closed,
        }
    }

    /// It did not, or was busy.
    pub(super) fn failed(&mut self, now: Instant) -> Change {
        match &mut self.0 {
            State::Closed { failures } if *failures + 1 < FAILURES_MAX => {
                *failures += 1;
                Change::None
            }
            _ => self.open(now),
        }
    }

    /// It refuses us.
    pub(super) fn open(&mut self, now: Instant) -> Change {
        let (pause, change) = match self.0 {
            State::Closed { .. } => (PAUSE_FIRST, Change::Opened),
            State::Probing { pause } => ((pause * 2).min(PAUSE_MAX), Change::None),
            // One of those that had started before.
            State::Open { .. } => return Change::None,
        };
        self.0 = State::Open { until: now + pause, pause };
        change
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_opens_once_and_closes_by_a_probe() {
        let now = Instant::now();
        let mut breaker = Breaker::new();
        assert_eq!(breaker.open(now), Change::Opened);
        assert_eq!(breaker.open(now), Change::None, "of those that were under way");
        assert_eq!(breaker.succeeded(), Change::None, "one of those as well");
        let until = now + PAUSE_FIRST;
        assert_eq!(breaker.gate(now), Gate::Shut(until));
        assert_eq!(breaker.gate(until), Gate::Probe);
        breaker.start();
        assert_eq!(breaker.gate(until), Gate::Wait);
        assert_eq!(breaker.open(until), Change::None, "it was said");
        assert_eq!(breaker.gate(until), Gate::Shut(until + 2 * PAUSE_FIRST));
        breaker.start();
        assert_eq!(breaker.succeeded(), Change::Closed);
        assert_eq!(breaker.gate(until), Gate::Open);
        assert_eq!(breaker.open(until), Change::Opened);
        assert_eq!(breaker.gate(until), Gate::Shut(until + PAUSE_FIRST), "it begins anew");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_open_it_only_in_a_row() {
        let now = Instant::now();
        let mut breaker = Breaker::new();
        for _ in 0..3 {
            assert!((1..FAILURES_MAX).all(|_| breaker.failed(now) == Change::None));
            assert_eq!(breaker.succeeded(), Change::None);
        }
        assert!((1..FAILURES_MAX).all(|_| breaker.failed(now) == Change::None));
        assert_eq!(breaker.failed(now), Change::Opened);
    }

    #[tokio::test(start_paused = true)]
    async fn its_pause_ends_somewhere() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new();
        breaker.open(now);
        for _ in 0..20 {
            let Gate::Shut(until) = breaker.gate(now) else { panic!("it is open") };
            assert!(until - now <= PAUSE_MAX);
            now = until;
            breaker.start();
            breaker.failed(now);
        }
        assert_eq!(breaker.gate(now), Gate::Shut(now + PAUSE_MAX));
    }
}
