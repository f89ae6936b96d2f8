//! A cluster of real processes on loopback.
//!
//! Only one runs on a machine at a time (a file lock), so that two cores suffice and timings mean
//! something. Processes are killed by the handles we hold, never by name, and none outlives its
//! [`Cluster`].

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tidemark_env::{SystemClock, SystemRng};
use tidemark_store::storage::GroupId;
use tidemark_store_client::{Client, ClientConfig};
use tidemark_types::{NodeId, ShardId};

/// How long anything may take that should take seconds, on a machine with two busy cores.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at something that is waited for.
pub(crate) const LOOK: Duration = Duration::from_millis(50);

/// What a cluster is made of.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Store nodes.
    pub nodes: u64,
    /// Shards.
    pub shards: u16,
}

/// Store nodes as processes, with their data in a folder of the test.
pub struct Cluster {
    binary: PathBuf,
    folder: TempDir,
    nodes: BTreeMap<NodeId, Node>,
    _alone: File,
}

struct Node {
    grpc: SocketAddr,
    http: SocketAddr,
    process: Option<Child>,
}

impl Cluster {
    /// Creates and starts a cluster, and waits until every group has a leader.
    pub async fn start(spec: Spec) -> Result<Self> {
        let alone = lock()?;
        let folder = tempfile::Builder::new().prefix("tidemark-chaos-").tempdir()?;
        let mut cluster =
            Cluster { binary: binary()?, folder, nodes: BTreeMap::new(), _alone: alone };
        for number in 1..=spec.nodes {
            let node = Node { grpc: free_address()?, http: free_address()?, process: None };
            cluster.nodes.insert(NodeId::new(number), node);
        }
        cluster.create(spec)?;
        for node in cluster.ids() {
            cluster.start_node(node)?;
        }
        for node in cluster.ids() {
            cluster.ready(node).await?;
        }
        Ok(cluster)
    }

    /// Its nodes.
    pub fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    /// A node's data directory.
    pub fn data_dir(&self, node: NodeId) -> PathBuf {
        self.folder.path().join(format!("node-{node}"))
    }

    /// A client of the cluster whose calls take at most `deadline`.
    pub async fn client(&self, deadline: Duration) -> Result<Client> {
        let endpoints = self.nodes.values().map(|node| node.grpc.to_string()).collect();
        let config = ClientConfig { endpoints, deadline };
        let clock = Arc::new(SystemClock::new());
        Ok(Client::connect(config, clock, Arc::new(SystemRng)).await?)
    }

