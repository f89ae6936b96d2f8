//! Frames over gRPC: one call to `Gateway.Connect`, a stream in each direction.

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt, TryFutureExt, TryStreamExt};
use tidemark_env::Connector as Streams;
use tidemark_proto::Failure;
use tidemark_proto::failure::first_cause;
use tidemark_proto::over::Over;
use tidemark_proto::v1::gateway_client::GatewayClient;
use tidemark_types::limits::{FRAME_BYTES_MAX, SERVER_FRAME_BYTES_MAX};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use crate::carrier::{Connector, OUTGOING_FRAMES, Wire};

/// A gateway that does not answer the connection attempt in this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes under way to the device: the largest frame, so that a page is not sent in small pieces.
const WINDOW_BYTES: u32 = 4 << 20;

const _: () = assert!(WINDOW_BYTES as usize >= SERVER_FRAME_BYTES_MAX);

/// Connects over gRPC without TLS.
#[derive(Clone, Default)]
pub struct GrpcConnector {
    /// What carries the bytes; TCP where there is none.
    over: Option<Arc<dyn Streams>>,
}

impl GrpcConnector {
    /// Connects over byte streams of another kind than TCP.
    pub fn over(streams: Arc<dyn Streams>) -> Self {
        GrpcConnector { over: Some(streams) }
    }
}

impl GrpcConnector {
    /// A channel to a gateway, for calls beside the stream; the error is for people.
    pub(crate) async fn channel(&self, gateway: &str) -> Result<Channel, String> {
        let endpoint = Endpoint::from_shared(format!("http://{gateway}"))
            .map_err(|error| format!("{gateway}: {error}"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        let channel = match &self.over {
            Some(streams) => {
                endpoint.connect_with_connector(Over::new(streams.clone(), gateway)).await
            }
            None => endpoint.connect().await,
        };
        channel.map_err(|error| format!("{gateway}: {}", first_cause(&error)))
    }
}

impl Connector for GrpcConnector {
    async fn connect(&self, gateway: &str) -> Result<Wire, String> {
        let channel = self.channel(gateway).await?;
        let (outgoing, frames) = mpsc::channel(OUTGOING_FRAMES);
        let mut client = GatewayClient::new(channel)
            .max_decoding_message_size(SERVER_FRAME_BYTES_MAX)
            .max_encoding_message_size(FRAME_BYTES_MAX);
        // The call is made when the stream is first polled, so that a gateway which answers only
        // after the first frame gets that frame.
        let call = async move { client.connect(ReceiverStream::new(frames)).await };
        let incoming = call
            .map(|response| response.map(tonic::Response::into_inner))
            .try_flatten_stream()
            .map_err(|status| Failure::from(&status).to_string());
        Ok(Wire { outgoing, incoming: incoming.boxed() })
    }
}
