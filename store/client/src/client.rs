//! Routes calls to leaders, and repeats them until they are answered or the deadline passes.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tidemark_env::{Clock, Connector, Rng};
use tidemark_proto::Failure;
use tidemark_proto::store::v1::{
    AnnounceRequest, AwaitFeed, ClockRequest, ClockResponse, LeaseHintsRequest, LeaseHintsResponse,
    MapRequest, Postponed, PresenceOf, StatusRequest, StatusResponse, TransferLeaderRequest,
    TrustClockRequest, Typing, request, response,
};
use tidemark_store_core::hints::Hint;
use tidemark_store_core::read::{Answer, Query};
use tidemark_store_core::value::{ClusterMap, Placement, Value};
use tidemark_store_core::{Command, Reply};
use tidemark_types::{ErrorCode, Id, NodeId, ShardId, UnixMs, UserId};
use tokio::sync::{mpsc, oneshot};
use tonic::Status;
use tonic::transport::Channel;

use crate::error::{Attempt, Error};
use crate::link::{Answered, Link, addressed, channel, store_client};
use crate::watch::{Watch, WatchEvent};

/// One call of a node, or the time in which its stream must take a request.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

/// The first pause after an attempt that failed, doubled up to the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(10);
const PAUSE_LONGEST: Duration = Duration::from_millis(500);

/// How to reach the cluster.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Store nodes, as `host:port`; any of them tells the map.
    pub endpoints: Vec<String>,
    /// How long a call may take in all.
    pub deadline: Duration,
}

/// A node's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeClock {
    /// Its wall clock.
    pub wall: UnixMs,
    /// Whether it counts: it has not jumped since it was last trusted (R17).
    pub trusted: bool,
}

/// Whether a user is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Present {
    /// A device is connected, or was until some seconds ago.
    pub online: bool,
    /// When one was last heard of, to the hour; 0 for never.
    pub last_seen: UnixMs,
}

/// A client of the store; a cheap handle.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    map: ClusterMap,
    deadline: Duration,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    /// How it gets to the nodes; by TCP where there is none.
    connector: Option<Arc<dyn Connector>>,
    /// Who led each shard when last heard of.
    leaders: Mutex<HashMap<ShardId, Leader>>,
    /// The stream to each node of the map, once it was needed.
    links: BTreeMap<NodeId, Mutex<Option<Opening>>>,
    /// For calls about the node itself; connected when first used.
    channels: Mutex<HashMap<NodeId, Channel>>,
}

/// A stream that is open, or being opened, for whoever waits for it.
type Opening = Shared<BoxFuture<'static, Result<Arc<Link>, Attempt>>>;

impl Client {
    /// Asks the endpoints for the cluster's map until one tells it, or the deadline passes.
    pub async fn connect(
        config: ClientConfig,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
    ) -> Result<Self, Error> {
        Self::connect_over(None, config, clock, rng).await
    }

    /// As [`Client::connect`], over a connector instead of by TCP.
    pub async fn connect_over(
        connector: Option<Arc<dyn Connector>>,
        config: ClientConfig,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
    ) -> Result<Self, Error> {
        let started = clock.monotonic();
        let mut reason = "no endpoint is given".to_owned();
        let mut pause = PAUSE_FIRST;
        while clock.monotonic() - started < config.deadline {
            for endpoint in &config.endpoints {
                match fetch_map(endpoint, connector.as_ref()).await {
                    Ok(map) => {
                        return Ok(Client::over(connector, map, config.deadline, clock, rng));
                    }
                    Err(error) => reason = format!("{endpoint}: {error}"),
                }
            }
            if config.endpoints.is_empty() {
                break;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_LONGEST);
        }
        Err(Error::Unavailable(reason))
    }

    /// A client of the cluster with this map.
    pub fn new(
        map: ClusterMap,
        deadline: Duration,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
    ) -> Self {
        Self::over(None, map, deadline, clock, rng)
    }

