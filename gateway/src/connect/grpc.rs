//! The gRPC carrier: `tidemark.v1.Gateway/Connect`.

use std::sync::Arc;

use futures::{Stream, StreamExt as _, stream};
use tidemark_proto::v1::gateway_server::{Gateway, GatewayServer};
use tidemark_proto::v1::{ClientFrame, ServerFrame, client_frame};
use tidemark_proto::{Failure, frame};
use tidemark_types::ErrorCode;
use tidemark_types::limits::SERVER_FRAME_BYTES_MAX;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::{Carrier, Unreadable};
use crate::devices::Devices;
use crate::kept::{Keeping, keep};
use crate::limits::OUTGOING_FRAMES;

/// Larger than any legal frame, so that one that is too large is refused and the stream goes on;
/// beyond this the stream is cut unread.
const DECODE_BYTES_MAX: usize = SERVER_FRAME_BYTES_MAX;

/// The service; a cheap handle.
#[derive(Clone)]
pub struct GrpcCarrier {
    devices: Arc<Devices>,
}

impl GrpcCarrier {
    /// The service that connects to `devices`.
    pub fn service(devices: Arc<Devices>) -> Keeping<GatewayServer<Self>> {
        let carrier = GatewayServer::new(GrpcCarrier { devices });
        Keeping(carrier.max_decoding_message_size(DECODE_BYTES_MAX))
    }
}

#[tonic::async_trait]
impl Gateway for GrpcCarrier {
    type ConnectStream = stream::BoxStream<'static, Result<ServerFrame, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<ClientFrame>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let (outgoing, frames) = mpsc::channel(OUTGOING_FRAMES);
        let incoming = incoming(request.into_inner()).boxed();
        let admission = self.devices.connect(Carrier::Grpc, incoming, outgoing)?;
        // What the device has not taken yet keeps its place.
        Ok(keep(
            Response::new(ReceiverStream::new(frames).map(|frame| Ok(*frame)).boxed()),
            admission,
        ))
    }
}

/// The frames of a stream, up to its end or what cannot be read.
fn incoming(
    frames: Streaming<ClientFrame>,
) -> impl Stream<Item = Result<client_frame::Frame, Unreadable>> {
    stream::unfold(Some(frames), |frames| async {
        let mut frames = frames?;
        match frames.message().await {
            Ok(frame) => Some((frame::opened(frame?).map_err(Unreadable::from), Some(frames))),
            Err(status) => Some((Err(Unreadable::Broken(unreadable(&status)?)), None)),
        }
    })
}

/// What the peer is told whose stream cannot be read; nothing, when the connection broke.
pub(crate) fn unreadable(status: &Status) -> Option<Failure> {
    let code = match status.code() {
        Code::OutOfRange => ErrorCode::FrameTooLarge,
        Code::Internal | Code::InvalidArgument => ErrorCode::Invalid,
        _ => return None,
    };
    Some(Failure::new(code).message(status.message()))
}
