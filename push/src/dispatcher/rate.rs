//! How many attempts a second: a bucket of tokens, kept as the time at which it is full again.

use std::time::Duration;

use tokio::time::Instant;

/// A bucket that holds one second's attempts.
#[derive(Debug)]
pub(super) struct Rate {
    /// Between two attempts; zero for no limit.
    every: Duration,
    /// What may come at once after a quiet time.
    burst: Duration,
    full_at: Instant,
}

impl Rate {
    /// So many attempts a second; 0 for no limit.
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        let every = Duration::from_secs(1).checked_div(per_second).unwrap_or_default();
        // One token is the one that is being taken.
        let burst = every * per_second.saturating_sub(1);
        Rate { every, burst, full_at: now }
    }

    /// When there is a token.
    pub(super) fn next(&self, now: Instant) -> Instant {
        self.full_at.checked_sub(self.burst).unwrap_or(now).max(now)
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let there = self.next(now) <= now;
        if there {
            self.full_at = self.full_at.max(now) + self.every;
        }
        there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(rate: &mut Rate, now: Instant) -> usize {
        (0..1000).take_while(|_| rate.take(now)).count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_gives_as_many_as_it_says_and_no_more() {
        let start = Instant::now();
        let mut rate = Rate::new(10, start);
        assert_eq!(taken(&mut rate, start), 10);
        assert_eq!(rate.next(start), start + Duration::from_millis(100));
        assert_eq!(taken(&mut rate, start + Duration::from_millis(350)), 3);
        assert_eq!(taken(&mut rate, start + Duration::from_secs(60)), 10, "nothing is saved up");
    }

    #[tokio::test(start_paused = true)]
    async fn zero_is_no_limit() {
        let start = Instant::now();
        assert_eq!(taken(&mut Rate::new(0, start), start), 1000);
        assert_eq!(taken(&mut Rate::new(1, start), start), 1);
    }
}
