//! The store node as a whole: opens the directory, starts every group, stops them in order.
//!
//! ```text
//!   start:  identity → log (checked) → state → groups (replay the log over the state) → shards
//!           a group whose state was lost: fetched from another node first, while the others serve
//!   stop:   leaders moved away → relays → groups → log writer (drained) → state (flushed)
//! ```
//!
//! Shards elect and serve without the control group; it only keeps the map.

mod gauges;
mod keeper;
mod starter;
mod steward;
mod succession;
mod watchdog;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use thiserror::Error;
use tidemark_env::{Clock, Rng};
use tidemark_mutants::{Mutant, is};
use tidemark_process::ConfigError;
use tidemark_store_client::Client;
use tidemark_store_core::hints::Hint;
use tidemark_store_core::value::ClusterMap;
use tidemark_store_core::{Command, Reply, read};
use tidemark_types::{DeviceId, Id, NodeId, ShardId, UserId};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::StoreConfig;
use crate::effects::Dispatch;
use crate::hints::{Leases, Over};
use crate::identity::{Identity, IdentityError};
use crate::raft::group::GroupError;
use crate::raft::log::{Failure, LogOptions, LogStore, LogThread, RecoverError};
use crate::raft::network::{Acceptor, Peers};
use crate::raft::types::Replica;
use crate::relay::Relay;
use crate::shard::{self, Hosted, Surroundings};
use crate::space::Space;
use crate::storage::{GroupId, SegmentLog, SegmentLogError, StateDb, StateDbError};
use crate::time::ClusterTime;
use crate::watch::Hub;

use starter::Starter;

/// How long a leader may take to hand over, before the node stops without it.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(2);

/// A replica that has heard nothing of its group for so long, many heartbeats, may know nothing of it.
const IN_TOUCH_WITHIN: Duration = Duration::from_secs(3);

/// Why a node cannot be created, started or stopped.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The directory is somebody else's, or nobody's.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The log's files are missing, damaged or foreign.
    #[error(transparent)]
    LogFiles(#[from] SegmentLogError),
    /// A group's log is damaged.
    #[error(transparent)]
    Log(#[from] RecoverError),
    /// The log failed while it was drained.
    #[error(transparent)]
    LogFailed(#[from] Failure),
    /// The state's database is missing, damaged or foreign.
    #[error(transparent)]
    State(#[from] StateDbError),
    /// A group does not run.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The state is damaged, and no other node has it.
    #[error(
        "the state of {group} was lost, and its log begins behind {purged}: with a single node it \
         can only come from a backup"
    )]
    StateLost {
        /// Which group.
        group: GroupId,
        /// The last entry that the log no longer has.
        purged: u64,
    },
    /// A thread or a file failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The log's folder in a node's data directory.
pub fn log_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("log")
}

/// The state database's folder in a node's data directory.
pub fn state_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("state")
}

/// What a node finds on its disk.
pub struct Disks {
    /// Who it is.
    pub identity: Identity,
    /// The log of all its groups.
    pub log: LogStore,
    /// Who writes it; none where somebody else steps the writer.
    pub log_thread: Option<LogThread>,
    /// The state of all its groups.
    pub state: StateDb,
}

impl Disks {
    /// Opens a node's data directory, and starts the log's writer.
    pub fn open(config: &StoreConfig) -> Result<Self, NodeError> {
        let data_dir = &config.data_dir;
        let identity = Identity::read(data_dir)?;
        let log = SegmentLog::open(&log_dir(data_dir), config.raft.segment_bytes)?;
        let (log, writer) = LogStore::open(log, LogOptions::default())?;
        let log_thread = Some(writer.spawn()?);
        if is(Mutant::StartOnEmptyDisk) && !state_dir(data_dir).exists() {
            StateDb::create(&state_dir(data_dir))?;
        }
        let state = StateDb::open_or_replace(&state_dir(data_dir))?;
        Ok(Disks { identity, log, log_thread, state })
    }
}

/// A running node.
pub struct Node {
    identity: Identity,
    hosted: Arc<Hosted>,
    around: Surroundings,
    hub: Arc<Hub>,
    hints: Leases,
    log: Arc<LogStore>,
    log_thread: Mutex<Option<LogThread>>,
    /// What runs beside the groups.
    tasks: Mutex<JoinSet<()>>,
    stopping: AtomicBool,
    /// Why the process must stop, once it must.
    fatal: watch::Sender<Option<String>>,
}

