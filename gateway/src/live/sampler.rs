//! Samples of the cluster and of this gateway, taken while somebody looks.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use metrics_exporter_prometheus::PrometheusHandle;
use parking_lot::Mutex;
use serde::Serialize;
use tidemark_proto::store::v1::{GroupStatus, StatusResponse};
use tidemark_types::NodeId;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::metrics;
use crate::store::Store;

/// Between two samples: a leader that is gone shows at once, and the page draws no oftener.
const EVERY: Duration = Duration::from_millis(100);

/// A node that takes longer to say how it stands is shown as one that does not answer.
const ANSWERS_WITHIN: Duration = Duration::from_millis(500);

/// The gateway's own numbers are in every so many samples: reading them costs more than a status.
const METRICS_IN: u64 = 10;

/// A sample, as the page reads it.
pub(super) type Sample = Arc<str>;

/// Takes samples for all who look.
pub(super) struct Sampler {
    store: Arc<dyn Store>,
    /// The samples of the task that takes them; gone when nobody looks.
    current: Mutex<Weak<watch::Receiver<Sample>>>,
}

/// One look; the samples end when the last one is dropped.
pub(super) struct Samples {
    samples: watch::Receiver<Sample>,
    _shared: Arc<watch::Receiver<Sample>>,
}

impl Samples {
    /// The newest sample that was not taken yet.
    pub(super) async fn next(&mut self) -> Option<Sample> {
        self.samples.changed().await.ok()?;
        Some(self.samples.borrow_and_update().clone())
    }
}

impl Sampler {
    /// Of this store.
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Sampler { store, current: Mutex::default() }
    }

    /// Looks from now on, inside a runtime.
    pub(super) fn watch(&self, metrics: PrometheusHandle) -> Samples {
        let mut current = self.current.lock();
        let shared = current.upgrade().unwrap_or_else(|| {
            let (samples, seen) = watch::channel(Sample::from(""));
            tokio::spawn(take(self.store.clone(), metrics, samples));
            Arc::new(seen)
        });
        *current = Arc::downgrade(&shared);
        let mut samples = watch::Receiver::clone(&shared);
        // A sample that is there already is shown at once.
        if !samples.borrow().is_empty() {
            samples.mark_changed();
        }
        Samples { samples, _shared: shared }
    }
}

/// Takes samples until nobody looks.
async fn take(store: Arc<dyn Store>, handle: PrometheusHandle, samples: watch::Sender<Sample>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0_u64.. {
        tokio::select! {
            _ = ticks.tick() => {}
            () = samples.closed() => return,
        }
        let gateway = number.is_multiple_of(METRICS_IN).then(|| metrics::shown(&handle.render()));
        let sample = Shown { nodes: nodes(store.as_ref()).await, gateway };
        let text = serde_json::to_string(&sample).expect("names and numbers");
        samples.send_replace(text.into());
    }
}

async fn nodes(store: &dyn Store) -> Vec<Node> {
    let asked = store.map().nodes.keys().map(|node| async move {
        let answer = timeout(ANSWERS_WITHIN, store.status(*node)).await;
        Node::of(*node, answer.ok().and_then(Result::ok))
    });
    let mut nodes: Vec<Node> = asked.collect::<FuturesUnordered<_>>().collect().await;
    nodes.sort_by_key(|node| node.node);
    nodes
}

/// What the page is told.
#[derive(Serialize)]
struct Shown {
    nodes: Vec<Node>,
    /// This gateway's numbers, by the names of its metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<Vec<metrics::Shown>>,
}

#[derive(Serialize)]
struct Node {
    node: u64,
    /// Nothing, if it does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    stands: Option<Stands>,
}

#[derive(Serialize)]
struct Stands {
    version: String,
    disk_free_bytes: u64,
    groups: Vec<Group>,
}

/// Of the control group too, whose number is the highest.
#[derive(Serialize)]
struct Group {
    group: u32,
    term: u64,
    /// 0 for none that is known.
    leader: u64,
    last_log: u64,
    applied: u64,
    outbox_bytes: u64,
    /// Why it stopped; empty while it runs.
    stopped: String,
}

impl Node {
    fn of(node: NodeId, status: Option<StatusResponse>) -> Self {
        let stands = status.map(|status| {
            let StatusResponse { version, disk_free_bytes, groups, .. } = status;
            let groups = groups.into_iter().map(Group::from).collect();
            Stands { version, disk_free_bytes, groups }
        });
        Node { node: node.get(), stands }
    }
}

impl From<GroupStatus> for Group {
    fn from(status: GroupStatus) -> Self {
        let GroupStatus { group, term, leader, last_log, applied, outbox_bytes, stopped, .. } =
            status;
        Group { group, term, leader, last_log, applied, outbox_bytes, stopped }
    }
}
