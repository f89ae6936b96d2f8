//! The gateway as the load sees it: devices' streams over a few TCP connections, and the calls of a
//! back end. gRPC is named nowhere else.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::future::try_join_all;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use tidemark_client::Numbers;
use tidemark_proto::over::Over;
use tidemark_proto::v1::devices_client::DevicesClient;
use tidemark_proto::v1::gateway_client::GatewayClient;
use tidemark_proto::v1::groups_client::GroupsClient;
use tidemark_proto::v1::mailboxes_client::MailboxesClient;
use tidemark_proto::v1::sequence_client::SequenceClient;
use tidemark_proto::{Failure, headers, v1};
use tidemark_types::limits::{
    FRAME_BYTES_MAX, GROUP_CHANGE_USERS_MAX, GROUP_MEMBERS_MAX, SERVER_FRAME_BYTES_MAX,
};
use tidemark_types::{DeviceId, GroupId, UserId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint};

use crate::gathering::GatheringConnector;

/// A gateway that does not answer in this time is not there.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes under way to a device, as the SDK has it.
const WINDOW_BYTES: u32 = 4 << 20;

/// Frames that wait to be written: two windows of sends, as in the SDK.
pub(crate) const OUTGOING_FRAMES: usize = 1_024;

/// Streams and calls that the gateway takes on one connection, less some that end and begin at once.
const STREAMS_MAX: usize = 250;

/// Connections to one gateway; a cheap handle.
#[derive(Clone)]
pub(crate) struct Gateway {
    channels: Arc<[Channel]>,
}

/// The unary calls of a back end, with its token; a cheap handle.
#[derive(Clone)]
pub(crate) struct Calls {
    gateway: Gateway,
    bearer: AsciiMetadataValue,
}

/// A device's stream.
pub(crate) struct Wire {
    /// None once this direction has ended.
    outgoing: Option<mpsc::Sender<v1::ClientFrame>>,
    incoming: BoxStream<'static, Result<v1::ServerFrame, Failure>>,
    /// The connection, where it is this stream's alone.
    _own: Option<Gateway>,
}

/// Frames to the gateway pile up, or the stream has ended.
pub(crate) struct Full;

impl Wire {
    /// A stream made of its two directions.
    pub(crate) fn new(
        outgoing: mpsc::Sender<v1::ClientFrame>,
        incoming: BoxStream<'static, Result<v1::ServerFrame, Failure>>,
    ) -> Self {
        Wire { outgoing: Some(outgoing), incoming, _own: None }
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
    /// Opens TCP connections to the gateway at `address`: so many, or more if it would not take
    /// `streams` on them.
    pub(crate) async fn connect(address: &str, connections: usize, streams: usize) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .with_context(|| format!("{address} is not host:port"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        let mut channels = Vec::new();
        for _ in 0..connections.max(streams.div_ceil(STREAMS_MAX)) {
            let connector = Over::new(Arc::new(GatheringConnector), address);
            let channel = endpoint.connect_with_connector(connector).await;
            channels.push(channel.with_context(|| format!("no gateway at {address}"))?);
        }
        Ok(Gateway { channels: channels.into() })
    }

    /// A stream on a TCP connection of its own.
    pub(crate) async fn open_alone(address: &str, hello: v1::Hello) -> Result<Wire> {
        let own = Gateway::connect(address, 1, 1).await?;
        Ok(Wire { _own: Some(own.clone()), ..own.open(0, hello).await? })
    }

    /// How many TCP connections there are.
    pub(crate) fn connections(&self) -> usize {
        self.channels.len()
    }

    /// The calls of a back end with this token.
    pub(crate) fn calls(&self, token: &str) -> Calls {
        let bearer = format!("{}{token}", headers::BEARER).parse();
        Calls { gateway: self.clone(), bearer: bearer.expect("tokens are visible ASCII") }
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

    /// Streams of allocations with this token, one on each connection.
    pub(crate) async fn numbers(&self, token: &str) -> Result<Vec<Numbers>, Failure> {
        let channels = self.channels.iter();
        try_join_all(channels.map(|channel| Numbers::open(channel.clone(), token))).await
    }

    fn channel(&self, turn: usize) -> Channel {
        self.channels[turn % self.channels.len()].clone()
    }
}

impl Calls {
    /// The head of a user's mailbox.
    pub(crate) async fn head(&self, turn: usize, user: &UserId) -> Result<u32, Failure> {
        let request = v1::HeadRequest { user: user.to_string() };
        let mut client = MailboxesClient::new(self.gateway.channel(turn));
        let answer = client.head(self.authorized(request)).await;
        Ok(answer.map_err(|status| Failure::from(&status))?.into_inner().head)
    }

    /// What the servers know to be confirmed by a device that is registered already.
    pub(crate) async fn cursor(
        &self,
        turn: usize,
        user: &UserId,
        device: &DeviceId,
    ) -> Result<u32, Failure> {
        let start = Some(v1::Start { at: v1::StartAt::Head.into(), last: 0 });
        let (user, device) = (user.to_string(), device.to_string());
        let request = v1::RegisterRequest { user, device, start, label: None };
        let mut client = DevicesClient::new(self.gateway.channel(turn));
        let answer = client.register(self.authorized(request)).await;
        Ok(answer.map_err(|status| Failure::from(&status))?.into_inner().cursor)
    }

    /// Makes a group of these users, the first of whom owns it.
    pub(crate) async fn make_group<'u>(
        &self,
        group: &GroupId,
        users: impl Iterator<Item = &'u UserId>,
    ) -> Result<(), Failure> {
        let users: Vec<String> = users.map(ToString::to_string).collect();
        let mut client = GroupsClient::new(self.gateway.channel(0));
        let request = v1::CreateGroupRequest {
            group: group.to_string(),
            owner: users[0].clone(),
            members_max: GROUP_MEMBERS_MAX,
            ..Default::default()
        };
        let made = client.create(self.authorized(request)).await;
        made.map_err(|status| Failure::from(&status))?;
        for users in users[1..].chunks(GROUP_CHANGE_USERS_MAX) {
            let (group, by) = (group.to_string(), String::new());
            let request = v1::AddMembersRequest { group, by, users: users.to_vec() };
            let added = client.add(self.authorized(request)).await;
            added.map_err(|status| Failure::from(&status))?;
        }
        Ok(())
    }

    /// Takes the next number of a counter.
    pub(crate) async fn allocate(&self, turn: usize, counter: &str) -> Result<u64, Failure> {
        let counter = counter.to_owned();
        let request = v1::AllocateRequest { counter, count: 1, ..Default::default() };
        let mut client = SequenceClient::new(self.gateway.channel(turn));
        let answer = client.allocate(self.authorized(request)).await;
        Ok(answer.map_err(|status| Failure::from(&status))?.into_inner().first)
    }

    /// The last number that was taken from a counter.
    pub(crate) async fn current(&self, turn: usize, counter: &str) -> Result<u64, Failure> {
        let request = v1::CurrentRequest { counter: counter.to_owned() };
        let mut client = SequenceClient::new(self.gateway.channel(turn));
        let answer = client.current(self.authorized(request)).await;
        Ok(answer.map_err(|status| Failure::from(&status))?.into_inner().last)
    }

    fn authorized<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(headers::AUTHORIZATION, self.bearer.clone());
        request
    }
}
