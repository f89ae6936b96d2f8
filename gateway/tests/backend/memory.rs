//! A store in memory: the real state machine behind the gateway's seam, and faults on order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use parking_lot::Mutex;
use tidemark_gateway::store::{PendingReply, Store, Watch};
use tidemark_proto::store::v1::{Alarms, GroupStatus, Postponed, StatusResponse};
use tidemark_store_client::{Attempt, Error, Present, WatchEvent};
use tidemark_store_core::command::Batch;
use tidemark_store_core::feed;
use tidemark_store_core::hints::{self, Hint};
use tidemark_store_core::memory::MemoryState;
use tidemark_store_core::presence::{self, Seen};
use tidemark_store_core::read::{Answer, Query};
use tidemark_store_core::value::{ClusterMap, NodeAddress, Settings};
use tidemark_store_core::{Command, Reply, Transaction};
use tidemark_types::routing::HASH_VERSION;
use tidemark_types::{ClusterId, DeviceId, Id, NodeId, Seq, ShardCount, ShardId, UnixMs, UserId};
use tokio::sync::{mpsc, watch};

/// Log time of everything.
pub(crate) const NOW: UnixMs = UnixMs::new(1_000_000);

/// What becomes of a command or query.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    /// It is answered.
    None,
    /// No leader is found: it is not taken.
    Unavailable,
    /// It is taken, and the answer is lost.
    Lost,
}

/// A cluster of two shards on three nodes.
pub(crate) struct MemoryStore {
    map: ClusterMap,
    shards: Mutex<Vec<MemoryState>>,
    /// What becomes of the next ones; nothing happens to those after them.
    faults: Mutex<VecDeque<Fault>>,
    /// Commands are applied, and not answered for now.
    held: watch::Sender<bool>,
    /// How many allocations each command with many of them had.
    proposed: Mutex<Vec<usize>>,
    /// The head of each shard's feed.
    feeds: watch::Sender<[u64; 2]>,
    /// How many queries were asked.
    queries: AtomicUsize,
    /// How nodes answer when asked for their groups; the others are down.
    pub(crate) nodes: Mutex<BTreeMap<u64, Vec<GroupStatus>>>,
    /// Where the gateways are that announced themselves.
    pub(crate) gateways: Mutex<Vec<String>>,
    /// Leaders that were moved: shard, from, to.
    pub(crate) transfers: Mutex<Vec<(u32, u64, u64)>>,
    /// The hints that were handed out.
    leased: Mutex<BTreeSet<(UserId, DeviceId, Seq)>>,
}

impl MemoryStore {
    /// One with a feed.
    pub(crate) fn new() -> Self {
        Self::with(Settings { feed_records_max: 100, ..Settings::default() })
    }

    pub(crate) fn with(settings: Settings) -> Self {
        let cluster = ClusterId::from_bytes([7; 16]).unwrap();
        let count = ShardCount::new(2).unwrap();
        let address = |node: u64| NodeAddress { grpc: format!("127.0.0.1:{node}") };
        let nodes = (1..=3).map(|node| (NodeId::new(node), address(node))).collect();
        let store = MemoryStore {
            map: ClusterMap::new(cluster, count, nodes, settings.clone()),
            shards: Mutex::new(vec![MemoryState::default(); 2]),
            faults: Mutex::default(),
            held: watch::Sender::default(),
            proposed: Mutex::default(),
            feeds: watch::Sender::default(),
            queries: AtomicUsize::new(0),
            nodes: Mutex::default(),
            gateways: Mutex::default(),
            transfers: Mutex::default(),
            leased: Mutex::default(),
        };
        for shard in count.shards() {
            let settings = settings.clone();
            let hash_version = HASH_VERSION;
            let init = Command::Init { cluster, shard, shards: count, hash_version, settings };
            assert_eq!(store.apply(shard, init), Reply::Done);
        }
        store
    }

    /// What becomes of the next commands and queries.
    pub(crate) fn fail(&self, faults: &[Fault]) {
        self.faults.lock().extend(faults);
    }

    /// Holds the answers to commands back, or lets them go.
    pub(crate) fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    /// How many allocations each command with many of them had.
    pub(crate) fn proposed(&self) -> Vec<usize> {
        self.proposed.lock().clone()
    }

    /// How many queries were asked.
    pub(crate) fn queries(&self) -> usize {
        self.queries.load(Ordering::SeqCst)
    }

    /// All nodes are up, and this one leads everything.
    pub(crate) fn lead(&self, leader: u64) {
        let group = |group| GroupStatus { group, term: 1, leader, ..GroupStatus::default() };
        let groups: Vec<_> = (0..2).map(group).collect();
        *self.nodes.lock() = (1..=3).map(|node| (node, groups.clone())).collect();
    }

    fn apply(&self, shard: ShardId, command: Command) -> Reply {
        let state = &mut self.shards.lock()[usize::from(shard.get())];
        let batch = Batch { time: NOW, commands: vec![command] };
        let mut transaction = Transaction::new(state);
        let reply = transaction.apply(&batch.encode()).unwrap().remove(0).reply;
        let writes = transaction.finish();
        state.write(writes);
        let head = feed::stands(state).unwrap().head;
        self.feeds.send_modify(|feeds| feeds[usize::from(shard.get())] = head);
        reply
    }

