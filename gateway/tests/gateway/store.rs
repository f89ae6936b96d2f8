//! The store: the real state machine of one shard, in memory, and a watch, with switches by which
//! tests make both fail as a cluster would.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tidemark_gateway::store::{PendingReply, Store, Watch};
use tidemark_proto::Failure;
use tidemark_proto::store::v1::{Postponed, StatusResponse};
use tidemark_store_client::{Attempt, Error, Present, WatchEvent};
use tidemark_store_core::command::{Batch, Judged};
use tidemark_store_core::devices::{self, Seat};
use tidemark_store_core::hints::Hint;
use tidemark_store_core::memory::MemoryState;
use tidemark_store_core::presence;
use tidemark_store_core::read::{Answer, Query, mailbox};
use tidemark_store_core::value::{ClusterMap, Entry, NodeAddress, Settings, Value as _};
use tidemark_store_core::{Command, Effect, Reply, Transaction};
use tidemark_types::{
    ClusterId, Epoch, ErrorCode, NodeId, Recipient, Seq, ShardCount, ShardId, UnixMs, UserId,
    routing,
};
use tokio::sync::{Semaphore, mpsc};

/// What becomes of one attempt at a send.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Nothing is wrong.
    None,
    /// The node does not lead.
    NotLeader,
    /// The node has too much to do.
    Overloaded,
    /// It was taken, and the answer is lost.
    LostAfter,
    /// It was lost on its way.
    LostBefore,
    /// The node could not be reached.
    NotSent,
    /// The answer takes this long.
    Slow(Duration),
}

/// One cluster, as many gateways see it.
pub(crate) struct Cluster {
    map: ClusterMap,
    state: Mutex<State>,
    /// No leader can be reached.
    pub(crate) down: AtomicBool,
    /// Nothing can be read.
    pub(crate) blind: AtomicBool,
    /// New entries are told as heads.
    pub(crate) heads_only: AtomicBool,
    /// As many follow each user as may.
    pub(crate) crowded: AtomicBool,
    /// The leader beats.
    pub(crate) live: AtomicBool,
    /// Pages are read, and their answers wait for permits, while there are few.
    pub(crate) pages: Semaphore,
    /// Confirmations are applied, and the answers to their commands wait for permits, while there are few.
    pub(crate) confirmed: Semaphore,
    /// Faults of the next attempts at sends.
    faults: Mutex<VecDeque<Fault>>,
    /// The n of each attempt that reached the shard.
    attempts: Mutex<Vec<u64>>,
    /// Every confirmation that was proposed.
    confirms: Mutex<Vec<u32>>,
    /// What changed something, in words.
    changes: Mutex<Vec<String>>,
}

struct State {
    shard: MemoryState,
    time: u64,
    watchers: Vec<Watcher>,
}

#[derive(Clone)]
struct Watcher {
    users: Arc<Mutex<BTreeSet<UserId>>>,
    /// Of whom it hears whether they are there, and for whom.
    pairs: Arc<Mutex<BTreeSet<(UserId, UserId)>>>,
    events: mpsc::Sender<WatchEvent>,
}

pub(crate) fn cluster_id() -> ClusterId {
    ClusterId::from_bytes([7; 16]).unwrap()
}

impl Cluster {
    pub(crate) fn new() -> Arc<Self> {
        let shards = ShardCount::new(1).unwrap();
        let nodes = [(NodeId::new(1), NodeAddress { grpc: "127.0.0.1:1".to_owned() })];
        let map = ClusterMap::new(cluster_id(), shards, nodes.into(), Settings::default());
        let state = State { shard: MemoryState::default(), time: 1_000, watchers: Vec::new() };
        let cluster = Cluster {
            map,
            state: Mutex::new(state),
            down: AtomicBool::new(false),
            blind: AtomicBool::new(false),
            heads_only: AtomicBool::new(false),
            crowded: AtomicBool::new(false),
            live: AtomicBool::new(true),
            pages: Semaphore::new(Semaphore::MAX_PERMITS / 2),
            confirmed: Semaphore::new(Semaphore::MAX_PERMITS / 2),
            faults: Mutex::default(),
            attempts: Mutex::default(),
            confirms: Mutex::default(),
            changes: Mutex::default(),
        };
        cluster.apply(&Command::Init {
            cluster: cluster_id(),
            shard: ShardId::new(0),
            shards,
            hash_version: routing::HASH_VERSION,
            settings: Settings::default(),
        });
        Arc::new(cluster)
    }

