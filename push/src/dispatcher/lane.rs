//! One provider's hints: which device is next, and what an outcome means. Pure but for its random
//! numbers: it does no I/O and waits for nothing; time comes in, reports go out as values.
//!
//! ```text
//!            admit               start                finish
//!  leased ─────────► ready ◄──► ──────► running ──┬──────────► a report
//!                      ▲                          │
//!                      └──── waiting ◄────────────┘ retry within the lease
//! ```
//!
//! Invariants: a device is in one place, and at most one attempt at it is under way; what leaves the
//! lane leaves with exactly one report, or because its lease ended.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tidemark_env::Rng;
use tokio::time::Instant;

use super::backoff;
use super::breaker::{Breaker, Change, Gate};
use super::memory::Memory;
use super::rate::Rate;
use crate::config::LaneConfig;
use crate::hint::{DeviceKey, Hint, Mark};
use crate::observer::Event;
use crate::provider::Outcome;

/// An attempt takes at most this long; then it has failed.
pub(super) const ATTEMPT_MAX: Duration = Duration::from_secs(10);

/// With less left of a lease nothing is begun: it would end under way, and another might send as well.
pub(super) const ATTEMPT_MIN: Duration = Duration::from_secs(1);

/// How long a hint rests that the service refuses for good: its device may register anew meanwhile,
/// or an operator mend what is wrong, and nobody is forgotten.
pub(super) const REJECTED: Duration = Duration::from_secs(3_600);

/// How long one rests whose token was called dead before it was registered.
const REVIVED: Duration = Duration::from_secs(600);

/// How long one rests that found the lane full.
const FULL: Duration = Duration::from_secs(2);

/// Devices of which a lane remembers what it sent them, and how often it failed.
const REMEMBERED_MAX: usize = 10_000;

/// A hint and the end of its lease.
#[derive(Clone, Debug)]
pub(super) struct Leased {
    pub(super) hint: Hint,
    pub(super) until: Instant,
}

/// What the owner of the hints is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Report {
    Sent(Hint),
    Dead(Hint, Option<tidemark_types::UnixMs>),
    Postpone(Hint, Duration),
}

/// What a step has to tell: to the owner of the hints, and to the observer.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) reports: Vec<Report>,
    pub(super) events: Vec<Event>,
}

impl Told {
    fn postpone(&mut self, hint: Hint, after: Duration) {
        self.reports.push(Report::Postpone(hint, after));
        self.events.push(Event::Postponed);
    }
}

/// An attempt to be made.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) hint: Hint,
    /// How long it may take.
    pub(super) within: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Ready,
    Waiting(Instant),
    Running,
}

/// A device in the lane.
#[derive(Debug)]
struct Work {
    leased: Leased,
    place: Place,
    /// What was leased while an attempt was under way.
    next: Option<Leased>,
}

/// One provider's lane.
pub(super) struct Lane {
    config: LaneConfig,
    shares_fate: bool,
    works: BTreeMap<DeviceKey, Work>,
    ready: VecDeque<DeviceKey>,
    waiting: BTreeSet<(Instant, DeviceKey)>,
    running: usize,
    rate: Rate,
    breaker: Breaker,
    /// Failures in a row, also over leases.
    failures: Memory<DeviceKey, u32>,
    sent: Memory<DeviceKey, Mark>,
}

impl Lane {
    pub(super) fn new(config: LaneConfig, shares_fate: bool, now: Instant) -> Self {
        Lane {
            rate: Rate::new(config.per_second, now),
            config,
            shares_fate,
            works: BTreeMap::new(),
            ready: VecDeque::new(),
            waiting: BTreeSet::new(),
            running: 0,
            breaker: Breaker::new(),
            failures: Memory::new(REMEMBERED_MAX),
            sent: Memory::new(REMEMBERED_MAX),
        }
    }

    /// How many devices are in it.
    pub(super) fn len(&self) -> usize {
        self.works.len()
    }

