//! A cluster of real processes: on loopback, or each on a host and each store on a disk of its own.
//!
//! Only one runs on a machine at a time (a file lock), so that two cores suffice and timings mean
//! something. Processes are killed by the handles we hold, never by name, and none outlives its
//! [`Cluster`].

mod http;
mod member;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tidemark_env::{Rng, SystemClock, SystemRng};
use tidemark_lab::disk::{Cut, LoopFs, Loss};
use tidemark_lab::lan::Lan;
use tidemark_lab::own_address;
use tidemark_lab::preload::{Library, Preload};
use tidemark_store_client::{Client, ClientConfig};
use tidemark_token::SigningKey;
use tidemark_types::NodeId;

use crate::build::Build;

pub use member::{Exit, Member, Usage};

/// How long anything may take that should take seconds, on a machine with two busy cores.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The same for a process that starts: a node may have to take gigabytes of state from the others,
/// which go on working.
pub const READY_WITHIN: Duration = Duration::from_secs(300);

/// Between two looks at something that is waited for.
pub const LOOK: Duration = Duration::from_millis(50);

/// What a cluster is made of.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Store nodes.
    pub nodes: u64,
    /// Shards.
    pub shards: u16,
    /// Gateways.
    pub gateways: usize,
    /// The stores' configuration, in TOML; what it leaves out has its default.
    pub stores: &'static str,
    /// Which build of the servers runs.
    pub build: Build,
}

impl Spec {
    fn nodes(&self) -> impl Iterator<Item = NodeId> {
        (1..=self.nodes).map(NodeId::new)
    }

    fn members(&self) -> impl Iterator<Item = Member> {
        self.nodes().map(Member::Node).chain((0..self.gateways).map(Member::Gateway))
    }
}

/// Where a cluster's processes are.
enum Place {
    /// All on this machine's loopback, with their data in the test's folder.
    Loopback,
    /// Each on a host, and each store on a disk of its own.
    Lab { lan: Lan, disks: BTreeMap<NodeId, LoopFs> },
}

/// Bytes of a store's disk in the lab; the file is sparse.
const DISK_BYTES: u64 = 8 << 30;

/// Ports of a server that has a host of its own.
const PORTS: [u16; 2] = [7100, 7200];

/// A process that was started does not say that it is ready, or has ended; or one that was told to
/// stop does not do so in order.
#[derive(Debug)]
pub struct NotReady {
    /// Which one.
    pub member: Member,
    said: String,
    log: String,
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not ready ({}): {}", self.member, self.said, self.log)
    }
}

impl std::error::Error for NotReady {}

/// Stores and gateways as processes, with their data in a folder of the test.
pub struct Cluster {
    binaries: PathBuf,
    folder: TempDir,
    members: BTreeMap<Member, Process>,
    place: Place,
    build: Build,
    _alone: File,
}

/// A process that runs, or may be started again.
struct Process {
    grpc: SocketAddr,
    http: SocketAddr,
    preload: Option<Preload>,
    child: Option<Child>,
    /// What it used at most before it was ended, in all its lives.
    peak: Usage,
}

impl Cluster {
    /// Creates and starts a cluster on loopback, and waits until every group has a leader and every
    /// gateway takes devices.
    pub async fn start(spec: Spec) -> Result<Self> {
        Self::start_with(spec, false).await
    }

    /// The same; something may stand between the processes and the system ([`Cluster::preload`]).
    pub async fn start_with(spec: Spec, preload: bool) -> Result<Self> {
        Self::start_configured(spec, preload, &[]).await
    }

    /// The same; each gateway has a configuration, in TOML, or none.
    pub async fn start_configured(spec: Spec, preload: bool, gateways: &[String]) -> Result<Self> {
        let addresses = |_| Ok([own_address(), own_address()]);
        let alone = tidemark_lab::alone()?;
        Self::create_and_start(spec, preload, gateways, Place::Loopback, alone, addresses).await
    }

    /// The same with a host for each process and a disk for each store; [`tidemark_lab::lan::enter`] must have
    /// been called.
    pub async fn start_in_lab(spec: Spec, preload: bool, gateways: &[String]) -> Result<Self> {
        let alone = tidemark_lab::alone()?;
        let lan = Lan::create(spec.members().map(Member::host))?;
        let mut disks = BTreeMap::new();
        for node in spec.nodes() {
            disks.insert(node, LoopFs::create(DISK_BYTES)?);
        }
        let addresses = |member: Member| {
            Ok(PORTS.map(|port| SocketAddr::from((member.host().address(), port))))
        };
        let place = Place::Lab { lan, disks };
        Self::create_and_start(spec, preload, gateways, place, alone, addresses).await
    }