    fn outcome<T>(&self, what: impl FnOnce() -> T) -> Result<T, Error> {
        let fault = self.faults.lock().pop_front().unwrap_or(Fault::None);
        match fault {
            Fault::None => Ok(what()),
            Fault::Unavailable => Err(Error::Unavailable("no leader".to_owned())),
            Fault::Lost => {
                what();
                Err(Error::Unknown("no answer".to_owned()))
            }
        }
    }
}

impl Store for MemoryStore {
    fn map(&self) -> &ClusterMap {
        &self.map
    }

    fn command(&self, command: Command) -> BoxFuture<'static, Result<Reply, Error>> {
        let shard = self.map.shard_count().unwrap().shard_of(&command.routed_by().unwrap());
        if let Command::AllocateMany { allocations } = &command {
            self.proposed.lock().push(allocations.len());
        }
        let outcome = self.outcome(|| self.apply(shard, command));
        let mut held = self.held.subscribe();
        async move {
            held.wait_for(|held| !held).await.expect("the store is there");
            outcome
        }
        .boxed()
    }

    fn query(&self, query: Query) -> BoxFuture<'static, Result<Answer, Error>> {
        self.queries.fetch_add(1, Ordering::SeqCst);
        let shard = query.shard(self.map.shard_count().unwrap());
        let outcome = self.outcome(|| {
            let state = &self.shards.lock()[usize::from(shard.get())];
            query.answer(state).unwrap()
        });
        ready(outcome).boxed()
    }

    fn submit(&self, _: Command) -> BoxFuture<'static, Result<PendingReply, Attempt>> {
        panic!("no unary call is a single attempt")
    }

    /// Nothing is ever heard: no device connects in these tests.
    fn watch(&self) -> (Box<dyn Watch>, mpsc::Receiver<WatchEvent>) {
        (Box::new(Deaf), mpsc::channel(1).1)
    }

    /// Whatever is due, each once for as long as a test lasts.
    fn lease_hints(
        &self,
        _: NodeId,
        max: u32,
        _: Vec<Postponed>,
    ) -> BoxFuture<'static, Result<Vec<Hint>, Error>> {
        let (now, max) = (UnixMs::new(u64::MAX - 1), max as usize);
        let mut found = Vec::new();
        for state in self.shards.lock().iter() {
            for key in hints::due(state, None, now, max).unwrap() {
                found.extend(hints::hints(state, &key.user, now).unwrap());
            }
        }
        found.retain(|hint| {
            self.leased.lock().insert((hint.user.clone(), hint.device.clone(), hint.head))
        });
        ready(Ok(found)).boxed()
    }

    /// Nobody hears it, as no device connects.
    fn typing(&self, _: UserId, _: UserId, _: bool) -> BoxFuture<'static, Result<(), Error>> {
        ready(self.outcome(|| ())).boxed()
    }

    /// As a leader for whom everybody is watched.
    fn presence(
        &self,
        user: UserId,
        by: Option<UserId>,
    ) -> BoxFuture<'static, Result<Present, Error>> {
        let shard = self.map.shard_count().unwrap().shard_of(&Id::User(user.clone()));
        let outcome = self.outcome(|| {
            let state = &self.shards.lock()[usize::from(shard.get())];
            let Seen { connected, last } = presence::seen(state, &user, by.as_ref()).unwrap();
            Present { online: connected, last_seen: last }
        });
        ready(outcome).boxed()
    }

    fn await_feed(
        &self,
        shard: ShardId,
        after: u64,
        within: Duration,
    ) -> BoxFuture<'static, Result<bool, Error>> {
        let mut feeds = self.feeds.subscribe();
        async move {
            let grown = feeds.wait_for(|heads| heads[usize::from(shard.get())] > after);
            let within = within.min(Duration::from_secs(1));
            Ok(tokio::time::timeout(within, grown).await.is_ok())
        }
        .boxed()
    }

    fn status(&self, node: NodeId) -> BoxFuture<'static, Result<StatusResponse, Error>> {
        let groups = self.nodes.lock().get(&node.get()).cloned();
        let status = groups.map(|groups| StatusResponse {
            node: node.get(),
            cluster: self.map.cluster.as_bytes().to_vec().into(),
            groups,
            version: "1.2.3".to_owned(),
            disk_free_bytes: 5 << 30,
            gateways: self.gateways.lock().clone(),
            alarms: vec![Alarms { kind: "wrong_shard".to_owned(), count: 3 }],
        });
        ready(status.ok_or_else(|| Error::Unavailable("it is down".to_owned()))).boxed()
    }

    fn transfer_leader(
        &self,
        group: u32,
        from: NodeId,
        to: NodeId,
    ) -> BoxFuture<'static, Result<u64, Error>> {
        let outcome = self.outcome(|| {
            self.transfers.lock().push((group, from.get(), to.get()));
            9
        });
        ready(outcome).boxed()
    }
}

struct Deaf;

impl Watch for Deaf {
    fn register(&self, _: UserId) {}

    fn unregister(&self, _: &UserId) {}

    fn follow(&self, _: UserId, _: UserId) {}

    fn unfollow(&self, _: &UserId, _: &UserId) {}

    fn is_live(&self, _: &UserId) -> bool {
        false
    }
}
