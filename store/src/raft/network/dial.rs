//! The connection that this node opened to another one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
    RPCTypes,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::SnapshotOf;
use openraft::{AnyError, OptionalSend};
use parking_lot::Mutex;
use tidemark_env::Rng;
use tidemark_proto::headers;
use tidemark_proto::store::v1::PeerBatch;
use tidemark_proto::store::v1::peers_client::PeersClient;
use tidemark_types::{ClusterId, NodeId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use super::VERSION;
use super::frame::{Answer, Call, Called, Number, Request};
use crate::metrics;
use crate::raft::snapshot::SnapshotStream;
use crate::raft::types::{Replica, ReplicaId, TypeConfig, Vote};
use crate::storage::GroupId;

/// Frames that wait to be written; senders wait when it is full.
const OUTGOING_FRAMES: usize = 4_096;

/// Their bytes; one frame may exceed it alone.
const OUTGOING_BYTES: usize = 32 << 20;

/// Frames in one message.
const BATCH_FRAMES: usize = 256;

/// Bytes in one message, unless a single frame has more.
const BATCH_BYTES: usize = 4 << 20;

/// Answers of one append stream that nobody has taken: openraft has fewer requests under way.
const ANSWERS: usize = 256;

/// A follower that leaves a request unanswered for this long is as good as gone.
const UNANSWERED_MAX: Duration = Duration::from_secs(2);

/// A node that does not take the connection in this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// An idle connection over which nothing comes back is dead after interval plus timeout.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes that the other side may send before we read.
const WINDOW_BYTES: u32 = 8 << 20;

/// Between two attempts to connect: short, since a node that comes back is needed at once.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_LONGEST: Duration = Duration::from_millis(500);

/// Another node, and the connection to it while there is one.
pub(super) struct Peer {
    replica: Replica,
    link: Mutex<Option<Link>>,
}

/// A connection while it lasts.
#[derive(Clone)]
struct Link {
    outgoing: mpsc::Sender<Outgoing>,
    room: Arc<Semaphore>,
    waiting: Arc<Mutex<Waiting>>,
}

struct Outgoing {
    request: Request,
    _room: OwnedSemaphorePermit,
}

/// Who waits for what on a connection. Dropped when the connection breaks, and with it every
/// sender, so that nobody goes on waiting.
#[derive(Default)]
struct Waiting {
    broken: bool,
    last: Number,
    appends: HashMap<Number, mpsc::Sender<Appended>>,
    calls: HashMap<Number, oneshot::Sender<Result<Called, String>>>,
}

/// An append stream's answer, or why there will be none.
type Appended = Result<StreamAppendResult<TypeConfig>, String>;

impl Peer {
    /// Starts the task that keeps a connection to `replica`'s node for as long as somebody holds
    /// the peer.
    pub(super) fn start(
        cluster: ClusterId,
        me: NodeId,
        replica: Replica,
        rng: Arc<dyn Rng>,
    ) -> Arc<Self> {
        let peer = Arc::new(Peer { replica, link: Mutex::new(None) });
        let weak = Arc::downgrade(&peer);
        tokio::spawn(async move {
            let mut pause = PAUSE_FIRST;
            while let Some(peer) = weak.upgrade() {
                let replica = peer.replica.clone();
                drop(peer);
                match open(cluster, me, &replica).await {
                    Ok((link, answers)) => {
                        pause = PAUSE_FIRST;
                        let Some(peer) = weak.upgrade() else { return };
                        *peer.link.lock() = Some(link.clone());
                        drop(peer);
                        metrics::peer_connected(replica.node, true);
                        let reason = receive(answers, &link.waiting).await;
                        metrics::peer_connected(replica.node, false);
                        tracing::info!(peer = %replica, %reason, "a connection ended");
                        if let Some(peer) = weak.upgrade() {
                            *peer.link.lock() = None;
                        }
                        link.break_up();
                    }
                    Err(reason) => tracing::debug!(peer = %replica, %reason, "not connected"),
                }
                tokio::time::sleep(pause.mul_f64(0.5 + 0.5 * rng.unit())).await;
                pause = (pause * 2).min(PAUSE_LONGEST);
            }
        });
        peer
    }

    fn link(&self) -> Result<Link, Unreachable<TypeConfig>> {
        let link = self.link.lock().clone();
        link.ok_or_else(|| unreachable(&format!("there is no connection to {}", self.replica)))
    }
}

impl Link {
    /// Sends a request; waits for room.
    async fn send(&self, request: Request) -> Result<(), ()> {
        let cost = request.cost().min(OUTGOING_BYTES);
        let cost = u32::try_from(cost).expect("the bound fits into 32 bits");
        let room = self.room.clone().acquire_many_owned(cost).await.map_err(|_| ())?;
        self.outgoing.send(Outgoing { request, _room: room }).await.map_err(|_| ())
    }

    fn register<T>(&self, add: impl FnOnce(&mut Waiting, Number) -> T) -> Option<T> {
        let mut waiting = self.waiting.lock();
        if waiting.broken {
            return None;
        }
        waiting.last += 1;
        let number = waiting.last;
        Some(add(&mut waiting, number))
    }

    /// Whoever waits is told at once, and nobody new may wait.
    fn break_up(&self) {
        *self.waiting.lock() = Waiting { broken: true, ..Waiting::default() };
        self.room.close();
    }
}

/// Opens a connection and its stream.
async fn open(
    cluster: ClusterId,
    me: NodeId,
    replica: &Replica,
) -> Result<(Link, tonic::Streaming<PeerBatch>), String> {
    let channel = connect(&replica.address).await?;
    let (outgoing, queued) = mpsc::channel(OUTGOING_FRAMES);
    let (batches_tx, batches) = mpsc::channel(1);
    let mut request = tonic::Request::new(ReceiverStream::new(batches));
    let said = [
        (headers::CLUSTER, cluster.to_string()),
        (headers::FROM, me.to_string()),
        (headers::TO, replica.node.to_string()),
        (headers::PEERS_VERSION, VERSION.to_string()),
    ];
    for (name, value) in said {
        request.metadata_mut().insert(name, value.parse().expect("digits and dashes"));
    }
    let mut client = PeersClient::new(channel)
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(usize::MAX);
    let opened = tokio::time::timeout(CONNECT_TIMEOUT, client.connect(request)).await;
    let opened = opened.map_err(|_| "no answer".to_owned())?;
    let answers = opened.map_err(|status| status.message().to_owned())?.into_inner();
    tokio::spawn(coalesce(queued, batches_tx));
    let link =
        Link { outgoing, room: Arc::new(Semaphore::new(OUTGOING_BYTES)), waiting: Arc::default() };
    Ok((link, answers))
}

/// A connection that notices within seconds that the other side is gone.
async fn connect(address: &str) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    let endpoint = endpoint
        .map_err(|error| error.to_string())?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_connection_window_size(WINDOW_BYTES)
        .initial_stream_window_size(WINDOW_BYTES);
    let connector = tower::service_fn(crate::raft::network::dial::tcp);
    let connected = endpoint.connect_with_connector(connector).await;
    connected.map_err(|error| format!("{error}: {:?}", std::error::Error::source(&error)))
}