    async fn create_and_start(
        spec: Spec,
        preload: bool,
        gateways: &[String],
        place: Place,
        alone: File,
        addresses: impl Fn(Member) -> Result<[SocketAddr; 2]>,
    ) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("tidemark-chaos-").tempdir()?;
        let binaries = binaries()?;
        let members = BTreeMap::new();
        let build = spec.build;
        let mut cluster = Cluster { binaries, folder, members, place, build, _alone: alone };
        let library = preload.then(|| Library::compile(cluster.folder.path())).transpose()?;
        for member in spec.members() {
            let [grpc, http] = addresses(member)?;
            let control = cluster.folder.path().join(format!("{member}.control"));
            let preload = library.as_ref().map(|library| library.before(&control)).transpose()?;
            let (child, peak) = (None, Usage::default());
            cluster.members.insert(member, Process { grpc, http, preload, child, peak });
        }
        cluster.create(spec, gateways)?;
        // Stores come first in the order of members: a gateway asks them for the map.
        let members: Vec<Member> = cluster.members.keys().copied().collect();
        cluster.start_members(members).await?;
        Ok(cluster)
    }

    /// Its processes, stores first.
    pub fn members(&self) -> impl Iterator<Item = Member> + use<> {
        self.members.keys().copied().collect::<Vec<_>>().into_iter()
    }

    /// What a running process uses.
    pub fn usage(&self, member: impl Into<Member>) -> Result<Usage> {
        Usage::of(self.process_id(member)?)
    }

    /// What a process used at most, as far as that was looked at: before it was ended, and now.
    pub fn peak(&self, member: impl Into<Member>) -> Result<Usage> {
        let member = member.into();
        let peak = self.process(member)?.peak;
        Ok(self.usage(member).map_or(peak, |now| peak.most(now)))
    }

    /// What a process has used nobody knows once it is gone.
    fn keep_peak(&mut self, member: Member) -> Result<()> {
        self.process_mut(member)?.peak = self.peak(member)?;
        Ok(())
    }

    /// Is a running process stopped, as the system says?
    pub fn is_stopped(&self, member: impl Into<Member>) -> Result<bool> {
        Ok(member::is_stopped(self.process_id(member)?))
    }

    /// The number that the system gave a running process.
    pub fn process_id(&self, member: impl Into<Member>) -> Result<u32> {
        let member = member.into();
        let child = self.process(member)?.child.as_ref();
        Ok(child.with_context(|| format!("{member} does not run"))?.id())
    }

    /// What stands between a process and the system.
    pub fn preload(&self, member: impl Into<Member>) -> Result<&Preload> {
        let preload = self.process(member.into())?.preload.as_ref();
        preload.context("nothing stands between this cluster and the system")
    }

    /// Does it run, as far as it was not seen to end?
    pub fn runs(&self, member: impl Into<Member>) -> bool {
        self.process(member.into()).is_ok_and(|process| process.child.is_some())
    }

    /// SIGKILL to everything that runs.
    pub fn kill_all(&mut self) -> Result<()> {
        let running: Vec<Member> = self.members().filter(|member| self.runs(*member)).collect();
        self.kill_together(&running)
    }

    /// SIGKILL to these at one moment: stopped first, none sees another one go and takes its place.
    fn kill_together(&mut self, members: &[Member]) -> Result<()> {
        members.iter().try_for_each(|member| self.pause(*member))?;
        members.iter().try_for_each(|member| self.kill(*member))
    }

    /// Its store nodes.
    pub fn ids(&self) -> Vec<NodeId> {
        let node = |member: &Member| match member {
            Member::Node(node) => Some(*node),
            Member::Gateway(_) => None,
        };
        self.members.keys().filter_map(node).collect()
    }

    /// A node's data directory.
    pub fn data_dir(&self, node: NodeId) -> PathBuf {
        match &self.place {
            Place::Loopback => self.folder.path().join(Member::Node(node).to_string()),
            Place::Lab { disks, .. } => disks[&node].data(),
        }
    }

    /// A node's disk, if it has one of its own.
    pub fn disk(&self, node: NodeId) -> Result<&LoopFs> {
        match &self.place {
            Place::Loopback => bail!("node {node} has no disk of its own"),
            Place::Lab { disks, .. } => disks.get(&node).context("a disk for each node"),
        }
    }

    /// The network, if it has one of its own.
    pub fn lan(&self) -> Option<&Lan> {
        match &self.place {
            Place::Loopback => None,
            Place::Lab { lan, .. } => Some(lan),
        }
    }

    /// Cuts the power of running nodes, at once; what their disks lost.
    pub fn cut_power(
        &mut self,
        nodes: &[NodeId],
        cut: Cut,
        rng: &dyn Rng,
    ) -> Result<BTreeMap<NodeId, Loss>> {
        if !matches!(self.place, Place::Lab { .. }) {
            bail!("only a disk of its own can lose its power");
        }
        // Syncs that wait keep what was written from the disk, also from what the cut itself syncs.
        for node in nodes {
            self.hold_a_sync(*node)?;
        }
        // An fsync that is under way when the filesystem goes may report success with nothing on the
        // disk: whoever loses its power must not live to act on it.
        for node in nodes {
            self.pause(*node)?;
        }
        for node in nodes {
            member::stand_still(self.process_id(*node)?)?;
        }
        let Place::Lab { disks, .. } = &mut self.place else { unreachable!("as before") };
        for node in nodes {
            disks.get_mut(node).context("a disk for each node")?.cut(cut, rng)?;
        }
        for node in nodes {
            self.kill(*node)?;
            self.preload(*node)?.hold_syncs(false)?;
        }
        let Place::Lab { disks, .. } = &mut self.place else { unreachable!("as before") };
        let restored = disks.iter_mut().filter(|(node, _)| nodes.contains(node));
        restored.map(|(node, disk)| Ok((*node, disk.restore()?))).collect()
    }

    /// Lets a node's syncs wait, and waits for one; a node that writes nothing has none.
    fn hold_a_sync(&self, node: NodeId) -> Result<()> {
        const SOON: Duration = Duration::from_millis(500);
        let (preload, from) = (self.preload(node)?, Instant::now());
        let before = preload.held_syncs()?;
        preload.hold_syncs(true)?;
        while preload.held_syncs()? == before && from.elapsed() < SOON {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// A gateway's gRPC address.
    pub fn gateway(&self, number: usize) -> Result<String> {
        Ok(self.process(Member::Gateway(number))?.grpc.to_string())
    }

    /// All gateways' gRPC addresses.
    pub fn gateways(&self) -> Result<Vec<String>> {
        let is_gateway = |member: &Member| matches!(member, Member::Gateway(_));
        (0..self.members().filter(is_gateway).count()).map(|number| self.gateway(number)).collect()
    }

    /// The file with a member's configuration, which is the same for all nodes.
    fn config(&self, member: Member) -> PathBuf {
        let name = match member {
            Member::Node(_) => "store.toml".to_owned(),
            Member::Gateway(_) => format!("{member}.toml"),
        };
        self.folder.path().join(name)
    }

    /// Everything that a process has logged.
    pub fn log_text(&self, member: impl Into<Member>) -> Result<String> {
        Ok(fs::read_to_string(self.log(member.into()))?)
    }

    /// The key by which the gateways verify tokens.
    pub fn key(&self) -> PathBuf {
        self.folder.path().join("keys/test.hs256")
    }

    /// A client of the stores whose calls take at most `deadline`.
    pub async fn client(&self, deadline: Duration) -> Result<Client> {
        let config = ClientConfig { endpoints: self.stores(), deadline };
        let clock = Arc::new(SystemClock::new());
        Ok(Client::connect(config, clock, Arc::new(SystemRng)).await?)
    }

    fn stores(&self) -> Vec<String> {
        let nodes = self.members.iter().filter(|(member, _)| matches!(member, Member::Node(_)));
        nodes.map(|(_, process)| process.grpc.to_string()).collect()
    }

    /// Starts processes that do not run, all at once, and waits until each says that it is ready.
    pub async fn start_members(
        &mut self,
        members: impl IntoIterator<Item = impl Into<Member>>,
    ) -> Result<()> {
        let members: Vec<Member> = members.into_iter().map(Into::into).collect();
        for member in &members {
            self.start_member(*member)?;
        }
        for member in &members {
            self.ready_beside(*member, &members).await?;
        }
        Ok(())
    }

    /// Starts a process that does not run.
    pub fn start_member(&mut self, member: impl Into<Member>) -> Result<()> {
        let member = member.into();
        let process = self.process(member)?;
        if process.child.is_some() {
            bail!("{member} runs already");
        }
        let (grpc, http) = (process.grpc.to_string(), process.http.to_string());
        let program = self.binaries.join(self.build.program(member));
        // Through `env`, so that nothing comes between the system and what enters the network.
        let mut command = match &self.place {
            Place::Loopback => Command::new("env"),
            Place::Lab { .. } => member.host().command("env"),
        };
        self.build.prepare(&mut command);
        let library = self.build.library(member);
        match &process.preload {
            Some(preload) => command.args(preload.environment(library)),
            None => command.args(library.map(|library| format!("LD_PRELOAD={library}"))),
        };
        command.arg(program).args(["run", "--insecure"]);
        command.arg("--config").arg(self.config(member));
        match member {
            Member::Node(node) => {
                command.arg("--data-dir").arg(self.data_dir(node));
            }
            Member::Gateway(_) => {
                command.args(["--store", &self.stores().join(",")]);
                command.arg("--keys").arg(self.key().with_file_name(""));
            }
        }
        let log = OpenOptions::new().create(true).append(true).open(self.log(member))?;
        command.args(["--grpc", &grpc, "--http", &http]).stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("{command:?}"))?;
        self.process_mut(member)?.child = Some(child);
        Ok(())
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self, member: impl Into<Member>) -> Result<()> {
        let member = member.into();
        self.keep_peak(member)?;
        let child = self.process_mut(member)?.child.take();
        let mut child = child.with_context(|| format!("{member} does not run"))?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// SIGKILL to all store nodes.
    pub fn kill_stores(&mut self) -> Result<()> {
        let nodes: Vec<Member> = self.ids().into_iter().map(Member::Node).collect();
        self.kill_together(&nodes)
    }

    /// SIGSTOP: it holds what it has, and does nothing.
    pub fn pause(&self, member: impl Into<Member>) -> Result<()> {
        self.signal(member.into(), Signal::STOP)
    }

    /// SIGCONT: it goes on as if no time had passed.
    pub fn resume(&self, member: impl Into<Member>) -> Result<()> {
        self.signal(member.into(), Signal::CONT)
    }

    fn signal(&self, member: Member, signal: Signal) -> Result<()> {
        let child = self.process(member)?.child.as_ref();
        let child = child.with_context(|| format!("{member} does not run"))?;
        Ok(kill_process(Pid::from_child(child), signal)?)
    }

    /// SIGTERM, and waits until it has stopped by itself.
    pub async fn terminate(&mut self, member: impl Into<Member>) -> Result<()> {
        let member = member.into();
        self.keep_peak(member)?;
        self.signal(member, Signal::TERM)?;
        let Exit { status, .. } = self.exited(member).await?;
        if !status.success() {
            return Err(self.not_ready(member, &format!("it stopped with {status}")));
        }
        Ok(())
    }

    /// Waits until it has ended by itself.
    pub async fn exited(&mut self, member: impl Into<Member>) -> Result<Exit> {
        let member = member.into();
        let ended = self.ends_within(member, PATIENCE).await?;
        ended.ok_or_else(|| self.not_ready(member, "nor does it stop"))
    }

    /// How a process ended by itself, if it does within this time.
    pub async fn ends_within(
        &mut self,
        member: impl Into<Member>,
        time: Duration,
    ) -> Result<Option<Exit>> {
        let member = member.into();
        let from = Instant::now();
        loop {
            let child = self.process_mut(member)?.child.as_mut();
            let child = child.with_context(|| format!("{member} does not run"))?;
            if let Some(status) = child.try_wait()? {
                self.process_mut(member)?.child = None;
                return Ok(Some(Exit { status, log: self.end_of_log(member) }));
            }
            if from.elapsed() > time {
                return Ok(None);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until a process says that it is ready.
    pub async fn ready(&mut self, member: impl Into<Member>) -> Result<()> {
        let member = member.into();
        self.ready_beside(member, &[member]).await
    }

    /// The same; fails at once if one of `others` has ended, without which it may never be ready.
    async fn ready_beside(&mut self, member: Member, others: &[Member]) -> Result<()> {
        let from = Instant::now();
        loop {
            let said = self.get(member, "/readyz").await;
            if matches!(&said, Ok(answer) if answer.starts_with("HTTP/1.1 200")) {
                return Ok(());
            }
            let mut ended = None;
            for other in others {
                let child = self.process_mut(*other)?.child.as_mut();
                let child = child.with_context(|| format!("{other} does not run"))?;
                if child.try_wait()?.is_some() {
                    self.process_mut(*other)?.child = None;
                    ended = Some(*other);
                }
            }
            if ended.is_some() || from.elapsed() > READY_WITHIN {
                let said = said.unwrap_or_else(|error| format!("{error:#}"));
                return Err(self.not_ready(ended.unwrap_or(member), &said));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A process is not what it was told to be.
    pub(crate) fn not_ready(&self, member: Member, said: &str) -> anyhow::Error {
        NotReady { member, said: said.to_owned(), log: self.end_of_log(member) }.into()
    }

    /// What a member says on a path of its HTTP port, headers and all.
    pub async fn get(&self, member: impl Into<Member>, path: &str) -> Result<String> {
        http::get(self.process(member.into())?.http, path).await
    }

    /// A metric of a member, all labels together; 0 if nothing was counted.
    pub async fn metric(&self, member: impl Into<Member>, name: &str) -> Result<f64> {
        Ok(http::metric(&self.get(member, "/metrics").await?, name))
    }

    /// A member's wall clock, in whole seconds.
    pub async fn clock(&self, member: impl Into<Member>) -> Result<SystemTime> {
        http::date(&self.get(member, "/healthz").await?)
    }

    fn create(&self, spec: Spec, gateways: &[String]) -> Result<()> {
        let member =
            |(id, address): (NodeId, String)| ["--member".to_owned(), format!("{id}={address}")];
        let members: Vec<String> =
            self.ids().into_iter().zip(self.stores()).flat_map(member).collect();
        // Any UUID will do: the cluster lives as long as the test.
        let cluster = "0192f5a0-1234-7abc-8def-0123456789ab";
        for id in self.ids() {
            let created = Command::new(self.binaries.join("tidemark-store"))
                .args(["create", "--cluster", cluster, "--shards", &spec.shards.to_string()])
                .args(["--node", &id.to_string(), "--data-dir"])
                .arg(self.data_dir(id))
                .args(&members)
                .output()?;
            if !created.status.success() {
                bail!("node {id}: {}", String::from_utf8_lossy(&created.stderr));
            }
        }
        fs::write(self.config(Member::Node(NodeId::new(1))), spec.stores)?;
        for number in 0..spec.gateways {
            let config = gateways.get(number).map_or("", String::as_str);
            fs::write(self.config(Member::Gateway(number)), config)?;
        }
        fs::create_dir(self.key().with_file_name(""))?;
        SigningKey::generate_hs256(self.key(), &SystemRng)?;
        Ok(())
    }

    fn process(&self, member: Member) -> Result<&Process> {
        self.members.get(&member).with_context(|| format!("there is no {member}"))
    }

    fn process_mut(&mut self, member: Member) -> Result<&mut Process> {
        self.members.get_mut(&member).with_context(|| format!("there is no {member}"))
    }

    fn log(&self, member: Member) -> PathBuf {
        self.folder.path().join(format!("{member}.log"))
    }

    fn end_of_log(&self, member: Member) -> String {
        let log = fs::read_to_string(self.log(member)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in self.members.values_mut() {
            if let Some(mut child) = process.child.take() {
                // It may be gone already; nothing of it may stay.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        if std::thread::panicking() {
            for member in self.members.keys() {
                eprintln!("--- {member}\n{}", self.end_of_log(*member));
            }
        }
    }
}

/// Where the binaries are: beside the folder of the test's own.
pub fn binaries() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let built = |folder: &&Path| {
        ["tidemark-store", "tidemark-gateway"].iter().all(|name| folder.join(name).is_file())
    };
    let found = test.ancestors().skip(1).find(built);
    found.map(Path::to_owned).context("not built: cargo build --release --workspace")
}
