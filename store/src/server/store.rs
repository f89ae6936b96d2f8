//! The gRPC service for gateways and tools.
//!
//! ```text
//!   messages ──► requests, in order ──► Shard::enqueue ──► replies to come ─┐
//!      ▲                                                                    ▼
//!      └── not read while too much is open            whatever is ready: one message
//! ```

use std::fmt::Display;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, Stream, StreamExt};
use prost::Message;
use tidemark_proto::store::v1::store_server::Store;
use tidemark_proto::store::v1::{
    Alarms, AnnounceRequest, AnnounceResponse, AwaitFeed, ClockRequest, ClockResponse, FeedGrown,
    GroupStatus, LeaseHintsRequest, LeaseHintsResponse, MapRequest, MapResponse, Postponed,
    PresenceOf, Request, Requests, Response, Responses, StatusRequest, StatusResponse,
    TransferLeaderRequest, TransferLeaderResponse, TrustClockRequest, TrustClockResponse, Typed,
    Typing, WatchRequest, WatchUpdate, request, response,
};
use tidemark_proto::{Detail, Failure, convert, headers};
use tidemark_store_core::Command;
use tidemark_store_core::feed;
use tidemark_store_core::hints::Hint;
use tidemark_store_core::presence;
use tidemark_store_core::read::Query;
use tidemark_store_core::value::Value;
use tidemark_types::{ErrorCode, Id, NodeId, ShardId, UserId};
use tidemark_version::VERSION;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::gateways::Gateways;
use super::presence::{moves, present};
use super::watch::WatchStream;
use crate::hints::Over;
use crate::metrics;
use crate::node::Node;
use crate::shard::{self, Shard};
use crate::storage::GroupId;

/// Requests of one stream that are not answered yet; no more are read until some are.
const OPEN_MAX: usize = 4_096;

/// A reader of the feed is answered by then: sooner than a client gives a node up.
const FEED_WAIT_MAX: Duration = Duration::from_secs(1);

/// Answers in one message.
const MESSAGE_RESPONSES: usize = 256;

/// A message with as many bytes of answers takes no more: pages have half a megabyte each.
const MESSAGE_BYTES: usize = 4 << 20;

/// Messages that wait for a slow client.
const OUTGOING: usize = 4;

/// Hints in one message: each may have 4 KiB of a token.
const HINTS_MAX: usize = 512;

/// The service; a cheap handle.
#[derive(Clone)]
pub struct StoreService {
    node: Arc<Node>,
    gateways: Arc<Gateways>,
}

impl StoreService {
    /// The service of `node`.
    pub fn new(node: Arc<Node>) -> Self {
        StoreService { node, gateways: Arc::default() }
    }

    fn check_cluster<T>(&self, request: &tonic::Request<T>) -> Result<(), Failure> {
        let ours = self.node.identity().cluster().to_string();
        match request.metadata().get(headers::CLUSTER).map(|named| named.as_bytes()) {
            Some(named) if named == ours.as_bytes() => Ok(()),
            Some(_) => Err(Failure::new(ErrorCode::WrongCluster)),
            None => Err(invalid(format!("the header {} is missing", headers::CLUSTER))),
        }
    }