    /// As [`Client::new`], over a connector instead of by TCP.
    pub fn over(
        connector: Option<Arc<dyn Connector>>,
        map: ClusterMap,
        deadline: Duration,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
    ) -> Self {
        let links = map.nodes.keys().map(|node| (*node, Mutex::default())).collect();
        let (leaders, channels) = (Mutex::default(), Mutex::default());
        let inner = Inner { map, deadline, clock, rng, connector, leaders, links, channels };
        Client { inner: Arc::new(inner) }
    }

    /// The cluster's map, as it was when this client connected.
    pub fn map(&self) -> &ClusterMap {
        &self.inner.map
    }

    /// The shard on which `id` lives.
    pub fn shard_of(&self, id: &Id) -> ShardId {
        self.inner.map.shard_count().expect("checked when the map was fetched").shard_of(id)
    }

    /// Proposes a command where its id lives, until there is a reply or the deadline passes.
    ///
    /// # Panics
    /// If the command has no id: those are the cluster's own.
    pub async fn command(&self, command: &Command) -> Result<Reply, Error> {
        let id = command.routed_by().expect("a client's command has an id");
        let what = request::What::Command(command.encode());
        reply(self.call(self.shard_of(&id), what).await?).map_err(Error::BadAnswer)
    }

    /// Makes one attempt at a command; the outcome to come. What one caller submits to a shard,
    /// awaiting this each time, reaches the node in that order.
    ///
    /// # Panics
    /// If the command has no id: those are the cluster's own.
    pub async fn submit(&self, command: &Command) -> Result<Pending, Attempt> {
        let id = command.routed_by().expect("a client's command has an id");
        let shard = self.shard_of(&id);
        self.start(shard, self.candidate(shard), request::What::Command(command.encode())).await
    }

    /// Makes one attempt to hand records of another shard's outbox, a `RelayIn` command, to the
    /// leader of `shard`; otherwise as [`Client::submit`] (R4).
    pub async fn relay(&self, shard: ShardId, relay_in: &Command) -> Result<Pending, Attempt> {
        self.start(shard, self.candidate(shard), request::What::Relay(relay_in.encode())).await
    }

    /// Asks the leader of the shard that can answer, not staler than when this was called.
    pub async fn query(&self, query: &Query) -> Result<Answer, Error> {
        let what = request::What::Query(query.encode().into());
        let shards = self.inner.map.shard_count().expect("checked when the map was fetched");
        let answered = self.call(query.shard(shards), what).await;
        // A read has no effect that could be unknown.
        let answered = answered.map_err(|error| match error {
            Error::Unknown(reason) => Error::Unavailable(reason),
            error => error,
        });
        match answered? {
            response::What::Answer(bytes) => {
                Answer::decode(&bytes).map_err(|error| Error::BadAnswer(error.to_string()))
            }
            other => Err(Error::BadAnswer(format!("{other:?} to a query"))),
        }
    }

    /// Tells a user that somebody types, by one attempt: what is lost would be late anyway.
    pub async fn typing(&self, user: &UserId, by: &UserId, typing: bool) -> Result<(), Attempt> {
        let shard = self.shard_of(&Id::User(user.clone()));
        let typing = Typing { user: user.to_string(), by: by.to_string(), typing };
        let what = request::What::Typing(typing);
        let pending = self.start(shard, self.candidate(shard), what).await?;
        pending.answer().await.map(drop)
    }

    /// Asks whether a user is there, for `by`.
    pub async fn presence(&self, user: &UserId, by: Option<&UserId>) -> Result<Present, Error> {
        let shard = self.shard_of(&Id::User(user.clone()));
        let by = by.map(ToString::to_string).unwrap_or_default();
        let what = request::What::Presence(PresenceOf { user: user.to_string(), by });
        // It changes nothing, so that nothing is unknown.
        let answered = self.call(shard, what).await.map_err(|error| match error {
            Error::Unknown(reason) => Error::Unavailable(reason),
            error => error,
        });
        match answered? {
            response::What::Present(present) => {
                Ok(Present { online: present.online, last_seen: UnixMs::new(present.last_seen_ms) })
            }
            other => Err(Error::BadAnswer(format!("{other:?} to a question of presence"))),
        }
    }

