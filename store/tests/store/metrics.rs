//! What whoever scrapes is told of a node is how it stands.

use std::collections::BTreeMap;
use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusBuilder;
use tempfile::TempDir;
use tidemark_env::SystemClock;
use tidemark_store::node::Node;

use crate::device::Device;
use crate::node::{self, config, create, send, serving, stop, user};

/// The gauges that are set when somebody scrapes, by name and labels.
fn observed(node: &Node) -> BTreeMap<String, f64> {
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || node.observe());
    let told = recorder.handle().render();
    let lines = told.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let pairs = lines.map(|line| line.rsplit_once(' ').expect("a name and a value"));
    pairs.map(|(name, value)| (name.to_owned(), value.parse().expect("a number"))).collect()
}

/// The last applied entry of every group.
fn applied(node: &Node) -> BTreeMap<String, f64> {
    let groups = node.hosted().groups();
    let applied = groups.map(|(id, group)| (id.to_string(), group.status().applied));
    applied.map(|(id, applied)| (id, applied.unwrap_or_default() as f64)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_told_of_groups_is_how_they_stand() {
    let dir = TempDir::new().unwrap();
    let config = config(&dir.path().join("data"));
    create(&config).unwrap();
    let node = serving(&config, Arc::new(SystemClock::new())).await.unwrap();
    let alice = Device::open(&node, &user("alice"), [1; 16]).await.unwrap();
    let readers: Vec<_> = (0..20).map(|at| user(&format!("reader-{at}"))).collect();
    for n in 1..=5 {
        node.propose(send(&alice, n, &readers)).await.unwrap();
    }
    node::settled(&node).await;

    // What is applied meanwhile, such as trims, may be told or not.
    let before = applied(&node);
    let told = observed(&node);
    let after = applied(&node);
    assert_eq!(before.len(), 5, "the control group and four shards");
    for (group, before) in &before {
        let of = |name: &str| told[&format!("store_group_{name}{{group=\"{group}\"}}")];
        assert_eq!(of("leads"), 1.0);
        assert!((*before..=after[group]).contains(&of("applied_entry")), "{group}");
        assert!(of("last_entry") >= of("applied_entry"));
        assert!(of("applied_entry") >= of("snapshot_entry"));
        assert!(of("snapshot_entry") >= of("purged_entry"));
        assert!(of("term") >= 1.0);
    }
    assert!(before.values().any(|entries| *entries > 5.0), "{before:?}");
    assert_eq!(told["store_outbox_bytes{group=\"shard-0\"}"], 0.0, "all of it has arrived");
    assert_eq!(told["store_outbox_bytes_max"], config.relay.queue_bytes_max as f64);
    let clients = "group=\"shard-0\",class=\"clients\"";
    assert_eq!(told[&format!("store_proposals_bytes{{{clients}}}")], 0.0, "nobody waits");
    let max = told["store_proposals_bytes_max{class=\"clients\"}"];
    assert_eq!(max, config.proposals.client_bytes_max as f64);
    assert!(told["store_state_pending_bytes"] > 0.0);
    assert!(told.keys().all(|name| !name.contains("reader")), "no label names a user");
    stop(node).await.unwrap();
}