    /// The seam of one gateway to it.
    pub(crate) fn seam(self: &Arc<Self>) -> Arc<dyn Store> {
        Arc::new(Seam(self.clone()))
    }

    pub(crate) fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.lock().unwrap().extend(faults);
    }

    pub(crate) fn attempts(&self) -> Vec<u64> {
        self.attempts.lock().unwrap().clone()
    }

    pub(crate) fn confirms(&self) -> Vec<u32> {
        self.confirms.lock().unwrap().clone()
    }

    /// Every command of which not all was refused, in order.
    pub(crate) fn changes(&self) -> Vec<String> {
        self.changes.lock().unwrap().clone()
    }

    /// No more faults.
    pub(crate) fn heal(&self) {
        self.faults.lock().unwrap().clear();
    }

    /// Applies a command of which no watcher hears.
    pub(crate) fn unheard(&self, command: &Command) -> Reply {
        let watchers = std::mem::take(&mut self.state.lock().unwrap().watchers);
        let reply = self.apply(command);
        self.state.lock().unwrap().watchers = watchers;
        reply
    }

    /// Applies a command, and tells the watchers.
    pub(crate) fn apply(&self, command: &Command) -> Reply {
        let mut state = self.state.lock().unwrap();
        state.time += 1;
        let batch = Batch { time: UnixMs::new(state.time), commands: vec![command.clone()] };
        let mut transaction = Transaction::new(&state.shard);
        let applied = transaction.apply(&batch.encode()).expect("not fatal").remove(0);
        let writes = transaction.finish();
        state.shard.write(writes);
        let is_refused = match &applied.reply {
            Reply::Rejected(_) => true,
            Reply::ConfirmedMany(outcomes) => outcomes.iter().all(Result::is_err),
            _ => false,
        };
        if !is_refused {
            self.changes.lock().unwrap().push(in_words(command));
        }
        self.confirms.lock().unwrap().extend(confirmed(command).map(|(_, seq)| seq.get()));
        for effect in applied.effects {
            match effect {
                Effect::Appended { mailbox: Recipient::User(user), seq, entry } => {
                    let entry = Entry::decode(&entry).expect("the state machine wrote it");
                    self.tell(&state, &user, seq, entry);
                }
                Effect::Unseated { user, device, below, code } => {
                    let seat = Seat { device, below, code };
                    state.tell(&user, &WatchEvent::Unseated { user: user.clone(), seat });
                }
                _ => {}
            }
        }
        state.tell_presence(None);
        applied.reply
    }

    fn tell(&self, state: &State, user: &UserId, seq: Seq, entry: Entry) {
        let event = match self.heads_only.load(Ordering::SeqCst) {
            true => WatchEvent::Head { user: user.clone(), head: seq },
            false => WatchEvent::Appended { user: user.clone(), seq, entry },
        };
        state.tell(user, &event);
    }

    /// Every watcher registers again, as after a failover.
    pub(crate) fn fail_over(&self, epoch: Option<Epoch>) {
        let state = self.state.lock().unwrap();
        for watcher in &state.watchers {
            for user in watcher.users.lock().unwrap().iter() {
                watcher.registered(&state, user, epoch);
            }
        }
    }

    fn query(&self, query: &Query) -> Answer {
        query.answer(&self.state.lock().unwrap().shard).expect("not fatal")
    }

    fn check_up(&self) -> Result<(), Error> {
        match self.down.load(Ordering::SeqCst) {
            true => Err(Error::Unavailable("no leader".to_owned())),
            false => Ok(()),
        }
    }

    /// One attempt at a send, with the next fault.
    fn attempt(&self, command: &Command) -> Result<PendingReply, Attempt> {
        let Command::Send(send) = command else { panic!("only sends are submitted") };
        let fault = self.faults.lock().unwrap().pop_front().unwrap_or(Fault::None);
        let failed = |code| Err(Attempt::Failed(Failure::new(code)));
        let take = || {
            self.attempts.lock().unwrap().push(send.n);
            self.apply(command)
        };
        let lost = Err(Attempt::Lost("no answer".to_owned()));
        let (outcome, delay) = match fault {
            Fault::None => (Ok(take()), Duration::ZERO),
            Fault::Slow(delay) => (Ok(take()), delay),
            Fault::NotLeader => (failed(ErrorCode::NotLeader), Duration::ZERO),
            Fault::Overloaded => (failed(ErrorCode::Overloaded), Duration::ZERO),
            Fault::NotSent => return Err(Attempt::NotSent("no connection".to_owned())),
            Fault::LostBefore => (lost, Duration::ZERO),
            Fault::LostAfter => {
                take();
                (lost, Duration::ZERO)
            }
        };
        let pending = async move {
            tokio::time::sleep(delay).await;
            outcome
        };
        Ok(pending.boxed())
    }
}

