//! An independent receiver of Web Push, `web-push-testing`: it checks our signature and decrypts with
//! libraries that have nothing in common with ours.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use serde_json::{Value, json};
use tidemark_env::{Clock, Rng, SystemClock, SystemRng};
use tidemark_push::{Outcome, Providers, PushConfig, PushProvider};
use tidemark_push_sim::Credentials;

use crate::bench::hint;

/// Installs the packages, and gives their folder.
fn npm() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("push-npm");
    let install = Path::new(env!("CARGO_MANIFEST_DIR")).join("sim/tests/npm/install");
    let done = Command::new(install).arg(&folder).status().expect("bash");
    assert!(done.success(), "the packages could not be installed");
    folder
}

/// The receiver's process; it ends with this.
struct Receiver {
    process: Child,
    origin: String,
}

impl Receiver {
    fn start() -> Receiver {
        let mut process = Command::new("node")
            .current_dir(npm())
            .arg("receiver.js")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node");
        let mut port = String::new();
        let output = process.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut port).expect("a line");
        let origin = format!("http://127.0.0.1:{}", port.trim());
        Receiver { process, origin }
    }

    async fn ask(&self, what: &str, order: &Value) -> Value {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let request = client.post(format!("{}/{what}", self.origin));
        let request = request.header("content-type", "application/json").body(order.to_string());
        let text = request.send().await.expect("an answer").text().await.expect("text");
        serde_json::from_str(&text).unwrap_or_default()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn provider(credentials: &Credentials, origin: &str) -> Arc<dyn PushProvider> {
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("vapid.pem");
    std::fs::write(&key, credentials.vapid_key().expect("a key")).expect("written");
    let text = format!(
        "[providers.web]\nkind = \"webpush\"\nvapid_key = {:?}\n\
         subject = \"mailto:push@example.org\"\norigins = [{origin:?}]\n",
        key.display().to_string()
    );
    let config: PushConfig = toml::from_str(&text).expect("a configuration");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let rng: Arc<dyn Rng> = Arc::new(SystemRng);
    let providers = Providers::build(&config, &clock, &rng).expect("it can be made");
    providers.get("web").expect("it is there").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_independent_receiver_reads_what_we_sent() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let (ours, other) = (Credentials::new().expect("keys"), Credentials::new().expect("keys"));
    let receiver = Receiver::start();
    let order = json!({ "userVisibleOnly": "true", "applicationServerKey": ours.vapid_public() });
    let subscription = receiver.ask("subscribe", &order).await["data"].take();
    let client = json!({ "clientHash": subscription["clientHash"] });
    let provider = |credentials| provider(credentials, &receiver.origin);
    let target = subscription.to_string();
    for head in [7, 8] {
        let outcome = provider(&ours).send(&hint("web", &target, head)).await;
        assert_eq!(outcome, Outcome::Accepted);
    }
    let messages = receiver.ask("get-notifications", &client).await["data"]["messages"].take();
    let expected = |head| format!(r#"{{"user":"ann","epoch":1,"head":{head}}}"#);
    assert_eq!(messages, json!([expected(7), expected(8)]));

    let outcome = provider(&other).send(&hint("web", &target, 9)).await;
    assert_eq!(outcome.label(), "reject", "the key is another: {outcome:?}");
    let hash = subscription["clientHash"].as_str().expect("text");
    receiver.ask(&format!("expire-subscription/{hash}"), &json!({})).await;
    let outcome = provider(&ours).send(&hint("web", &target, 10)).await;
    assert_eq!(outcome, Outcome::TokenDead { since: None });
}
