//! The store node as a whole: opens the directory, starts every group, stops them in order.
//!
//! ```text
//!   start:  identity → log (checked) → state → groups (replay the log over the state) → shards
//!   stop:   groups → log writer (drained) → state (flushed)
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tidemark_env::Clock;
use tidemark_store_core::value::Settings;
use tidemark_store_core::{Command, Reply};
use tidemark_types::{ClusterId, Id, NodeId, ShardCount, ShardId};

use crate::alarms::Alarms;
use crate::config::{ConfigError, StoreConfig};
use crate::identity::{Identity, IdentityError};
use crate::raft::group::{Group, GroupError};
use crate::raft::log::{Failure, LogOptions, LogStore, LogThread, RecoverError};
use crate::raft::machine::Machine;
use crate::raft::network::NoPeers;
use crate::raft::types::{Replica, ReplicaId};
use crate::shard::{self, Shard};
use crate::storage::{GroupId, LogDb, LogDbError, StateDb, StateDbError};

/// A group of one replica leads itself as soon as it has replayed its log.
const LED_WITHIN: Duration = Duration::from_secs(120);

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
    /// A shard did not take its first command.
    #[error("shard {shard} cannot be initialised: {reason}")]
    Init {
        /// Which one.
        shard: ShardId,
        /// Why.
        reason: String,
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
    shards: BTreeMap<ShardId, Shard>,
    log: LogStore,
    log_thread: LogThread,
    state: StateDb,
}

impl Node {
    /// Makes an empty directory the first and only node of a new cluster.
    pub fn create(
        config: &StoreConfig,
        cluster: ClusterId,
        shards: ShardCount,
    ) -> Result<Identity, NodeError> {
        config.validate()?;
        let dir = &config.data_dir;
        Identity::claim(dir)?;
        LogDb::create(&log_dir(dir))?;
        StateDb::create(&state_dir(dir))?;
        let identity = Identity::new(cluster, NodeId::new(1), shards);
        identity.write(dir)?;
        Ok(identity)
    }

    /// Starts the node on its directory; every shard is led and initialised when it returns.
    pub async fn start(config: &StoreConfig, clock: Arc<dyn Clock>) -> Result<Self, NodeError> {
        config.validate()?;
        let dir = &config.data_dir;
        let identity = Identity::read(dir)?;
        let (log, writer) = LogStore::open(LogDb::open(&log_dir(dir))?, LogOptions::default())?;
        let log_thread = writer.spawn()?;
        let state = StateDb::open(&state_dir(dir))?;
        let mut node = Node { identity, shards: BTreeMap::new(), log, log_thread, state };
        for id in identity.shards.shards() {
            let shard = node.start_shard(config, id, clock.clone()).await?;
            node.shards.insert(id, shard);
        }
        for (id, shard) in &node.shards {
            node.init_shard(*id, shard).await?;
        }
        Ok(node)
    }

    /// Who it is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Its shards.
    pub fn shards(&self) -> impl Iterator<Item = (ShardId, &Shard)> {
        self.shards.iter().map(|(id, shard)| (*id, shard))
    }

    /// The shard on which `id` lives.
    pub fn shard_of(&self, id: &Id) -> &Shard {
        let shard = self.identity.shards.shard_of(id);
        self.shards.get(&shard).expect("every shard was started")
    }

    /// Proposes a command where its id lives; it must have one.
    pub async fn propose(&self, command: Command) -> Result<Reply, shard::Error> {
        let id = command.routed_by().expect("a command about a shard goes to that shard");
        self.shard_of(&id).propose(command).await
    }

    /// Becomes `Some` when the log has failed: the process must stop at once.
    pub fn failed(&self) -> tokio::sync::watch::Receiver<Option<Failure>> {
        self.log.failed()
    }

    /// Stops every group, drains the log and flushes the state.
    pub async fn shut_down(self) -> Result<(), NodeError> {
        for shard in self.shards.values() {
            shard.group().shut_down().await?;
        }
        self.log_thread.shut_down()?;
        Ok(self.state.flush()?)
    }

    async fn start_shard(
        &self,
        config: &StoreConfig,
        shard: ShardId,
        clock: Arc<dyn Clock>,
    ) -> Result<Shard, NodeError> {
        let id = GroupId::shard(shard);
        let replica = replica_of(shard);
        let machine = Machine::open(self.state.clone(), id, Arc::new(Alarms))?;
        let log = self.log.group(id);
        let group = Group::start(id, replica, &config.raft, NoPeers, log, machine).await?;
        let me = Replica { node: self.identity.node, address: String::new() };
        group.create(BTreeMap::from([(replica, me)])).await?;
        group.led(LED_WITHIN).await?;
        Ok(Shard::start(id, group, self.state.clone(), &config.proposals, clock))
    }

    /// Tells a new shard who it is; an old one says that it knows.
    async fn init_shard(&self, id: ShardId, shard: &Shard) -> Result<(), NodeError> {
        let Identity { cluster, shards, hash_version, .. } = self.identity;
        let settings = Settings::default();
        let init = Command::Init { cluster, shard: id, shards, hash_version, settings };
        match shard.propose(init).await {
            Ok(Reply::Done) => Ok(()),
            other => Err(NodeError::Init { shard: id, reason: format!("{other:?}") }),
        }
    }
}

/// Replica ids are unique in a cluster: here one node holds one replica of each shard.
fn replica_of(shard: ShardId) -> ReplicaId {
    u64::from(shard.get()) + 1
}
