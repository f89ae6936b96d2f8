//! The local cluster, as `scripts/cluster` describes and runs it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use tidemark_env::{SystemClock, SystemRng};
use tidemark_store_client::{Client, ClientConfig};

/// A running local cluster.
pub(crate) struct Cluster {
    script: PathBuf,
    home: PathBuf,
    file: File,
}

/// What `cluster.json` says.
#[derive(Deserialize)]
struct File {
    gateways: Vec<Gateway>,
    stores: Vec<Store>,
    key: PathBuf,
}

#[derive(Deserialize)]
struct Gateway {
    grpc: String,
}

#[derive(Deserialize)]
struct Store {
    node: u64,
    grpc: String,
}

impl Cluster {
    /// The cluster in the folder `home`, which the checkout `root` runs. Refuses one in which nobody
    /// could take over from a leader.
    pub(crate) fn find(root: &Path, home: &Path) -> Result<Self> {
        // The script resolves names from the checkout's folder.
        let home = std::path::absolute(home)?;
        let path = home.join("cluster.json");
        let text = std::fs::read(&path)
            .with_context(|| format!("{}: run scripts/cluster up first", path.display()))?;
        let file: File =
            serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
        let nodes = file.stores.len();
        ensure!(
            nodes >= 3,
            "the demo kills a leader, so it needs three nodes, and the cluster in {} has {nodes}",
            home.display()
        );
        Ok(Cluster { script: root.join("scripts/cluster"), home, file })
    }

    /// The folder with its data.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// Its gateways.
    pub(crate) fn gateways(&self) -> Vec<String> {
        self.file.gateways.iter().map(|gateway| gateway.grpc.clone()).collect()
    }

    /// The key that signs tokens.
    pub(crate) fn key(&self) -> PathBuf {
        self.home().join(&self.file.key)
    }

    /// The store nodes' data directories.
    pub(crate) fn data_dirs(&self) -> Vec<PathBuf> {
        let dir = |store: &Store| self.home().join(format!("node-{}", store.node));
        self.file.stores.iter().map(dir).collect()
    }

    /// A client of the stores.
    pub(crate) async fn stores(&self) -> Result<Client> {
        let endpoints = self.file.stores.iter().map(|store| store.grpc.clone()).collect();
        let config = ClientConfig { endpoints, deadline: Duration::from_secs(10) };
        Ok(Client::connect(config, Arc::new(SystemClock::new()), Arc::new(SystemRng)).await?)
    }

    /// Kills all stores at once, so that none of them leads or logs anything after another is gone.
    pub(crate) fn kill_stores(&self) -> Result<()> {
        let nodes = self.file.stores.iter().map(|store| store.node.to_string());
        let arguments: Vec<String> = ["kill".to_owned()].into_iter().chain(nodes).collect();
        self.script(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).map(drop)
    }

    /// Runs `scripts/cluster`; what it says, unless it fails.
    pub(crate) fn script(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.script);
        let output = command.args(arguments).arg("--home").arg(&self.home).output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            bail!("{} {}: {said}", self.script.display(), arguments.join(" "));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}
