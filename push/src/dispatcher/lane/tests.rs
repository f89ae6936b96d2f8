//! A lane's decisions, without I/O: time is a number, random numbers come from a seed.

use tidemark_env::SeededRng;
use tidemark_types::{Epoch, UnixMs};

use super::*;
use crate::dispatcher::breaker::{FAILURES_MAX, PAUSE_FIRST};
use crate::dispatcher::hints::LEASE;
use crate::hint::tests::hint;

/// A lane, a clock, and what was told.
struct Bench {
    lane: Lane,
    now: Instant,
    rng: SeededRng,
    told: Told,
}

impl Bench {
    fn new(config: LaneConfig) -> Self {
        let now = Instant::now();
        let lane = Lane::new(config, true, now);
        Bench { lane, now, rng: SeededRng::new(1), told: Told::default() }
    }

    fn wide() -> Self {
        Self::new(LaneConfig { concurrency: 100, per_second: 0, queue: 100 })
    }

    fn lease(&mut self, hint: Hint) {
        let leased = Leased { hint, until: self.now + LEASE };
        self.lane.admit(leased, self.now, &self.rng, &mut self.told);
    }

    fn start(&mut self) -> Option<Hint> {
        self.lane.start(self.now, &mut self.told).map(|attempt| attempt.hint)
    }

    fn finish(&mut self, hint: Hint, outcome: Outcome) {
        self.lane.finish(hint, &outcome, self.now, &self.rng, &mut self.told);
    }

    /// One attempt at what is first, with this outcome.
    fn attempt(&mut self, outcome: Outcome) {
        let hint = self.start().expect("there is one to start");
        self.finish(hint, outcome);
    }

    fn reports(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.told.reports)
    }

    fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.told.events)
    }

    /// The one pause that a hint was given back with.
    fn postponed(&mut self) -> Duration {
        match &self.reports()[..] {
            [Report::Postpone(_, after)] => *after,
            other => panic!("not one pause: {other:?}"),
        }
    }
}

fn busy() -> Outcome {
    Outcome::retry(None, "busy")
}

#[test]
fn what_was_taken_is_reported_and_leaves() {
    let mut bench = Bench::wide();
    bench.lease(hint("phone", 7));
    bench.attempt(Outcome::Accepted);
    assert_eq!(bench.reports(), [Report::Sent(hint("phone", 7))]);
    assert_eq!((bench.lane.len(), bench.lane.wake_at(bench.now)), (0, None));
}

#[test]
fn a_device_has_one_attempt_at_a_time_and_the_newest_head_wins() {
    let mut bench = Bench::wide();
    bench.lease(hint("phone", 7));
    bench.lease(hint("phone", 9));
    bench.lease(hint("phone", 8));
    let first = bench.start().expect("one");
    assert_eq!(first.head.get(), 9);
    assert_eq!(bench.start(), None, "it is the same device");
    bench.lease(hint("phone", 10));
    bench.lease(hint("phone", 12));
    bench.lease(hint("phone", 11));
    assert_eq!(bench.start(), None);
    bench.lease(hint("tablet", 9));
    assert_eq!(bench.start(), Some(hint("tablet", 9)), "another device does not wait");
    bench.finish(first, Outcome::Accepted);
    assert_eq!(bench.start(), Some(hint("phone", 12)));
    assert_eq!(bench.reports(), [Report::Sent(hint("phone", 9))]);
}

#[test]
fn what_is_under_way_is_not_sent_again_when_it_is_leased_again() {
    let mut bench = Bench::wide();
    bench.lease(hint("phone", 7));
    let under_way = bench.start().expect("one");
    bench.lease(hint("phone", 7));
    bench.finish(under_way, Outcome::Accepted);
    assert_eq!(bench.start(), None);
    bench.lease(hint("phone", 7));
    assert_eq!(bench.start(), None, "only its report was lost");
    assert_eq!(bench.reports(), vec![Report::Sent(hint("phone", 7)); 2]);
    assert_eq!(bench.events(), [Event::Superseded, Event::Repeated]);
}

#[test]
fn what_was_sent_to_another_registration_or_epoch_is_sent() {
    let mut bench = Bench::wide();
    bench.lease(hint("phone", 7));
    bench.attempt(Outcome::Accepted);
    let again = Hint { version: 2, ..hint("phone", 7) };
    bench.lease(again.clone());
    assert_eq!(bench.start(), Some(again.clone()));
    bench.finish(again, Outcome::Accepted);
    let restored = Hint { version: 2, epoch: Epoch::new(2), ..hint("phone", 3) };
    bench.lease(restored.clone());
    assert_eq!(bench.start(), Some(restored));
}