    /// Waits until the feed of `shard` has a record after `after`, for a second or `within`, whichever is
    /// less; has it? One attempt, and a hint: what there is, is asked for by a query.
    pub async fn await_feed(
        &self,
        shard: ShardId,
        after: u64,
        within: Duration,
    ) -> Result<bool, Attempt> {
        let wait_ms = u32::try_from(within.as_millis()).unwrap_or(u32::MAX);
        let what = request::What::AwaitFeed(AwaitFeed { after, wait_ms });
        let pending = self.start(shard, self.candidate(shard), what).await?;
        match pending.answer().await? {
            response::What::Grown(grown) => Ok(grown.grown),
            other => Err(Attempt::Lost(format!("{other:?} to a wait for the feed"))),
        }
    }

    /// Starts watching mailboxes: the handle by which users are registered, and what is heard. It
    /// ends when the receiver is dropped.
    pub fn watch(&self) -> (Watch, mpsc::Receiver<WatchEvent>) {
        let shards = self.inner.map.shard_count().expect("checked when the map was fetched");
        Watch::start(self.clone(), self.inner.clock.clone(), shards)
    }

    /// How the groups stand, as `node` sees them.
    pub async fn status(&self, node: NodeId) -> Result<StatusResponse, Error> {
        self.ask_status(node, false).await
    }

    /// The same but for `outbox_bytes`, which take reading of the state: for who asks all the time.
    pub async fn brief_status(&self, node: NodeId) -> Result<StatusResponse, Error> {
        self.ask_status(node, true).await
    }

    async fn ask_status(&self, node: NodeId, brief: bool) -> Result<StatusResponse, Error> {
        let mut client = store_client(self.channel(node)?);
        answered(node, client.status(StatusRequest { brief })).await
    }

    /// Tells a node that a gateway has its HTTP port at this `host:port`, for a while.
    pub async fn announce(&self, node: NodeId, http: &str) -> Result<(), Error> {
        let mut client = store_client(self.channel(node)?);
        let request = AnnounceRequest { http: http.to_owned() };
        let request = addressed(request, self.inner.map.cluster);
        answered(node, client.announce(request)).await.map(drop)
    }

    /// Leases up to `max` hints of shards that `node` leads, and tells it of some that could not be
    /// delivered (R18).
    pub async fn lease_hints(
        &self,
        node: NodeId,
        max: u32,
        postponed: Vec<Postponed>,
    ) -> Result<Vec<Hint>, Error> {
        let mut client = store_client(self.channel(node)?);
        let request = addressed(LeaseHintsRequest { max, postponed }, self.inner.map.cluster);
        let leased = tokio::time::timeout(self.inner.deadline, client.lease_hints(request)).await;
        // What was leased unseen comes back when the lease has ended: nothing is unknown.
        let silent = |_| Error::Unavailable(format!("node {node} does not answer"));
        let LeaseHintsResponse { hints } = match leased.map_err(silent)? {
            Ok(leased) => leased.into_inner(),
            Err(status) => return Err(Error::Unavailable(Failure::from(&status).message)),
        };
        let hints = hints.iter().map(|bytes| Hint::decode(bytes)).collect::<Result<_, _>>();
        hints.map_err(|error| Error::BadAnswer(error.to_string()))
    }

    /// What a node's clock says.
    pub async fn clock(&self, node: NodeId) -> Result<NodeClock, Error> {
        let mut client = store_client(self.channel(node)?);
        let ClockResponse { wall_ms, trusted } =
            answered(node, client.clock(ClockRequest {})).await?;
        Ok(NodeClock { wall: UnixMs::new(wall_ms), trusted })
    }

