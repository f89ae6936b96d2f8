//! The store node as a whole: opens the directory, starts every group, stops them in order.
//!
//! ```text
//!   start:  identity → log (checked) → state → groups (replay the log over the state) → shards
//!   stop:   leaders moved away → relays → groups → log writer (drained) → state (flushed)
//! ```
//!
//! Shards elect and serve without the control group; it only keeps the map.

mod steward;
mod watchdog;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use thiserror::Error;
use tidemark_env::{Clock, Rng};
use tidemark_process::ConfigError;
use tidemark_store_client::Client;
use tidemark_store_core::value::{ClusterMap, Placement};
use tidemark_store_core::{Command, Reply, read};
use tidemark_types::{Id, NodeId, ShardId};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::StoreConfig;
use crate::effects::Dispatch;
use crate::identity::{Identity, IdentityError};
use crate::raft::group::{Group, GroupError};
use crate::raft::log::{Failure, GroupLog, LogOptions, LogStore, LogThread, RecoverError};
use crate::raft::machine::{Applied, Machine};
use crate::raft::network::{Acceptor, Peers};
use crate::raft::types::{LogId, Replica, ReplicaId};
use crate::relay::Relay;
use crate::shard::{self, Shard, Surroundings};
use crate::space::Space;
use crate::storage::{GroupId, LogDb, LogDbError, StateDb, StateDbError};
use crate::time::ClusterTime;
use crate::watch::Hub;

/// How long a leader may take to hand over, before the node stops without it.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(2);

/// Why a node cannot be created, started or stopped.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The directory is somebody else's, or nobody's.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The log's database is missing, damaged or foreign.
    #[error(transparent)]
    LogDb(#[from] LogDbError),
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

/// The log database's folder in a node's data directory.
pub fn log_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("log")
}

/// The state database's folder in a node's data directory.
pub fn state_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("state")
}

