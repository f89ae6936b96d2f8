//! Three nodes in one process, over real TCP, with connections that can be cut or made to hang.
//!
//! Nothing here sleeps for something to happen: tests wait for what a group says of itself.

mod cluster;
mod faults;
mod frames;
mod idle;
mod net;
mod protocol;
mod snapshot;
mod succession;
mod time;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tidemark_store_core::key::{ChainKey, Key};
use tidemark_store_core::value::{Chain, Value};
use tidemark_store_core::{Batch, Command};
use tidemark_types::{ClusterId, NodeId, ShardId, UnixMs, UserId};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use self::net::{Net, Wire};
use super::{Acceptor, Me, Peers, incoming, server};
use crate::config::RaftConfig;
use crate::effects::Dispatch;
use crate::raft::group::Group;
use crate::raft::log::{LogOptions, LogStore, LogThread};
use crate::raft::machine::{Applied, Machine};
use crate::raft::types::{Replica, ReplicaId};
use crate::storage::{GroupId, SegmentLog, StateDb};

/// Enough for the slowest machine: reached only by a test that fails.
const WITHIN: Duration = Duration::from_secs(60);

fn cluster_id() -> ClusterId {
    ClusterId::from_bytes([7; 16]).unwrap()
}

fn me(node: u64) -> Me {
    Me { cluster: cluster_id(), node: NodeId::new(node) }
}

fn group_id(group: u16) -> GroupId {
    GroupId::shard(ShardId::new(group))
}

fn replica_of(group: u16, node: u64) -> ReplicaId {
    u64::from(group) * 10 + node
}

/// One node, running.
struct TestNode {
    peers: Peers,
    address: String,
    acceptor: Acceptor,
    server: JoinHandle<()>,
    groups: Vec<Group>,
    state: StateDb,
    log_thread: Option<LogThread>,
    _log: LogStore,
    _dir: TempDir,
}

impl TestNode {
    async fn start(
        node: u64,
        listener: TcpListener,
        groups: u16,
        raft: &RaftConfig,
        net: &Net,
    ) -> Self {
        let me = me(node);
        let address = listener.local_addr().unwrap().to_string();
        let dir = tempfile::tempdir().unwrap();
        let [log_path, state_path] = ["log", "state"].map(|name| dir.path().join(name));
        SegmentLog::create(&log_path).unwrap();
        StateDb::create(&state_path).unwrap();
        let log = SegmentLog::open(&log_path, raft.segment_bytes).unwrap();
        let (log, writer) = LogStore::open(log, LogOptions::default()).unwrap();
        let log_thread = Some(writer.spawn().unwrap());
        let state = StateDb::open(&state_path).unwrap();
        let peers = Peers::new(me, Arc::new(Wire { from: me.node, net: net.clone() }));
        let acceptor = Acceptor::new(peers.clone());
        let mut started = Vec::new();
        for number in 0..groups {
            let id = group_id(number);
            let replica = replica_of(number, node);
            let machine = Machine::open(state.clone(), id, Arc::new(Dispatch::default())).unwrap();
            let network = peers.network(id, replica);
            let group = Group::start(id, replica, raft, network, log.group(id), machine).await;
            let group = group.unwrap();
            acceptor.add(group.clone());
            started.push(group);
        }
        let server = serve(&acceptor, listener);
        let groups = started;
        TestNode {
            peers,
            address,
            acceptor,
            server,
            groups,
            state,
            log_thread,
            _log: log,
            _dir: dir,
        }
    }

    /// Stops answering other nodes; its groups go on, and it goes on asking.
    async fn stop_server(&mut self) {
        self.acceptor.shut_down();
        self.server.abort();
        let _ = (&mut self.server).await;
    }

    async fn start_server(&mut self) {
        self.acceptor = Acceptor::new(self.peers.clone());
        for group in &self.groups {
            self.acceptor.add(group.clone());
        }
        self.server = serve(&self.acceptor, TcpListener::bind(&self.address).await.unwrap());
    }

    /// The applied index and the state hash, of one moment: the group's own metrics lag behind.
    fn position(&self, group: u16) -> (u64, u128) {
        let read = self.state.read(group_id(group), |applied, view| {
            let applied = Applied::decode(applied.as_deref()).unwrap();
            let chain = view.get(&ChainKey {}.encode()).unwrap();
            let hash = chain.map_or(0, |bytes| Chain::decode(&bytes).unwrap().hash);
            (applied.last.map_or(0, |id| id.index), hash)
        });
        read.unwrap()
    }
}