    /// Tells a node that its clock is right again, whatever it did before (R17). Without an answer it
    /// may trust it or not.
    pub async fn trust_clock(&self, node: NodeId) -> Result<(), Error> {
        let mut client = store_client(self.channel(node)?);
        let request = addressed(TrustClockRequest {}, self.inner.map.cluster);
        self.done(node, client.trust_clock(request)).await.map(drop)
    }

    /// Moves a group's leadership from `from` to `to`; the term in which it leads then.
    pub async fn transfer_leader(
        &self,
        group: u32,
        from: NodeId,
        to: NodeId,
    ) -> Result<u64, Error> {
        let mut client = store_client(self.channel(from)?);
        let request = TransferLeaderRequest { group, to: to.get() };
        let moved = client.transfer_leader(addressed(request, self.inner.map.cluster));
        Ok(self.done(from, moved).await?.term)
    }

    /// What became of a call that changes something.
    async fn done<T>(
        &self,
        node: NodeId,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(self.inner.deadline, call).await {
            Ok(Ok(done)) => Ok(done.into_inner()),
            // The node itself may not know, or the connection broke: it may still happen (R3).
            Ok(Err(status)) => Err(match Failure::from(&status) {
                Failure { code: ErrorCode::Unknown, message, .. } => Error::Unknown(message),
                Failure { message, .. } => Error::Unavailable(message),
            }),
            Err(_) => Err(Error::Unknown(format!("node {node} does not answer"))),
        }
    }

    async fn call(&self, shard: ShardId, what: request::What) -> Result<Answered, Error> {
        let Inner { clock, deadline, .. } = &*self.inner;
        let started = clock.monotonic();
        let mut pause = PAUSE_FIRST;
        let mut unknown = None;
        let mut hinted = false;
        loop {
            let node = self.candidate(shard);
            let attempt = async { self.start(shard, node, what.clone()).await?.answer().await };
            let left = (started + *deadline).saturating_sub(clock.monotonic());
            let attempt = tokio::time::timeout(left, attempt).await;
            let failed = match attempt {
                Ok(Ok(answered)) => return Ok(answered),
                Ok(Err(failed)) => failed,
                Err(_) => {
                    let lost = Attempt::Lost("no answer before the deadline".to_owned());
                    self.learn_failure(shard, node, &lost);
                    lost
                }
            };
            let mut wait = self.jittered(pause);
            let given_up = match failed {
                Attempt::NotSent(reason) => Error::Unavailable(reason),
                Attempt::Lost(reason) => Error::Unknown(unknown.insert(reason).clone()),
                Attempt::Failed(Failure { code, message, retry_after, leader, .. }) => {
                    if !code.is_retryable() {
                        // A refusal of this attempt says nothing of an earlier one (R3).
                        return Err(match unknown {
                            Some(reason) if !code.is_final() => Error::Unknown(reason),
                            _ => Error::Refused { code, message },
                        });
                    }
                    if code == ErrorCode::Unknown {
                        unknown = Some(message.clone());
                    }
                    // A hint is followed at once, but not one after the other: two nodes may each
                    // take the other for the leader.
                    hinted = leader.is_some() && !hinted;
                    if hinted {
                        wait = Duration::ZERO;
                    }
                    // Those who were refused together do not come back together.
                    wait += retry_after.unwrap_or_default();
                    match code {
                        ErrorCode::Overloaded => Error::Overloaded { message, retry_after },
                        _ => Error::Unavailable(message),
                    }
                }
            };
            if clock.monotonic() - started + wait >= *deadline {
                return Err(unknown.map_or(given_up, Error::Unknown));
            }
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(PAUSE_LONGEST);
        }
    }

    /// Sends one attempt to this node, which most likely leads the shard.
    async fn start(
        &self,
        shard: ShardId,
        node: NodeId,
        what: request::What,
    ) -> Result<Pending, Attempt> {
        let mut connect = pin!(async { self.link(node).await?.send(shard, what).await });
        let sent = match futures::poll!(connect.as_mut()) {
            Poll::Ready(sent) => sent,
            Poll::Pending => {
                let sent = tokio::time::timeout(ATTEMPT_TIMEOUT, connect).await;
                let silent = |_| Err(Attempt::NotSent(format!("node {node} takes no requests")));
                sent.unwrap_or_else(silent)
            }
        };
        match sent {
            Ok(answer) => Ok(Pending { client: self.clone(), shard, node, answer }),
            Err(failed) => {
                self.learn_failure(shard, node, &failed);
                Err(failed)
            }
        }
    }

