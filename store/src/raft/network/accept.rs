//! The answering side: other nodes' streams, handed out to this node's groups.
//!
//! What another node fetches goes over a connection of its own, and is not ordered with this:
//!
//! ```text
//!                    ┌─ call: a task, bounded in number ──────────────┐
//!   batches ─► reader┤                                                ├─► outbox ─► batches
//!                    └─ stream: a task, its appends in a bounded queue┘
//! ```
//!
//! The reader never waits for a group: an honest dialer keeps to its window, and one that does not
//! loses the connection.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{StreamExt, stream};
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use parking_lot::RwLock;
use thiserror::Error;
use tidemark_store_core::codec::DecodeError;
use tidemark_types::{ClusterId, NodeId};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::{Status, Streaming};

use super::fetch::Snapshots;
use super::frame::{Address, Answer, Ask, Fetch, FrameError, Hello, Refusal, Request, Told};
use super::outbox::{Haste, Outbox, Outgoing, outbox};
use super::wire::{Batches, PeerBatch, Server};
use super::{CONNECT_WITHIN, Me, Peers, STREAM_WINDOW};
use crate::raft::group::Group;
use crate::raft::types::TypeConfig;
use crate::storage::GroupId;

/// Calls of one connection that may wait for their groups: votes and heartbeats of a thousand groups
/// at once.
const CALLS_MAX: usize = 2 * 1024;
/// A group that does not answer a call for so long will not; its caller gave up long ago.
const CALL_WITHIN: Duration = Duration::from_secs(10);
/// Streams that one connection may have open: a few for each of a thousand groups.
const STREAMS_MAX: usize = 8 * 1024;

/// Answers the other nodes for the groups of this one; a cheap handle.
#[derive(Clone)]
pub struct Acceptor(Arc<Inner>);

struct Inner {
    me: Me,
    groups: RwLock<HashMap<GroupId, Group>>,
    snapshots: Snapshots,
    stopped: watch::Sender<bool>,
}

impl Acceptor {
    /// Answers for no group yet; fetches snapshots through `peers`.
    pub fn new(peers: Peers) -> Self {
        let (stopped, _) = watch::channel(false);
        Acceptor(Arc::new(Inner {
            me: peers.me(),
            groups: RwLock::default(),
            snapshots: Snapshots::new(peers),
            stopped,
        }))
    }

    /// Answers for `group` from now on; instead of an earlier one of the same name.
    pub fn add(&self, group: Group) {
        self.0.groups.write().insert(group.id(), group);
    }

    /// The gRPC service, to be mounted on a server.
    pub fn service(
        &self,
    ) -> impl Service<
        http::Request<Body>,
        Response = http::Response<Body>,
        Error = Infallible,
        Future: Send,
    > + NamedService
    + Clone
    + Send
    + Sync
    + 'static {
        Server(self.clone())
    }

    /// Ends every connection and refuses new ones, for good: a server waits for its streams before
    /// it stops, and these would never end by themselves.
    pub fn shut_down(&self) {
        self.0.stopped.send_replace(true);
    }

    /// Whom a call or stream is for, if it is here.
    fn group(&self, to: Address) -> Result<Group, Refusal> {
        let groups = self.0.groups.read();
        let group = groups.get(&to.group).ok_or(Refusal::UnknownGroup)?;
        match group.replica() {
            replica if replica == to.replica => Ok(group.clone()),
            other => Err(Refusal::OtherReplica(other)),
        }
    }

    /// A hello must be that of a node of this cluster that means this node.
    fn welcome(&self, hello: Hello) -> Result<Hello, Refused> {
        let Me { cluster, node } = self.0.me;
        match hello {
            Hello { cluster: theirs, .. } if theirs != cluster => {
                Err(Refused::Cluster { theirs, ours: cluster })
            }
            Hello { to: meant, .. } if meant != node => Err(Refused::Node { meant, me: node }),
            Hello { from, .. } if from == node => Err(Refused::Twin(node)),
            hello => Ok(hello),
        }
    }

    /// The first batch must be a hello.
    async fn greet(&self, batches: &mut Streaming<PeerBatch>) -> Result<Hello, Refused> {
        let first = tokio::time::timeout(CONNECT_WITHIN, batches.message()).await;
        let first = first.map_err(|_| Refused::Silent)?.map_err(|_| Refused::Silent)?;
        let first = first.ok_or(Refused::Silent)?;
        let [frame] = &first.frames[..] else { return Err(Refused::NoHello) };
        match Request::decode(frame)? {
            Request::Hello(hello) => self.welcome(hello),
            Request::Call { .. } | Request::Append { .. } | Request::End { .. } => {
                Err(Refused::NoHello)
            }
        }
    }

    /// The frames of a snapshot that another node asks for.
    fn snapshot(&self, request: &PeerBatch) -> Result<Batches, Refused> {
        if *self.0.stopped.borrow() {
            return Err(Refused::Stopping);
        }
        let [frame] = &request.frames[..] else { return Err(Refused::NoHello) };
        let Fetch { hello, group } = Fetch::decode(frame)?;
        let to = self.welcome(hello)?.from;
        let found = self.0.groups.read().get(&group).cloned();
        Ok(self.0.snapshots.send(&found.ok_or(Refusal::UnknownGroup)?, to)?)
    }
}

