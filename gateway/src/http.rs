//! HTTP: for operators, is the process alive, does it take requests, and its metrics; for devices,
//! the WebSocket. It is there before the store is.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;

use crate::app::App;
use crate::connect::websocket;

/// The gateway, once it has reached its store.
pub type Started = Arc<OnceLock<Arc<App>>>;

/// `/healthz`, `/readyz` and `/metrics`, and the WebSocket.
pub fn router(started: Started, metrics: PrometheusHandle) -> Router {
    Router::new()
        .route("/readyz", get(readyz))
        .route(websocket::PATH, get(connect))
        .with_state(started)
        .route("/healthz", get(async || "ok\n"))
        .route("/metrics", get(async move || metrics.render()))
}

async fn readyz(State(started): State<Started>) -> Response {
    match app(&started).and_then(|app| app.readiness()) {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => unavailable(reason),
    }
}

async fn connect(State(started): State<Started>, request: WebSocketUpgrade) -> Response {
    match app(&started) {
        Ok(app) => websocket::upgrade(app.devices(), request),
        Err(reason) => unavailable(reason),
    }
}

fn app(started: &Started) -> Result<&App, &'static str> {
    started.get().map(Arc::as_ref).ok_or("it waits for the store; its log says why")
}

fn unavailable(reason: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response()
}
