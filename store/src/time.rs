//! Cluster time (R17): what leaders stamp into commands, so that one bad clock moves nothing.
//!
//! Every second each node asks the others for their clocks. Cluster time is the median of the
//! clocks that answered in time, its own among them (of two, the lower), carried on by the
//! monotonic clock between measurements and while no majority answers. A node whose wall clock
//! jumped against its monotonic clock says so, and is left out until an operator trusts it again.
//!
//! Every node measures, whether it leads or not, so whoever takes over has a time. Before the first
//! measurement, after its start, there is none; a leader then takes nothing, but not for ever
//! (`shard/proposer.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tidemark_env::Clock;
use tidemark_mutants::{Mutant, is};
use tidemark_store_client::Client;
use tidemark_types::{NodeId, UnixMs};

use crate::metrics;

/// Between two measurements.
const ROUND: Duration = Duration::from_secs(1);

/// The same, before the first one: until then a leader takes nothing.
const FIRST_ROUND: Duration = Duration::from_millis(100);

/// An answer that took longer says too little about when it was given.
const ROUND_TRIP_MAX: Duration = Duration::from_millis(500);

/// A wall clock that moved by more than this against the monotonic one is not trusted.
const JUMP_MAX: Duration = Duration::from_secs(60);

/// A measurement that is older no longer counts as one.
const FRESH_FOR: Duration = Duration::from_secs(5);

/// Cluster time as this node knows it; a cheap handle.
#[derive(Clone)]
pub struct ClusterTime {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Arc<dyn Clock>,
    /// This node's wall clock has not jumped.
    trusted: AtomicBool,
    measured: Mutex<Option<Measured>>,
}

/// The last measurement that a majority took part in.
#[derive(Clone, Copy)]
struct Measured {
    /// Cluster time then.
    time: UnixMs,
    /// The monotonic clock then.
    at: Duration,
}

impl ClusterTime {
    /// No time yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let (trusted, measured) = (AtomicBool::new(true), Mutex::new(None));
        ClusterTime { inner: Arc::new(Inner { clock, trusted, measured }) }
    }

    /// Cluster time, once it was measured.
    pub fn now(&self) -> Option<UnixMs> {
        let measured = (*self.inner.measured.lock())?;
        Some(measured.time.plus(self.inner.clock.monotonic().saturating_sub(measured.at)))
    }

    /// Cluster time, if a majority was measured just now: what `Expire` needs.
    pub fn fresh(&self) -> Option<UnixMs> {
        let measured = (*self.inner.measured.lock())?;
        let age = self.inner.clock.monotonic().saturating_sub(measured.at);
        (age < FRESH_FOR).then(|| measured.time.plus(age))
    }

    /// This node's own clock, trusted or not.
    pub fn own(&self) -> UnixMs {
        self.inner.clock.wall()
    }

    /// Does its clock take part in measurements?
    pub fn is_trusted(&self) -> bool {
        self.inner.trusted.load(Ordering::Relaxed)
    }

    /// An operator says that this node's clock is right again.
    pub fn trust(&self) {
        self.inner.trusted.store(true, Ordering::Relaxed);
        metrics::clock_trusted(true);
    }

    /// Measures for ever. `others` are the other nodes of the cluster.
    pub async fn measure(self, client: Client, others: Vec<NodeId>) {
        metrics::clock_trusted(true);
        let mut last = self.offset();
        loop {
            last = self.check_own(last);
            let asked = others.iter().map(|node| self.ask(&client, *node));
            let answers = futures::future::join_all(asked).await;
            self.settle(answers.into_iter().flatten().collect(), others.len() + 1);
            let measured = self.now().is_some();
            tokio::time::sleep(if measured { ROUND } else { FIRST_ROUND }).await;
        }
    }

    /// Stops trusting our own wall clock if it jumped since it stood at `last`; where it stands.
    fn check_own(&self, last: i128) -> i128 {
        let offset = self.offset();
        if offset.abs_diff(last) > JUMP_MAX.as_millis() {
            self.inner.trusted.store(false, Ordering::Relaxed);
            metrics::clock_trusted(false);
            tracing::error!(
                "this node's clock jumped by {} ms: it takes no part in cluster time until it is \
                 trusted again",
                offset - last
            );
        }
        offset
    }

    /// Takes the clocks of others that answered, of `nodes` in all; without a majority the last
    /// measurement is carried on.
    pub(crate) fn settle(&self, mut offsets: Vec<i128>, nodes: usize) {
        offsets.extend(self.is_trusted().then(|| self.offset()));
        if offsets.len() * 2 <= nodes {
            return;
        }
        let offset = match is(Mutant::OwnClock) {
            true => self.offset(),
            false => lower_median(&mut offsets),
        };
        let at = self.inner.clock.monotonic();
        let time = u64::try_from(offset + millis(at)).unwrap_or_default();
        *self.inner.measured.lock() = Some(Measured { time: UnixMs::new(time), at });
        metrics::clock_offset(self.offset() - offset);
    }

    /// A node's wall clock against our monotonic clock, in milliseconds.
    async fn ask(&self, client: &Client, node: NodeId) -> Option<i128> {
        let before = self.inner.clock.monotonic();
        let answer = tokio::time::timeout(ROUND_TRIP_MAX, client.clock(node)).await;
        let answer = answer.ok()?.ok().filter(|clock| clock.trusted)?;
        let after = self.inner.clock.monotonic();
        Some(i128::from(answer.wall.get()) - (millis(before) + millis(after)) / 2)
    }

    /// Our own wall clock against our monotonic clock, in milliseconds.
    fn offset(&self) -> i128 {
        i128::from(self.inner.clock.wall().get()) - millis(self.inner.clock.monotonic())
    }
}

