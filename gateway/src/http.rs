//! HTTP: for operators, is the process alive, does it take requests, and its metrics; for devices,
//! the WebSocket.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;

use crate::app::App;
use crate::connect::websocket;

/// `/healthz`, `/readyz` and `/metrics`, and the WebSocket.
pub fn router(app: Arc<App>, metrics: PrometheusHandle) -> Router {
    Router::new()
        .merge(websocket::route(app.devices()))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz).with_state(app))
        .route("/metrics", get(async move || metrics.render()))
}

async fn readyz(State(app): State<Arc<App>>) -> (StatusCode, String) {
    match app.readiness() {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}