impl Node {
    /// Makes an empty directory the home of one of a new cluster's nodes.
    pub fn create(data_dir: &Path, node: NodeId, map: ClusterMap) -> Result<Identity, NodeError> {
        let identity = Identity::new(node, map)?;
        Identity::claim(data_dir)?;
        SegmentLog::create(&log_dir(data_dir))?;
        StateDb::create(&state_dir(data_dir))?;
        // Last: a directory without it is one whose creation was cut off, and never starts.
        identity.write(data_dir)?;
        Ok(identity)
    }

    /// Starts the node on its directory. Its groups have replayed what they knew as committed and
    /// are in `acceptor` when it returns; they elect their leaders on their own. A group whose state
    /// was lost comes later, when another node has sent it.
    pub async fn start(
        config: &StoreConfig,
        peers: Peers,
        acceptor: &Acceptor,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
    ) -> Result<Arc<Self>, NodeError> {
        config.validate()?;
        let disks = Disks::open(config)?;
        Self::start_on(disks, config, peers, acceptor, clock, rng).await
    }

    /// As [`Node::start`], on what was found before; the data directory only tells the free space.
    pub async fn start_on(
        disks: Disks,
        config: &StoreConfig,
        peers: Peers,
        acceptor: &Acceptor,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
    ) -> Result<Arc<Self>, NodeError> {
        let Disks { identity, log, log_thread, state } = disks;
        let log = Arc::new(log);
        let gone = peers.gone();
        for (node, address) in identity.others() {
            peers.dial(&Replica { node, address: address.grpc.clone() });
        }
        let shards = identity.shards();
        let hosted = Arc::new(Hosted::new(shards.shards()));
        let hub = Arc::new(Hub::new(shards.shards()));
        let fatal = watch::Sender::new(None);
        let (connector, map) = (Some(peers.connector()), identity.created.clone());
        let client = Client::over(connector, map, HAND_OVER_WITHIN, clock.clone(), rng.clone());
        let relay = Relay {
            hosted: hosted.clone(),
            client: client.clone(),
            config: config.relay.clone(),
            clock: clock.clone(),
            rng,
            fatal: fatal.clone(),
        };
        let around = Surroundings {
            state,
            shards,
            time: ClusterTime::new(clock.clone()),
            space: Space::of(&config.data_dir, &config.disk)?,
            clock: clock.clone(),
            config: config.clone(),
        };
        let starter = Arc::new(Starter {
            identity: identity.clone(),
            log: log.clone(),
            peers,
            acceptor: acceptor.clone(),
            effects: Arc::new(Dispatch::new(shards.shards(), hub.clone())),
            relay,
            around: around.clone(),
        });
        let mut tasks = JoinSet::new();
        starter.start_all(&mut tasks).await?;
        let others = identity.others().map(|(node, _)| node).collect();
        tasks.spawn(around.time.clone().measure(client, others));
        tasks.spawn(around.space.clone().keep());
        tasks.spawn(succession::run(hosted.clone(), gone));
        let node = Arc::new(Node {
            identity,
            hosted,
            around,
            hub,
            hints: Leases::default(),
            log,
            log_thread: Mutex::new(log_thread),
            tasks: Mutex::new(tasks),
            stopping: AtomicBool::new(false),
            fatal,
        });
        let walk_every = Duration::from_millis(config.retention.walk_every_ms);
        let mut tasks = node.tasks.lock();
        tasks.spawn(steward::watch_failures(Arc::downgrade(&node)));
        tasks.spawn(steward::run(Arc::downgrade(&node), clock));
        tasks.spawn(keeper::run(Arc::downgrade(&node), walk_every));
        drop(tasks);
        Ok(node)
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The cluster's map, as this node's replica of the control group has it; before that, as the
    /// cluster was created.
    pub fn map(&self) -> Result<ClusterMap, shard::Error> {
        let known =
            self.around.state.read(GroupId::CONTROL, |_, view| read::cluster_map(view))??;
        Ok(known.unwrap_or_else(|| self.identity.created.clone()))
    }

    /// The groups of which it has replicas.
    pub fn hosted(&self) -> &Hosted {
        &self.hosted
    }

    /// The number of the shard on which `id` lives.
    pub fn shard_number(&self, id: &Id) -> ShardId {
        self.identity.shards().shard_of(id)
    }

    /// Proposes a command where its id lives, on this node's replica.
    ///
    /// # Panics
    /// If the command has no id.
    pub async fn propose(&self, command: Command) -> Result<Reply, shard::Error> {
        let id = command.routed_by().expect("a command about a shard goes to that shard");
        match self.hosted.shard(self.shard_number(&id)) {
            Some(shard) => shard.propose(command).await,
            None => Err(shard::Error::NotLeader { leader: None }),
        }
    }

    /// Bytes in the outbox of a group, as far as it is applied here.
    pub fn outbox_bytes(&self, group: GroupId) -> Result<u64, shard::Error> {
        let streams = self.around.state.read(group, |_, view| read::outbounds(view))??;
        Ok(streams.iter().map(|(_, stream)| stream.queued_bytes()).sum())
    }

    /// Cluster time.
    pub fn time(&self) -> &ClusterTime {
        &self.around.time
    }

    /// Free space on its disk.
    pub fn space(&self) -> &Space {
        &self.around.space
    }

    /// Who watches which mailboxes here.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Up to `max` hints of shards that this node leads, for one gateway (R18).
    pub fn lease_hints(&self, max: usize) -> Result<Vec<Hint>, shard::Error> {
        // Without a measured time nobody can tell who is due.
        let Some(time) = self.around.time.now() else { return Ok(Vec::new()) };
        self.hints.take(&self.hosted, max, time, self.around.clock.monotonic())
    }

    /// Hands a device's hint out again after a while: its gateway could not deliver it.
    pub fn postpone_hint(&self, user: UserId, device: DeviceId, after: Duration) {
        self.hints.postpone(user, device, after, self.around.clock.monotonic());
    }

    /// A hint was sent, or its token is gone: it is nobody's any more.
    pub fn hint_is_over(&self, over: &Over) {
        self.hints.over(over);
    }

    /// Becomes `Some` when the process must stop: the log or a group has failed.
    pub fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.fatal.subscribe()
    }

