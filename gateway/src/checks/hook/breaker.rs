//! Leaving somebody alone who fails again and again. Pure.
//!
//! ```text
//!   closed ── failures in a row ──► open ── pause ──► one asks ──► closed, or open again
//! ```

use std::time::Duration;

/// A circuit breaker.
pub(super) struct Breaker {
    failures_max: u32,
    pause: Duration,
    /// Failures since the last success.
    failures: u32,
    /// While it is open: when the next one may ask.
    open_until: Option<Duration>,
}

impl Breaker {
    /// A closed one.
    pub(super) fn new(failures_max: u32, pause: Duration) -> Self {
        Breaker { failures_max, pause, failures: 0, open_until: None }
    }

    /// May somebody ask now? If not, how long until one may. One that never tells how it ended is
    /// followed by another after a pause.
    pub(super) fn admit(&mut self, now: Duration) -> Result<(), Duration> {
        match &mut self.open_until {
            Some(until) if now < *until => Err(*until - now),
            Some(until) => {
                *until = now + self.pause;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// A call ended, well or not.
    pub(super) fn ended(&mut self, now: Duration, well: bool) {
        if well {
            *self = Breaker::new(self.failures_max, self.pause);
            return;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures >= self.failures_max {
            self.open_until = Some(now + self.pause);
        }
    }

    /// Is nobody asked, but for one now and then?
    pub(super) fn is_open(&self) -> bool {
        self.open_until.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_millis(100);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn open_at_2_failures() -> Breaker {
        let mut breaker = Breaker::new(2, PAUSE);
        breaker.ended(ms(0), false);
        assert!(!breaker.is_open());
        breaker.ended(ms(10), false);
        assert!(breaker.is_open());
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it() {
        open_at_2_failures();
        let mut breaker = Breaker::new(2, PAUSE);
        for well in [false, true, false, true, false] {
            breaker.ended(ms(0), well);
            assert_eq!((breaker.is_open(), breaker.admit(ms(0))), (false, Ok(())));
        }
    }

    #[test]
    fn after_a_pause_one_asks_and_its_answer_decides() {
        let mut breaker = open_at_2_failures();
        assert_eq!(breaker.admit(ms(50)), Err(ms(60)));
        assert_eq!(breaker.admit(ms(110)), Ok(()));
        assert_eq!(breaker.admit(ms(110)), Err(PAUSE), "one is enough");
        breaker.ended(ms(120), false);
        assert_eq!(breaker.admit(ms(219)), Err(ms(1)));
        assert_eq!(breaker.admit(ms(220)), Ok(()));
        breaker.ended(ms(230), true);
        assert_eq!([breaker.admit(ms(230)), breaker.admit(ms(230))], [Ok(()), Ok(())]);
        breaker.ended(ms(230), false);
        assert!(!breaker.is_open(), "what was before the success does not count");
    }

    #[test]
    fn one_that_never_tells_is_followed_by_another() {
        let mut breaker = open_at_2_failures();
        assert_eq!(breaker.admit(ms(110)), Ok(()));
        assert_eq!(breaker.admit(ms(209)), Err(ms(1)));
        assert_eq!(breaker.admit(ms(210)), Ok(()));
    }
}
