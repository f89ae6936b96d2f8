//! From what is due to what was sent: leases, lanes, attempts, reports.
//!
//! One task owns all lanes and never waits for anything but the next event; attempts and reports run
//! beside it. What a lane decides is in [`lane`], without I/O.
//!
//! Invariants: at most `in_hand` hints are leased, under way or being reported; no attempt goes on
//! after its lease's end; every hint that was leased is reported once, but for those whose lease ended
//! and those that a stop cuts off, which the lease's end brings back.

mod backoff;
mod breaker;
mod hints;
mod lane;
mod memory;
mod rate;

use std::collections::BTreeMap;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tidemark_env::Rng;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

pub use self::hints::{Hints, HintsError, LEASE};
use self::lane::{Lane, Leased, Report, Told};
use crate::build::Providers;
use crate::config::DispatchConfig;
use crate::hint::Hint;
use crate::observer::{Event, Observer};
use crate::provider::Outcome;

/// How long a report may take. What is lost with it is found again when the lease has ended.
const REPORT_MAX: Duration = Duration::from_secs(10);

/// How long a hint rests whose provider is not configured here: another gateway may have it.
const UNCONFIGURED: Duration = Duration::from_secs(60);

/// How often the owner of the hints is asked while nothing is due, and after a failure.
const FAILED_PAUSE: Duration = Duration::from_secs(1);

/// A call of [`Hints::lease`] under way, and when it was made: the lease counts from then at the latest.
type Leasing = (Instant, Pin<Box<dyn Future<Output = Result<Vec<Hint>, HintsError>> + Send>>);

/// An attempt that has ended.
struct Ended {
    hint: Hint,
    outcome: Outcome,
    took: Duration,
}

/// Sends what is due.
pub struct Dispatcher<H> {
    hints: Arc<H>,
    providers: Providers,
    config: DispatchConfig,
    rng: Arc<dyn Rng>,
    observer: Arc<dyn Observer>,
    lanes: BTreeMap<String, Lane>,
    attempts: JoinSet<Ended>,
    reports: JoinSet<()>,
}

impl<H: Hints> Dispatcher<H> {
    /// A dispatcher over these providers. It does nothing until it is [run](Dispatcher::run).
    pub fn new(
        hints: Arc<H>,
        providers: Providers,
        config: DispatchConfig,
        rng: Arc<dyn Rng>,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let now = Instant::now();
        let lane = |(name, lane, provider): (&str, _, &dyn crate::PushProvider)| {
            (name.to_owned(), Lane::new(lane, provider.shares_fate(), now))
        };
        let lanes = providers.iter().map(lane).collect();
        let (attempts, reports) = (JoinSet::new(), JoinSet::new());
        Dispatcher { hints, providers, config, rng, observer, lanes, attempts, reports }
    }