/// A TCP connection whose unacknowledged data fails it, instead of being sent again for minutes.
async fn tcp(uri: tonic::codegen::http::Uri) -> std::io::Result<TokioIo> {
    let address = uri.authority().map(ToString::to_string).unwrap_or_default();
    let stream = tokio::net::TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(Duration::from_secs(5)))?;
    Ok(hyper_util::rt::TokioIo::new(stream))
}

type TokioIo = hyper_util::rt::TokioIo<tokio::net::TcpStream>;

/// Puts every frame that is ready into one message.
async fn coalesce(mut queued: mpsc::Receiver<Outgoing>, batches: mpsc::Sender<PeerBatch>) {
    let mut ready = Vec::new();
    while queued.recv_many(&mut ready, BATCH_FRAMES).await > 0 {
        let mut frames = Vec::with_capacity(ready.len());
        let mut bytes = 0;
        for outgoing in ready.drain(..) {
            let frame = outgoing.request.encode();
            bytes += frame.len();
            frames.push(frame);
            if bytes >= BATCH_BYTES {
                bytes = 0;
                let batch = PeerBatch { frames: std::mem::take(&mut frames) };
                if batches.send(batch).await.is_err() {
                    return;
                }
            }
        }
        metrics::peer_batch(frames.len());
        if !frames.is_empty() && batches.send(PeerBatch { frames }).await.is_err() {
            return;
        }
    }
}