/// Whose cursors a command confirms, and where they stand.
fn confirmed(command: &Command) -> impl Iterator<Item = (&UserId, Seq)> {
    let (one, many) = match command {
        Command::Confirm { user, seq, .. } => (Some((user, *seq)), &[][..]),
        Command::ConfirmMany { confirmations } => (None, &confirmations[..]),
        _ => (None, &[][..]),
    };
    one.into_iter().chain(many.iter().map(|one| (&one.user, one.seq)))
}

/// A command and whom or what it is about, without its content.
fn in_words(command: &Command) -> String {
    match command {
        Command::Init { .. } => "init".to_owned(),
        Command::RegisterDevice { user, device, .. } => format!("register {user} {device}"),
        Command::Open { user, .. } => format!("open {user}"),
        Command::Confirm { .. } | Command::ConfirmMany { .. } => {
            let each = confirmed(command).map(|(user, seq)| format!("confirm {user} {seq}"));
            each.collect::<Vec<_>>().join(", ")
        }
        Command::Send(send) => match &send.judged {
            Judged::Allow(_) => format!("send {}", send.n),
            Judged::Refuse(code) => format!("refuse {} {code}", send.n),
            Judged::Drop(_) => format!("drop {}", send.n),
        },
        other => format!("{other:?}"),
    }
}

impl State {
    /// As a leader sees it.
    fn present(&self, user: &UserId, by: Option<&UserId>) -> Present {
        let watched = |watcher: &Watcher| watcher.users.lock().unwrap().contains(user);
        let watched = self.watchers.iter().any(watched);
        let seen = presence::seen(&self.shard, user, by).expect("not fatal");
        Present { online: watched && seen.connected, last_seen: seen.last }
    }

    /// Tells whether users are there, of all pairs or of this one, changed or not.
    fn tell_presence(&self, one: Option<&(UserId, UserId)>) {
        for watcher in &self.watchers {
            for pair in watcher.pairs.lock().unwrap().iter() {
                if one.is_none_or(|one| one == pair) {
                    let (user, by) = pair.clone();
                    let present = self.present(&user, Some(&by));
                    let event = WatchEvent::Presence { user, by, present: Ok(present) };
                    watcher.events.try_send(event).expect("the gateway reads its watch");
                }
            }
        }
    }

    /// Tells everybody who watches the user.
    fn tell(&self, user: &UserId, event: &WatchEvent) {
        for watcher in &self.watchers {
            if watcher.users.lock().unwrap().contains(user) {
                watcher.events.try_send(event.clone()).expect("the gateway reads its watch");
            }
        }
    }
}

impl Watcher {
    fn registered(&self, state: &State, user: &UserId, epoch: Option<Epoch>) {
        let at = mailbox(&state.shard, &Recipient::User(user.clone())).expect("not fatal");
        let epoch = epoch.unwrap_or(at.epoch);
        let (floor, head) = (at.floor, at.head);
        let event = WatchEvent::Registered { user: user.clone(), epoch, floor, head };
        self.events.try_send(event).expect("the gateway reads its watch");
        let (last_number, seats) = devices::seats(&state.shard, user).expect("not fatal");
        let event = WatchEvent::Seats { user: user.clone(), seats, last_number };
        self.events.try_send(event).expect("the gateway reads its watch");
    }
}

struct Seam(Arc<Cluster>);

impl Store for Seam {
    fn map(&self) -> &ClusterMap {
        &self.0.map
    }