    /// Why it is not healthy, if it is not.
    pub fn health(&self) -> Result<(), String> {
        match &*self.fatal.borrow() {
            Some(reason) => Err(reason.clone()),
            None => Ok(()),
        }
    }

    /// Why it does not take requests, if it does not.
    pub fn readiness(&self) -> Result<(), String> {
        self.health()?;
        if self.stopping.load(Ordering::Relaxed) {
            return Err("the node is stopping".to_owned());
        }
        if let Some(group) = self.hosted.missing() {
            return Err(format!("{group} waits for its state from another node"));
        }
        let leaderless = self.hosted.groups().find(|(_, group)| group.status().leader.is_none());
        if let Some((id, _)) = leaderless {
            return Err(format!("{id} has no leader"));
        }
        if let Some((id, _)) = self.hosted.groups().find(|(_, group)| !group.has_caught_up()) {
            return Err(format!("{id} does not have yet what is committed"));
        }
        let mut groups = self.hosted.groups();
        if let Some((id, _)) = groups.find(|(_, group)| !group.is_in_touch(IN_TOUCH_WITHIN)) {
            return Err(format!("{id} has not heard from its other replicas for a while"));
        }
        for (id, shard) in self.hosted.shards() {
            match shard.look(read::shard) {
                Ok(Ok(Some(_))) => {}
                Ok(Ok(None)) => return Err(format!("shard {id} is not initialised")),
                Ok(Err(error)) => return Err(error.to_string()),
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }

    /// Moves a group's leadership, which must be this node's, to `to`; the new leader's term.
    pub async fn transfer_leader(&self, group: GroupId, to: NodeId) -> Result<u64, shard::Error> {
        let found = self.hosted.groups().find(|(id, _)| *id == group);
        let (_, group) = found.ok_or(shard::Error::NotLeader { leader: None })?;
        Ok(group.transfer_to(to, HAND_OVER_WITHIN).await?)
    }

    /// Moves leaders away, stops every group, drains the log and flushes the state.
    pub async fn shut_down(&self) -> Result<(), NodeError> {
        self.stopping.store(true, Ordering::Relaxed);
        steward::hand_over(self).await;
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        tasks.shutdown().await;
        for (_, group) in self.hosted.groups() {
            group.shut_down().await;
        }
        for (_, shard) in self.hosted.shards() {
            shard.stop().await;
        }
        let thread = self.log_thread.lock().take();
        if let Some(thread) = thread {
            tokio::task::spawn_blocking(|| thread.shut_down())
                .await
                .map_err(io::Error::other)??;
        }
        Ok(self.around.state.flush()?)
    }
}
