//! Where time comes from.

use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidemark_types::UnixMs;
use tokio::time::Instant;

/// Where time comes from.
pub trait Clock: Send + Sync + 'static {
    /// Wall-clock time; may jump, in both directions.
    fn wall(&self) -> UnixMs;

    /// Time since the clock was made; never goes back.
    fn monotonic(&self) -> Duration;
}

/// The system's clocks. The monotonic one is tokio's, so that it agrees with its timers.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    made: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    pub fn new() -> Self {
        SystemClock { made: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> UnixMs {
        // A clock before 1970 is a broken one; the store takes no time from it (R17).
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMs::default().plus(since)
    }

    fn monotonic(&self) -> Duration {
        self.made.elapsed()
    }
}

/// A clock that a test sets.
#[derive(Debug, Default)]
pub struct ManualClock {
    now: Mutex<(UnixMs, Duration)>,
}

impl ManualClock {
    /// A clock that stands at `wall`.
    pub fn at(wall: UnixMs) -> Self {
        ManualClock { now: Mutex::new((wall, Duration::ZERO)) }
    }

    /// Lets time pass, on both clocks.
    pub fn advance(&self, by: Duration) {
        let mut now = self.lock();
        now.0 = now.0.plus(by);
        now.1 += by;
    }

    /// Sets the wall clock, as an operator or a broken time server would.
    pub fn jump(&self, to: UnixMs) {
        self.lock().0 = to;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (UnixMs, Duration)> {
        self.now.lock().expect("nobody panics while holding two numbers")
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> UnixMs {
        self.lock().0
    }

    fn monotonic(&self) -> Duration {
        self.lock().1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_of_the_wall_clock_leaves_the_monotonic_one() {
        let clock = ManualClock::at(UnixMs::new(5_000));
        clock.advance(Duration::from_secs(2));
        assert_eq!((clock.wall(), clock.monotonic()), (UnixMs::new(7_000), Duration::from_secs(2)));
        clock.jump(UnixMs::new(1));
        assert_eq!((clock.wall(), clock.monotonic()), (UnixMs::new(1), Duration::from_secs(2)));
    }

    #[test]
    fn a_clock_can_be_shared_and_never_goes_back() {
        let clock: std::sync::Arc<dyn Clock> = std::sync::Arc::new(SystemClock::new());
        let before = clock.monotonic();
        assert!(clock.clone().monotonic() >= before);
    }

    #[test]
    fn the_system_clock_is_past_2020() {
        assert!(SystemClock::new().wall() > UnixMs::new(1_577_836_800_000));
    }
}
