//! A connection to each other node, kept up by one task per node.
//!
//! ```text
//!   connect ─► hello ─► hello back, checked ─► up: answers are handed out ─► lost
//!      ▲                                                                      │
//!      └──────── 100 ms to 1 s later, each failure doubling, jittered ◄───────┘
//! ```
//!
//! A connection that was lost is made anew at once: where its process is gone, the system answers that
//! nobody listens, and [`Peers::gone`] tells it, long before any timer would.
//!
//! While a peer is down every call to it fails at once: Raft has its own patience, and a queue
//! would only make its requests old. Only the very first attempt is waited for: a follower that is
//! to take over has nobody dialed yet, and its first election must not fail for that.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use thiserror::Error;
use tidemark_env::Connector;
use tidemark_store_core::codec::DecodeError;
use tidemark_types::{ClusterId, NodeId};
use tokio::sync::{Semaphore, broadcast, watch};
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::connect;
use super::connection::{Broken, Connection, PeerError};
use super::fetch::FETCHES_MAX;
use super::frame::{Answer, FrameError, Hello, Request};
use super::link::Network;
use super::outbox::outbox;
use super::wire::{self, PeerBatch};
use super::{CONNECT_WITHIN, Me};
use crate::metrics;
use crate::raft::types::{Replica, ReplicaId};
use crate::storage::GroupId;

const RECONNECT_MIN: Duration = Duration::from_millis(100);
const RECONNECT_MAX: Duration = Duration::from_secs(1);

/// A connection that lasted so long is made anew without a pause, once.
const LASTING: Duration = Duration::from_secs(1);

/// A process that ends closes its newest files first, and its listener last: whoever dials in between is
/// cut off once more. After this time it is something else.
const ENDS_WITHIN: Duration = Duration::from_millis(250);
const DIAL_AGAIN: Duration = Duration::from_millis(5);

/// Nodes found gone of which the groups have not been told: more than a cluster loses at once.
const GONE_MAX: usize = 64;

const STOPPING: &str = "this node is stopping";

/// The connections of this node to all others; a cheap handle.
///
/// They are made when a group first has something to say to a node, or by [`Peers::dial`], and end
/// with the last handle; a running group holds one.
#[derive(Clone)]
pub struct Peers(Arc<Inner>);

struct Inner {
    me: Me,
    connector: Arc<dyn Connector>,
    peers: Mutex<BTreeMap<NodeId, Arc<Peer>>>,
    gone: broadcast::Sender<NodeId>,
    fetches: Semaphore,
    /// Dropped with the last handle, which ends the tasks.
    alive: watch::Sender<()>,
}

impl Peers {
    /// No connections yet.
    pub fn new(me: Me, connector: Arc<dyn Connector>) -> Self {
        let (alive, _) = watch::channel(());
        let (gone, _) = broadcast::channel(GONE_MAX);
        let fetches = Semaphore::new(FETCHES_MAX);
        let peers = Mutex::default();
        Peers(Arc::new(Inner { me, connector, peers, gone, fetches, alive }))
    }

    /// The nodes whose process is gone, as that is found: the connection broke, and nobody listens
    /// there any more. It ends with the last handle of these connections.
    pub fn gone(&self) -> broadcast::Receiver<NodeId> {
        self.0.gone.subscribe()
    }

    /// How it gets byte streams to other nodes.
    pub(crate) fn connector(&self) -> Arc<dyn Connector> {
        self.0.connector.clone()
    }

    /// Who dials.
    pub(super) fn me(&self) -> Me {
        self.0.me
    }

    /// How many snapshots may be fetched at once.
    pub(super) fn fetches(&self) -> &Semaphore {
        &self.0.fetches
    }

    /// The network of one group, in which this node holds `replica`.
    pub fn network(&self, group: GroupId, replica: ReplicaId) -> Network {
        Network::new(self.clone(), group, replica)
    }

    /// Connects to the node of `replica` ahead of need: a replica that follows has nothing to say
    /// to anybody, until the day it must win an election.
    pub fn dial(&self, replica: &Replica) {
        self.peer(replica);
    }

    /// A way to a node that was dialed before, for one purpose only.
    pub(super) async fn channel(&self, node: NodeId) -> Result<(Hello, Channel), NoWay> {
        let peer = self.0.peers.lock().get(&node).cloned().ok_or(NoWay::Stranger(node))?;
        let address = peer.address.lock().clone();
        let connecting = connect::channel(self.0.connector.clone(), address);
        let channel = tokio::time::timeout(CONNECT_WITHIN, connecting).await;
        let Me { cluster, node: from } = self.0.me;
        Ok((Hello { cluster, from, to: node }, channel.map_err(|_| NoWay::Slow)??))
    }

