//! How fast may somebody send? Token buckets, of which each is one number: when it would be full
//! again if nothing more came.
//!
//! ```text
//!     now        full_at       now + window
//!   ───|────────────|───────────────|──────►   one more send moves full_at on by an interval;
//!      └─ what was sent lately ─┘              beyond the window it has to wait
//! ```
//!
//! Buckets lie in a table of a fixed size, by the hash of what they belong to: a place in it is
//! found in one set of a few, and the one that would be full first makes room for a new one. So
//! memory is bounded whoever sends what, nothing is ever swept, and a send that needs a token of
//! several buckets takes all of them or none. Libraries keep a growing map that must be swept, and
//! know one key at a time.
//!
//! Invariant: all buckets of one sender lie in one lane, so that one lock is enough for a send.

use std::time::Duration;

use parking_lot::Mutex;
use tidemark_env::Rng;
use tidemark_types::{DeviceId, Recipient, UserId};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::config::{Rate, RatesConfig};
use crate::metrics;

/// Parts of the table with a lock each: senders seldom meet.
const LANES: usize = 32;

/// Buckets among which a new one chooses its place.
const SET: usize = 8;

/// What distinguishes the buckets of one sender.
const OF_USER: u64 = 1;
const OF_DEVICE: u64 = 2;
const OF_PAIR_WITH_USER: u64 = 3;
const OF_PAIR_WITH_GROUP: u64 = 4;

/// The rates of a gateway.
pub(super) struct Rates {
    user: Option<Rate>,
    device: Option<Rate>,
    pair: Option<Rate>,
    /// Nobody outside can tell which names meet in the table.
    seed: u64,
    lanes: Vec<Mutex<Lane>>,
}

/// A part of the table: sets of buckets, one after the other.
struct Lane(Box<[Bucket]>);

/// One that is full, and has not been used, is all zeros.
#[derive(Clone, Copy, Default)]
struct Bucket {
    /// The hash of what it belongs to.
    key: u64,
    /// When it is full again, in nanoseconds of the monotonic clock.
    full_at: u64,
}

impl Rates {
    /// What is configured; none, if that is nothing.
    pub(super) fn new(config: &RatesConfig, rng: &dyn Rng) -> Option<Self> {
        let RatesConfig { user, device, pair, tracked_max } = *config;
        user.or(device).or(pair)?;
        let sets = tracked_max.div_ceil(LANES * SET).next_power_of_two();
        let lane = || Mutex::new(Lane(vec![Bucket::default(); sets * SET].into()));
        let lanes = (0..LANES).map(|_| lane()).collect();
        Some(Rates { user, device, pair, seed: rng.number(), lanes })
    }

    /// Takes one token of each bucket of this send: gives for how long its sender should send
    /// nothing, at most `patience`. If that is not enough, nothing is taken, and it says how long.
    pub(super) fn take(
        &self,
        sender: &UserId,
        device: Option<&DeviceId>,
        to: &[Recipient],
        now: Duration,
        patience: Duration,
    ) -> Result<Duration, Duration> {
        let sender = xxh3_64_with_seed(sender.as_str().as_bytes(), self.seed);
        let key = |what: u64, name: &str| xxh3_64_with_seed(name.as_bytes(), sender ^ what);
        let user = self.user.map(|rate| (key(OF_USER, ""), rate));
        let device = self.device.zip(device);
        let device = device.map(|(rate, device)| (key(OF_DEVICE, device.as_str()), rate));
        let pairs = self.pair.into_iter().flat_map(|rate| {
            to.iter().map(move |recipient| match recipient {
                Recipient::User(user) => (key(OF_PAIR_WITH_USER, user.as_str()), rate),
                Recipient::Group(group) => (key(OF_PAIR_WITH_GROUP, group.as_str()), rate),
            })
        });
        let buckets = user.into_iter().chain(device).chain(pairs);
        let now = nanos(now);
        let mut lane = self.lanes[sender as usize % LANES].lock();
        let waits = buckets.clone().map(|(key, rate)| lane.wait(key, rate, now));
        let wait = Duration::from_nanos(waits.max().unwrap_or(0));
        if wait > patience {
            metrics::send_slowed(true);
            return Err(wait);
        }
        let forgotten = buckets.filter(|(key, rate)| lane.take(*key, *rate, now)).count();
        drop(lane);
        metrics::rates_forgotten(forgotten);
        if !wait.is_zero() {
            metrics::send_slowed(false);
        }
        Ok(wait)
    }
}

