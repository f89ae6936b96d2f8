//! openraft's view of it: one group's way to one replica.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt, stream};
use openraft::OptionalSend;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
    RPCTypes, RaftNetworkFactory,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::SnapshotOf;
use tokio::time::{Instant, sleep_until, timeout};

use super::connection::{OpenStream, PeerError};
use super::dial::{Peer, Peers};
use super::frame::{Address, Ask, Told};
use super::outbox::{Closed, Haste, Outbox};
use super::{ANSWER_WITHIN, STREAM_WINDOW, STREAM_WINDOW_BYTES};
use crate::raft::snapshot::Snapshot;
use crate::raft::types::{Replica, ReplicaId, TypeConfig, Vote};
use crate::storage::GroupId;

/// Between attempts to reach a peer that is down; an attempt costs a look at its state.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// One group's ways to its other replicas.
#[derive(Clone)]
pub struct Network {
    peers: Peers,
    group: GroupId,
    replica: ReplicaId,
}

impl Network {
    pub(super) fn new(peers: Peers, group: GroupId, replica: ReplicaId) -> Self {
        Network { peers, group, replica }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: ReplicaId, node: &Replica) -> Link {
        Link {
            from: self.replica,
            to: Address { group: self.group, replica: target },
            peer: self.peers.peer(node),
        }
    }
}

/// One group's way to one other replica.
#[cfg_attr(test, derive(Clone))]
pub struct Link {
    from: ReplicaId,
    to: Address,
    peer: Arc<Peer>,
}

impl Link {
    async fn call(
        &self,
        action: RPCTypes,
        ask: Ask,
        option: RPCOption,
    ) -> Result<Told, RPCError<TypeConfig>> {
        let call = async { self.peer.connection().await?.call(self.to, ask).await };
        match timeout(option.hard_ttl(), call).await {
            Ok(told) => told.map_err(unreachable),
            Err(_) => Err(self.timeout(action, option.hard_ttl())),
        }
    }

    async fn vote(
        &self,
        ask: Ask,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(RPCTypes::Vote, ask, option).await? {
            Told::Vote(response) => Ok(response),
            Told::Transfer(_) | Told::Install(_) => Err(unreachable(PeerError::Confused)),
        }
    }

    fn timeout(&self, action: RPCTypes, timeout: Duration) -> RPCError<TypeConfig> {
        let (id, target) = (self.from, self.to.replica);
        RPCError::Timeout(Timeout { action, id, target, timeout })
    }
}

/// Whatever the reason, to try again at once would not help: openraft waits a little.
fn unreachable(error: PeerError) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::from_string(error))
}

impl NetVote<TypeConfig> for Link {
    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Link::vote(self, Ask::Vote(request), option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Link::vote(self, Ask::PreVote(request), option).await
    }
}

impl NetTransferLeader<TypeConfig> for Link {
    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(RPCTypes::TransferLeader, Ask::Transfer(request), option).await? {
            Told::Transfer(response) => Ok(response),
            Told::Vote(_) | Told::Install(_) => Err(unreachable(PeerError::Confused)),
        }
    }
}

impl NetBackoff<TypeConfig> for Link {
    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(TRY_AGAIN)))
    }
}

impl NetSnapshot<TypeConfig> for Link {
    type SnapshotData = Snapshot;

    /// Asks the replica to fetch a snapshot from here. Without a deadline: the connection's pings
    /// notice a node that is gone, and the replica gives up a fetch that makes no progress.
    async fn full_snapshot(
        &mut self,
        vote: Vote,
        _: SnapshotOf<TypeConfig, Snapshot>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let asked = async {
            let connection = self.peer.connection().await?;
            connection.call(self.to, Ask::Install { vote }).await
        };
        let told = tokio::select! {
            closed = cancel => return Err(closed.into()),
            told = asked => told,
        };
        let refused = match told {
            Ok(Told::Install(response)) => return Ok(response),
            Ok(Told::Vote(_) | Told::Transfer(_)) => PeerError::Confused,
            Err(error) => error,
        };
        tracing::warn!(group = %self.to.group, %refused, "a snapshot was not installed there");
        Err(StreamingError::Unreachable(Unreachable::from_string(refused)))
    }
}

impl NetStreamAppend<TypeConfig> for Link {
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
        Box::pin(async move {
            // openraft pauses after an unreachable replica before it yields the next request: to
            // fail without asking for it would be to try again without a pause.
            let Some(first) = input.next().await else {
                return Ok(stream::empty().boxed());
            };
            let connection = self.peer.connection().await.map_err(unreachable)?;
            let stream = connection.open(self.to).await.map_err(unreachable)?;
            let appends = Appends {
                link: self,
                stream,
                input: Some(input),
                ahead: Some(first),
                unsent: None,
                under_way: VecDeque::new(),
                bytes_under_way: 0,
            };
            let results = stream::unfold(Some(appends), |appends| async move {
                let mut appends = appends?;
                let result = appends.next().await?;
                // Whatever is not a plain success ends the stream.
                let more = matches!(result, Ok(Ok(_)));
                Some((result, more.then_some(appends)))
            });
            Ok(results.boxed())
        })
    }
}

