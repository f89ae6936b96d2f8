//! What the cluster's servers say of themselves over HTTP.

use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::time::timeout;

/// A server that does not answer in this time is shown as down.
const PATIENCE: Duration = Duration::from_millis(500);

/// The text at this address; none when nobody answers, or not well.
pub(crate) async fn get(address: &str, path: &str) -> Option<String> {
    let url = format!("http://{address}{path}").parse().ok()?;
    let client = Client::builder(TokioExecutor::new()).build_http::<Body>();
    let asked = async {
        let answer = client.get(url).await.ok()?;
        if !answer.status().is_success() {
            return None;
        }
        let bytes = answer.into_body().collect().await.ok()?.to_bytes();
        String::from_utf8(bytes.into()).ok()
    };
    timeout(PATIENCE, asked).await.ok().flatten()
}
