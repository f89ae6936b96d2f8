//! How fast one connection may say that its user types: a few at once, then some a second. What comes
//! faster is dropped, as everything may be that passes by.

use std::time::Duration;

/// Between two, in the long run.
const INTERVAL: Duration = Duration::from_millis(250);

/// So many may come at once.
const BURST: u32 = 8;

/// When the connection would have said nothing for long.
#[derive(Default)]
pub(super) struct Pace {
    full_at: Duration,
}

impl Pace {
    /// May one more pass now?
    pub(super) fn admit(&mut self, now: Duration) -> bool {
        let full_at = self.full_at.max(now) + INTERVAL;
        let admitted = full_at.saturating_sub(now) <= INTERVAL * BURST;
        if admitted {
            self.full_at = full_at;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_pass_at_once_and_then_some_a_second() {
        let mut pace = Pace::default();
        let now = Duration::from_secs(5);
        assert!((0..BURST).all(|_| pace.admit(now)));
        assert!(!pace.admit(now));
        assert!(pace.admit(now + INTERVAL));
        assert!(!pace.admit(now + INTERVAL), "what was dropped took nothing");
    }
}
