//! What each gateway of the cluster tells of itself, by its metrics.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::StatusCode;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use tokio::time::timeout;

use crate::metrics::{self, Shown};

/// A gateway that takes longer is shown as one that does not answer.
const ANSWERS_WITHIN: Duration = Duration::from_millis(500);

/// Gateways that are asked at once.
const ASKED_AT_ONCE: usize = 16;

/// The text of all its metrics; a gateway with everything configured has some 50 KiB.
const METRICS_BYTES_MAX: usize = 1 << 20;

/// A gateway, as the page is told of it.
#[derive(Serialize)]
pub(super) struct Gateway {
    /// Where its HTTP port is: its name on the page.
    at: String,
    /// What it tells; nothing, if it does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    tells: Option<Vec<Shown>>,
}

/// Asks the gateways: this one by its own metrics, the others by HTTP.
#[derive(Clone)]
pub(super) struct Gateways {
    /// Where others find this one.
    own: String,
    client: Client<HttpConnector, Empty<Bytes>>,
}

impl Gateways {
    /// From this gateway.
    pub(super) fn new(own: String) -> Self {
        Gateways { own, client: Client::builder(TokioExecutor::new()).build_http() }
    }

    /// This gateway and those which have announced themselves, by where they are.
    pub(super) async fn ask(
        self,
        mut announced: BTreeSet<String>,
        metrics: PrometheusHandle,
    ) -> Vec<Gateway> {
        announced.remove(&self.own);
        let others = announced.into_iter().map(|at| async {
            let tells = timeout(ANSWERS_WITHIN, self.metrics_of(&at)).await.ok().flatten();
            Gateway { at, tells }
        });
        let mut gateways: Vec<_> =
            stream::iter(others).buffer_unordered(ASKED_AT_ONCE).collect().await;
        let tells = Some(metrics::shown(&metrics.render()));
        gateways.push(Gateway { at: self.own.clone(), tells });
        gateways.sort_by(|one, other| one.at.cmp(&other.at));
        gateways
    }

    async fn metrics_of(&self, at: &str) -> Option<Vec<Shown>> {
        let answer = self.client.get(format!("http://{at}/metrics").parse().ok()?).await.ok()?;
        if answer.status() != StatusCode::OK {
            return None;
        }
        let body = Limited::new(answer.into_body(), METRICS_BYTES_MAX).collect().await;
        Some(metrics::shown(str::from_utf8(&body.ok()?.to_bytes()).ok()?))
    }
}
