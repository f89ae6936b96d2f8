//! The gRPC of it, by hand: two methods, one message.
//!
//! ```protobuf
//! package tidemark.store.v1;
//! service Peers {
//!   rpc Exchange(stream PeerBatch) returns (stream PeerBatch);
//!   rpc Fetch(PeerBatch) returns (stream PeerBatch);
//! }
//! message PeerBatch { repeated bytes frames = 1; }
//! ```
//!
//! gRPC frames the batches and controls their flow; what the frames mean is not its business.

use std::convert::Infallible;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, Service, StdError, http};
use tonic::server::{NamedService, ServerStreamingService, StreamingService};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::accept::Acceptor;
use super::frame::FRAME_BYTES_MAX;
use super::outbox::BATCH_BYTES;

const SERVICE: &str = "tidemark.store.v1.Peers";
const EXCHANGE: &str = "/tidemark.store.v1.Peers/Exchange";
const FETCH: &str = "/tidemark.store.v1.Peers/Fetch";

/// A full batch may get one more frame of any size; the rest is for the message's own heads.
const MESSAGE_BYTES_MAX: usize = FRAME_BYTES_MAX + BATCH_BYTES + (1 << 20);

type Codec = ProstCodec<PeerBatch, PeerBatch>;

/// Frames that leave together.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PeerBatch {
    /// In order.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub(super) frames: Vec<Bytes>,
}

/// What an acceptor answers with.
pub(super) type Batches = BoxStream<'static, Result<PeerBatch, Status>>;

/// Opens the stream to a node.
pub(super) async fn exchange(
    channel: Channel,
    batches: impl Stream<Item = PeerBatch> + Send + 'static,
) -> Result<Streaming<PeerBatch>, Status> {
    let mut grpc = client(channel).await?;
    let path = http::uri::PathAndQuery::from_static(EXCHANGE);
    Ok(grpc.streaming(Request::new(batches), path, Codec::default()).await?.into_inner())
}

/// Asks a node for what only flows one way.
pub(super) async fn fetch(
    channel: Channel,
    request: PeerBatch,
) -> Result<Streaming<PeerBatch>, Status> {
    let mut grpc = client(channel).await?;
    let path = http::uri::PathAndQuery::from_static(FETCH);
    Ok(grpc.server_streaming(Request::new(request), path, Codec::default()).await?.into_inner())
}

async fn client(channel: Channel) -> Result<tonic::client::Grpc<Channel>, Status> {
    let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    Ok(grpc)
}

/// The service as tonic wants it.
#[derive(Clone)]
pub(super) struct Server(pub(super) Acceptor);

impl ServerStreamingService<PeerBatch> for Server {
    type Response = PeerBatch;
    type ResponseStream = Batches;
    type Future = std::future::Ready<Result<Response<Batches>, Status>>;

    fn call(&mut self, request: Request<PeerBatch>) -> Self::Future {
        std::future::ready(self.0.fetch(request.get_ref()).map(Response::new))
    }
}

impl StreamingService<PeerBatch> for Server {
    type Response = PeerBatch;
    type ResponseStream = Batches;
    type Future = BoxFuture<'static, Result<Response<Batches>, Status>>;

    fn call(&mut self, request: Request<Streaming<PeerBatch>>) -> Self::Future {
        let acceptor = self.0.clone();
        Box::pin(async move {
            let batches = acceptor.exchange(request.into_inner()).await?;
            Ok(Response::new(batches))
        })
    }
}

impl NamedService for Server {
    const NAME: &'static str = SERVICE;
}

impl<B> Service<http::Request<B>> for Server
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let handler = self.clone();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Codec::default())
                .max_decoding_message_size(MESSAGE_BYTES_MAX);
            Ok(match request.uri().path() {
                EXCHANGE => grpc.streaming(handler, request).await,
                FETCH => grpc.server_streaming(handler, request).await,
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}
