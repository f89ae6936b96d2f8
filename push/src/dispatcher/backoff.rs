//! How long to wait after a failure: doubling, jittered, and never shorter than the service asked for.

use std::time::Duration;

use tidemark_env::Rng;

/// The first pause. A service that was busy for a moment is asked again within the lease.
const FIRST: Duration = Duration::from_secs(1);

/// The longest pause of our own choosing: a device that was in vain for hours is still tried.
const LONGEST: Duration = Duration::from_secs(600);

/// The longest pause that a service may ask for; what is beyond it is a mistake of its clock or ours.
const ASKED_MAX: Duration = Duration::from_secs(3_600);

/// The pause after so many failures in a row, at least 1.
pub(super) fn pause(failures: u32, asked: Option<Duration>, rng: &dyn Rng) -> Duration {
    let doubled = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST);
    // From half of it to all of it, so that what failed together does not come back together.
    let own = doubled.mul_f64(0.5 + rng.unit() / 2.0);
    own.max(spread(asked.unwrap_or_default().min(ASKED_MAX), rng))
}

/// This pause or up to a fifth more, so that not everybody comes at its end.
pub(super) fn spread(pause: Duration, rng: &dyn Rng) -> Duration {
    pause.mul_f64(1.0 + rng.unit() / 5.0)
}

#[cfg(test)]
mod tests {
    use tidemark_env::SeededRng;

    use super::*;

    #[test]
    fn pauses_double_and_end_somewhere() {
        let rng = SeededRng::new(1);
        for (failures, secs) in [(1, 1), (2, 2), (5, 16), (11, 600), (u32::MAX, 600)] {
            let whole = Duration::from_secs(secs);
            for _ in 0..100 {
                let pause = pause(failures, None, &rng);
                assert!(pause >= whole / 2 && pause <= whole, "{failures}: {pause:?}");
            }
        }
    }

    #[test]
    fn what_the_service_asks_for_is_the_least_within_reason() {
        let rng = SeededRng::new(1);
        let asked = |secs| pause(1, Some(Duration::from_secs(secs)), &rng);
        assert!((Duration::from_secs(60)..=Duration::from_secs(72)).contains(&asked(60)));
        assert!(asked(1 << 40) <= ASKED_MAX.mul_f64(1.2));
        assert!(asked(0) >= FIRST / 2);
    }

    #[test]
    fn no_two_come_back_together() {
        let rng = SeededRng::new(1);
        let pauses: std::collections::BTreeSet<_> = (0..50).map(|_| pause(3, None, &rng)).collect();
        assert_eq!(pauses.len(), 50);
    }
}
