//! The dispatcher over a store of hints in memory and a provider that a test scripts, in time that
//! passes by itself when everybody waits.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tidemark_env::SeededRng;
use tidemark_types::{Seq, UnixMs};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::*;
use crate::config::LaneConfig;
use crate::hint::tests::hint;
use crate::hint::{DeviceKey, Hint};
use crate::provider::{PushProvider, Sending, TargetError};

/// What R18 asks of the store: per device a head, how far it was pushed, and a lease.
#[derive(Default)]
struct Store {
    rows: Mutex<BTreeMap<DeviceKey, Row>>,
    largest_lease: AtomicUsize,
    /// Reports that get lost.
    deaf: Mutex<usize>,
}

struct Row {
    hint: Hint,
    pushed_upto: Seq,
    free_at: Instant,
}

impl Store {
    fn append(&self, device: &str, head: u32) {
        let hint = hint(device, head);
        let fresh = Row { hint: hint.clone(), pushed_upto: Seq::NONE, free_at: Instant::now() };
        self.rows.lock().entry(hint.key()).or_insert(fresh).hint.head = hint.head;
    }

    fn pushed(&self, device: &str) -> u32 {
        self.rows.lock()[&hint(device, 0).key()].pushed_upto.get()
    }

    fn all_pushed(&self) -> bool {
        self.rows.lock().values().all(|row| row.pushed_upto == row.hint.head)
    }

    fn lost(&self) -> bool {
        let mut deaf = self.deaf.lock();
        let lost = *deaf > 0;
        *deaf = deaf.saturating_sub(1);
        lost
    }
}

impl Hints for Store {
    async fn lease(&self, max: usize) -> Result<Vec<Hint>, HintsError> {
        self.largest_lease.fetch_max(max, Ordering::Relaxed);
        let now = Instant::now();
        let mut rows = self.rows.lock();
        let due = rows.values_mut().filter(|r| r.pushed_upto < r.hint.head && r.free_at <= now);
        Ok(due
            .take(max)
            .map(|row| {
                row.free_at = now + LEASE;
                row.hint.clone()
            })
            .collect())
    }

    async fn sent(&self, hint: &Hint) {
        if !self.lost()
            && let Some(row) = self.rows.lock().get_mut(&hint.key())
        {
            row.pushed_upto = row.pushed_upto.max(hint.head);
            row.free_at = Instant::now();
        }
    }

    async fn dead(&self, hint: &Hint, _since: Option<UnixMs>) {
        let mut rows = self.rows.lock();
        if rows.get(&hint.key()).is_some_and(|row| row.hint.version == hint.version) {
            rows.remove(&hint.key());
        }
    }

    async fn postpone(&self, hint: &Hint, after: Duration) {
        if let Some(row) = self.rows.lock().get_mut(&hint.key()) {
            row.free_at = Instant::now() + after;
        }
    }
}

/// Answers as it is told, then accepts; each attempt takes its time.
#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<Outcome>>,
    took: Mutex<Vec<(String, u32)>>,
    under_way: AtomicUsize,
    most: AtomicUsize,
    attempt_ms: u64,
}

impl Script {
    fn taken(&self) -> Vec<(String, u32)> {
        self.took.lock().clone()
    }
}

impl PushProvider for Script {
    fn check(&self, _: &str) -> Result<(), TargetError> {
        Ok(())
    }

    fn send<'a>(&'a self, hint: &'a Hint) -> Sending<'a> {
        Box::pin(async {
            let now = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
            self.most.fetch_max(now, Ordering::Relaxed);
            sleep(Duration::from_millis(self.attempt_ms)).await;
            self.under_way.fetch_sub(1, Ordering::Relaxed);
            let outcome = self.answers.lock().pop_front().unwrap_or(Outcome::Accepted);
            if outcome == Outcome::Accepted {
                self.took.lock().push((hint.device.to_string(), hint.head.get()));
            }
            outcome
        })
    }
}

#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Observer for Heard {
    fn attempted(&self, _: &str, outcome: &Outcome, _: Duration) {
        self.0.lock().push(outcome.label().to_owned());
    }

    fn event(&self, _: &str, event: Event) {
        self.0.lock().push(event.label().to_owned());
    }
}

impl Heard {
    fn count(&self, what: &str) -> usize {
        self.0.lock().iter().filter(|heard| *heard == what).count()
    }
}