#[test]
fn a_failure_is_tried_again_within_the_lease_and_given_back_after_it() {
    let mut bench = Bench::wide();
    bench.lease(hint("phone", 7));
    let until = bench.now + LEASE;
    let mut tries = 0;
    let pause = loop {
        bench.attempt(busy());
        tries += 1;
        if let [Report::Postpone(..)] = &bench.told.reports[..] {
            break bench.postponed();
        }
        let next = bench.lane.wake_at(bench.now).expect("it waits");
        assert!(next > bench.now && next + ATTEMPT_MIN < until);
        bench.now = next;
    };
    assert!((4..=6).contains(&tries), "{tries} tries in 30 s");
    assert!(pause >= Duration::from_secs(4));
    assert_eq!(bench.lane.len(), 0);
}

#[test]
fn pauses_go_on_doubling_over_leases_until_it_works() {
    let mut bench = Bench::wide();
    let fail = |bench: &mut Bench, head| {
        bench.lease(hint("phone", head));
        // The last moment at which an attempt begins.
        bench.now += LEASE - ATTEMPT_MIN;
        bench.attempt(busy());
        bench.postponed()
    };
    let pauses: Vec<_> = (0..12).map(|_| fail(&mut bench, 7)).collect();
    assert!(pauses[11] > 100 * pauses[0], "{pauses:?}");
    bench.lease(hint("phone", 8));
    bench.attempt(Outcome::Accepted);
    bench.reports();
    assert!(fail(&mut bench, 9) <= Duration::from_secs(1));
}

#[test]
fn nobody_is_asked_again_before_they_want_it() {
    let mut bench = Bench::wide();
    bench.lease(hint("phone", 7));
    bench.attempt(Outcome::retry(Some(Duration::from_secs(10)), "busy"));
    let wake_at = bench.lane.wake_at(bench.now).expect("it waits");
    assert!(wake_at >= bench.now + Duration::from_secs(10));
    bench.now = wake_at;
    bench.attempt(Outcome::retry(Some(Duration::from_secs(60)), "busy"));
    assert!(bench.postponed() >= Duration::from_secs(60));
}

#[test]
fn nothing_begins_in_the_last_second_of_a_lease() {
    let mut bench = Bench::wide();
    bench.lease(hint("phone", 7));
    bench.now += LEASE - ATTEMPT_MIN + Duration::from_millis(1);
    assert_eq!(bench.start(), None);
    assert_eq!((bench.events(), bench.lane.len()), (vec![Event::Lapsed], 0));
    assert_eq!(bench.reports(), [], "it is another's to report");
}

#[test]
fn an_attempt_ends_with_its_lease() {
    let mut bench = Bench::wide();
    bench.lease(hint("phone", 7));
    bench.now += LEASE - Duration::from_secs(3);
    let attempt = bench.lane.start(bench.now, &mut bench.told).expect("one");
    assert_eq!(attempt.within, Duration::from_secs(3));
    bench.lease(hint("tablet", 7));
    let attempt = bench.lane.start(bench.now, &mut bench.told).expect("one");
    assert_eq!(attempt.within, ATTEMPT_MAX);
}

#[test]
fn a_dead_token_is_reported_unless_it_was_registered_since() {
    let dead = |since| Outcome::TokenDead { since: Some(UnixMs::new(since)) };
    let mut bench = Bench::wide();
    // Registered at 1000.
    bench.lease(hint("phone", 7));
    bench.attempt(dead(1_000));
    assert_eq!(bench.reports(), [Report::Dead(hint("phone", 7), Some(UnixMs::new(1_000)))]);
    bench.lease(hint("phone", 7));
    bench.attempt(Outcome::dead());
    assert_eq!(bench.reports(), [Report::Dead(hint("phone", 7), None)]);
    bench.events();
    bench.lease(hint("phone", 7));
    bench.attempt(dead(999));
    assert!(bench.postponed() >= Duration::from_secs(60));
    assert_eq!(bench.events(), [Event::Revived, Event::Postponed]);
}

#[test]
fn a_dead_token_takes_its_own_hints_with_it_and_no_newer_ones() {
    let mut bench = Bench::wide();
    bench.lease(hint("phone", 7));
    let under_way = bench.start().expect("one");
    bench.lease(hint("phone", 8));
    bench.finish(under_way, Outcome::dead());
    assert_eq!(bench.start(), None, "the token is the same");
    bench.lease(hint("phone", 7));
    let under_way = bench.start().expect("one");
    let newer = Hint { version: 2, target: "new".to_owned(), ..hint("phone", 8) };
    bench.lease(newer.clone());
    bench.finish(under_way, Outcome::dead());
    assert_eq!(bench.start(), Some(newer));
}

