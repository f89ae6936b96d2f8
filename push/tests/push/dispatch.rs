//! All of it: hints by lease, every provider at once, services that fail, and no device that stays
//! silent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidemark_env::SystemRng;
use tidemark_push::config::DispatchConfig;
use tidemark_push::{Dispatcher, Hint, Hints, HintsError, LEASE};
use tidemark_push_sim::{Fault, Service};
use tidemark_types::{Seq, UnixMs};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use crate::bench::{ALL, Bench, hint};

/// What is due, in memory.
#[derive(Default)]
struct Due(Mutex<BTreeMap<String, Row>>);

struct Row {
    hint: Hint,
    pushed_upto: Seq,
    free_at: Instant,
}

impl Due {
    fn add(&self, hint: Hint) {
        let key = format!("{}:{}", hint.user, hint.device);
        let fresh = Row { hint: hint.clone(), pushed_upto: Seq::NONE, free_at: Instant::now() };
        self.0.lock().entry(key).or_insert(fresh).hint.head = hint.head;
    }

    fn with(&self, hint: &Hint, change: impl FnOnce(&mut Row)) {
        let key = format!("{}:{}", hint.user, hint.device);
        if let Some(row) = self.0.lock().get_mut(&key) {
            change(row);
        }
    }

    fn left(&self) -> usize {
        self.0.lock().values().filter(|row| row.pushed_upto < row.hint.head).count()
    }
}

impl Hints for Due {
    async fn lease(&self, max: usize) -> Result<Vec<Hint>, HintsError> {
        let now = Instant::now();
        let mut rows = self.0.lock();
        let due = rows.values_mut().filter(|r| r.pushed_upto < r.hint.head && r.free_at <= now);
        let leased = due.take(max).map(|row| {
            row.free_at = now + LEASE;
            row.hint.clone()
        });
        Ok(leased.collect())
    }

    async fn sent(&self, hint: &Hint) {
        self.with(hint, |row| {
            row.pushed_upto = row.pushed_upto.max(hint.head);
            row.free_at = Instant::now();
        });
    }

    async fn dead(&self, hint: &Hint, _: Option<UnixMs>) {
        let mut rows = self.0.lock();
        rows.retain(|_, row| row.hint.target != hint.target || row.hint.version != hint.version);
    }

    async fn postpone(&self, hint: &Hint, after: Duration) {
        self.with(hint, |row| row.free_at = Instant::now() + after);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_device_that_lives_is_woken_for_the_newest_head() {
    let bench = Bench::start().await;
    let due = Arc::<Due>::default();
    let mut gone = Vec::new();
    for (name, service) in ALL {
        // Services that are busy for a moment: of Google's it takes ten seconds to be asked again.
        bench.sim.fail(Fault::new(service, 500, ""));
        let (target, known_as) = bench.target(service);
        for head in [5, 7] {
            due.add(hint(name, &target, head));
        }
        if service == Service::WebPush {
            bench.sim.kill(service, &known_as, 1_700_000_000_000);
            gone.push(name);
        }
    }
    let (stop, stopped) = oneshot::channel::<()>();
    let rng = Arc::new(SystemRng);
    let config = DispatchConfig { poll_ms: 20, ..DispatchConfig::default() };
    let dispatcher =
        Dispatcher::new(due.clone(), bench.providers.clone(), config, rng, Arc::new(()));
    let task = tokio::spawn(dispatcher.run(async { drop(stopped.await) }));
    let wait = async {
        while due.left() > 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(120), wait).await.expect("everybody is woken");
    drop(stop);
    timeout(Duration::from_secs(30), task).await.expect("it stops").expect("well");
    assert_eq!(gone, ["webpush"]);
    for (name, service) in ALL {
        let received = bench.sim.received(service);
        match gone.contains(&name) {
            true => assert_eq!(received, [], "{name}"),
            false => {
                assert_eq!(received.len(), 1, "{name}");
                assert!(received[0].body.contains('7'), "{name}: {}", received[0].body);
            }
        }
    }
    assert_eq!(due.0.lock().len(), ALL.len() - 1, "the dead one was removed");
}