/// A frame that waits for room.
#[derive(Clone)]
struct Unsent {
    frame: Bytes,
    last: bool,
    haste: Haste,
}

/// An open stream of appends: sends what comes while the window has room, and gives out answers.
struct Appends<'a, S> {
    link: &'a Link,
    stream: OpenStream,
    /// None once it has ended.
    input: Option<S>,
    /// Taken from the input to see whether it goes on.
    ahead: Option<AppendEntriesRequest<TypeConfig>>,
    /// Waits for room in the connection's queue; the last of `under_way`.
    unsent: Option<Unsent>,
    /// When each unanswered append was taken, and its size; oldest first.
    under_way: VecDeque<(Instant, usize)>,
    bytes_under_way: usize,
}

impl<S> Appends<'_, S>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin,
{
    /// The next answer; `None` when the input has ended and everything is answered.
    async fn next(
        &mut self,
    ) -> Option<Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>> {
        loop {
            if self.has_room()
                && let Some(append) = self.ahead.take()
            {
                if let Err(error) = self.take(append) {
                    return Some(Err(unreachable(error)));
                }
                continue;
            }
            let oldest = self.under_way.front().map(|(at, _)| *at);
            if self.input.is_none() && oldest.is_none() {
                return None;
            }
            let may_take = self.has_room() && self.input.is_some();
            let unsent = self.unsent.clone().map(|unsent| (self.stream.outbox(), unsent));
            let overdue = oldest.unwrap_or_else(Instant::now) + ANSWER_WITHIN;
            tokio::select! {
                biased;
                answer = self.stream.answer() => return Some(self.answered(answer)),
                sent = send(unsent), if self.unsent.is_some() => match sent {
                    Ok(()) => self.sent(),
                    Err(Closed) => return Some(Err(unreachable(self.stream.why()))),
                },
                append = next(&mut self.input), if may_take => self.ahead_or_end(append),
                () = sleep_until(overdue), if oldest.is_some() => {
                    return Some(Err(self.link.timeout(RPCTypes::AppendEntries, ANSWER_WITHIN)));
                }
            }
        }
    }

    /// Whether the window and the queue take another append.
    fn has_room(&self) -> bool {
        self.unsent.is_none()
            && self.under_way.len() < STREAM_WINDOW
            && self.bytes_under_way < STREAM_WINDOW_BYTES
    }

    fn ahead_or_end(&mut self, append: Option<AppendEntriesRequest<TypeConfig>>) {
        match append {
            Some(append) => self.ahead = Some(append),
            None => self.input = None,
        }
    }

    /// Sends what was taken from the input, having looked whether more follows at once: that a
    /// heartbeat is the last of its stream saves a frame for its end.
    fn take(&mut self, append: AppendEntriesRequest<TypeConfig>) -> Result<(), PeerError> {
        if let Some(append) = next(&mut self.input).now_or_never() {
            self.ahead_or_end(append);
        }
        let last = self.input.is_none() && self.ahead.is_none();
        // On a stream that goes on, only what is committed: the entries themselves are there.
        let haste = if append.entries.is_empty() && !last { Haste::Patient } else { Haste::Now };
        let frame = self.stream.encode(append, last)?;
        self.under_way.push_back((Instant::now(), frame.len()));
        self.bytes_under_way += frame.len();
        let sent = self.stream.try_send(&frame, haste);
        self.unsent = Some(Unsent { frame, last, haste });
        if sent {
            self.sent();
        }
        Ok(())
    }

    fn sent(&mut self) {
        if let Some(Unsent { last: true, .. }) = self.unsent.take() {
            self.stream.sent_last();
        }
    }

    fn answered(
        &mut self,
        answer: Result<StreamAppendResult<TypeConfig>, PeerError>,
    ) -> Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>> {
        let answer = answer.map_err(unreachable)?;
        // An answer to nothing: the connection is of no use, and the next attempt will say so.
        let (_, bytes) =
            self.under_way.pop_front().ok_or_else(|| unreachable(PeerError::Confused))?;
        self.bytes_under_way -= bytes;
        Ok(answer)
    }
}

async fn next<S: Stream + Unpin>(input: &mut Option<S>) -> Option<S::Item> {
    match input {
        Some(input) => input.next().await,
        None => None,
    }
}

async fn send(unsent: Option<(Outbox, Unsent)>) -> Result<(), Closed> {
    match unsent {
        Some((outbox, Unsent { frame, haste, .. })) => outbox.send(frame, haste).await,
        None => Ok(()),
    }
}