#[test]
fn what_is_refused_for_good_rests_and_is_not_forgotten() {
    let mut bench = Bench::wide();
    bench.lease(hint("phone", 7));
    bench.attempt(Outcome::reject("too large"));
    assert!(bench.postponed() >= REJECTED);
}

#[test]
fn who_refuses_us_gets_a_rest_and_is_then_probed_once() {
    let mut bench = Bench::wide();
    for device in ["a", "b", "c", "d"] {
        bench.lease(hint(device, 7));
    }
    let under_way = bench.start().expect("one");
    bench.attempt(Outcome::broken("no"));
    assert_eq!(bench.events().first(), Some(&Event::BreakerOpened));
    assert_eq!(bench.reports().len(), 3, "the one that was refused, and those that waited");
    assert_eq!(bench.start(), None);
    bench.lease(hint("e", 7));
    assert!(bench.postponed() >= PAUSE_FIRST);
    bench.finish(under_way, Outcome::broken("no"));
    assert!(bench.postponed() >= PAUSE_FIRST);
    assert!(!bench.events().contains(&Event::BreakerOpened), "it was said");

    bench.now += PAUSE_FIRST;
    for device in ["a", "b"] {
        bench.lease(hint(device, 7));
    }
    let probe = bench.start().expect("a probe");
    assert_eq!(bench.start(), None, "only one");
    assert_eq!(bench.lane.wake_at(bench.now), None, "its outcome comes first");
    bench.finish(probe, Outcome::Accepted);
    assert_eq!(bench.events(), [Event::BreakerClosed]);
    assert_eq!(bench.start(), Some(hint("b", 7)));
}

#[test]
fn many_failures_in_a_row_open_the_breaker_unless_targets_have_their_own_servers() {
    let fails = |shares_fate: bool| {
        let mut bench = Bench::wide();
        bench.lane.shares_fate = shares_fate;
        (0..FAILURES_MAX).for_each(|n| bench.lease(hint(&n.to_string(), 7)));
        (0..FAILURES_MAX).for_each(|_| bench.attempt(busy()));
        bench.events().contains(&Event::BreakerOpened)
    };
    assert!(fails(true));
    assert!(!fails(false));
}

#[test]
fn no_more_run_at_once_or_start_in_a_second_than_is_configured() {
    let mut bench = Bench::new(LaneConfig { concurrency: 2, per_second: 3, queue: 100 });
    for device in ["a", "b", "c", "d", "e"] {
        bench.lease(hint(device, 7));
    }
    let (one, other) = (bench.start().expect("one"), bench.start().expect("two"));
    assert_eq!((bench.start(), bench.lane.wake_at(bench.now)), (None, None), "two are enough");
    bench.finish(one, Outcome::Accepted);
    let third = bench.start().expect("three");
    bench.finish(other, Outcome::Accepted);
    bench.finish(third, Outcome::Accepted);
    assert_eq!(bench.start(), None, "three in a second are enough");
    bench.now = bench.lane.wake_at(bench.now).expect("there will be a token");
    assert_eq!(bench.start(), Some(hint("d", 7)));
    assert_eq!(bench.start(), None);
}

#[test]
fn a_full_lane_gives_back_what_comes() {
    let mut bench = Bench::new(LaneConfig { concurrency: 1, per_second: 0, queue: 2 });
    for device in ["a", "b", "c"] {
        bench.lease(hint(device, 7));
    }
    assert!(bench.postponed() >= FULL);
    bench.lease(hint("b", 9));
    assert_eq!((bench.reports(), bench.lane.len()), (vec![], 2), "it has a place");
}

#[test]
fn a_stop_gives_back_what_has_not_begun() {
    let mut bench = Bench::wide();
    for device in ["a", "b"] {
        bench.lease(hint(device, 7));
    }
    let under_way = bench.start().expect("one");
    bench.lease(hint("a", 9));
    bench.lane.drain(&mut bench.told);
    assert_eq!(bench.reports(), [Report::Postpone(hint("b", 7), Duration::ZERO)]);
    bench.finish(under_way, Outcome::Accepted);
    assert_eq!(bench.reports(), [Report::Sent(hint("a", 7))]);
    assert_eq!((bench.start(), bench.lane.len()), (None, 0));
}
