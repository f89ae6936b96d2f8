//! The gRPC of it, by hand: one method, one message.
//!
//! ```protobuf
//! package tidemark.store.v1;
//! service Peers { rpc Exchange(stream PeerBatch) returns (stream PeerBatch); }
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
use tonic::server::{NamedService, StreamingService};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::frame::FRAME_BYTES_MAX;
use super::outbox::BATCH_BYTES;

const SERVICE: &str = "tidemark.store.v1.Peers";
const EXCHANGE: &str = "/tidemark.store.v1.Peers/Exchange";

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
    let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = http::uri::PathAndQuery::from_static(EXCHANGE);
    Ok(grpc.streaming(Request::new(batches), path, Codec::default()).await?.into_inner())
}

/// Whoever answers a node's stream.
pub(super) trait Exchange: Clone + Send + Sync + 'static {
    /// Takes the stream's batches and gives the answers'.
    fn exchange(
        &self,
        batches: Streaming<PeerBatch>,
    ) -> impl Future<Output = Result<Batches, Status>> + Send;
}

/// The service as tonic wants it.
#[derive(Clone)]
pub(super) struct Server<T>(pub(super) T);

impl<T: Exchange> StreamingService<PeerBatch> for Server<T> {
    type Response = PeerBatch;
    type ResponseStream = Batches;
    type Future = BoxFuture<'static, Result<Response<Batches>, Status>>;

    fn call(&mut self, request: Request<Streaming<PeerBatch>>) -> Self::Future {
        let handler = self.0.clone();
        Box::pin(async move {
            let batches = handler.exchange(request.into_inner()).await?;
            Ok(Response::new(batches))
        })
    }
}

impl<T> NamedService for Server<T> {
    const NAME: &'static str = SERVICE;
}

impl<T, B> Service<http::Request<B>> for Server<T>
where
    T: Exchange,
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
            if request.uri().path() != EXCHANGE {
                return Ok(Status::unimplemented("no such method").into_http());
            }
            let mut grpc = tonic::server::Grpc::new(Codec::default())
                .max_decoding_message_size(MESSAGE_BYTES_MAX);
            Ok(grpc.streaming(handler, request).await)
        })
    }
}