/// Why a node is not listened to.
#[derive(Debug, Error)]
enum Refused {
    #[error("this node is stopping")]
    Stopping,
    #[error("no hello came")]
    Silent,
    #[error("the first frame must be a hello, alone")]
    NoHello,
    #[error("the hello is broken: {0}")]
    Broken(#[from] DecodeError),
    #[error("this node belongs to cluster {ours}, not to {theirs}")]
    Cluster { theirs: ClusterId, ours: ClusterId },
    #[error("this is node {me}, not node {meant}")]
    Node { meant: NodeId, me: NodeId },
    #[error("the caller says it is node {0}, but that is this node")]
    Twin(NodeId),
    #[error("the answer cannot be encoded: {0}")]
    Encode(#[from] FrameError),
    #[error(transparent)]
    Group(#[from] Refusal),
}

/// What a dialer must not say; the connection ends.
#[derive(Debug, Error)]
enum Broken {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("it said hello twice")]
    HelloAgain,
    #[error("stream {0} has more than {STREAM_WINDOW} appends under way")]
    Window(u64),
    #[error("it has more than {STREAMS_MAX} streams open")]
    Streams,
}

impl Acceptor {
    /// Takes another node's stream and gives the answers'.
    pub(super) async fn exchange(
        &self,
        mut batches: Streaming<PeerBatch>,
    ) -> Result<Batches, Status> {
        let mut stopped = self.0.stopped.subscribe();
        let greeted = if *stopped.borrow_and_update() {
            Err(Refused::Stopping)
        } else {
            self.greet(&mut batches).await
        };
        let greeted = greeted.and_then(|hello| {
            let Me { cluster, node } = self.0.me;
            let back = Answer::Hello(Hello { cluster, from: node, to: hello.from }).encode()?;
            Ok((hello, back))
        });
        let (hello, back) = greeted.map_err(|refused| {
            tracing::warn!(%refused, "a node was refused");
            Status::failed_precondition(refused.to_string())
        })?;
        let (outbox, outgoing) = outbox(back);
        let (ended_tx, ended) = oneshot::channel();
        let session = Session {
            acceptor: self.clone(),
            peer: hello.from,
            outbox,
            streams: HashMap::new(),
            calls: Arc::new(Semaphore::new(CALLS_MAX)),
        };
        tokio::spawn(async move {
            let status = session.run(batches, stopped).await;
            tracing::info!(peer = %hello.from, reason = status.message(), "a node's stream ended");
            // The transport may have gone first.
            let _ = ended_tx.send(status);
        });
        Ok(answers(outgoing, ended))
    }

    /// Gives the snapshot that another node asks for.
    pub(super) fn fetch(&self, request: &PeerBatch) -> Result<Batches, Status> {
        self.snapshot(request).map_err(|refused| {
            tracing::warn!(%refused, "a snapshot was not sent");
            Status::failed_precondition(refused.to_string())
        })
    }
}

/// The answers until the session ends, then why it did.
fn answers(outgoing: Outgoing, ended: oneshot::Receiver<Status>) -> Batches {
    let batches = outgoing.batches().boxed();
    stream::unfold(Some((batches, ended)), |state| async move {
        let (mut batches, mut ended) = state?;
        let status = tokio::select! {
            biased;
            // First, and at once: an ended session does not wait for its groups' last answers.
            status = &mut ended => status,
            batch = batches.next() => match batch {
                Some(batch) => return Some((Ok(batch), Some((batches, ended)))),
                None => ended.await,
            },
        };
        let died = || Status::internal("the session's task died");
        Some((Err(status.unwrap_or_else(|_| died())), None))
    })
    .boxed()
}

/// One connection.
struct Session {
    acceptor: Acceptor,
    peer: NodeId,
    outbox: Outbox,
    /// Where each open stream's appends go. A stream whose task has ended stays until the dialer
    /// ends it too: what was already on its way is not a new stream.
    streams: HashMap<u64, mpsc::Sender<AppendEntriesRequest<TypeConfig>>>,
    calls: Arc<Semaphore>,
}

impl Session {
    /// Reads until the connection ends; why it did.
    async fn run(
        mut self,
        mut batches: Streaming<PeerBatch>,
        mut stopped: watch::Receiver<bool>,
    ) -> Status {
        let status = loop {
            let batch = tokio::select! {
                biased;
                // Also when the acceptor itself is gone.
                _ = stopped.changed() => break Status::unavailable("this node is stopping"),
                batch = batches.message() => batch,
            };
            let frames = match batch {
                Ok(Some(batch)) => batch.frames,
                Ok(None) => break Status::ok("the caller ended it"),
                Err(status) => break Status::aborted(status.message()),
            };
            let taken = frames.iter().try_for_each(|frame| self.take(Request::decode(frame)?));
            if let Err(broken) = taken {
                tracing::error!(%broken, "a node broke the protocol");
                break Status::invalid_argument(broken.to_string());
            }
        };
        self.outbox.close();
        status
    }

    fn take(&mut self, request: Request) -> Result<(), Broken> {
        match request {
            Request::Hello(_) => Err(Broken::HelloAgain),
            Request::Call { call, to, ask } => {
                self.call(call, to, ask);
                Ok(())
            }
            Request::Append { stream, to, last, append } => self.append(stream, to, last, append),
            Request::End { stream } => {
                self.streams.remove(&stream);
                Ok(())
            }
        }
    }

    fn call(&self, call: u64, to: Address, ask: Ask) {
        let group = self.acceptor.group(to);
        if let Ask::Install { vote } = ask {
            let outbox = self.outbox.clone();
            let (acceptor, from) = (self.acceptor.clone(), self.peer);
            tokio::spawn(async move {
                let installed = async { acceptor.0.snapshots.install(&group?, vote, from).await };
                tokio::select! {
                    // Whoever asked is gone.
                    () = outbox.closed() => {}
                    result = installed => {
                        answer(&outbox, &Answer::Called { call, result }, Haste::Now).await;
                    }
                }
            });
            return;
        }
        let busy = Answer::Called { call, result: Err(Refusal::Busy) };
        self.spawn(to.group, busy, async move {
            Answer::Called { call, result: ask_group(group, ask).await }
        });
    }

    /// Sends the answer that comes, or else `busy`: few may be awaited at once, and none for ever.
    fn spawn(
        &self,
        group: GroupId,
        busy: Answer,
        answering: impl Future<Output = Answer> + Send + 'static,
    ) {
        let outbox = self.outbox.clone();
        let Ok(permit) = self.calls.clone().try_acquire_owned() else {
            // If even that has no room, the caller's deadline answers.
            if let Ok(frame) = busy.encode() {
                outbox.try_send(&frame, Haste::Now);
            }
            return;
        };
        tokio::spawn(async move {
            let _permit = permit;
            let answered = async { answer(&outbox, &answering.await, Haste::Now).await };
            if tokio::time::timeout(CALL_WITHIN, answered).await.is_err() {
                tracing::warn!(%group, "a group did not answer a call");
            }
        });
    }

    fn append(
        &mut self,
        stream: u64,
        to: Address,
        last: bool,
        append: AppendEntriesRequest<TypeConfig>,
    ) -> Result<(), Broken> {
        if !self.streams.contains_key(&stream) {
            let group = self.acceptor.group(to);
            // By far the most frequent, and it needs no pipeline.
            if last && append.entries.is_empty() {
                let busy = Answer::Appended { stream, result: Err(Refusal::Busy) };
                self.spawn(to.group, busy, async move {
                    Answer::Appended { stream, result: append_nothing(group, append).await }
                });
                return Ok(());
            }
            if self.streams.len() == STREAMS_MAX {
                return Err(Broken::Streams);
            }
            let (appends, queue) = mpsc::channel(STREAM_WINDOW);
            self.streams.insert(stream, appends);
            tokio::spawn(drive(stream, group, queue, self.outbox.clone()));
        }
        let sent = self.streams.get(&stream).map(|appends| appends.try_send(append));
        if last {
            self.streams.remove(&stream);
        }
        match sent {
            // Its task has answered with what ended it.
            None | Some(Ok(()) | Err(mpsc::error::TrySendError::Closed(_))) => Ok(()),
            Some(Err(mpsc::error::TrySendError::Full(_))) => Err(Broken::Window(stream)),
        }
    }
}

async fn ask_group(group: Result<Group, Refusal>, ask: Ask) -> Result<Told, Refusal> {
    let group = group?;
    let told = match ask {
        Ask::Vote(request) => group.vote(request).await.map(Told::Vote),
        Ask::PreVote(request) => group.pre_vote(request).await.map(Told::Vote),
        Ask::Transfer(request) => group.take_over(request).await.map(Told::Transfer),
        Ask::Install { .. } => unreachable!("it takes longer than a call may"),
    };
    told.map_err(Refusal::Stopped)
}

async fn append_nothing(
    group: Result<Group, Refusal>,
    append: AppendEntriesRequest<TypeConfig>,
) -> Result<StreamAppendResult<TypeConfig>, Refusal> {
    group?.append_nothing(append).await.map_err(Refusal::Stopped)
}

/// Feeds a stream's appends to its group, and answers each, until either ends.
async fn drive(
    stream: u64,
    group: Result<Group, Refusal>,
    queue: mpsc::Receiver<AppendEntriesRequest<TypeConfig>>,
    outbox: Outbox,
) {
    let group = match group {
        Ok(group) => group,
        Err(refusal) => {
            let refused = Answer::Appended { stream, result: Err(refusal) };
            answer(&outbox, &refused, Haste::Now).await;
            return;
        }
    };
    let all_taken = Arc::new(AtomicBool::new(false));
    let ended = all_taken.clone();
    let appends = stream::unfold((queue, ended), |(mut queue, ended)| async move {
        let append = queue.recv().await;
        ended.store(append.is_none(), Ordering::Relaxed);
        Some((append?, (queue, ended)))
    });
    let mut results = pin!(group.append(appends));
    let mut told = None;
    while let Some(result) = results.next().await {
        let more = matches!(result, Ok(Ok(_)));
        let result = result.map_err(Refusal::Stopped);
        // Nobody waits to hear again up to where the logs agree.
        let haste = match &result {
            Ok(Ok(matched)) if told.replace(*matched) == Some(*matched) => Haste::Patient,
            _ => Haste::Now,
        };
        if !answer(&outbox, &Answer::Appended { stream, result }, haste).await || !more {
            return;
        }
    }
    // A group that stops between two appends says nothing.
    if !all_taken.load(Ordering::Relaxed) {
        let refusal = Refusal::Stopped("it takes no more appends".to_owned());
        answer(&outbox, &Answer::Appended { stream, result: Err(refusal) }, Haste::Now).await;
    }
}

/// Queues an answer; false if nobody will ever read it.
async fn answer(outbox: &Outbox, answer: &Answer, haste: Haste) -> bool {
    match answer.encode() {
        Ok(frame) => outbox.send(frame, haste).await.is_ok(),
        Err(error) => {
            // Answers are small: this is a reason of absurd length at worst.
            tracing::error!(%error, "an answer cannot be encoded");
            false
        }
    }
}
