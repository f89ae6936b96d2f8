//! HTTP: for operators, is the process alive, does it take requests, and its metrics; for devices,
//! the WebSocket. It is there before the store is.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;

use crate::app::App;
use crate::connect::websocket;
use crate::limits::HELLO_TIMEOUT;

/// When no connection can be accepted, most likely since there are too many, this is waited.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The gateway, once it has reached its store.
pub(crate) type Started = Arc<OnceLock<Arc<App>>>;

/// `/healthz`, `/readyz` and `/metrics`, and the WebSocket.
pub(crate) fn router(started: Started, metrics: PrometheusHandle) -> Router {
    Router::new()
        .route("/readyz", get(readyz))
        .route(websocket::PATH, get(connect))
        .with_state(started)
        .route("/healthz", get(async || "ok\n"))
        .route("/metrics", get(async move || metrics.render()))
}

/// Serves for ever. Who connects and asks for nothing is let go as a device without a `Hello` is.
pub(crate) async fn serve(listener: TcpListener, router: Router) {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HELLO_TIMEOUT);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "no HTTP connection can be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "frames to a browser wait for each other");
        }
        let service = TowerToHyperService::new(router.clone());
        let served = server.serve_connection(TokioIo::new(stream), service).with_upgrades();
        tokio::spawn(async move {
            if let Err(error) = served.await {
                tracing::debug!(%error, "an HTTP connection broke");
            }
        });
    }
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