/// A running node.
pub struct Node {
    identity: Identity,
    control: Group,
    shards: Arc<BTreeMap<ShardId, Shard>>,
    time: ClusterTime,
    space: Space,
    hub: Arc<Hub>,
    log: LogStore,
    log_thread: Mutex<Option<LogThread>>,
    state: StateDb,
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
        LogDb::create(&log_dir(data_dir))?;
        StateDb::create(&state_dir(data_dir))?;
        // Last: a directory without it is one whose creation was cut off, and never starts.
        identity.write(data_dir)?;
        Ok(identity)
    }

    /// Starts the node on its directory. Its groups are in `acceptor` and have replayed what they
    /// knew as committed when it returns; they elect their leaders on their own.
    pub async fn start(
        config: &StoreConfig,
        peers: Peers,
        acceptor: &Acceptor,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
    ) -> Result<Arc<Self>, NodeError> {
        config.validate()?;
        let dir = &config.data_dir;
        let identity = Identity::read(dir)?;
        let (log, writer) = LogStore::open(LogDb::open(&log_dir(dir))?, LogOptions::default())?;
        let log_thread = writer.spawn()?;
        let state = StateDb::open_or_replace(&state_dir(dir))?;
        for (node, address) in identity.created.nodes.iter().filter(|(id, _)| **id != identity.node)
        {
            peers.dial(&Replica { node: *node, address: address.grpc.clone() });
        }
        let hub = Arc::new(Hub::new(identity.shards().shards()));
        let effects = Arc::new(Dispatch::new(identity.shards().shards(), hub.clone()));
        let starter = Starter { config, identity: &identity, log: &log, state: &state, peers };

        let map = &identity.created;
        let first = *map.nodes.keys().next().expect("a cluster has a node");
        let control = starter.group(GroupId::CONTROL, &map.control, first, effects.clone()).await?;
        acceptor.add(control.clone());
        let time = ClusterTime::new(clock.clone());
        let space = Space::of(dir, &config.disk)?;
        let around = Surroundings {
            state: &state,
            shards: identity.shards(),
            time: &time,
            space: &space,
            clock: &clock,
            config,
        };
        let mut shards = BTreeMap::new();
        for (number, placement) in identity.shards().shards().zip(&map.shards) {
            let Placement { replicas, preferred } = placement;
            let group = GroupId::shard(number);
            let group = starter.group(group, replicas, *preferred, effects.clone()).await?;
            acceptor.add(group.clone());
            shards.insert(number, Shard::start(number, group, &around));
        }
        let node = Arc::new(Node {
            identity,
            control,
            shards: Arc::new(shards),
            time,
            space,
            hub,
            log,
            log_thread: Mutex::new(Some(log_thread)),
            state,
            tasks: Mutex::default(),
            stopping: AtomicBool::new(false),
            fatal: watch::Sender::new(None),
        });
        node.start_tasks(config, &effects, clock, rng);
        Ok(node)
    }

    /// Starts what runs beside the groups.
    fn start_tasks(
        self: &Arc<Self>,
        config: &StoreConfig,
        effects: &Dispatch,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
    ) {
        let map = self.identity.created.clone();
        let others = map.nodes.keys().copied().filter(|node| *node != self.identity.node);
        let others = others.collect();
        let client = Client::new(map, HAND_OVER_WITHIN, clock.clone(), rng.clone());
        let relay = Relay {
            shards: self.shards.clone(),
            client: client.clone(),
            config: config.relay.clone(),
            clock: clock.clone(),
            rng,
            fatal: self.fatal.clone(),
        };
        let mut tasks = self.tasks.lock();
        for shard in self.shards.keys() {
            tasks.spawn(relay.clone().run(*shard, effects.wake(*shard)));
        }
        tasks.spawn(self.time.clone().measure(client, others));
        for (_, group) in self.groups() {
            tasks.spawn(watchdog::run(group.clone(), self.fatal.clone()));
        }
        tasks.spawn(self.space.clone().keep());
        tasks.spawn(steward::watch_failures(Arc::downgrade(self)));
        tasks.spawn(steward::run(Arc::downgrade(self), clock));
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The cluster's map, as this node's replica of the control group has it; before that, as the
    /// cluster was created.
    pub fn map(&self) -> Result<ClusterMap, shard::Error> {
        let known = self.state.read(GroupId::CONTROL, |_, view| read::cluster_map(view))??;
        Ok(known.unwrap_or_else(|| self.identity.created.clone()))
    }

    /// Every group of which it has a replica.
    pub fn groups(&self) -> impl Iterator<Item = (GroupId, &Group)> {
        let shards = self.shards.iter().map(|(id, shard)| (GroupId::shard(*id), shard.group()));
        [(GroupId::CONTROL, &self.control)].into_iter().chain(shards)
    }

    /// Every shard of which it has a replica.
    pub fn shards(&self) -> impl Iterator<Item = (ShardId, &Shard)> {
        self.shards.iter().map(|(id, shard)| (*id, shard))
    }

    /// A shard, if it has a replica of it.
    pub fn shard(&self, shard: ShardId) -> Option<&Shard> {
        self.shards.get(&shard)
    }

    /// The number of the shard on which `id` lives.
    pub fn shard_number(&self, id: &Id) -> ShardId {
        self.identity.shards().shard_of(id)
    }

    /// Proposes a command where its id lives, on this node's replica.
    ///
    /// # Panics
    /// If the command has no id, or this node has no replica of that shard.
    pub async fn propose(&self, command: Command) -> Result<Reply, shard::Error> {
        let id = command.routed_by().expect("a command about a shard goes to that shard");
        let shard = self.shard(self.shard_number(&id)).expect("a replica of every shard");
        shard.propose(command).await
    }

    /// Bytes in the outbox of a group, as far as it is applied here.
    pub fn outbox_bytes(&self, group: GroupId) -> Result<u64, shard::Error> {
        let streams = self.state.read(group, |_, view| read::outbounds(view))??;
        Ok(streams.iter().map(|(_, stream)| stream.queued_bytes()).sum())
    }

    /// Cluster time.
    pub fn time(&self) -> &ClusterTime {
        &self.time
    }

    /// Free space on its disk.
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// Who watches which mailboxes here.
    pub fn hub(&self) -> &Hub {
        &self.hub
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
        let leaderless = self.groups().find(|(_, group)| group.status().leader.is_none());
        if let Some((id, _)) = leaderless {
            return Err(format!("{id} has no leader"));
        }
        for id in self.shards.keys() {
            match self.state.read(GroupId::shard(*id), |_, view| read::shard(view)) {
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
        let found = self.groups().find(|(id, _)| *id == group);
        let (_, group) = found.ok_or(shard::Error::NotLeader { leader: None })?;
        Ok(group.transfer_to(to, HAND_OVER_WITHIN).await?)
    }

    /// Moves leaders away, stops every group, drains the log and flushes the state.
    pub async fn shut_down(&self) -> Result<(), NodeError> {
        self.stopping.store(true, Ordering::Relaxed);
        steward::hand_over(self).await;
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        tasks.shutdown().await;
        for (_, group) in self.groups() {
            group.shut_down().await?;
        }
        let thread = self.log_thread.lock().take();
        if let Some(thread) = thread {
            tokio::task::spawn_blocking(|| thread.shut_down())
                .await
                .map_err(io::Error::other)??;
        }
        Ok(self.state.flush()?)
    }
}

/// How long to wait before all others are asked for a lost state again.
const REBUILD_AGAIN: Duration = Duration::from_secs(1);

/// What every group of a node is started with.
struct Starter<'a> {
    config: &'a StoreConfig,
    identity: &'a Identity,
    log: &'a LogStore,
    state: &'a StateDb,
    peers: Peers,
}

impl Starter<'_> {
    /// Fetches the state of a group from another node if it was lost and the log, which is intact,
    /// no longer reaches back to the beginning. Whatever another has applied is committed; it takes
    /// as long as it takes, since without it the group cannot run.
    async fn rebuild(&self, id: GroupId, log: &GroupLog) -> Result<(), NodeError> {
        let Some(purged) = log.purged() else { return Ok(()) };
        let mut state = self.state.group(id);
        let others = self.identity.created.nodes.keys().filter(|node| **node != self.identity.node);
        let others: Vec<NodeId> = others.copied().collect();
        while position(state.applied()?)? < Some(purged) {
            if others.is_empty() {
                return Err(NodeError::StateLost { group: id, purged: purged.index });
            }
            for node in &others {
                match self.peers.fetch(*node, id, self.state).await {
                    // A replica that lags behind what was purged here is no help.
                    Ok(staged) if position(staged.applied()?)? < Some(purged) => {
                        tracing::warn!(group = %id, %node, "its state is too old to rebuild ours");
                    }
                    Ok(staged) => {
                        state.install(staged)?;
                        tracing::warn!(group = %id, %node, "rebuilt a lost state");
                        return Ok(());
                    }
                    Err(error) => {
                        tracing::warn!(group = %id, %node, %error, "no state to rebuild ours");
                    }
                }
            }
            tokio::time::sleep(REBUILD_AGAIN).await;
        }
        Ok(())
    }

    /// Starts this node's replica of a group; `creator` makes it a group if it is none yet.
    async fn group(
        &self,
        id: GroupId,
        replicas: &BTreeMap<ReplicaId, NodeId>,
        creator: NodeId,
        effects: Arc<Dispatch>,
    ) -> Result<Group, NodeError> {
        let me = self.identity.node;
        let mine = replicas.iter().find(|(_, node)| **node == me);
        let (replica, _) = mine.expect("every group has a replica on every node");
        let mut log = self.log.group(id);
        self.rebuild(id, &log).await?;
        log.catch_up(position(self.state.group(id).applied()?)?).await?;
        let machine = Machine::open(self.state.clone(), id, effects)?;
        let network = self.peers.network(id, *replica);
        let group = Group::start(id, *replica, &self.config.raft, network, log, machine).await?;
        if creator == me {
            let address = |node: &NodeId| self.identity.created.nodes[node].grpc.clone();
            let members = replicas
                .iter()
                .map(|(replica, node)| (*replica, Replica { node: *node, address: address(node) }));
            group.create(members.collect()).await?;
        }
        Ok(group)
    }
}

/// The last entry of an applied position.
fn position(applied: Option<Bytes>) -> Result<Option<LogId>, NodeError> {
    let applied = Applied::decode(applied.as_deref()).map_err(io::Error::other)?;
    Ok(applied.last)
}
