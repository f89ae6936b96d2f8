//! The gateway as the load sees it: devices' streams over a few TCP connections, and the unary
//! calls by which the end of a run is checked. gRPC is named nowhere else.

use std::time::Duration;

use anyhow::{Context, Result};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use tidemark_proto::v1::devices_client::DevicesClient;
use tidemark_proto::v1::gateway_client::GatewayClient;
use tidemark_proto::v1::mailboxes_client::MailboxesClient;
use tidemark_proto::{Failure, headers, v1};
use tidemark_types::limits::{FRAME_BYTES_MAX, SERVER_FRAME_BYTES_MAX};
use tidemark_types::{DeviceId, UserId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

/// A gateway that does not answer in this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes under way to a device, as the SDK has it.
const WINDOW_BYTES: u32 = 4 << 20;

/// Frames that wait to be written: two windows of sends, as in the SDK.
const OUTGOING_FRAMES: usize = 1_024;

/// Connections to one gateway.
pub(crate) struct Gateway {
    channels: Vec<Channel>,
}

/// A device's stream.
pub(crate) struct Wire {
    /// None once this direction has ended.
    outgoing: Option<mpsc::Sender<v1::ClientFrame>>,
    incoming: BoxStream<'static, Result<v1::ServerFrame, Failure>>,
}

/// Frames to the gateway pile up, or the stream has ended.
pub(crate) struct Full;

impl Wire {
    /// A stream made of its two directions.
    pub(crate) fn new(
        outgoing: mpsc::Sender<v1::ClientFrame>,
        incoming: BoxStream<'static, Result<v1::ServerFrame, Failure>>,
    ) -> Self {
        Wire { outgoing: Some(outgoing), incoming }
    }

    /// Sends a frame.
    pub(crate) fn send(&self, frame: v1::ClientFrame) -> Result<(), Full> {
        let outgoing = self.outgoing.as_ref().ok_or(Full)?;
        outgoing.try_send(frame).map_err(|_| Full)
    }

    /// What waits is still written; then this direction ends.
    pub(crate) fn close(&mut self) {
        self.outgoing = None;
    }

    /// The next frame; none when the gateway has ended the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<v1::ServerFrame>, Failure> {
        self.incoming.next().await.transpose()
    }
}

impl Gateway {
    /// Opens so many TCP connections to the gateway at `address`.
    pub(crate) async fn connect(address: &str, connections: usize) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .with_context(|| format!("{address} is not host:port"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        let mut channels = Vec::new();
        for _ in 0..connections {
            let channel = endpoint.connect().await;
            channels.push(channel.with_context(|| format!("no gateway at {address}"))?);
        }
        Ok(Gateway { channels })
    }

    /// A stream for device number `device`, on the connection whose turn it is.
    pub(crate) async fn open(&self, device: usize, hello: v1::Hello) -> Result<Wire> {
        let (outgoing, frames) = mpsc::channel(OUTGOING_FRAMES);
        outgoing.try_send(hello.into()).context("a new queue has room")?;
        let mut client = GatewayClient::new(self.channel(device))
            .max_decoding_message_size(SERVER_FRAME_BYTES_MAX)
            .max_encoding_message_size(FRAME_BYTES_MAX);
        let incoming = client.connect(ReceiverStream::new(frames)).await;
        let incoming = incoming.map_err(|status| Failure::from(&status))?.into_inner();
        let incoming = incoming.map_err(|status| Failure::from(&status));
        Ok(Wire::new(outgoing, incoming.boxed()))
    }

    /// The head of a user's mailbox.
    pub(crate) async fn head(&self, turn: usize, token: &str, user: &UserId) -> Result<u32> {
        let request = v1::HeadRequest { user: user.to_string() };
        let mut client = MailboxesClient::new(self.channel(turn));
        let answer = client.head(authorized(token, request)).await;
        Ok(answer.map_err(|status| Failure::from(&status))?.into_inner().head)
    }

    /// What the servers know to be confirmed by a device that is registered already.
    pub(crate) async fn cursor(
        &self,
        turn: usize,
        token: &str,
        user: &UserId,
        device: &DeviceId,
    ) -> Result<u32> {
        let start = Some(v1::Start { at: v1::StartAt::Head.into(), last: 0 });
        let (user, device) = (user.to_string(), device.to_string());
        let request = v1::RegisterRequest { user, device, start };
        let mut client = DevicesClient::new(self.channel(turn));
        let answer = client.register(authorized(token, request)).await;
        Ok(answer.map_err(|status| Failure::from(&status))?.into_inner().cursor)
    }

    fn channel(&self, turn: usize) -> Channel {
        self.channels[turn % self.channels.len()].clone()
    }
}

fn authorized<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let bearer = format!("{}{token}", headers::BEARER).parse();
    let bearer = bearer.expect("tokens are visible ASCII");
    request.metadata_mut().insert(headers::AUTHORIZATION, bearer);
    request
}