    /// The connection to the node of `replica`, which is dialed from now on. A new address is used
    /// when it is dialed next.
    pub(super) fn peer(&self, replica: &Replica) -> Arc<Peer> {
        let mut peers = self.0.peers.lock();
        if let Some(peer) = peers.get(&replica.node) {
            peer.address.lock().clone_from(&replica.address);
            return peer.clone();
        }
        let peer = Arc::new(Peer {
            node: replica.node,
            address: Mutex::new(replica.address.clone()),
            state: watch::Sender::new(State::New),
        });
        let Inner { me, connector, gone, .. } = &*self.0;
        let (connector, gone) = (connector.clone(), gone.clone());
        let dialer = Dialer { me: *me, connector, gone, peer: peer.clone() };
        tokio::spawn(dialer.run(self.0.alive.subscribe()));
        peers.insert(replica.node, peer.clone());
        peer
    }
}

/// Why a node cannot be reached.
#[derive(Debug, Error)]
pub enum NoWay {
    /// Its address is not known here.
    #[error("node {0} was never dialed")]
    Stranger(NodeId),
    /// It does not listen, or not to us.
    #[error("nothing listens there, or not to us: {0}")]
    Connect(#[from] tonic::transport::Error),
    /// It took too long.
    #[error("it took longer than {} s to connect", CONNECT_WITHIN.as_secs())]
    Slow,
}

/// Another node, connected or not.
pub(super) struct Peer {
    node: NodeId,
    address: Mutex<String>,
    state: watch::Sender<State>,
}

enum State {
    /// Nobody knows yet whether it can be reached.
    New,
    Up(Arc<Connection>),
    /// And why.
    Down(Arc<str>),
}

impl Peer {
    /// The connection, if there is one now. Waits only for the outcome of the first attempt ever.
    pub(super) async fn connection(&self) -> Result<Arc<Connection>, PeerError> {
        if let Some(known) = known(&self.state.borrow()) {
            return known;
        }
        let mut changes = self.state.subscribe();
        let tried = changes.wait_for(|state| !matches!(state, State::New)).await;
        let known = tried.ok().and_then(|state| known(&state));
        known.unwrap_or_else(|| Err(PeerError::Disconnected(STOPPING.into())))
    }
}

fn known(state: &State) -> Option<Result<Arc<Connection>, PeerError>> {
    match state {
        State::New => None,
        State::Up(connection) => Some(Ok(connection.clone())),
        State::Down(reason) => Some(Err(PeerError::Disconnected(reason.clone()))),
    }
}

/// Why there is no connection, or none any more.
#[derive(Debug, Error)]
enum Lost {
    #[error("node {0} was to dial itself")]
    Myself(NodeId),
    #[error(transparent)]
    NoWay(#[from] NoWay),
    /// The other ended it, or the transport failed.
    #[error("{}: {}", .0.code(), .0.message())]
    Status(#[from] Status),
    #[error("the other side ended it")]
    Ended,
    #[error("its hello is broken: {0}")]
    Hello(#[from] DecodeError),
    #[error("it did not say hello first")]
    NoHello,
    #[error("it is node {from} of cluster {cluster} and takes us for node {to}")]
    Somebody { cluster: ClusterId, from: NodeId, to: NodeId },
    #[error("it broke the protocol: {0}")]
    Broken(#[from] Broken),
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl Lost {
    /// Does nobody listen there, as far as the other's system says?
    fn is_refused(&self) -> bool {
        let Lost::NoWay(NoWay::Connect(error)) = self else { return false };
        let mut cause = Some(error as &(dyn Error + 'static));
        while let Some(error) = cause {
            let io = error.downcast_ref::<io::Error>();
            if io.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

/// Keeps one peer connected.
struct Dialer {
    me: Me,
    connector: Arc<dyn Connector>,
    gone: broadcast::Sender<NodeId>,
    peer: Arc<Peer>,
}

impl Dialer {
    async fn run(self, mut alive: watch::Receiver<()>) {
        tokio::select! {
            // Nothing is ever sent: it changes when the last handle is dropped.
            _ = alive.changed() => {
                self.peer.state.send_replace(State::Down(STOPPING.into()));
            }
            never = self.keep_up() => match never {},
        }
    }

    async fn keep_up(&self) -> Infallible {
        let mut pause = RECONNECT_MIN;
        let mut told = String::new();
        // Since when a lasting connection is gone, and nobody knows whether its process is.
        let mut fell: Option<Instant> = None;
        loop {
            let mut up: Option<Instant> = None;
            let Err(lost) = self.exchange(&mut up).await;
            if fell.is_some() && lost.is_refused() {
                // Nobody listens if the node has no groups yet.
                let _ = self.gone.send(self.peer.node);
            }
            let may_end = |since: &Instant| since.elapsed() < ENDS_WITHIN;
            fell = fell.filter(may_end).filter(|_| up.is_none() && !lost.is_refused());
            let reason = lost.to_string();
            // A node that stays down is told once, not once a second.
            if up.is_some() || reason != told {
                let address = self.peer.address.lock().clone();
                tracing::warn!(peer = %self.peer.node, address, reason, "no connection to a node");
            }
            self.peer.state.send_replace(State::Down(reason.as_str().into()));
            told = reason;
            if let Some(since) = up {
                pause = RECONNECT_MIN;
                fell = (since.elapsed() >= LASTING).then(Instant::now);
            }
            if fell.is_some() {
                if up.is_none() {
                    tokio::time::sleep(DIAL_AGAIN).await;
                }
                continue;
            }
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (pause * 2).min(RECONNECT_MAX);
            metrics::peer_reconnect(self.peer.node);
        }
    }

    /// One connection from its beginning to its end.
    async fn exchange(&self, up_since: &mut Option<Instant>) -> Result<Infallible, Lost> {
        let connecting = tokio::time::timeout(CONNECT_WITHIN, self.connect());
        let (connection, mut answers) = connecting.await.map_err(|_| NoWay::Slow)??;
        let connection = Arc::new(connection);
        self.peer.state.send_replace(State::Up(connection.clone()));
        *up_since = Some(Instant::now());
        tracing::info!(peer = %self.peer.node, "connected to a node");
        let up = Up { peer: &self.peer, connection: &connection };
        metrics::peer_connected(self.peer.node, true);
        let Err(lost) = hand_out(&connection, &mut answers).await;
        up.end(&lost.to_string());
        Err(lost)
    }

    async fn connect(&self) -> Result<(Connection, Streaming<PeerBatch>), Lost> {
        let Me { cluster, node: me } = self.me;
        if self.peer.node == me {
            return Err(Lost::Myself(me));
        }
        let address = self.peer.address.lock().clone();
        let channel = connect::channel(self.connector.clone(), address).await;
        let channel = channel.map_err(NoWay::from)?;
        let hello = Request::Hello(Hello { cluster, from: me, to: self.peer.node }).encode()?;
        let (outbox, outgoing) = outbox(hello);
        let mut answers = wire::exchange(channel, outgoing.batches()).await?;
        let first = answers.message().await?.ok_or(Lost::Ended)?;
        let [frame] = &first.frames[..] else { return Err(Lost::NoHello) };
        match Answer::decode(frame)? {
            Answer::Hello(hello) if hello == (Hello { cluster, from: self.peer.node, to: me }) => {
                Ok((Connection::new(outbox), answers))
            }
            Answer::Hello(Hello { cluster, from, to }) => Err(Lost::Somebody { cluster, from, to }),
            Answer::Called { .. } | Answer::Appended { .. } => Err(Lost::NoHello),
        }
    }
}

/// Whatever ends a connection, also the end of the whole node, nobody is left waiting on it.
struct Up<'a> {
    peer: &'a Peer,
    connection: &'a Connection,
}

impl Up<'_> {
    fn end(&self, reason: &str) {
        let reason: Arc<str> = reason.into();
        self.peer.state.send_replace(State::Down(reason.clone()));
        self.connection.end(&reason);
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        // Not over the reason of a connection that was lost.
        if matches!(*self.peer.state.borrow(), State::Up(_)) {
            self.end(STOPPING);
        }
        metrics::peer_connected(self.peer.node, false);
    }
}

async fn hand_out(
    connection: &Connection,
    answers: &mut Streaming<PeerBatch>,
) -> Result<Infallible, Lost> {
    loop {
        let batch = answers.message().await?.ok_or(Lost::Ended)?;
        for frame in &batch.frames {
            connection.answered(frame)?;
        }
    }
}
