//! The local cluster, as `scripts/cluster` describes and runs it: who is up, who leads, who is to be
//! killed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use tidemark_types::{ShardCount, ShardId};
use tokio::process::Command;
use tokio::sync::Mutex;

use crate::http;

/// A running local cluster.
pub(crate) struct Cluster {
    script: PathBuf,
    home: PathBuf,
    file: File,
    shards: ShardCount,
    /// Orders to it come one after the other.
    orders: Mutex<()>,
}

/// What `cluster.json` says.
#[derive(Deserialize)]
struct File {
    gateways: Vec<Server>,
    stores: Vec<Server>,
    key: PathBuf,
}

#[derive(Deserialize)]
struct Server {
    grpc: String,
    http: String,
}

/// Who is up, and who leads what.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct State {
    /// Store nodes by their names, and which shards each one leads.
    nodes: BTreeMap<String, Option<Vec<u16>>>,
    /// Gateways by their names: is each one ready?
    gateways: BTreeMap<String, bool>,
}

impl Cluster {
    /// The cluster in the folder `home`, which the checkout `root` runs. Refuses one in which nobody
    /// could take over from a leader.
    pub(crate) fn find(root: &Path, home: &Path) -> Result<Self> {
        // The script resolves names from the checkout's folder.
        let (root, home) = (std::path::absolute(root)?, std::path::absolute(home)?);
        let read = |name: &str| {
            let path = home.join(name);
            let text = std::fs::read_to_string(&path);
            text.with_context(|| format!("{}: run scripts/cluster up first", path.display()))
        };
        let file: File = serde_json::from_str(&read("cluster.json")?).context("cluster.json")?;
        ensure!(file.stores.len() >= 3, "the page kills leaders, so it needs three nodes");
        let settings = read("cluster.env")?;
        let shards = settings.lines().find_map(|line| line.strip_prefix("shards="));
        let shards: u16 = shards.context("cluster.env: no shards")?.parse()?;
        let (shards, orders) = (ShardCount::new(shards)?, Mutex::default());
        Ok(Cluster { script: root.join("scripts/cluster"), home, file, shards, orders })
    }

    /// The folder with its data.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// The key that signs tokens.
    pub(crate) fn key(&self) -> PathBuf {
        self.home.join(&self.file.key)
    }

    /// Into how many shards users are divided.
    pub(crate) fn shards(&self) -> ShardCount {
        self.shards
    }

    /// Where back ends reach the gateways.
    pub(crate) fn gateways_grpc(&self) -> impl Iterator<Item = &str> {
        self.file.gateways.iter().map(|gateway| gateway.grpc.as_str())
    }

    /// Where devices reach them by WebSocket, as `host:port`.
    pub(crate) fn gateways_http(&self) -> impl Iterator<Item = &str> {
        self.file.gateways.iter().map(|gateway| gateway.http.as_str())
    }

    /// Who is up, and who leads what: each node is asked, and of two that say they lead a shard the
    /// one with the higher term does.
    pub(crate) async fn state(&self) -> State {
        let status = |server: &Server| {
            let address = server.http.clone();
            async move { http::get(&address, "/status").await }
        };
        let ready = |server: &Server| {
            let address = server.http.clone();
            async move { http::get(&address, "/readyz").await.is_some() }
        };
        let statuses = join_all(self.file.stores.iter().map(status)).await;
        let gateways = join_all(self.file.gateways.iter().map(ready)).await;
        State {
            nodes: leading(&statuses)
                .into_iter()
                .enumerate()
                .map(|(at, n)| (named("node", at), n))
                .collect(),
            gateways: gateways
                .into_iter()
                .enumerate()
                .map(|(at, up)| (named("gateway", at), up))
                .collect(),
        }
    }

    /// The metrics of all servers that answer, by their names.
    pub(crate) async fn metrics(&self) -> BTreeMap<String, String> {
        let (stores, gateways) = (self.file.stores.iter(), self.file.gateways.iter());
        let servers = stores.enumerate().map(|(at, server)| (named("node", at), server));
        let servers =
            servers.chain(gateways.enumerate().map(|(at, it)| (named("gateway", at), it)));
        let asked = servers.map(|(name, server)| async move {
            http::get(&server.http, "/metrics").await.map(|metrics| (name, metrics))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// Kills the node that leads this shard; what the script says.
    pub(crate) async fn kill_leader(&self, shard: ShardId) -> Result<String> {
        self.order(&["kill-leader", "--shard", &shard.get().to_string()]).await
    }

    /// Starts a node or a gateway again, killing it first.
    pub(crate) async fn restart(&self, name: &str) -> Result<String> {
        self.order(&["restart", name]).await
    }

    async fn order(&self, arguments: &[&str]) -> Result<String> {
        let _in_turn = self.orders.lock().await;
        let mut command = Command::new(&self.script);
        command.args(arguments).arg("--home").arg(&self.home).stdin(Stdio::null());
        let output = command.output().await?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

/// The name of a server, as `scripts/cluster` has it.
fn named(what: &str, at: usize) -> String {
    format!("{what}-{}", at + 1)
}

/// Which shards each node leads, from what each says of them: `shard-3 term=1 leader=2 …`. None for one
/// that does not answer, and it leads nothing, whatever others believe.
fn leading(statuses: &[Option<String>]) -> Vec<Option<Vec<u16>>> {
    let mut leaders = BTreeMap::<u16, (u64, usize)>::new();
    for status in statuses.iter().flatten() {
        for (shard, term, leader) in status.lines().filter_map(shard_line) {
            let known = leaders.entry(shard).or_default();
            *known = (*known).max((term, leader));
        }
    }
    let led_by = |node: usize| {
        let of_node = leaders.iter().filter(|(_, (_, leader))| *leader == node);
        of_node.map(|(shard, _)| *shard).collect()
    };
    let each = statuses.iter().enumerate();
    each.map(|(at, status)| status.as_ref().map(|_| led_by(at + 1))).collect()
}

fn shard_line(line: &str) -> Option<(u16, u64, usize)> {
    let (shard, rest) = line.strip_prefix("shard-")?.split_once(' ')?;
    let field = |name: &str| rest.split(' ').find_map(|word| word.strip_prefix(name));
    let (term, leader) = (field("term=")?.parse().ok()?, field("leader=")?.parse().ok()?);
    Some((shard.parse().ok()?, term, leader))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_down_leads_nothing_and_the_higher_term_counts() {
        let status = |lines: &str| Some(lines.to_owned());
        let before = "control term=1 leader=1 last=2\nshard-0 term=1 leader=1 last=2\nshard-1 term=3 leader=2 x=1";
        let after = "shard-0 term=2 leader=3 last=2\nshard-1 term=3 leader=none last=2";
        let all = [status(before), status(before), status(before)];
        assert_eq!(leading(&all), [Some(vec![0]), Some(vec![1]), Some(vec![])]);
        let one_killed = [None, status(before), status(after)];
        assert_eq!(leading(&one_killed), [None, Some(vec![1]), Some(vec![0])]);
    }
}
