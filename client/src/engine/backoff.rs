//! Pauses that grow and are randomised, so that many devices do not come back at once.

use std::time::Duration;

use tidemark_env::Rng;

/// A pause that doubles from the first to the longest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Begins with `first`.
    pub(super) const fn new(first: Duration, longest: Duration) -> Self {
        Backoff { first, longest, next: first }
    }

    /// The next pause, as long as it has grown to.
    pub(super) fn grow(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        pause
    }

    /// The next pause: between half and all of what it has grown to.
    pub(super) fn pause(&mut self, rng: &dyn Rng) -> Duration {
        self.grow().mul_f64(0.5 + 0.5 * rng.unit())
    }

    /// Begins again with the first pause.
    pub(super) fn reset(&mut self) {
        self.next = self.first;
    }
}
