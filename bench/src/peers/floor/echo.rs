//! A stream for each sender, over a few connections, and a server in this process that answers each
//! message with its body: the stores' own protocol, and nothing behind it.

use std::collections::HashMap;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use tidemark_proto::store::v1::store_client::StoreClient;
use tidemark_proto::store::v1::store_server::{Store, StoreServer};
use tidemark_proto::store::v1::{
    AnnounceRequest, AnnounceResponse, ClockRequest, ClockResponse, LeaseHintsRequest,
    LeaseHintsResponse, MapRequest, MapResponse, Request, Requests, Response, Responses,
    StatusRequest, StatusResponse, TransferLeaderRequest, TransferLeaderResponse,
    TrustClockRequest, TrustClockResponse, WatchRequest, WatchUpdate, request, response,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Status, Streaming};

use super::{Shape, Tally};

const CONNECTIONS: usize = 4;

/// Sends and gets back until the time is over.
pub(super) async fn exchange(shape: &Shape, tally: Tally) -> Result<Tally> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("a port")?;
    let address = listener.local_addr()?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = Server::builder().add_service(StoreServer::new(Echo));
    let server = tokio::spawn(server.serve_with_incoming(incoming));
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS.min(shape.senders) {
        connections.push(Endpoint::from_shared(format!("http://{address}"))?.connect().await?);
    }
    let mut senders = JoinSet::new();
    for (_, connection) in (0..shape.senders).zip(connections.iter().cycle()) {
        senders.spawn(send(connection.clone(), *shape, tally.clone()));
    }
    let mut all = tally;
    while let Some(sent) = senders.join_next().await {
        all.add(&sent??);
    }
    server.abort();
    Ok(all)
}

/// One sender, with its messages in flight.
async fn send(connection: Channel, shape: Shape, mut tally: Tally) -> Result<Tally> {
    let (requests, outgoing) = mpsc::channel(shape.in_flight);
    let body = Bytes::from(vec![0xa5; shape.body]);
    let mut due = HashMap::new();
    let begin = async |id: u64, due: &mut HashMap<u64, Instant>| {
        due.insert(id, Instant::now());
        let what = Some(request::What::Command(body.clone()));
        let requests_ = Requests { requests: vec![Request { id, shard: 0, what }] };
        requests.send(requests_).await.context("the stream has ended")
    };
    let mut last = 0;
    while last < shape.in_flight as u64 {
        last += 1;
        begin(last, &mut due).await?;
    }
    let mut store = StoreClient::new(connection);
    let mut answers = store.exchange(ReceiverStream::new(outgoing)).await?.into_inner();
    while !tally.is_over() {
        let answer = answers.message().await?.context("the stream has ended")?;
        for response in answer.responses {
            tally.done(due.remove(&response.id).context("an answer to nothing")?);
            last += 1;
            begin(last, &mut due).await?;
        }
    }
    Ok(tally)
}

/// Answers what it is asked with what it is told.
struct Echo;

fn answer(Request { id, what, .. }: Request) -> Response {
    let bytes = match what {
        Some(request::What::Command(bytes)) => bytes,
        _ => Bytes::new(),
    };
    Response { id, what: Some(response::What::Reply(bytes)) }
}

fn none<T>() -> Result<tonic::Response<T>, Status> {
    Err(Status::unimplemented("an echo and nothing else"))
}

#[tonic::async_trait]
impl Store for Echo {
    type ExchangeStream = BoxStream<'static, Result<Responses, Status>>;

    async fn exchange(
        &self,
        requests: tonic::Request<Streaming<Requests>>,
    ) -> Result<tonic::Response<Self::ExchangeStream>, Status> {
        let answers = requests.into_inner().map_ok(|Requests { requests }| Responses {
            responses: requests.into_iter().map(answer).collect(),
        });
        Ok(tonic::Response::new(answers.boxed()))
    }

    type WatchStream = BoxStream<'static, Result<WatchUpdate, Status>>;

    async fn watch(
        &self,
        _: tonic::Request<Streaming<WatchRequest>>,
    ) -> Result<tonic::Response<Self::WatchStream>, Status> {
        none()
    }

    async fn map(
        &self,
        _: tonic::Request<MapRequest>,
    ) -> Result<tonic::Response<MapResponse>, Status> {
        none()
    }

    async fn status(
        &self,
        _: tonic::Request<StatusRequest>,
    ) -> Result<tonic::Response<StatusResponse>, Status> {
        none()
    }

    async fn announce(
        &self,
        _: tonic::Request<AnnounceRequest>,
    ) -> Result<tonic::Response<AnnounceResponse>, Status> {
        none()
    }

    async fn transfer_leader(
        &self,
        _: tonic::Request<TransferLeaderRequest>,
    ) -> Result<tonic::Response<TransferLeaderResponse>, Status> {
        none()
    }

    async fn lease_hints(
        &self,
        _: tonic::Request<LeaseHintsRequest>,
    ) -> Result<tonic::Response<LeaseHintsResponse>, Status> {
        none()
    }

    async fn clock(
        &self,
        _: tonic::Request<ClockRequest>,
    ) -> Result<tonic::Response<ClockResponse>, Status> {
        none()
    }

    async fn trust_clock(
        &self,
        _: tonic::Request<TrustClockRequest>,
    ) -> Result<tonic::Response<TrustClockResponse>, Status> {
        none()
    }
}