/// A free port, and its address.
async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

fn serve(acceptor: &Acceptor, listener: TcpListener) -> JoinHandle<()> {
    let router = server().add_service(acceptor.service());
    tokio::spawn(async move { router.serve_with_incoming(incoming(listener)).await.unwrap() })
}

/// The indexes of the two other nodes.
fn others(node: usize) -> Vec<usize> {
    (0..3).filter(|other| *other != node).collect()
}

/// Three nodes, numbered from 1, each with a replica of every group.
struct Cluster {
    net: Net,
    nodes: Vec<TestNode>,
}

impl Cluster {
    async fn start(groups: u16) -> Self {
        Self::start_with(groups, &RaftConfig::default()).await
    }

    async fn start_with(groups: u16, raft: &RaftConfig) -> Self {
        let net = Net::default();
        let mut listeners = Vec::new();
        let mut replicas = Vec::new();
        for node in 1..=3 {
            let (listener, address) = listen().await;
            net.add(NodeId::new(node), &address);
            replicas.push(Replica { node: NodeId::new(node), address });
            listeners.push(listener);
        }
        let mut nodes = Vec::new();
        for (node, listener) in (1..).zip(listeners) {
            let started = TestNode::start(node, listener, groups, raft, &net).await;
            let others = replicas.iter().filter(|replica| replica.node.get() != node);
            others.for_each(|replica| started.peers.dial(replica));
            nodes.push(started);
        }
        for group in 0..groups {
            let members: BTreeMap<_, _> =
                (1..).zip(&replicas).map(|(n, r)| (replica_of(group, n), r.clone())).collect();
            nodes[usize::from(group) % 3].groups[usize::from(group)].create(members).await.unwrap();
        }
        Cluster { net, nodes }
    }

    fn group(&self, node: usize, group: u16) -> &Group {
        &self.nodes[node].groups[usize::from(group)]
    }

    /// The index of the node that leads `group`, once all nodes agree and it takes commands.
    async fn leader(&self, group: u16) -> usize {
        self.leader_among(group, &[0, 1, 2]).await
    }

    async fn leader_among(&self, group: u16, nodes: &[usize]) -> usize {
        let agree = async {
            loop {
                let mut leaders = Vec::new();
                for &node in nodes {
                    let led = self.group(node, group).until(WITHIN, "led", |s| s.leader.is_some());
                    leaders.push(led.await.unwrap().leader.unwrap().node);
                }
                let leader = leaders[0];
                let node = usize::try_from(leader.get() - 1).unwrap();
                if leaders.iter().all(|other| *other == leader)
                    && nodes.contains(&node)
                    && self.group(node, group).read_index().await.is_ok()
                {
                    return node;
                }
                // They change their minds only after a message or a timer.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(WITHIN, agree).await.expect("a leader on whom all agree")
    }

    /// Proposes `count` commands on the leader; where it then stands.
    async fn propose(&self, node: usize, group: u16, count: u64) -> u64 {
        let leader = self.group(node, group);
        for number in 0..count {
            let user = UserId::new(format!("user-{number}")).unwrap();
            let commands = vec![Command::Silence { user, silent: true }];
            let batch = Batch { time: UnixMs::new(1_000 + number), commands };
            leader.submit(batch.encode()).await.unwrap().replies().await.unwrap();
        }
        self.nodes[node].position(group).0
    }

    /// Waits until every one of `nodes` has applied `group` up to `applied`, and compares states.
    async fn same_state(&self, group: u16, nodes: &[usize], applied: u64) {
        let mut hashes = Vec::new();
        for &node in nodes {
            let status = self.group(node, group);
            status.until(WITHIN, "applied", |s| s.applied >= Some(applied)).await.unwrap();
            let (at, hash) = self.nodes[node].position(group);
            assert_eq!(at, applied, "nobody proposes meanwhile");
            hashes.push(hash);
        }
        assert!(hashes.iter().all(|hash| *hash == hashes[0]), "group {group}: {hashes:?}");
        assert_ne!(hashes[0], 0, "something was applied");
    }

    async fn stop(self) {
        for node in self.nodes {
            for group in &node.groups {
                group.shut_down().await;
            }
            node.acceptor.shut_down();
            node.server.abort();
            if let Some(thread) = node.log_thread {
                thread.shut_down().unwrap();
            }
        }
    }
}