    /// The leader when last heard of; else the node whose turn it is.
    pub(crate) fn candidate(&self, shard: ShardId) -> NodeId {
        self.inner.leaders.lock().entry(shard).or_default().node(self.placement(shard))
    }

    /// `node` answered, so it leads.
    pub(crate) fn learn_leader(&self, shard: ShardId, node: NodeId) {
        self.inner.leaders.lock().insert(shard, Leader::Known(node));
    }

    /// `node` did not answer as a leader: follows its hint, or goes on to the next node. Only the
    /// first of several attempts that failed at one node moves on.
    pub(crate) fn learn_failure(&self, shard: ShardId, node: NodeId, failed: &Attempt) {
        let hint = match failed {
            Attempt::NotSent(_) | Attempt::Lost(_) => None,
            Attempt::Failed(failure) => match failure.code {
                ErrorCode::NotLeader | ErrorCode::Unavailable | ErrorCode::GoingAway => {
                    failure.leader.as_deref()
                }
                _ => return,
            },
        };
        let hint = hint.and_then(|address| self.node_at(address)).filter(|hint| *hint != node);
        let mut leaders = self.inner.leaders.lock();
        let leader = leaders.entry(shard).or_default();
        match hint {
            Some(hint) => *leader = Leader::Known(hint),
            None if leader.node(self.placement(shard)) == node => *leader = leader.next(),
            None => {}
        }
    }

    fn placement(&self, shard: ShardId) -> &Placement {
        &self.inner.map.shards[usize::from(shard.get())]
    }

    async fn link(&self, node: NodeId) -> Result<Arc<Link>, Attempt> {
        let opening = {
            let mut link = self.inner.links[&node].lock();
            match link.as_ref().map(|opening| (opening, opening.peek())) {
                Some((_, Some(Ok(open)))) if open.is_open() => return Ok(open.clone()),
                Some((opening, None)) => opening.clone(),
                Some((_, Some(_))) | None => link.insert(self.open(node)?).clone(),
            }
        };
        opening.await
    }

    /// Opens a stream in a task of its own: a caller that gives up, or is not polled, holds up nobody.
    fn open(&self, node: NodeId) -> Result<Opening, Attempt> {
        let address = self.address(node).map_err(Attempt::NotSent)?.to_owned();
        let channel = channel(&address, self.inner.connector.as_ref());
        let channel = channel.map_err(Attempt::NotSent)?;
        let cluster = self.inner.map.cluster;
        let open = async move { Link::open(&address, channel, cluster).await };
        let open = tokio::spawn(tokio::time::timeout(ATTEMPT_TIMEOUT, open));
        let opened = async move {
            match open.await {
                Ok(Ok(opened)) => opened.map(Arc::new),
                Ok(Err(_)) => Err(Attempt::NotSent(format!("node {node} does not answer"))),
                Err(ended) => Err(Attempt::NotSent(ended.to_string())),
            }
        };
        Ok(opened.boxed().shared())
    }

    pub(crate) fn channel(&self, node: NodeId) -> Result<Channel, Error> {
        let address = self.address(node).map_err(Error::Unavailable)?;
        let mut channels = self.inner.channels.lock();
        if let Some(channel) = channels.get(&node) {
            return Ok(channel.clone());
        }
        let channel = channel(address, self.inner.connector.as_ref());
        let channel = channel.map_err(Error::Unavailable)?;
        Ok(channels.entry(node).or_insert(channel).clone())
    }

