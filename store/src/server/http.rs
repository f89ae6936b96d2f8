//! HTTP for operators: is the process alive, does it take requests, and its metrics.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;

use crate::node::Node;

#[derive(Clone)]
struct Shared {
    node: Arc<Node>,
    metrics: PrometheusHandle,
}

/// `/healthz`, `/readyz`, `/status` and `/metrics`.
pub fn router(node: Arc<Node>, metrics: PrometheusHandle) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/status", get(status))
        .route("/metrics", get(scrape))
        .with_state(Shared { node, metrics })
}

/// Alive: no group has stopped and the log takes entries.
async fn healthz(State(shared): State<Shared>) -> (StatusCode, String) {
    answer(shared.node.health())
}

/// Ready: healthy, not stopping, every group has a leader and what is committed, every shard is
/// initialised.
async fn readyz(State(shared): State<Shared>) -> (StatusCode, String) {
    answer(shared.node.readiness())
}

/// Every group as this node sees it, one line each.
async fn status(State(shared): State<Shared>) -> String {
    let number = |value: Option<u64>| value.map_or_else(|| "none".to_owned(), |n| n.to_string());
    let mut lines = String::new();
    for (id, group) in shared.node.hosted().groups() {
        let status = group.status();
        let leader = number(status.leader.map(|leader| leader.node.get()));
        let (last, applied) = (number(status.last_log), number(status.applied));
        lines += &format!(
            "{id} term={} leader={leader} last={last} applied={applied} purged={}\n",
            status.term,
            number(status.purged),
        );
    }
    lines
}

async fn scrape(State(shared): State<Shared>) -> String {
    shared.node.observe();
    tidemark_process::usage::observe();
    shared.metrics.render()
}

fn answer(state: Result<(), String>) -> (StatusCode, String) {
    match state {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}