    /// Sends what is due until `stop`; then gives back what it has not begun with, and lets what is
    /// under way end, for as long as the configuration allows.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut ask_at = Instant::now();
        let mut leasing: Option<Leasing> = None;
        loop {
            let now = Instant::now();
            self.start(now);
            self.observer.in_hand(self.in_hand());
            if leasing.is_none() && now >= ask_at && self.room() > 0 {
                let (hints, max) = (self.hints.clone(), self.room());
                leasing = Some((now, Box::pin(async move { hints.lease(max).await })));
            }
            let asks = leasing.is_none() && self.room() > 0;
            let wake_at = self.wake_at(now, asks.then_some(ask_at));
            tokio::select! {
                // So that a seed means the same run for ever: what ends comes before what begins.
                biased;
                () = &mut stop => break,
                Some(ended) = self.attempts.join_next() => self.finish(joined(ended)),
                Some(()) = next(&mut self.reports) => {}
                (asked, leased) = under_way(&mut leasing) => {
                    leasing = None;
                    ask_at = self.admit(asked, leased);
                }
                () = until(wake_at) => {}
            }
        }
        drop(leasing);
        self.drain().await;
    }

    fn in_hand(&self) -> usize {
        self.lanes.values().map(Lane::len).sum::<usize>() + self.reports.len()
    }

    /// How many more hints may be in hand.
    fn room(&self) -> usize {
        self.config.in_hand.saturating_sub(self.in_hand())
    }

    fn wake_at(&self, now: Instant, ask_at: Option<Instant>) -> Option<Instant> {
        self.lanes.values().filter_map(|lane| lane.wake_at(now)).chain(ask_at).min()
    }

    /// Begins every attempt that may begin.
    fn start(&mut self, now: Instant) {
        let mut all = Vec::new();
        for (name, lane) in &mut self.lanes {
            let mut told = Told::default();
            while let Some(attempt) = lane.start(now, &mut told) {
                let provider = self.providers.get(name).expect("every lane has a provider").clone();
                self.attempts.spawn(async move {
                    let lane::Attempt { hint, within } = attempt;
                    let began = Instant::now();
                    let sent = timeout(within, provider.send(&hint)).await;
                    let late = |_| Outcome::retry(None, "the service did not answer in time");
                    let outcome = sent.unwrap_or_else(late);
                    Ended { hint, outcome, took: began.elapsed() }
                });
            }
            all.push((name.clone(), told));
        }
        for (name, told) in all {
            self.tell(&name, told);
        }
    }

    /// Takes what was leased; the time to ask again.
    fn admit(&mut self, asked: Instant, leased: Result<Vec<Hint>, HintsError>) -> Instant {
        let now = Instant::now();
        let leased = match leased {
            Ok(leased) => leased,
            Err(error) => {
                tracing::warn!(%error, "no hints to push could be leased");
                return now + backoff::spread(FAILED_PAUSE, &*self.rng);
            }
        };
        let none = leased.is_empty();
        for hint in leased {
            self.take(Leased { hint, until: asked + LEASE }, now);
        }
        if none { now + self.config.poll() } else { now }
    }

    fn take(&mut self, leased: Leased, now: Instant) {
        let name = leased.hint.provider.clone();
        let mut told = Told::default();
        match self.lanes.get_mut(&name) {
            Some(lane) => lane.admit(leased, now, &*self.rng, &mut told),
            None => {
                let after = backoff::spread(UNCONFIGURED, &*self.rng);
                told.events.push(Event::Unconfigured);
                told.reports.push(Report::Postpone(leased.hint, after));
            }
        }
        self.tell(&name, told);
    }

    fn finish(&mut self, ended: Ended) {
        let Ended { hint, outcome, took } = ended;
        let name = hint.provider.clone();
        self.observer.attempted(&name, &outcome, took);
        let (user, device) = (hint.user.clone(), hint.device.clone());
        tracing::debug!(provider = name, %user, %device, head = %hint.head, ?outcome, "pushed");
        let lane = self.lanes.get_mut(&name).expect("the attempt came from it");
        let mut told = Told::default();
        lane.finish(hint, &outcome, Instant::now(), &*self.rng, &mut told);
        if told.events.contains(&Event::BreakerOpened) {
            tracing::error!(provider = name, ?outcome, "the push provider is given a rest");
        }
        self.tell(&name, told);
    }

    fn tell(&mut self, provider: &str, told: Told) {
        for event in told.events {
            if event == Event::BreakerClosed {
                tracing::info!(provider, "the push provider works again");
            }
            self.observer.event(provider, event);
        }
        for report in told.reports {
            let hints = self.hints.clone();
            let told = async move {
                match report {
                    Report::Sent(hint) => hints.sent(&hint).await,
                    Report::Dead(hint, since) => hints.dead(&hint, since).await,
                    Report::Postpone(hint, after) => hints.postpone(&hint, after).await,
                }
            };
            self.reports.spawn(async move {
                if timeout(REPORT_MAX, told).await.is_err() {
                    tracing::warn!("what became of a push could not be reported in time");
                }
            });
        }
    }

    async fn drain(mut self) {
        let deadline = Instant::now() + self.config.drain();
        self.give_back();
        while !(self.attempts.is_empty() && self.reports.is_empty()) {
            tokio::select! {
                biased;
                Some(ended) = self.attempts.join_next() => {
                    self.finish(joined(ended));
                    // A retry would not be waited for.
                    self.give_back();
                }
                Some(()) = next(&mut self.reports) => {}
                () = sleep_until(deadline) => {
                    let attempts = self.attempts.len();
                    tracing::warn!(attempts, "pushes are left to the end of their leases");
                    break;
                }
            }
        }
    }

    fn give_back(&mut self) {
        let mut all = Vec::new();
        for (name, lane) in &mut self.lanes {
            let mut told = Told::default();
            lane.drain(&mut told);
            all.push((name.clone(), told));
        }
        for (name, told) in all {
            self.tell(&name, told);
        }
    }
}

/// The outcome of a task that nobody stops while it is waited for.
fn joined<T>(ended: Result<T, tokio::task::JoinError>) -> T {
    match ended {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

async fn next(reports: &mut JoinSet<()>) -> Option<()> {
    reports.join_next().await.map(joined)
}

async fn under_way(leasing: &mut Option<Leasing>) -> (Instant, Result<Vec<Hint>, HintsError>) {
    match leasing {
        Some((asked, call)) => (*asked, call.await),
        None => pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests;