    /// Takes a hint, or says why not.
    pub(super) fn admit(&mut self, leased: Leased, now: Instant, rng: &dyn Rng, told: &mut Told) {
        let key = leased.hint.key();
        let (version, epoch, head) = leased.hint.mark();
        let sent = self.sent.get(&key);
        if sent.is_some_and(|sent| sent.0 == version && (sent.1, sent.2) >= (epoch, head)) {
            // Its report was lost.
            told.events.push(Event::Repeated);
            told.reports.push(Report::Sent(leased.hint));
            return;
        }
        if let Some(work) = self.works.get_mut(&key) {
            work.merge(leased);
            told.events.push(Event::Superseded);
            return;
        }
        let shut_for = self.shut_for(now);
        if shut_for > Duration::ZERO {
            told.postpone(leased.hint, backoff::spread(shut_for, rng));
            return;
        }
        if self.works.len() >= self.config.queue {
            told.postpone(leased.hint, backoff::spread(FULL, rng));
            return;
        }
        self.ready.push_back(key.clone());
        self.works.insert(key, Work { leased, place: Place::Ready, next: None });
    }

    /// The next attempt, if one may begin now.
    pub(super) fn start(&mut self, now: Instant, told: &mut Told) -> Option<Attempt> {
        self.end_pauses(now);
        loop {
            if !self.may_start(now) {
                return None;
            }
            let key = self.ready.pop_front()?;
            let work = self.works.get_mut(&key).expect("what is ready is in the lane");
            let left = work.leased.until.saturating_duration_since(now);
            if left < ATTEMPT_MIN {
                self.works.remove(&key);
                told.events.push(Event::Lapsed);
                continue;
            }
            work.place = Place::Running;
            let hint = work.leased.hint.clone();
            self.running += 1;
            self.breaker.start();
            let taken = self.rate.take(now);
            debug_assert!(taken, "may_start looked");
            return Some(Attempt { hint, within: left.min(ATTEMPT_MAX) });
        }
    }

    /// When there may be something to start, if nothing else happens.
    pub(super) fn wake_at(&self, now: Instant) -> Option<Instant> {
        let waiting = self.waiting.first().map(|(at, _)| *at);
        let free = !self.ready.is_empty() && self.running < self.config.concurrency;
        let ready = match self.breaker.gate(now) {
            Gate::Open | Gate::Probe => free.then(|| self.rate.next(now)),
            Gate::Shut(until) => free.then_some(until),
            Gate::Wait => None,
        };
        waiting.into_iter().chain(ready).min()
    }

    /// An attempt has ended so.
    pub(super) fn finish(
        &mut self,
        hint: Hint,
        outcome: &Outcome,
        now: Instant,
        rng: &dyn Rng,
        told: &mut Told,
    ) {
        let key = hint.key();
        self.running -= 1;
        let mut work = self.works.remove(&key).expect("a running device is in the lane");
        match outcome {
            Outcome::Accepted => {
                self.answered(told);
                self.failures.remove(&key);
                self.sent.put(key.clone(), hint.mark());
                told.reports.push(Report::Sent(hint));
            }
            Outcome::TokenDead { since } => {
                self.answered(told);
                self.failures.remove(&key);
                if since.is_some_and(|since| since < hint.registered_at) {
                    told.events.push(Event::Revived);
                    told.postpone(hint, REVIVED);
                } else {
                    // Of this registration nothing else can be sent.
                    work.next.take_if(|next| next.hint.version <= hint.version);
                    told.events.push(Event::Removed);
                    told.reports.push(Report::Dead(hint, *since));
                }
            }
            Outcome::Reject { .. } => {
                self.answered(told);
                self.failures.remove(&key);
                told.postpone(hint, backoff::spread(REJECTED, rng));
            }
            Outcome::Retry { after, .. } => {
                self.failed(now, rng, told);
                self.again(key, work, *after, now, rng, told);
                return;
            }
            Outcome::AuthBroken { .. } => {
                let change = self.breaker.open(now);
                self.changed(change, now, rng, told);
                // It says nothing about the device.
                let newest = work.next.unwrap_or(work.leased);
                told.postpone(newest.hint, backoff::spread(self.shut_for(now), rng));
                return;
            }
        }
        if let Some(next) = work.next {
            self.admit(next, now, rng, told);
        }
    }