    fn command(&self, command: Command) -> BoxFuture<'static, Result<Reply, Error>> {
        let cluster = self.0.clone();
        async move {
            cluster.check_up()?;
            let reply = cluster.apply(&command);
            if confirmed(&command).next().is_some() {
                cluster.confirmed.acquire().await.expect("never closed").forget();
            }
            Ok(reply)
        }
        .boxed()
    }

    fn query(&self, query: Query) -> BoxFuture<'static, Result<Answer, Error>> {
        let cluster = self.0.clone();
        async move {
            cluster.check_up()?;
            if cluster.blind.load(Ordering::SeqCst) {
                return Err(Error::Unavailable("no majority".to_owned()));
            }
            let answer = cluster.query(&query);
            if let Answer::Page(_) = answer {
                cluster.pages.acquire().await.expect("never closed").forget();
            }
            Ok(answer)
        }
        .boxed()
    }

    fn submit(&self, command: Command) -> BoxFuture<'static, Result<PendingReply, Attempt>> {
        let cluster = self.0.clone();
        async move { cluster.attempt(&command) }.boxed()
    }

    fn watch(&self) -> (Box<dyn Watch>, mpsc::Receiver<WatchEvent>) {
        let (events, heard) = mpsc::channel(4_096);
        let watcher = Watcher { users: Arc::default(), pairs: Arc::default(), events };
        self.0.state.lock().unwrap().watchers.push(watcher.clone());
        (Box::new(Watching { cluster: self.0.clone(), watcher }), heard)
    }

    fn lease_hints(
        &self,
        _: NodeId,
        _: u32,
        _: Vec<Postponed>,
    ) -> BoxFuture<'static, Result<Vec<Hint>, Error>> {
        panic!("nobody sends hints here")
    }

    /// As a leader does: those who watch are told, if the user wants to know.
    fn typing(
        &self,
        user: UserId,
        by: UserId,
        typing: bool,
    ) -> BoxFuture<'static, Result<(), Error>> {
        let cluster = self.0.clone();
        async move {
            cluster.check_up()?;
            let state = cluster.state.lock().unwrap();
            if presence::welcomes(&state.shard, &user, &by).expect("not fatal") {
                state.tell(&user, &WatchEvent::Typing { user: user.clone(), by, typing });
            }
            Ok(())
        }
        .boxed()
    }

    fn presence(
        &self,
        user: UserId,
        by: Option<UserId>,
    ) -> BoxFuture<'static, Result<Present, Error>> {
        let cluster = self.0.clone();
        async move {
            cluster.check_up()?;
            let state = cluster.state.lock().unwrap();
            Ok(state.present(&user, by.as_ref()))
        }
        .boxed()
    }

    fn await_feed(
        &self,
        _: ShardId,
        _: u64,
        _: Duration,
    ) -> BoxFuture<'static, Result<bool, Error>> {
        panic!("no device follows the feed")
    }

    fn status(&self, _: NodeId) -> BoxFuture<'static, Result<StatusResponse, Error>> {
        panic!("no device asks for it")
    }

    fn transfer_leader(
        &self,
        _: u32,
        _: NodeId,
        _: NodeId,
    ) -> BoxFuture<'static, Result<u64, Error>> {
        panic!("no device moves a leader")
    }
}

struct Watching {
    cluster: Arc<Cluster>,
    watcher: Watcher,
}

impl Watch for Watching {
    fn register(&self, user: UserId) {
        let state = self.cluster.state.lock().unwrap();
        self.watcher.registered(&state, &user, None);
        self.watcher.users.lock().unwrap().insert(user);
        state.tell_presence(None);
    }

    fn unregister(&self, user: &UserId) {
        self.watcher.users.lock().unwrap().remove(user);
        self.cluster.state.lock().unwrap().tell_presence(None);
    }

    fn follow(&self, user: UserId, by: UserId) {
        if self.cluster.crowded.load(Ordering::SeqCst) {
            let present = Err(ErrorCode::Overloaded);
            let event = WatchEvent::Presence { user, by, present };
            return self.watcher.events.try_send(event).expect("the gateway reads its watch");
        }
        let pair = (user, by);
        self.watcher.pairs.lock().unwrap().insert(pair.clone());
        self.cluster.state.lock().unwrap().tell_presence(Some(&pair));
    }

    fn unfollow(&self, user: &UserId, by: &UserId) {
        self.watcher.pairs.lock().unwrap().remove(&(user.clone(), by.clone()));
    }

    fn is_live(&self, _: &UserId) -> bool {
        self.cluster.live.load(Ordering::SeqCst)
    }
}
