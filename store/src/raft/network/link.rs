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

/// How long an append that only tells what is committed waits for one with entries, which tells it too.
/// Nobody waits for it: a follower answers no client, and a successor commits by an entry of its own.
/// It is some times what lies between two appends of a busy group, and far below every timer of Raft.
const COMMIT_WAITS: Duration = Duration::from_millis(10);

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
            Err(_) => Err(late(self.from, self.to, action, option.hard_ttl())),
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
}

fn late(from: ReplicaId, to: Address, action: RPCTypes, timeout: Duration) -> RPCError<TypeConfig> {
    RPCError::Timeout(Timeout { action, id: from, target: to.replica, timeout })
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
            let appends = Appends::new(self.from, self.to, stream, first, input);
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
struct Appends<S> {
    from: ReplicaId,
    to: Address,
    stream: OpenStream,
    /// None once it has ended.
    input: Option<S>,
    /// Taken from the input: to see whether it goes on, or to be told by the next one.
    ahead: Option<AppendEntriesRequest<TypeConfig>>,
    /// Until when the one ahead waits for that.
    held_until: Option<Instant>,
    /// Waits for room in the connection's queue; the last of `under_way`.
    unsent: Option<Unsent>,
    /// When each unanswered append was taken, and its size; oldest first.
    under_way: VecDeque<(Instant, usize)>,
    bytes_under_way: usize,
}

impl<S> Appends<S>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin,
{
    fn new(
        from: ReplicaId,
        to: Address,
        stream: OpenStream,
        first: AppendEntriesRequest<TypeConfig>,
        input: S,
    ) -> Self {
        Appends {
            from,
            to,
            stream,
            input: Some(input),
            ahead: Some(first),
            held_until: None,
            unsent: None,
            under_way: VecDeque::new(),
            bytes_under_way: 0,
        }
    }

    /// The next answer; `None` when the input has ended and everything is answered.
    async fn next(
        &mut self,
    ) -> Option<Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>> {
        loop {
            let held = self.held();
            if held.is_none()
                && self.has_room()
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
                () = sleep_until(held.unwrap_or(overdue)), if held.is_some() => {}
                () = sleep_until(overdue), if oldest.is_some() => {
                    let action = RPCTypes::AppendEntries;
                    return Some(Err(late(self.from, self.to, action, ANSWER_WITHIN)));
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

    /// Until when the append ahead is held, if it is: it has no entries, the stream goes on, and it has not
    /// waited for long. What takes its place tells what it would have told, and an answer to that answers
    /// this one, since answers are cumulative.
    fn held(&mut self) -> Option<Instant> {
        let waits = self.input.is_some()
            && self.ahead.as_ref().is_some_and(|append| append.entries.is_empty());
        if !waits {
            self.held_until = None;
            return None;
        }
        let now = Instant::now();
        let until = *self.held_until.get_or_insert(now + COMMIT_WAITS);
        (now < until).then_some(until)
    }

    /// Takes the place of what is held.
    fn ahead_or_end(&mut self, append: Option<AppendEntriesRequest<TypeConfig>>) {
        match append {
            Some(append) => self.ahead = Some(append),
            None => self.input = None,
        }
    }

    /// Sends what was taken from the input, having looked whether more follows at once: that a
    /// heartbeat is the last of its stream saves a frame for its end.
    fn take(&mut self, append: AppendEntriesRequest<TypeConfig>) -> Result<(), PeerError> {
        self.held_until = None;
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::channel::mpsc;
    use openraft::entry::RaftEntry;
    use openraft::vote::RaftLeaderId;
    use tidemark_types::ShardId;

    use super::*;
    use crate::raft::network::connection::Connection;
    use crate::raft::network::frame::Request;
    use crate::raft::network::outbox::outbox;
    use crate::raft::types::{CommittedLeaderId, Entry, EntryPayload, LeaderId, LogId};
    use crate::storage::GroupId;

    fn log_id(index: u64) -> LogId {
        let leader: CommittedLeaderId = LeaderId::new(1, 1).to_committed();
        LogId::new(leader, index)
    }

    /// An append of one entry behind `prev`, or of none.
    fn append(prev: u64, entry: bool, committed: u64) -> AppendEntriesRequest<TypeConfig> {
        AppendEntriesRequest {
            vote: Vote::new_committed(1, 1),
            prev_log_id: Some(log_id(prev)),
            entries: entry
                .then(|| Entry::new(log_id(prev + 1), EntryPayload::Blank))
                .into_iter()
                .collect(),
            leader_commit: Some(log_id(committed)),
        }
    }

    /// What was told: each append's entries, and what is committed.
    fn told(frames: &[Bytes]) -> Vec<(usize, u64)> {
        let told = |frame: &Bytes| match Request::decode(frame).expect("a frame") {
            Request::Append { append, .. } => {
                (append.entries.len(), append.leader_commit.expect("it is told").index)
            }
            other => panic!("{other:?}"),
        };
        frames.iter().map(told).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_committed_rides_with_the_next_entries_or_leaves_by_itself_soon() {
        let (outbox, outgoing) = outbox(Bytes::from_static(b"hello"));
        let mut batches = std::pin::pin!(outgoing.batches());
        batches.next().await.expect("the hello");
        let to = Address { group: GroupId::shard(ShardId::new(3)), replica: 31 };
        let stream = Arc::new(Connection::new(outbox)).open(to).await.expect("it is open");
        let (input, appends) = mpsc::unbounded();
        let mut appends = Appends::new(1, to, stream, append(0, true, 0), appends);
        let sending = tokio::spawn(async move { appends.next().await });
        let sent = batches.next().await.expect("an entry").frames;
        assert_eq!(told(&sent), [(1, 0)]);

        let began = Instant::now();
        input.unbounded_send(append(1, false, 1)).expect("it is read");
        tokio::time::sleep(COMMIT_WAITS / 2).await;
        input.unbounded_send(append(1, true, 1)).expect("it is read");
        let sent = batches.next().await.expect("an entry").frames;
        assert_eq!((told(&sent), began.elapsed()), (vec![(1, 1)], COMMIT_WAITS / 2));

        let began = Instant::now();
        input.unbounded_send(append(2, false, 1)).expect("it is read");
        tokio::time::sleep(COMMIT_WAITS / 2).await;
        input.unbounded_send(append(2, false, 2)).expect("it is read");
        let sent = batches.next().await.expect("what is committed").frames;
        assert_eq!(told(&sent), [(0, 2)]);
        assert!(began.elapsed() < 2 * COMMIT_WAITS, "{:?}", began.elapsed());

        // The end of the stream is not waited for.
        let began = Instant::now();
        input.unbounded_send(append(2, false, 2)).expect("it is read");
        drop(input);
        let sent = batches.next().await.expect("the last one").frames;
        assert_eq!((told(&sent), began.elapsed()), (vec![(0, 2)], Duration::ZERO));
        sending.abort();
    }
}
