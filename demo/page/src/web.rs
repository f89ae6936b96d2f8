//! The page's files, and what it may ask.
//!
//! ```text
//!  GET  /  /page.css  /page.js  /…        the page; the SDK is client/js, as npm would have it
//!  GET  /api/setup                        people, their shards, where the gateways are
//!  GET  /api/cluster                      who is up, who leads what
//!  GET  /api/measured                     what each server measured, as totals
//!  GET  /api/pushes                       what reached the lock screen of B's phone
//!  POST /api/token      {"device":"a"}    a token for one of the three devices
//!  POST /api/push       {}                hints for B's phone go to the simulator from now on
//!  POST /api/kill-leader {}               kills the node that leads B's shard
//!  POST /api/restart    {"name":"node-2"} starts a node or gateway again
//! ```
//!
//! Whoever can reach this kills nodes and gets tokens, so it answers its own page only: other pages'
//! requests have another origin, and a name that was pointed at loopback is not ours.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cluster::Cluster;
use crate::measured;
use crate::phones::{Phones, Which};
use crate::pushes::Pushes;

/// The SDK as one file, made by `npm run build` in its folder.
const SDK: &str = "client/js/dist/tidemark-client.min.js";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const JSON: &str = "application/json";
const SVG: &str = "image/svg+xml";

/// The page's own files.
const FILES: [(&str, &str, &str); 9] = [
    ("/", HTML, include_str!("../web/index.html")),
    ("/page.css", CSS, include_str!("../web/page.css")),
    ("/icon.svg", SVG, include_str!("../web/icon.svg")),
    ("/page.js", SCRIPT, include_str!("../web/page.js")),
    ("/phone.js", SCRIPT, include_str!("../web/phone.js")),
    ("/network.js", SCRIPT, include_str!("../web/network.js")),
    ("/way.js", SCRIPT, include_str!("../web/way.js")),
    ("/cluster.js", SCRIPT, include_str!("../web/cluster.js")),
    ("/server.js", SCRIPT, include_str!("../web/server.js")),
];

/// What requests are answered from.
pub(crate) struct Web {
    host: String,
    policy: HeaderValue,
    sdk: String,
    cluster: Cluster,
    phones: Phones,
    pushes: Arc<Pushes>,
}

type Shared = State<Arc<Web>>;

impl Web {
    /// What the page at this address needs.
    pub(crate) fn new(
        at: std::net::SocketAddr,
        root: &Path,
        cluster: Cluster,
        phones: Phones,
        pushes: Arc<Pushes>,
    ) -> Result<Self> {
        let path = root.join(SDK);
        let sdk = std::fs::read_to_string(&path);
        let sdk = sdk.with_context(|| {
            format!("{}: run npm ci && npm run build in client/js first", path.display())
        })?;
        let gateways: Vec<_> = cluster.gateways_http().map(|at| format!("ws://{at}")).collect();
        let policy = format!(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
             connect-src 'self' {}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            gateways.join(" ")
        );
        let policy = HeaderValue::from_str(&policy).context("a gateway's address")?;
        Ok(Web { host: at.to_string(), policy, sdk, cluster, phones, pushes })
    }
}

/// All that there is.
pub(crate) fn router(web: Web) -> Router {
    let web = Arc::new(web);
    let mut router = Router::new()
        .route("/tidemark-client.js", get(sdk))
        .route("/api/setup", get(setup))
        .route("/api/cluster", get(async |State(web): Shared| json(&web.cluster.state().await)))
        .route("/api/measured", get(measured))
        .route("/api/pushes", get(async |State(web): Shared| json(&web.pushes.seen())))
        .route("/api/token", post(token))
        .route("/api/push", post(push))
        .route("/api/kill-leader", post(kill_leader))
        .route("/api/restart", post(restart));
    for (path, kind, text) in FILES {
        router = router.route(path, get(async move || ([(header::CONTENT_TYPE, kind)], text)));
    }
    router.layer(middleware::from_fn_with_state(web.clone(), guard)).with_state(web)
}

/// Only our own page is answered, and it may load nothing from elsewhere.
async fn guard(State(web): Shared, request: Request<Body>, next: Next) -> Response {
    if !is_ours(&web.host, request.method(), request.headers()) {
        return (StatusCode::FORBIDDEN, "this page answers nobody but itself\n").into_response();
    }
    let mut response = next.run(request).await;
    let fixed = |value| HeaderValue::from_static(value);
    response.headers_mut().extend([
        (header::CONTENT_SECURITY_POLICY, web.policy.clone()),
        (header::X_CONTENT_TYPE_OPTIONS, fixed("nosniff")),
        (header::REFERRER_POLICY, fixed("no-referrer")),
        (header::CACHE_CONTROL, fixed("no-store")),
        (HeaderName::from_static("cross-origin-opener-policy"), fixed("same-origin")),
        (HeaderName::from_static("cross-origin-resource-policy"), fixed("same-origin")),
    ]);
    response
}