impl Lane {
    /// How long a send that took a token now would be too early.
    fn wait(&self, key: u64, rate: Rate, now: u64) -> u64 {
        let place = &self.0[self.place(key)];
        let full_at = if place.key == key { place.full_at } else { 0 };
        let next = next(full_at, rate, now);
        next.saturating_sub(now.saturating_add(nanos(rate.window())))
    }

    /// Takes a token; did another one's bucket that was not full yet have to go?
    fn take(&mut self, key: u64, rate: Rate, now: u64) -> bool {
        let place = self.place(key);
        let bucket = &mut self.0[place];
        let (full_at, forgets) = match bucket.key == key {
            true => (bucket.full_at, false),
            false => (0, bucket.full_at > now),
        };
        *bucket = Bucket { key, full_at: next(full_at, rate, now) };
        forgets
    }

    /// Where this bucket is; else where it may be made: in the place of the one that is full first.
    fn place(&self, key: u64) -> usize {
        let sets = self.0.len() / SET;
        // The lowest bits say which lane it is, in a way: all keys of a sender share that one.
        let first = (key >> 32) as usize % sets * SET;
        let set = first..first + SET;
        let found = set.clone().find(|place| self.0[*place].key == key);
        let emptiest = || set.min_by_key(|place| self.0[*place].full_at);
        found.or_else(emptiest).expect("a set has places")
    }
}