    /// Starts a node that does not run.
    pub fn start_node(&mut self, id: NodeId) -> Result<()> {
        let log = self.folder.path().join(format!("node-{id}.log"));
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        let data_dir = self.data_dir(id);
        let node = self.node(id)?;
        if node.process.is_some() {
            bail!("node {id} runs already");
        }
        let (grpc, http) = (node.grpc.to_string(), node.http.to_string());
        let process = Command::new(&self.binary)
            .args(["run", "--grpc", &grpc, "--http", &http, "--data-dir"])
            .arg(data_dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("{}", self.binary.display()))?;
        self.node(id)?.process = Some(process);
        Ok(())
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self, id: NodeId) -> Result<()> {
        let process = self.node(id)?.process.take();
        let mut process = process.with_context(|| format!("node {id} does not run"))?;
        process.kill()?;
        process.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits until it has stopped by itself.
    pub async fn terminate(&mut self, id: NodeId) -> Result<()> {
        let process = self.node(id)?.process.as_mut();
        let process = process.with_context(|| format!("node {id} does not run"))?;
        kill_process(Pid::from_child(process), Signal::TERM)?;
        let from = Instant::now();
        loop {
            let process = self.node(id)?.process.as_mut().context("just seen")?;
            if let Some(status) = process.try_wait()? {
                self.node(id)?.process = None;
                if !status.success() {
                    bail!("node {id} stopped with {status}: {}", self.end_of_log(id));
                }
                return Ok(());
            }
            if from.elapsed() > PATIENCE {
                bail!("node {id} does not stop: {}", self.end_of_log(id));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until a node says that it is ready: every group has a leader.
    pub async fn ready(&mut self, id: NodeId) -> Result<()> {
        let from = Instant::now();
        loop {
            let http = self.node(id)?.http;
            let said = get(http, "/readyz").await;
            if matches!(&said, Ok(answer) if answer.starts_with("HTTP/1.1 200")) {
                return Ok(());
            }
            let exited = match self.node(id)?.process.as_mut() {
                Some(process) => process.try_wait()?,
                None => bail!("node {id} does not run"),
            };
            if exited.is_some() || from.elapsed() > PATIENCE {
                bail!("node {id} is not ready ({said:?}): {}", self.end_of_log(id));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The node that leads a shard, as the others see it.
    pub async fn leader(&self, client: &Client, shard: ShardId) -> Result<NodeId> {
        let group = GroupId::shard(shard).get();
        let from = Instant::now();
        while from.elapsed() < PATIENCE {
            for (node, _) in self.nodes.iter().filter(|(_, node)| node.process.is_some()) {
                let Ok(status) = client.status(*node).await else { continue };
                let mut groups = status.groups.iter().filter(|found| found.group == group);
                // A node's own word: others may remember a leader that is gone.
                if groups.any(|found| found.leader == node.get()) {
                    return Ok(*node);
                }
            }
            tokio::time::sleep(LOOK).await;
        }
        bail!("shard {shard} has no leader")
    }

    /// Waits until every outbox is empty and every replica of every group has applied the same
    /// last entry.
    pub async fn settled(&self, client: &Client) -> Result<()> {
        let from = Instant::now();
        loop {
            let mut applied = BTreeMap::<u32, Vec<(u64, u64)>>::new();
            let mut outboxes = 0;
            for node in self.ids() {
                for group in client.status(node).await?.groups {
                    outboxes += group.outbox_bytes;
                    applied.entry(group.group).or_default().push((group.last_log, group.applied));
                }
            }
            let level = |replicas: &Vec<(u64, u64)>| {
                replicas.iter().all(|(last, applied)| (last, applied) == (&replicas[0].0, last))
            };
            if outboxes == 0 && applied.values().all(level) {
                return Ok(());
            }
            if from.elapsed() > PATIENCE {
                bail!("the replicas do not level out: {outboxes} bytes in outboxes, {applied:?}");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn create(&self, spec: Spec) -> Result<()> {
        let members = self
            .nodes
            .iter()
            .flat_map(|(id, node)| ["--member".to_owned(), format!("{id}={}", node.grpc)]);
        let members: Vec<String> = members.collect();
        // Any UUID will do: the cluster lives as long as the test.
        let cluster = "0192f5a0-1234-7abc-8def-0123456789ab";
        for id in self.ids() {
            let created = Command::new(&self.binary)
                .args(["create", "--cluster", cluster, "--shards", &spec.shards.to_string()])
                .args(["--node", &id.to_string(), "--data-dir"])
                .arg(self.data_dir(id))
                .args(&members)
                .output()?;
            if !created.status.success() {
                bail!("node {id}: {}", String::from_utf8_lossy(&created.stderr));
            }
        }
        Ok(())
    }

    fn node(&mut self, id: NodeId) -> Result<&mut Node> {
        self.nodes.get_mut(&id).with_context(|| format!("there is no node {id}"))
    }

    fn end_of_log(&self, id: NodeId) -> String {
        let log = fs::read_to_string(self.folder.path().join(format!("node-{id}.log")));
        let log = log.unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in self.nodes.values_mut() {
            if let Some(mut process) = node.process.take() {
                // It may be gone already; nothing of it may stay.
                let _ = process.kill();
                let _ = process.wait();
            }
        }
        if std::thread::panicking() {
            for id in self.ids() {
                eprintln!("--- node {id}\n{}", self.end_of_log(id));
            }
        }
    }
}

/// Waits until no other test runs a cluster on this machine.
fn lock() -> Result<File> {
    let path = std::env::temp_dir().join("tidemark-real-processes.lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    file.lock()?;
    Ok(file)
}

/// The node's binary, beside the folder of the test's own.
fn binary() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let folders = test.ancestors().skip(1);
    let mut candidates = folders.map(|folder: &Path| folder.join("tidemark-store"));
    let found = candidates.find(|path| path.is_file());
    found.context("tidemark-store is not built: cargo build --release --workspace")
}

/// An address that nobody listens on now.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

async fn get(address: SocketAddr, path: &str) -> Result<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let exchange = async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    tokio::time::timeout(Duration::from_secs(5), exchange).await?
}
