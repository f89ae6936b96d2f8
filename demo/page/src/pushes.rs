//! The lock screen of B's phone: Apple's push service, simulated, and the gateways' configuration
//! that uses it.
//!
//! `scripts/cluster page` restarts the gateways once this is there; they find the simulator by
//! `gateway.toml` in the cluster's folder, which goes with this process.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;
use serde::Serialize;
use tidemark_push_sim::{Received, Service, Sim, SimConfig};
use tokio::task::JoinHandle;

/// The provider that B's phone registers with.
pub(crate) const PROVIDER: &str = "apns";

/// The token that Apple gave to B's phone.
pub(crate) const TARGET: &str = "b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0";

/// What the lock screen says: a push is a hint, and has nothing of the message.
const ALERT: &str = "You have new messages";

/// How often the simulator is looked at: a push is seen so much later at most.
const LOOK: Duration = Duration::from_millis(50);

/// Pushes that the page is told of: the newest ones.
const SHOWN_MAX: usize = 20;

/// By this line we know the file that we wrote.
const OURS: &str = "# Made by tidemark-demo-page, and removed when it ends.\n";

/// A push that reached the phone.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Push {
    /// When it was seen: milliseconds since the Unix epoch.
    seen_ms: u128,
    /// What the phone shows.
    alert: String,
    /// The whole of it, as the phone's system gets it.
    payload: String,
}

/// The simulator, and what it took.
pub(crate) struct Pushes {
    file: PathBuf,
    seen: Arc<Mutex<Vec<Push>>>,
    watching: JoinHandle<()>,
}

impl Pushes {
    /// Starts the simulator, and writes the gateways' configuration into the cluster's folder.
    pub(crate) async fn start(home: &Path) -> Result<Self> {
        let file = home.join("gateway.toml");
        if let Ok(text) = fs::read_to_string(&file) {
            ensure!(text.starts_with(OURS), "{} is not ours: move it away first", file.display());
        }
        let sim = Sim::start(SimConfig::default()).await?;
        let folder = home.join("push");
        sim.write(&folder)?;
        let config = configuration(&fs::read_to_string(folder.join("push.toml"))?)?;
        fs::write(&file, format!("{OURS}{config}"))?;
        let seen = Arc::<Mutex<Vec<Push>>>::default();
        let watching = tokio::spawn(watch(sim, seen.clone()));
        Ok(Pushes { file, seen, watching })
    }

    /// The newest pushes, oldest first.
    pub(crate) fn seen(&self) -> Vec<Push> {
        self.seen.lock().clone()
    }
}

impl Drop for Pushes {
    fn drop(&mut self) {
        self.watching.abort();
        // If it stays, gateways look for a simulator that is gone, and the next page writes it anew.
        let _ = fs::remove_file(&self.file);
    }
}

/// The gateway's configuration from the simulator's: one provider, with a text to show.
fn configuration(push: &str) -> Result<String> {
    let push: toml::Table = push.parse()?;
    let provider = push.get("providers").and_then(|providers| providers.get(PROVIDER));
    let mut provider =
        provider.and_then(toml::Value::as_table).context("push.toml: no apns")?.clone();
    provider.insert("alert".to_owned(), ALERT.into());
    let nest =
        |name: &str, value: toml::Table| toml::Table::from_iter([(name.to_owned(), value.into())]);
    Ok(toml::to_string(&nest("push", nest("providers", nest(PROVIDER, provider))))?)
}

async fn watch(sim: Sim, seen: Arc<Mutex<Vec<Push>>>) {
    let mut known = 0;
    loop {
        let received = sim.received(Service::Apns);
        for push in received.iter().skip(known).filter(|push| push.target == TARGET) {
            let mut seen = seen.lock();
            if seen.len() == SHOWN_MAX {
                seen.remove(0);
            }
            seen.push(shown(push));
        }
        known = received.len();
        tokio::time::sleep(LOOK).await;
    }
}

fn shown(push: &Received) -> Push {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let payload: serde_json::Value = serde_json::from_str(&push.body).unwrap_or_default();
    let alert = &payload["aps"]["alert"];
    let alert = alert.as_str().or_else(|| alert["body"].as_str()).unwrap_or_default().to_owned();
    Push { seen_ms: since.as_millis(), alert, payload: push.body.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_gets_one_provider_with_a_text() {
        let push = "[providers.fcm]\nkind = \"fcm\"\n[providers.apns]\nkind = \"apns\"\ntls = { ca = \"x\" }\n";
        let made: toml::Table =
            configuration(push).expect("a configuration").parse().expect("TOML");
        let providers = made["push"]["providers"].as_table().expect("a table");
        assert_eq!(providers.keys().collect::<Vec<_>>(), [PROVIDER]);
        assert_eq!(providers[PROVIDER]["alert"].as_str(), Some(ALERT));
        assert_eq!(providers[PROVIDER]["tls"]["ca"].as_str(), Some("x"));
    }
}