/// Hands answers to those who wait, until the connection ends; why it did.
async fn receive(mut answers: tonic::Streaming<PeerBatch>, waiting: &Mutex<Waiting>) -> String {
    loop {
        let batch = match answers.message().await {
            Ok(Some(batch)) => batch,
            Ok(None) => return "the other node closed it".to_owned(),
            Err(status) => return status.message().to_owned(),
        };
        let mut waiting = waiting.lock();
        for frame in batch.frames {
            match Answer::decode(&frame) {
                Ok(answer) => waiting.answer(answer),
                Err(error) => return error.to_string(),
            }
        }
    }
}

impl Waiting {
    fn answer(&mut self, answer: Answer) {
        match answer {
            Answer::Append { stream, result } => {
                let full = self.appends.get(&stream).is_some_and(|answers| {
                    matches!(answers.try_send(Ok(result)), Err(mpsc::error::TrySendError::Full(_)))
                });
                if full {
                    // Nobody takes them: the stream ends, and openraft opens another one.
                    self.appends.remove(&stream);
                }
            }
            Answer::EndAppend { stream, failed } => {
                let ended = self.appends.remove(&stream);
                if let (Some(answers), Some(reason)) = (ended, failed) {
                    // A stream whose reader is that far behind ends without the reason.
                    let _ = answers.try_send(Err(reason));
                }
            }
            Answer::Call { call, result } => {
                if let Some(caller) = self.calls.remove(&call) {
                    // The caller may have given up.
                    let _ = caller.send(result);
                }
            }
        }
    }
}

/// One replica of one group, as its leader or candidate reaches it.
pub(crate) struct Target {
    group: GroupId,
    replica: ReplicaId,
    peer: Arc<Peer>,
}

impl Target {
    pub(super) fn new(group: GroupId, replica: ReplicaId, peer: Arc<Peer>) -> Self {
        Target { group, replica, peer }
    }

    async fn call(
        &self,
        action: RPCTypes,
        request: Call,
        within: Duration,
    ) -> Result<Called, RPCError<TypeConfig>> {
        let link = self.peer.link()?;
        let broken = || network_error("the connection broke");
        let (caller, answer) = oneshot::channel();
        let call = link.register(|waiting, call| {
            waiting.calls.insert(call, caller);
            call
        });
        let call = call.ok_or_else(broken)?;
        let request = Request::Call { group: self.group, call, request };
        let exchange = async {
            link.send(request).await.map_err(|()| broken())?;
            match answer.await {
                Ok(Ok(called)) => Ok(called),
                Ok(Err(reason)) => Err(unreachable(&reason).into()),
                Err(_) => Err(broken()),
            }
        };
        let done = tokio::time::timeout(within, exchange).await;
        done.unwrap_or_else(|_| {
            link.waiting.lock().calls.remove(&call);
            Err(self.timed_out(action, within))
        })
    }

    fn timed_out(&self, action: RPCTypes, timeout: Duration) -> RPCError<TypeConfig> {
        let id = self.replica;
        RPCError::Timeout(Timeout { action, id, target: id, timeout })
    }
}

fn unreachable(reason: &str) -> Unreachable<TypeConfig> {
    Unreachable::new(&AnyError::error(reason))
}

fn network_error(reason: &str) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::new(&AnyError::error(reason)))
}

/// An append stream that is under way; dropping it ends it on both sides.
struct AppendStream {
    link: Link,
    number: Number,
    answers: mpsc::Receiver<Appended>,
    sender: tokio::task::JoinHandle<()>,
    open: Arc<std::sync::atomic::AtomicU64>,
}

impl Drop for AppendStream {
    fn drop(&mut self) {
        self.sender.abort();
        self.link.waiting.lock().appends.remove(&self.number);
        let link = self.link.clone();
        let request = Request::EndAppend { stream: self.number };
        tokio::spawn(async move {
            // If the connection is gone, so is the other half of the stream.
            let _ = link.send(request).await;
        });
    }
}