fn millis(duration: Duration) -> i128 {
    i128::try_from(duration.as_millis()).expect("a process runs for less than 2^127 ms")
}

/// The median; of an even number, the lower of the two in the middle.
fn lower_median(offsets: &mut [i128]) -> i128 {
    offsets.sort_unstable();
    offsets[(offsets.len() - 1) / 2]
}

#[cfg(test)]
mod tests {
    use tidemark_env::ManualClock;

    use super::*;

    #[test]
    fn of_two_clocks_the_lower_one_counts() {
        assert_eq!(lower_median(&mut [5]), 5);
        assert_eq!(lower_median(&mut [9, 5]), 5);
        assert_eq!(lower_median(&mut [9, 5, 7]), 7);
        assert_eq!(lower_median(&mut [i128::MAX, 5, 7]), 7, "one bad clock moves nothing");
    }

    fn alone() -> (Arc<ManualClock>, ClusterTime) {
        let clock = Arc::new(ManualClock::at(UnixMs::new(1_000_000)));
        (clock.clone(), ClusterTime::new(clock))
    }

    #[test]
    fn there_is_no_time_before_it_was_measured() {
        let (_, time) = alone();
        assert_eq!((time.now(), time.fresh()), (None, None));
        time.settle(vec![], 3);
        assert_eq!(time.now(), None, "one of three is no majority");
    }

    #[test]
    fn the_median_is_carried_on_by_the_monotonic_clock() {
        let (clock, time) = alone();
        time.settle(vec![2_000_000, 3_000_000], 3);
        assert_eq!(time.now(), Some(UnixMs::new(2_000_000)));
        clock.advance(Duration::from_secs(2));
        clock.jump(UnixMs::new(9));
        assert_eq!(time.fresh(), Some(UnixMs::new(2_002_000)), "our own clock moves nothing");
        clock.advance(FRESH_FOR);
        assert_eq!(time.fresh(), None);
        assert_eq!(time.now(), Some(UnixMs::new(2_007_000)));
    }

    #[test]
    fn a_clock_that_jumped_is_left_out_until_it_is_trusted() {
        let (clock, time) = alone();
        let stood = time.check_own(time.offset());
        clock.advance(Duration::from_secs(100));
        let stood = time.check_own(stood);
        assert!(time.is_trusted(), "time passed, nothing jumped");
        clock.jump(UnixMs::new(1_000_000 + 100_000 + 61_000));
        time.check_own(stood);
        assert!(!time.is_trusted());
        time.settle(vec![5], 3);
        assert_eq!(time.now(), None, "its own clock does not count");
        time.trust();
        time.settle(vec![0], 3);
        assert_eq!(time.now(), Some(UnixMs::new(100_000)), "the lower of two");
    }
}