/// Was it asked for by our own page, or by a person?
fn is_ours(host: &str, method: &Method, headers: &HeaderMap) -> bool {
    let is = |name, wanted: &str| headers.get(name).is_some_and(|value| value == wanted);
    let own_origin = is(header::ORIGIN, &format!("http://{host}"));
    is(header::HOST, host)
        && (own_origin || (method == Method::GET && !headers.contains_key(header::ORIGIN)))
}

async fn sdk(State(web): Shared) -> Response {
    ([(header::CONTENT_TYPE, SCRIPT)], web.sdk.clone()).into_response()
}

async fn setup(State(web): Shared) -> Response {
    let gateways = web.cluster.gateways_http().map(|at| format!("ws://{at}/v1/connect"));
    json(&json!({"people": web.phones.people(), "gateways": gateways.collect::<Vec<_>>()}))
}

async fn measured(State(web): Shared) -> Response {
    let metrics = web.cluster.metrics().await.into_iter();
    let totals = metrics.map(|(server, text)| (server, measured::totals(&text)));
    json(&totals.collect::<BTreeMap<_, _>>())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenFor {
    device: Which,
}

async fn token(State(web): Shared, body: Bytes) -> Response {
    match read(&body) {
        Ok(TokenFor { device }) => {
            answer(web.phones.token(device).map(|token| json!({"token": token})))
        }
        Err(refused) => *refused,
    }
}

async fn push(State(web): Shared) -> Response {
    let registered = web.phones.register_push(web.cluster.gateways_grpc()).await;
    answer(registered.map(|()| json!({})))
}

async fn kill_leader(State(web): Shared) -> Response {
    said(web.cluster.kill_leader(web.phones.shard_of_b()).await)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Restart {
    name: String,
}

async fn restart(State(web): Shared, body: Bytes) -> Response {
    let Restart { name } = match read(&body) {
        Ok(restart) => restart,
        Err(refused) => return *refused,
    };
    // A name, never an option of the script.
    let is_server = ["node-", "gateway-"].iter().any(|kind| name.starts_with(kind));
    if !is_server || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return (StatusCode::BAD_REQUEST, "no server has this name\n").into_response();
    }
    said(web.cluster.restart(&name).await)
}

/// What was asked, or the refusal. Boxed: a refusal is rare, and large.
fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Box<Response>> {
    let refused = |error: serde_json::Error| (StatusCode::BAD_REQUEST, format!("{error}\n"));
    serde_json::from_slice(body).map_err(|error| Box::new(refused(error).into_response()))
}

fn said(said: Result<String>) -> Response {
    answer(said.map(|said| json!({"said": said})))
}

fn answer(result: Result<serde_json::Value>) -> Response {
    match result {
        Ok(value) => json(&value),
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{error:#}\n")).into_response(),
    }
}

fn json(value: &impl Serialize) -> Response {
    let text = serde_json::to_string(value).expect("it has no map whose keys are no texts");
    ([(header::CONTENT_TYPE, JSON)], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_is_answered() {
        let host = "127.0.0.1:7490";
        let asked = |method: Method, headers: &[(HeaderName, &str)]| {
            let pairs = headers.iter().map(|(name, value)| {
                (name.clone(), HeaderValue::from_str(value).expect("a header"))
            });
            is_ours(host, &method, &pairs.collect())
        };
        let (own, other) = ("http://127.0.0.1:7490", "http://evil.example");
        assert!(asked(Method::GET, &[(header::HOST, host)]));
        assert!(asked(Method::POST, &[(header::HOST, host), (header::ORIGIN, own)]));
        assert!(!asked(Method::POST, &[(header::HOST, host)]));
        assert!(!asked(Method::POST, &[(header::HOST, host), (header::ORIGIN, other)]));
        assert!(!asked(Method::GET, &[(header::HOST, host), (header::ORIGIN, other)]));
        assert!(!asked(Method::GET, &[(header::HOST, "evil.example:7490")]));
        assert!(!asked(Method::GET, &[]));
    }

    #[test]
    fn the_page_is_small_and_has_nothing_inline() {
        let own: usize = FILES.iter().map(|(_, _, text)| text.len()).sum();
        assert!(own < 60_000, "{own} bytes, and the SDK has 120,000 more");
        let (_, _, html) = FILES[0];
        for inline in ["<style", " style=", " onclick=", "<script>", "javascript:"] {
            assert!(!html.contains(inline), "{inline} is refused by the page's own policy");
        }
    }
}