    /// Gives back what no attempt has begun at, for others to take over.
    pub(super) fn drain(&mut self, told: &mut Told) {
        self.ready.clear();
        self.waiting.clear();
        let keys: Vec<_> = self.works.keys().cloned().collect();
        for key in keys {
            let work = self.works.get_mut(&key).expect("it was listed");
            work.next = None;
            if work.place != Place::Running {
                let work = self.works.remove(&key).expect("it was there");
                told.postpone(work.leased.hint, Duration::ZERO);
            }
        }
    }

    fn may_start(&self, now: Instant) -> bool {
        let gate = self.breaker.gate(now);
        let through = matches!(gate, Gate::Open | Gate::Probe);
        through && self.running < self.config.concurrency && self.rate.next(now) <= now
    }

    fn end_pauses(&mut self, now: Instant) {
        while self.waiting.first().is_some_and(|(at, _)| *at <= now) {
            let (_, key) = self.waiting.pop_first().expect("it has a first");
            let work = self.works.get_mut(&key).expect("what waits is in the lane");
            work.place = Place::Ready;
            self.ready.push_back(key);
        }
    }

    /// After a failure: later within the lease, or given back.
    fn again(
        &mut self,
        key: DeviceKey,
        mut work: Work,
        asked: Option<Duration>,
        now: Instant,
        rng: &dyn Rng,
        told: &mut Told,
    ) {
        if let Some(next) = work.next.take() {
            work.leased = next;
        }
        let failures = self.failures.get(&key).copied().unwrap_or(0).saturating_add(1);
        self.failures.put(key.clone(), failures);
        let shut_for = self.shut_for(now);
        let pause = backoff::pause(failures, asked, rng).max(backoff::spread(shut_for, rng));
        let at = now + pause;
        if at + ATTEMPT_MIN >= work.leased.until || shut_for > Duration::ZERO {
            told.postpone(work.leased.hint, pause);
            return;
        }
        work.place = Place::Waiting(at);
        self.waiting.insert((at, key.clone()));
        self.works.insert(key, work);
    }

    /// How long nothing is tried at all.
    fn shut_for(&self, now: Instant) -> Duration {
        match self.breaker.gate(now) {
            Gate::Shut(until) => until - now,
            Gate::Open | Gate::Probe | Gate::Wait => Duration::ZERO,
        }
    }

    fn answered(&mut self, told: &mut Told) {
        if self.breaker.succeeded() == Change::Closed {
            told.events.push(Event::BreakerClosed);
        }
    }

    fn failed(&mut self, now: Instant, rng: &dyn Rng, told: &mut Told) {
        if self.shares_fate {
            let change = self.breaker.failed(now);
            self.changed(change, now, rng, told);
        }
    }

    /// What the breaker shut out is given back: another gateway may be better off.
    fn changed(&mut self, change: Change, now: Instant, rng: &dyn Rng, told: &mut Told) {
        if change == Change::Opened {
            told.events.push(Event::BreakerOpened);
        }
        let shut_for = self.shut_for(now);
        if shut_for == Duration::ZERO {
            return;
        }
        self.waiting.clear();
        self.ready.clear();
        let (running, idle): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut self.works)
            .into_iter()
            .partition(|(_, work)| work.place == Place::Running);
        self.works = running;
        for work in idle.into_values() {
            told.postpone(work.leased.hint, backoff::spread(shut_for, rng));
        }
    }
}

impl Work {
    /// Takes what was leased for the same device: the greater one stays, with the later end.
    fn merge(&mut self, other: Leased) {
        let newest = self.next.as_ref().unwrap_or(&self.leased);
        if other.hint.mark() < newest.hint.mark() {
            return;
        }
        let same = other.hint.mark() == newest.hint.mark();
        match (&mut self.next, self.place) {
            (Some(next), _) => *next = other,
            // The one under way is it.
            (None, Place::Running) if same => self.leased.until = other.until,
            (None, Place::Running) => self.next = Some(other),
            (None, Place::Ready | Place::Waiting(_)) => self.leased = other,
        }
    }
}

#[cfg(test)]
mod tests;