    fn address(&self, node: NodeId) -> Result<&str, String> {
        let found = self.inner.map.nodes.get(&node).map(|node| node.grpc.as_str());
        found.ok_or_else(|| format!("node {node} is not in the map"))
    }

    fn node_at(&self, address: &str) -> Option<NodeId> {
        let mut nodes = self.inner.map.nodes.iter();
        nodes.find(|(_, node)| node.grpc == address).map(|(id, _)| *id)
    }

    /// Between half and all of `pause`, so that many clients do not come back at once.
    fn jittered(&self, pause: Duration) -> Duration {
        pause.mul_f64(0.5 + 0.5 * self.inner.rng.unit())
    }
}

/// Who leads a shard, as far as the client knows.
#[derive(Clone, Copy, Debug)]
enum Leader {
    /// This node did when it last answered, or another one said so.
    Known(NodeId),
    /// Nobody knows; the replicas are asked in turn, the preferred one first.
    Sought {
        /// How many have been asked since one was known.
        tried: usize,
    },
}

impl Leader {
    /// The node to ask.
    fn node(self, placement: &Placement) -> NodeId {
        match self {
            Leader::Known(node) => node,
            Leader::Sought { tried } => {
                let others = placement.replicas.values().copied();
                let others = others.filter(|node| *node != placement.preferred);
                let all: Vec<NodeId> = [placement.preferred].into_iter().chain(others).collect();
                all[tried % all.len()]
            }
        }
    }

    /// After that node did not answer as a leader.
    fn next(self) -> Leader {
        match self {
            Leader::Known(_) => Leader::default(),
            Leader::Sought { tried } => Leader::Sought { tried: tried + 1 },
        }
    }
}

impl Default for Leader {
    fn default() -> Self {
        Leader::Sought { tried: 0 }
    }
}

/// An attempt on its way.
pub struct Pending {
    client: Client,
    shard: ShardId,
    node: NodeId,
    answer: oneshot::Receiver<Answered>,
}

impl Pending {
    /// Waits for the reply to a command.
    pub async fn reply(self) -> Result<Reply, Attempt> {
        // It was taken, and what the node says of it is lost on us.
        reply(self.answer().await?).map_err(Attempt::Lost)
    }

    async fn answer(self) -> Result<Answered, Attempt> {
        let Pending { client, shard, node, answer } = self;
        let answered = match answer.await {
            Ok(response::What::Failure(failure)) => Err(Attempt::Failed(failure.into())),
            Ok(answered) => Ok(answered),
            Err(_) => {
                Err(Attempt::Lost(format!("node {node} does not answer, or its stream broke")))
            }
        };
        match &answered {
            Ok(_) => client.learn_leader(shard, node),
            Err(failed) => client.learn_failure(shard, node, failed),
        }
        answered
    }
}

/// What a node answers, whichever shards it leads.
async fn answered<T>(
    node: NodeId,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Error> {
    match tokio::time::timeout(ATTEMPT_TIMEOUT, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(Error::Unavailable(status.message().to_owned())),
        Err(_) => Err(Error::Unavailable(format!("node {node} does not answer"))),
    }
}

fn reply(answered: Answered) -> Result<Reply, String> {
    match answered {
        response::What::Reply(bytes) => Reply::decode(&bytes).map_err(|error| error.to_string()),
        other => Err(format!("{other:?} to a command")),
    }
}

async fn fetch_map(
    endpoint: &str,
    connector: Option<&Arc<dyn Connector>>,
) -> Result<ClusterMap, String> {
    let mut client = store_client(channel(endpoint, connector)?);
    let answer = tokio::time::timeout(ATTEMPT_TIMEOUT, client.map(MapRequest {})).await;
    let answer = answer.map_err(|_| "no answer".to_owned())?;
    let map = answer.map_err(|status| status.message().to_owned())?.into_inner().map;
    let map = ClusterMap::decode(&map).map_err(|error| error.to_string())?;
    match map.shard_count() {
        Some(_) => Ok(map),
        None => Err("its map has no legal number of shards".to_owned()),
    }
}
