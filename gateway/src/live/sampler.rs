//! Samples of the cluster and of its gateways, taken while somebody looks.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use metrics_exporter_prometheus::PrometheusHandle;
use parking_lot::Mutex;
use serde::Serialize;
use tidemark_proto::store::v1::{Alarms, GroupStatus, StatusResponse};
use tidemark_types::NodeId;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::gateways::{Gateway, Gateways};
use crate::store::Store;

/// Between two samples: a leader that is gone shows at once, and the servers hardly notice who looks.
const EVERY: Duration = Duration::from_millis(200);

/// A node that takes longer to say how it stands is shown as one that does not answer.
const ANSWERS_WITHIN: Duration = Duration::from_millis(500);

/// Gateways are asked every so many samples: their metrics cost more than a status.
const GATEWAYS_IN: u64 = 5;

/// A sample, as the page reads it.
pub(super) type Sample = Arc<str>;

/// Takes samples for all who look.
pub(super) struct Sampler {
    store: Arc<dyn Store>,
    gateways: Gateways,
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
    /// Of this store, by the gateway that others find at `own`.
    pub(super) fn new(store: Arc<dyn Store>, own: String) -> Self {
        Sampler { store, gateways: Gateways::new(own), current: Mutex::default() }
    }

    /// Looks from now on, inside a runtime.
    pub(super) fn watch(&self, metrics: PrometheusHandle) -> Samples {
        let mut current = self.current.lock();
        let shared = current.upgrade().unwrap_or_else(|| {
            let (samples, seen) = watch::channel(Sample::from(""));
            tokio::spawn(take(self.store.clone(), self.gateways.clone(), metrics, samples));
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

/// Takes samples until nobody looks. A gateway that does not answer holds up no sample.
async fn take(
    store: Arc<dyn Store>,
    gateways: Gateways,
    metrics: PrometheusHandle,
    samples: watch::Sender<Sample>,
) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asking = JoinSet::new();
    for number in 0_u64.. {
        tokio::select! {
            _ = ticks.tick() => {}
            () = samples.closed() => return,
        }
        let (nodes, announced) = nodes(store.as_ref()).await;
        if number.is_multiple_of(GATEWAYS_IN) && asking.is_empty() {
            asking.spawn(gateways.clone().ask(announced, metrics.clone()));
        }
        let gateways = asking.try_join_next().and_then(Result::ok);
        let text = serde_json::to_string(&Shown { nodes, gateways }).expect("names and numbers");
        samples.send_replace(text.into());
    }
}

/// How the nodes stand, and the gateways of which any of them knows.
async fn nodes(store: &dyn Store) -> (Vec<Node>, BTreeSet<String>) {
    let asked = store.map().nodes.keys().map(|node| async move {
        let answer = timeout(ANSWERS_WITHIN, store.status(*node)).await;
        (*node, answer.ok().and_then(Result::ok))
    });
    let mut asked: FuturesUnordered<_> = asked.collect();
    let (mut nodes, mut gateways) = (Vec::new(), BTreeSet::new());
    while let Some((node, mut status)) = asked.next().await {
        gateways.extend(status.iter_mut().flat_map(|status| status.gateways.drain(..)));
        nodes.push(Node::of(node, status));
    }
    nodes.sort_by_key(|node| node.node);
    (nodes, gateways)
}

/// What the page is told.
#[derive(Serialize)]
struct Shown {
    nodes: Vec<Node>,
    /// Every gateway, by the names of its metrics, when they have been asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    gateways: Option<Vec<Gateway>>,
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
    /// What must never happen, and how often it did.
    alarms: Vec<(String, u64)>,
    groups: Vec<Group>,
}

/// A group, the control group too, whose number is the highest: its number, its term, who leads it (0 for
/// none that is known), the last entry of its log, the last one applied, and why it stopped, which is
/// empty while it runs. Without names, as there are hundreds in each sample.
#[derive(Serialize)]
struct Group(u32, u64, u64, u64, u64, String);

impl Node {
    fn of(node: NodeId, status: Option<StatusResponse>) -> Self {
        let stands = status.map(|status| {
            let StatusResponse { version, disk_free_bytes, groups, alarms, .. } = status;
            let groups = groups.into_iter().map(Group::from).collect();
            let alarms = alarms.into_iter().map(|Alarms { kind, count }| (kind, count)).collect();
            Stands { version, disk_free_bytes, alarms, groups }
        });
        Node { node: node.get(), stands }
    }
}

impl From<GroupStatus> for Group {
    fn from(status: GroupStatus) -> Self {
        let GroupStatus { group, term, leader, last_log, applied, stopped, .. } = status;
        Group(group, term, leader, last_log, applied, stopped)
    }
}
