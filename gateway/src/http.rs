//! HTTP: for operators, is the process alive, does it take requests, its metrics and the live page;
//! for devices, the WebSocket. It is there before the store is.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics_exporter_prometheus::PrometheusHandle;
use tidemark_proto::headers;

use crate::app::App;
use crate::connect::websocket;
use crate::limits::HELLO_TIMEOUT;
use crate::live;
use crate::sockets::Sockets;

/// The gateway, once it has reached its store.
pub(crate) type Started = Arc<OnceLock<Arc<App>>>;

/// `/healthz`, `/readyz` and `/metrics`, the live page, and the WebSocket.
pub(crate) fn router(started: Started, metrics: PrometheusHandle) -> Router {
    let shown = metrics.clone();
    let looked = async move |State(started): State<Started>, headers: HeaderMap| {
        look(&started, &headers, &shown)
    };
    let parts = live::PARTS.into_iter().fold(Router::new(), |router, (path, kind, content)| {
        router.route(path, get(async move || live::part(kind, content)))
    });
    Router::new()
        .route("/readyz", get(readyz))
        .route(websocket::PATH, get(connect))
        .route(live::EVENTS, get(looked))
        .with_state(started)
        .route(live::PAGE, get(async || live::page()))
        .merge(parts)
        .route("/healthz", get(async || "ok\n"))
        .route("/metrics", get(async move || scrape(&metrics)))
}

/// Serves for ever. Who connects and asks for nothing is let go as a device without a `Hello` is.
pub(crate) async fn serve(sockets: Sockets, router: Router) {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HELLO_TIMEOUT);
    loop {
        let socket = sockets.accept().await;
        let service = TowerToHyperService::new(router.clone());
        let served = server.serve_connection(TokioIo::new(socket), service).with_upgrades();
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

/// Samples for the live page.
fn look(started: &Started, headers: &HeaderMap, metrics: &PrometheusHandle) -> Response {
    let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(token) = token.and_then(|value| value.strip_prefix(headers::BEARER)) else {
        let text = format!(
            "the header `{}: {}TOKEN` is missing\n",
            headers::AUTHORIZATION,
            headers::BEARER
        );
        return (StatusCode::UNAUTHORIZED, text).into_response();
    };
    match app(started) {
        Ok(app) => app.live().events(token, metrics),
        Err(reason) => unavailable(reason),
    }
}

fn scrape(metrics: &PrometheusHandle) -> String {
    tidemark_process::usage::observe();
    metrics.render()
}

fn app(started: &Started) -> Result<&App, &'static str> {
    started.get().map(Arc::as_ref).ok_or("it waits for the store; its log says why")
}

fn unavailable(reason: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response()
}
