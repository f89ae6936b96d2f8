//! Clocks for tests.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tidemark_env::Clock;
use tidemark_types::UnixMs;

/// The machine's own time.
pub(crate) struct RealClock(Instant);

impl RealClock {
    pub(crate) fn new() -> Self {
        RealClock(Instant::now())
    }
}

impl Clock for RealClock {
    fn wall(&self) -> UnixMs {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        UnixMs::new(u64::try_from(since.as_millis()).unwrap())
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A wall clock that stands still, so that two nodes can apply batches of the same time.
pub(crate) struct StoppedClock;

impl Clock for StoppedClock {
    fn wall(&self) -> UnixMs {
        UnixMs::new(1_800_000_000_000)
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}
