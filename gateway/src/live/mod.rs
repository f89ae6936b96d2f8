//! The live page of the cluster: who leads which shard, how far the replicas are, what must be 0, and
//! what the gateways do, as it happens. For operators: what is shown needs an admin's token, the page
//! itself holds nothing.
//!
//! ```text
//!   store nodes ── status ─────────►┐                      ┌──► SSE ──► page
//!     │ which gateways there are    sampler ──► watch ─────┤
//!     └──► /metrics of each ───────►┘  (newest sample)     └──► SSE ──► page
//! ```
//!
//! Nobody is asked for anything while nobody looks. All who look share one sampler, and who is slow
//! misses samples instead of holding them up.

mod gateways;
mod sampler;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::{StreamExt as _, stream};
use metrics_exporter_prometheus::PrometheusHandle;
use tidemark_env::Clock;
use tidemark_token::{Error, Keys};
use tokio::sync::Semaphore;

use crate::live::sampler::Sampler;
use crate::store::Store;

/// Who may look at once; each is a socket and the newest sample.
const WATCHERS_MAX: usize = 64;

/// Where the page is.
pub(crate) const PAGE: &str = "/live";
/// Where its parts are: path, kind, content.
pub(crate) const PARTS: [(&str, &str, &str); 2] = [
    ("/live/page.js", "text/javascript; charset=utf-8", include_str!("page.js")),
    ("/live/page.css", "text/css; charset=utf-8", include_str!("page.css")),
];
/// Where the samples come from.
pub(crate) const EVENTS: &str = "/live/events";

/// Nothing but the page's own parts is loaded, run or connected to.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The live page of a gateway.
pub(crate) struct Live {
    keys: Arc<Keys>,
    clock: Arc<dyn Clock>,
    sampler: Sampler,
    watchers: Arc<Semaphore>,
}

impl Live {
    /// The page over this store, for whoever has an admin's token of these keys.
    /// `own` is where others find this gateway.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        keys: Arc<Keys>,
        clock: Arc<dyn Clock>,
        own: String,
    ) -> Self {
        let watchers = Arc::new(Semaphore::new(WATCHERS_MAX));
        Live { keys, clock, sampler: Sampler::new(store, own), watchers }
    }

    /// Samples as they come, for the bearer of this token, until the token ends or the caller leaves.
    pub(crate) fn events(&self, token: &str, metrics: &PrometheusHandle) -> Response {
        let claims = self.keys.verify(token);
        let claims = match claims.and_then(|claims| claims.may_administer().map(|()| claims)) {
            Ok(claims) => claims,
            Err(error) => return refused(&error),
        };
        let Ok(place) = self.watchers.clone().try_acquire_owned() else {
            let text = format!("{WATCHERS_MAX} look already: close some of these pages\n");
            return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
        };
        let samples = self.sampler.watch(metrics.clone());
        let events = stream::unfold((samples, place), |(mut samples, place)| async move {
            let sample = samples.next().await?;
            Some((Ok::<_, Infallible>(Event::default().data(&*sample)), (samples, place)))
        });
        let left = claims.expires.get().saturating_sub(self.clock.wall().get());
        let events = events.boxed().take_until(tokio::time::sleep(Duration::from_millis(left)));
        Sse::new(events).keep_alive(KeepAlive::default()).into_response()
    }
}

fn refused(error: &Error) -> Response {
    let status = match error {
        Error::NeedsRole(_) => StatusCode::FORBIDDEN,
        _ => StatusCode::UNAUTHORIZED,
    };
    (status, format!("{error}\n")).into_response()
}

/// The page.
pub(crate) fn page() -> Response {
    part("text/html; charset=utf-8", include_str!("page.html"))
}

/// One of its parts.
pub(crate) fn part(kind: &'static str, content: &'static str) -> Response {
    const HEADERS: [(HeaderName, &str); 4] = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // A newer build has other parts under the same names.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    let mut response = content.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