impl NetStreamAppend<TypeConfig> for Target {
    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        _: RPCOption,
    ) -> BoxFuture<
        's,
        Result<
            BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>,
            RPCError<TypeConfig>,
        >,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        use std::sync::atomic::{AtomicU64, Ordering};
        Box::pin(async move {
            // openraft's pause after an unreachable replica lies before the first request: to fail
            // without asking for it would be to try again without a pause.
            let Some(first) = input.next().await else {
                return Ok(futures::stream::empty().boxed());
            };
            let mut input = futures::stream::iter([first]).chain(input);
            let link = self.peer.link()?;
            let (answers_tx, answers) = mpsc::channel(ANSWERS);
            let number = link.register(|waiting, number| {
                waiting.appends.insert(number, answers_tx);
                number
            });
            let number = number.ok_or_else(|| network_error("the connection broke"))?;
            let open = Arc::new(AtomicU64::new(0));
            let (group, sent, to) = (self.group, open.clone(), link.clone());
            let sender = tokio::spawn(async move {
                while let Some(request) = input.next().await {
                    sent.fetch_add(1, Ordering::Relaxed);
                    let request = Request::Append { group, stream: number, request };
                    if to.send(request).await.is_err() {
                        return;
                    }
                }
                // The other side answers what it has, and then ends its half.
                let _ = to.send(Request::EndAppend { stream: number }).await;
            });
            let stream = AppendStream { link, number, answers, sender, open };
            let this = &*self;
            let answers = futures::stream::unfold(Some(stream), move |stream| async move {
                let mut stream = stream?;
                let answer = next_answer(&mut stream, this).await?;
                let go_on = answer.is_ok();
                Some((answer, go_on.then_some(stream)))
            });
            Ok(answers.boxed())
        })
    }
}

/// The next answer of a stream; an error when a request stays unanswered for too long.
async fn next_answer(
    stream: &mut AppendStream,
    target: &Target,
) -> Option<Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>> {
    use std::sync::atomic::Ordering;
    let mut waited = false;
    loop {
        match tokio::time::timeout(UNANSWERED_MAX / 2, stream.answers.recv()).await {
            Ok(Some(Ok(result))) => {
                stream.open.fetch_sub(1, Ordering::Relaxed);
                return Some(Ok(result));
            }
            Ok(Some(Err(reason))) => return Some(Err(network_error(&reason))),
            Ok(None) if stream.link.waiting.lock().broken => {
                return Some(Err(network_error("the connection broke")));
            }
            Ok(None) => return None,
            Err(_) if stream.open.load(Ordering::Relaxed) == 0 => waited = false,
            Err(_) if waited => {
                return Some(Err(target.timed_out(RPCTypes::AppendEntries, UNANSWERED_MAX)));
            }
            Err(_) => waited = true,
        }
    }
}

impl NetVote<TypeConfig> for Target {
    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(RPCTypes::Vote, Call::Vote(request), option.hard_ttl()).await? {
            Called::Vote(response) => Ok(response),
            Called::Transfer(_) => Err(network_error("another call's answer")),
        }
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(RPCTypes::Vote, Call::PreVote(request), option.hard_ttl()).await? {
            Called::Vote(response) => Ok(response),
            Called::Transfer(_) => Err(network_error("another call's answer")),
        }
    }
}

impl NetTransferLeader<TypeConfig> for Target {
    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let call = Call::Transfer(request);
        match self.call(RPCTypes::TransferLeader, call, option.hard_ttl()).await? {
            Called::Transfer(response) => Ok(response),
            Called::Vote(_) => Err(network_error("another call's answer")),
        }
    }
}

impl NetBackoff<TypeConfig> for Target {
    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(PAUSE_LONGEST)))
    }
}

impl NetSnapshot<TypeConfig> for Target {
    type SnapshotData = SnapshotStream;

    /// Snapshots do not travel yet: a replica whose log was purged away stays behind, and the
    /// leader says so.
    async fn full_snapshot(
        &mut self,
        _: Vote,
        _: SnapshotOf<TypeConfig, SnapshotStream>,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let reason = format!("{}: snapshots are not sent over the network yet", self.group);
        Err(StreamingError::Unreachable(unreachable(&reason)))
    }
}