/// A dispatcher that runs, and everything around it.
struct Running {
    store: Arc<Store>,
    script: Arc<Script>,
    heard: Arc<Heard>,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    fn start(script: Script, lane: LaneConfig, in_hand: usize) -> Self {
        let (store, script, heard) =
            (Arc::<Store>::default(), Arc::new(script), Arc::<Heard>::default());
        let mut providers = Providers::default();
        providers.insert("test", lane, script.clone());
        let config = DispatchConfig { in_hand, ..DispatchConfig::default() };
        let rng = Arc::new(SeededRng::new(1));
        let dispatcher = Dispatcher::new(store.clone(), providers, config, rng, heard.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(dispatcher.run(async { drop(stopped.await) }));
        Running { store, script, heard, stop: Some(stop), task }
    }

    fn with(script: Script) -> Self {
        Self::start(script, LaneConfig::default(), 1_000)
    }

    /// Waits until everything was pushed; the test's time is not the machine's.
    async fn settled(&self) {
        let settled = async {
            while !self.store.all_pushed() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(3_600), settled)
            .await
            .expect("everything is pushed in the end");
    }

    async fn stop(&mut self) {
        drop(self.stop.take());
        (&mut self.task).await.expect("it ends well");
    }
}

#[tokio::test(start_paused = true)]
async fn everything_due_is_pushed_once_and_reported() {
    let running = Running::with(Script { attempt_ms: 50, ..Script::default() });
    for n in 0..200 {
        running.store.append(&format!("d{n}"), n + 1);
    }
    running.settled().await;
    let mut taken = running.script.taken();
    taken.sort_unstable();
    taken.dedup();
    assert_eq!((taken.len(), running.heard.count("accepted")), (200, 200));
    assert_eq!(running.script.most.load(Ordering::Relaxed), 64, "as many at once as configured");
}

#[tokio::test(start_paused = true)]
async fn heads_that_come_while_a_push_is_under_way_become_one_push() {
    let running = Running::with(Script { attempt_ms: 2_000, ..Script::default() });
    for head in 1..=20 {
        running.store.append("phone", head);
        sleep(Duration::from_millis(100)).await;
    }
    running.settled().await;
    let heads: Vec<_> = running.script.taken().into_iter().map(|(_, head)| head).collect();
    assert!(heads.len() <= 3 && heads.last() == Some(&20), "{heads:?}");
    assert!(heads.is_sorted());
}

#[tokio::test(start_paused = true)]
async fn a_lost_report_costs_no_second_push() {
    let running = Running::with(Script::default());
    *running.store.deaf.lock() = 1;
    running.store.append("phone", 1);
    running.settled().await;
    assert_eq!(running.script.taken(), [("phone".to_owned(), 1)]);
    assert_eq!(running.heard.count("repeated"), 1);
}

#[tokio::test(start_paused = true)]
async fn no_device_stays_silent_whatever_the_service_says() {
    let busy = |secs| Outcome::retry(Some(Duration::from_secs(secs)), "busy");
    let answers = VecDeque::from([busy(1), Outcome::broken("no"), busy(90), Outcome::reject("no")]);
    let running = Running::with(Script { answers: Mutex::new(answers), ..Script::default() });
    running.store.append("phone", 1);
    let wait = async {
        while !running.store.all_pushed() {
            sleep(Duration::from_secs(1)).await;
        }
    };
    timeout(Duration::from_secs(2 * 3_600), wait).await.expect("it comes through");
    assert_eq!(running.heard.count("breaker_opened"), 1);
    assert_eq!(running.heard.count("breaker_closed"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_hangs_is_given_up_and_tried_again() {
    let running = Running::with(Script { attempt_ms: 3_600_000, ..Script::default() });
    running.store.append("phone", 1);
    sleep(Duration::from_secs(120)).await;
    let tried = running.heard.count("retry");
    assert!((3..=12).contains(&tried), "{tried}");
    // An attempt that is dropped does not count itself out.
    let begun = running.script.most.load(Ordering::Relaxed);
    assert!(begun - tried <= 1, "{begun} begun, {tried} given up");
}

#[tokio::test(start_paused = true)]
async fn a_dead_token_is_removed() {
    let answers = VecDeque::from([Outcome::dead()]);
    let running = Running::with(Script { answers: Mutex::new(answers), ..Script::default() });
    running.store.append("phone", 1);
    sleep(Duration::from_secs(5)).await;
    assert!(running.store.rows.lock().is_empty());
    assert_eq!(running.heard.count("removed"), 1);
}

#[tokio::test(start_paused = true)]
async fn no_more_is_leased_than_there_is_room_for() {
    let lane = LaneConfig { concurrency: 4, ..LaneConfig::default() };
    let running = Running::start(Script { attempt_ms: 100, ..Script::default() }, lane, 10);
    for n in 0..100 {
        running.store.append(&format!("d{n}"), 1);
    }
    running.settled().await;
    assert_eq!(running.store.largest_lease.load(Ordering::Relaxed), 10);
    assert_eq!(running.script.most.load(Ordering::Relaxed), 4);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_not_here_is_left_to_others() {
    let running = Running::with(Script::default());
    running.store.append("phone", 1);
    running.store.rows.lock().values_mut().for_each(|row| row.hint.provider = "other".to_owned());
    sleep(Duration::from_secs(5)).await;
    assert_eq!(running.heard.count("unconfigured"), 1);
    let free_at = running.store.rows.lock().values().map(|row| row.free_at).next();
    assert!(free_at.is_some_and(|at| at > Instant::now() + Duration::from_secs(30)));
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_what_is_under_way_and_gives_back_the_rest() {
    let lane = LaneConfig { concurrency: 1, ..LaneConfig::default() };
    let mut running = Running::start(Script { attempt_ms: 3_000, ..Script::default() }, lane, 10);
    for device in ["a", "b", "c"] {
        running.store.append(device, 1);
    }
    sleep(Duration::from_millis(700)).await;
    let began = Instant::now();
    running.stop().await;
    assert!(began.elapsed() < Duration::from_secs(3));
    assert_eq!(running.script.taken(), [("a".to_owned(), 1)]);
    assert_eq!([running.store.pushed("a"), running.store.pushed("b")], [1, 0]);
    let free = running.store.rows.lock().values().all(|row| row.free_at <= Instant::now());
    assert!(free, "whoever asks next gets them at once");
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_is_the_same_run() {
    async fn run() -> Vec<String> {
        let answers = (0..40).map(|n| match n % 3 {
            0 => Outcome::retry(None, "busy"),
            1 => Outcome::Accepted,
            _ => Outcome::retry(Some(Duration::from_secs(3)), "busy"),
        });
        let answers = Mutex::new(answers.collect());
        let running = Running::with(Script { answers, attempt_ms: 10, ..Script::default() });
        for n in 0..20 {
            running.store.append(&format!("d{n}"), 1);
        }
        running.settled().await;
        running.heard.0.lock().clone()
    }
    assert_eq!(run().await, run().await);
}