    /// Takes a request; the future that will answer it.
    fn take(&self, request: Request) -> BoxFuture<'static, Response> {
        let id = request.id;
        let answer = move |what| Response { id, what: Some(what) };
        match self.start(request) {
            Ok(pending) => pending.map(answer).boxed(),
            Err(failure) => {
                std::future::ready(answer(response::What::Failure(failure.into()))).boxed()
            }
        }
    }

    fn start(&self, request: Request) -> Result<BoxFuture<'static, response::What>, Failure> {
        let (shard, command) = match request.what {
            Some(request::What::Command(bytes)) => {
                let command = Command::decode(&bytes).map_err(invalid)?;
                let id = command.routed_by();
                let id = id.ok_or_else(|| invalid("the command is the cluster's own"))?;
                (self.shard(request.shard, self.node.shard_number(&id), &id)?, command)
            }
            Some(request::What::Relay(bytes)) => {
                let command = Command::decode(&bytes).map_err(invalid)?;
                if !matches!(command, Command::RelayIn { .. }) {
                    return Err(invalid("relay: it holds no records"));
                }
                (self.replica(request.shard)?, command)
            }
            Some(request::What::Query(bytes)) => {
                let query = Query::decode(&bytes).map_err(invalid)?;
                let lives_on = query.shard(self.node.identity().shards());
                let shard = self.shard(request.shard, lives_on, "what is asked")?;
                return Ok(query_outcome(shard.clone(), query).boxed());
            }
            Some(request::What::Typing(typing)) => return self.typing(request.shard, &typing),
            Some(request::What::Presence(asked)) => return self.presence(request.shard, &asked),
            Some(request::What::AwaitFeed(awaited)) => {
                return self.await_feed(request.shard, &awaited);
            }
            None => return Err(invalid("the request asks nothing")),
        };
        let over = Over::by(&command).map(|over| (over, self.node.clone()));
        let moved = moves(&command).map(|user| (user, self.node.clone()));
        let pending = shard.enqueue(command).map_err(failure)?;
        let replied = async move {
            let outcome = pending.reply().await;
            if let Some((over, node)) = over.filter(|_| outcome.is_ok()) {
                node.hint_is_over(&over);
            }
            if let Some((user, node)) = moved {
                node.hub().moved(node.shard_number(&Id::User(user.clone())), &user);
            }
            command_outcome(outcome)
        };
        Ok(replied.boxed())
    }

    /// Somebody types to a user, who may not want to know. Nothing is written, and nothing waits.
    fn typing(
        &self,
        shard: u32,
        typing: &Typing,
    ) -> Result<BoxFuture<'static, response::What>, Failure> {
        let user: UserId = convert::name("typing.user", &typing.user)?;
        let by: UserId = convert::name("typing.by", &typing.by)?;
        let (number, shard) = self.led(shard, &user)?;
        let welcome = shard.peek(|state| presence::welcomes(state, &user, &by));
        if welcome.map_err(|error| failure(error.into()))? {
            self.node.hub().typing(number, &user, &by, typing.typing);
        }
        Ok(std::future::ready(response::What::Typed(Typed {})).boxed())
    }

    /// Is a user there?
    fn presence(
        &self,
        shard: u32,
        asked: &PresenceOf,
    ) -> Result<BoxFuture<'static, response::What>, Failure> {
        let user: UserId = convert::name("presence.user", &asked.user)?;
        let by = Some(asked.by.as_str()).filter(|by| !by.is_empty());
        let by = by.map(|by| convert::name("presence.by", by)).transpose()?;
        let (number, shard) = self.led(shard, &user)?;
        let present = present(self.node.hub(), (number, shard), &user, by.as_ref());
        let present = present.map_err(|error| failure(error.into()))?;
        Ok(std::future::ready(response::What::Present(present)).boxed())
    }

    /// Answers once the feed of a shard that this node leads has grown. Nothing is proposed and nobody
    /// else is asked, so that a reader who waits costs next to nothing.
    fn await_feed(
        &self,
        shard: u32,
        &AwaitFeed { after, wait_ms }: &AwaitFeed,
    ) -> Result<BoxFuture<'static, response::What>, Failure> {
        let shard = self.replica(shard)?.clone();
        let within = Duration::from_millis(wait_ms.into()).min(FEED_WAIT_MAX);
        let waits = async move {
            match tokio::time::timeout(within, feed_grows(&shard, after)).await {
                Ok(Ok(())) => response::What::Grown(FeedGrown { grown: true }),
                Ok(Err(error)) => response::What::Failure(failure(error).into()),
                Err(_) => response::What::Grown(FeedGrown { grown: false }),
            }
        };
        Ok(waits.boxed())
    }

    /// The shard of a user, if this node leads it: those who watch do so at the leader.
    fn led(&self, named: u32, user: &UserId) -> Result<(ShardId, &Shard), Failure> {
        let id = Id::User(user.clone());
        let number = self.node.shard_number(&id);
        let shard = self.shard(named, number, &id)?;
        leads(shard).map_err(failure)?;
        Ok((number, shard))
    }

    /// The shard on which it lives, which the client must have found as well (R8).
    fn shard(&self, named: u32, lives_on: ShardId, it: impl Display) -> Result<&Shard, Failure> {
        if u32::from(lives_on.get()) != named {
            let text = format!("{it} lives on shard {lives_on}, not on {named}");
            return Err(Failure::new(ErrorCode::WrongShard).message(text));
        }
        self.replica(named)
    }

    /// This node's replica of a shard.
    fn replica(&self, shard: u32) -> Result<&Shard, Failure> {
        let number = u16::try_from(shard).map(ShardId::new).ok();
        number.and_then(|number| self.node.hosted().shard(number)).ok_or_else(|| {
            Failure::new(ErrorCode::NotLeader)
                .message(format!("this node has no replica of shard {shard}"))
        })
    }

    /// Reads requests, and sends whatever answers are ready, until the client goes.
    async fn exchange_with(
        self,
        mut requests: Streaming<Requests>,
        responses: mpsc::Sender<Result<Responses, Status>>,
    ) {
        let mut open = FuturesUnordered::<BoxFuture<'static, Response>>::new();
        let mut ended = false;
        while !ended || !open.is_empty() {
            tokio::select! {
                message = requests.message(), if !ended && open.len() < OPEN_MAX => {
                    match message {
                        Ok(Some(message)) => {
                            open.extend(message.requests.into_iter().map(|request| self.take(request)));
                        }
                        // The client has gone, and nobody reads the answers.
                        Err(_) => return,
                        Ok(None) => ended = true,
                    }
                }
                Some(first) = open.next() => {
                    let mut bytes = first.encoded_len();
                    let mut ready = vec![first];
                    while ready.len() < MESSAGE_RESPONSES
                        && bytes < MESSAGE_BYTES
                        && let Some(Some(next)) = open.next().now_or_never()
                    {
                        bytes += next.encoded_len();
                        ready.push(next);
                    }
                    if responses.send(Ok(Responses { responses: ready })).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

fn leads(shard: &Shard) -> Result<(), shard::Error> {
    match shard.group().leads() {
        Some(_) => Ok(()),
        None => Err(shard::Error::NotLeader { leader: shard.group().status().leader }),
    }
}

/// Waits until there is a record after this one.
async fn feed_grows(shard: &Shard, after: u64) -> Result<(), shard::Error> {
    loop {
        leads(shard)?;
        // What is applied is in the state: what comes later is waited for.
        let applied = shard.group().applied();
        if shard.peek(|state| feed::stands(state))?.head > after {
            return Ok(());
        }
        let more = shard.group().applies_more(applied).await;
        more.map_err(|error| shard::Error::Stopped(error.to_string()))?;
    }
}

fn invalid(text: impl ToString) -> Failure {
    Failure::new(ErrorCode::Invalid).message(text.to_string())
}

fn command_outcome(outcome: Result<tidemark_store_core::Reply, shard::Error>) -> response::What {
    match outcome {
        Ok(reply) => response::What::Reply(reply.encode()),
        Err(error) => response::What::Failure(failure(error).into()),
    }
}

async fn query_outcome(shard: Shard, query: Query) -> response::What {
    let answer = shard.read(|view| query.answer(view)).await;
    match answer.and_then(|answer| Ok(answer?)) {
        Ok(answer) => response::What::Answer(Bytes::from(answer.encode())),
        Err(error) => response::What::Failure(failure(error).into()),
    }
}

fn failure(error: shard::Error) -> Failure {
    let failure = Failure::new(error.code()).message(error.to_string());
    if let Some(retry_after) = error.retry_after() {
        return failure.retry_after(retry_after);
    }
    match error {
        shard::Error::NotLeader { leader: Some(leader) } => failure.leader(leader.address),
        shard::Error::OutOfOrder { expected } => failure.detail(Detail::Expected(expected)),
        _ => failure,
    }
}

#[tonic::async_trait]
impl Store for StoreService {
    type ExchangeStream = Pin<Box<dyn Stream<Item = Result<Responses, Status>> + Send>>;

    async fn exchange(
        &self,
        request: tonic::Request<Streaming<Requests>>,
    ) -> Result<tonic::Response<Self::ExchangeStream>, Status> {
        self.check_cluster(&request)?;
        let (responses, outgoing) = mpsc::channel(OUTGOING);
        tokio::spawn(self.clone().exchange_with(request.into_inner(), responses));
        Ok(tonic::Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchUpdate, Status>> + Send>>;

    async fn watch(
        &self,
        request: tonic::Request<Streaming<WatchRequest>>,
    ) -> Result<tonic::Response<Self::WatchStream>, Status> {
        self.check_cluster(&request)?;
        let (updates, outgoing) = mpsc::channel(OUTGOING);
        let stream = WatchStream::new(self.node.clone());
        tokio::spawn(stream.serve(request.into_inner(), updates));
        Ok(tonic::Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    async fn map(
        &self,
        _: tonic::Request<MapRequest>,
    ) -> Result<tonic::Response<MapResponse>, Status> {
        let map = self.node.map().map_err(failure)?;
        Ok(tonic::Response::new(MapResponse { map: map.encode() }))
    }

    async fn status(
        &self,
        request: tonic::Request<StatusRequest>,
    ) -> Result<tonic::Response<StatusResponse>, Status> {
        let StatusRequest { brief } = request.into_inner();
        let identity = self.node.identity();
        let mut groups = Vec::new();
        for (id, group) in self.node.hosted().groups() {
            let status = group.status();
            let outbox_bytes = if brief { Ok(0) } else { self.node.outbox_bytes(id) };
            groups.push(GroupStatus {
                group: id.get(),
                term: status.term,
                leader: status.leader.map_or(0, |leader| leader.node.get()),
                last_log: status.last_log.unwrap_or_default(),
                applied: status.applied.unwrap_or_default(),
                snapshot: status.snapshot.unwrap_or_default(),
                purged: status.purged.unwrap_or_default(),
                stopped: status.running.err().unwrap_or_default(),
                outbox_bytes: outbox_bytes.map_err(failure)?,
            });
        }
        let alarms = metrics::alarms().map(|(kind, count)| Alarms { kind: kind.to_owned(), count });
        Ok(tonic::Response::new(StatusResponse {
            node: identity.node.get(),
            cluster: Bytes::copy_from_slice(identity.cluster().as_bytes()),
            groups,
            version: VERSION.to_owned(),
            disk_free_bytes: self.node.space().free(),
            gateways: self.gateways.known(Instant::now()),
            alarms: alarms.collect(),
        }))
    }

    async fn announce(
        &self,
        request: tonic::Request<AnnounceRequest>,
    ) -> Result<tonic::Response<AnnounceResponse>, Status> {
        self.check_cluster(&request)?;
        self.gateways.hear(request.into_inner().http, Instant::now())?;
        Ok(tonic::Response::new(AnnounceResponse {}))
    }

    async fn transfer_leader(
        &self,
        request: tonic::Request<TransferLeaderRequest>,
    ) -> Result<tonic::Response<TransferLeaderResponse>, Status> {
        self.check_cluster(&request)?;
        let TransferLeaderRequest { group, to } = request.into_inner();
        let term = self.node.transfer_leader(GroupId::new(group), NodeId::new(to)).await;
        let term = term.map_err(failure)?;
        Ok(tonic::Response::new(TransferLeaderResponse { term }))
    }

    async fn lease_hints(
        &self,
        request: tonic::Request<LeaseHintsRequest>,
    ) -> Result<tonic::Response<LeaseHintsResponse>, Status> {
        self.check_cluster(&request)?;
        let LeaseHintsRequest { max, postponed } = request.into_inner();
        if postponed.len() > HINTS_MAX {
            return Err(invalid(format!("postponed: more than {HINTS_MAX}")).into());
        }
        for Postponed { user, device, after_ms } in postponed {
            let (user, device) = (convert::name("user", &user), convert::name("device", &device));
            let (user, device) = (user.map_err(Failure::from)?, device.map_err(Failure::from)?);
            self.node.postpone_hint(user, device, Duration::from_millis(after_ms.into()));
        }
        let hints = self.node.lease_hints((max as usize).min(HINTS_MAX)).map_err(failure)?;
        let hints = hints.iter().map(Hint::encode).collect();
        Ok(tonic::Response::new(LeaseHintsResponse { hints }))
    }

    async fn clock(
        &self,
        _: tonic::Request<ClockRequest>,
    ) -> Result<tonic::Response<ClockResponse>, Status> {
        let time = self.node.time();
        let (wall_ms, trusted) = (time.own().get(), time.is_trusted());
        Ok(tonic::Response::new(ClockResponse { wall_ms, trusted }))
    }

    async fn trust_clock(
        &self,
        request: tonic::Request<TrustClockRequest>,
    ) -> Result<tonic::Response<TrustClockResponse>, Status> {
        self.check_cluster(&request)?;
        self.node.time().trust();
        Ok(tonic::Response::new(TrustClockResponse {}))
    }
}