/// When a bucket is full that gives one token more.
fn next(full_at: u64, rate: Rate, now: u64) -> u64 {
    full_at.max(now).saturating_add(nanos(rate.interval()))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidemark_env::SeededRng;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn rate(sends: u32, within_ms: u64) -> Option<Rate> {
        Some(Rate { sends, within_ms })
    }

    fn rates(config: RatesConfig) -> Rates {
        Rates::new(&config, &SeededRng::new(1)).expect("something is limited")
    }

    fn user(name: &str) -> UserId {
        name.parse().expect("legal")
    }

    fn to(names: &[&str]) -> Vec<Recipient> {
        names.iter().map(|name| Recipient::User(user(name))).collect()
    }

    /// One send with no patience, at so many milliseconds.
    fn send(rates: &Rates, sender: &str, device: &str, names: &[&str], ms: u32) -> Option<u128> {
        let device = device.parse().expect("legal");
        let (sender, to) = (user(sender), to(names));
        let taken = rates.take(&sender, Some(&device), &to, MS * ms, Duration::ZERO);
        taken.err().map(|wait| wait.as_millis())
    }

    #[test]
    fn nothing_is_limited_by_default() {
        assert!(Rates::new(&RatesConfig::default(), &SeededRng::new(1)).is_none());
    }

    #[test]
    fn a_burst_may_come_at_once_and_then_what_the_rate_allows() {
        let rates = rates(RatesConfig { user: rate(3, 300), ..RatesConfig::default() });
        let send = |ms| send(&rates, "alice", "phone", &["bob"], ms);
        assert_eq!([send(0), send(0), send(0)], [None; 3]);
        assert_eq!(send(0), Some(100));
        assert_eq!(send(60), Some(40), "what was refused took nothing");
        assert_eq!(send(100), None);
        assert_eq!(send(100), Some(100));
        assert_eq!(
            [send(10_000), send(10_000), send(10_000)],
            [None; 3],
            "never more than a burst"
        );
        assert_eq!(send(10_000), Some(100));
    }

    #[test]
    fn each_user_device_and_pair_has_its_own() {
        let users = rates(RatesConfig { user: rate(1, 100), ..RatesConfig::default() });
        assert_eq!(send(&users, "alice", "phone", &["bob"], 0), None);
        assert_eq!(send(&users, "alice", "laptop", &["carol"], 0), Some(100));
        assert_eq!(send(&users, "bob", "phone", &["bob"], 0), None);

        let devices = rates(RatesConfig { device: rate(1, 100), ..RatesConfig::default() });
        assert_eq!(send(&devices, "alice", "phone", &["bob"], 0), None);
        assert_eq!(send(&devices, "alice", "laptop", &["bob"], 0), None);
        assert_eq!(send(&devices, "alice", "phone", &["carol"], 0), Some(100));
        let back_end = devices.take(&user("alice"), None, &to(&["bob"]), MS, Duration::ZERO);
        assert_eq!(back_end, Ok(Duration::ZERO), "it is no device");

        let pairs = rates(RatesConfig { pair: rate(1, 100), ..RatesConfig::default() });
        assert_eq!(send(&pairs, "alice", "phone", &["bob"], 0), None);
        assert_eq!(send(&pairs, "alice", "phone", &["carol"], 0), None);
        assert_eq!(send(&pairs, "bob", "phone", &["alice"], 0), None);
        assert_eq!(send(&pairs, "alice", "phone", &["dave", "bob"], 0), Some(100));
        assert_eq!(send(&pairs, "alice", "phone", &["dave"], 0), None, "all or none was taken");
        let group = [Recipient::Group("bob".parse().expect("legal"))];
        let group = pairs.take(&user("alice"), None, &group, Duration::ZERO, Duration::ZERO);
        assert_eq!(group, Ok(Duration::ZERO), "a group is not the user of that name");
    }

    #[test]
    fn the_patient_go_on_and_pause() {
        let rates = rates(RatesConfig { user: rate(1, 100), ..RatesConfig::default() });
        let take = |ms| rates.take(&user("alice"), None, &[], MS * ms, MS * 150);
        assert_eq!(take(0), Ok(Duration::ZERO));
        assert_eq!(take(0), Ok(MS * 100));
        assert_eq!(take(0), Err(MS * 200));
        assert_eq!(take(100), Ok(MS * 100));
    }

    #[test]
    fn memory_is_bounded_and_the_busiest_are_remembered() {
        let config = RatesConfig { user: rate(1, 1_000), tracked_max: 1, ..RatesConfig::default() };
        let rates = rates(config);
        let places: usize = rates.lanes.iter().map(|lane| lane.lock().0.len()).sum();
        assert_eq!(places, LANES * SET, "of one sender there is always room");
        for name in 0..100_000 {
            assert_eq!(send(&rates, &format!("user-{name}"), "phone", &[], name), None);
        }
        // The last one was not forgotten.
        assert!(send(&rates, "user-99999", "phone", &[], 99_999).is_some());
    }

    proptest! {
        /// However sends come: in no stretch of time are there more than a burst and what the rate
        /// gives in it.
        #[test]
        fn the_rate_holds_over_every_stretch(
            sends in 1u32..10,
            within_ms in 1u64..1_000,
            gaps in proptest::collection::vec(0u32..200, 1..200),
        ) {
            let limit = Rate { sends, within_ms };
            let rates = rates(RatesConfig { user: Some(limit), ..RatesConfig::default() });
            let mut now = 0;
            let mut taken = Vec::new();
            for gap in gaps {
                now += gap;
                if send(&rates, "alice", "phone", &[], now).is_none() {
                    taken.push(now);
                }
            }
            for (at, first) in taken.iter().enumerate() {
                for (more, last) in (1u32..).zip(&taken[at..]) {
                    let stretch = f64::from(last - first);
                    let allowed = f64::from(sends) * (1.0 + stretch / within_ms as f64);
                    prop_assert!(f64::from(more) <= allowed + 0.001, "{more} in {stretch} ms");
                }
            }
        }
    }
}
