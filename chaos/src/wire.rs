//! The calls of a back end to a gateway. gRPC is named nowhere else here.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tidemark_client::Numbers;
use tidemark_proto::convert::bytes_of;
use tidemark_proto::v1::devices_client::DevicesClient;
use tidemark_proto::v1::mailboxes_client::MailboxesClient;
use tidemark_proto::v1::messages_client::MessagesClient;
use tidemark_proto::v1::sequence_client::SequenceClient;
use tidemark_proto::v1::settings_client::SettingsClient;
use tidemark_proto::{Failure, headers, v1};
use tidemark_types::limits::SERVER_FRAME_BYTES_MAX;
use tidemark_types::{ClientMsgId, DeviceId, ErrorCode, Recipient, Seq, UserId};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

/// A gateway that does not answer in this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A call takes no longer: its outcome is unknown then.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A back end's way to one gateway; a cheap handle, which connects when it must.
#[derive(Clone)]
pub struct Wire {
    channel: Channel,
    token: String,
    /// The stream of allocations, once it was needed.
    numbers: Arc<Mutex<Option<Numbers>>>,
}

impl Wire {
    /// To the gateway at `address`, with this token.
    pub fn new(address: &str, token: &str) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"));
        let endpoint = endpoint.with_context(|| format!("{address} is not host:port"))?;
        let channel = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CALL_TIMEOUT)
            // A gateway that was cut off or paused is not waited for.
            .http2_keep_alive_interval(CONNECT_TIMEOUT)
            .keep_alive_timeout(CONNECT_TIMEOUT)
            .connect_lazy();
        Ok(Wire { channel, token: token.to_owned(), numbers: Arc::default() })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let bearer = format!("{}{}", headers::BEARER, self.token);
        let bearer = bearer.parse().expect("tokens are visible ASCII");
        request.metadata_mut().insert(headers::AUTHORIZATION, bearer);
        request
    }

    /// Sends a message in a user's name; its seq in the sender's mailbox.
    pub async fn send(
        &self,
        sender: &UserId,
        id: ClientMsgId,
        to: &[Recipient],
        kind: u32,
        body: bytes::Bytes,
    ) -> Result<Seq, Failure> {
        let request = v1::SendRequest {
            sender: sender.to_string(),
            client_msg_id: bytes_of(id.as_bytes()),
            to: to.iter().map(v1::Id::from).collect(),
            kind,
            body,
            about: None,
        };
        let mut client = MessagesClient::new(self.channel.clone());
        let answer = client.send(self.request(request)).await;
        let answer = answer.map_err(|status| Failure::from(&status))?;
        Ok(Seq::new(answer.into_inner().seq))
    }

    /// The head of a user's mailbox.
    pub async fn head(&self, user: &UserId) -> Result<Seq, Failure> {
        let request = v1::HeadRequest { user: user.to_string() };
        let mut client = MailboxesClient::new(self.channel.clone());
        let answer = client.head(self.request(request)).await;
        Ok(Seq::new(answer.map_err(|status| Failure::from(&status))?.into_inner().head))
    }

    /// A page of a user's mailbox, of what comes after a seq.
    pub async fn page(&self, user: &UserId, after: Seq) -> Result<v1::Page, Failure> {
        let (user, seq_cli) = (user.to_string(), after.get());
        let request = v1::SyncRequest { user, epoch: 0, seq_cli, limit: 0 };
        let client = MailboxesClient::new(self.channel.clone());
        let mut client = client.max_decoding_message_size(SERVER_FRAME_BYTES_MAX);
        let answer = client.sync(self.request(request)).await;
        let page = answer.map_err(|status| Failure::from(&status))?.into_inner().page;
        Ok(page.unwrap_or_default())
    }

    /// What the servers know to be confirmed by a device that is registered already.
    pub async fn cursor(&self, user: &UserId, device: &DeviceId) -> Result<Seq, Failure> {
        let start = Some(v1::Start { at: v1::StartAt::Head.into(), last: 0 });
        let (user, device) = (user.to_string(), device.to_string());
        let request = v1::RegisterRequest { user, device, start, label: None };
        let mut client = DevicesClient::new(self.channel.clone());
        let answer = client.register(self.request(request)).await;
        Ok(Seq::new(answer.map_err(|status| Failure::from(&status))?.into_inner().cursor))
    }

    /// The next number of a counter, by a call of its own.
    pub async fn number(&self, counter: &str) -> Result<u64, Failure> {
        let counter = counter.to_owned();
        let request = v1::AllocateRequest { counter, count: 1, ..Default::default() };
        let mut client = SequenceClient::new(self.channel.clone());
        let answer = client.allocate(self.request(request)).await;
        Ok(answer.map_err(|status| Failure::from(&status))?.into_inner().first)
    }

    /// The next number of a counter, over the stream that all share, opened again when it has ended.
    pub async fn number_on_stream(&self, counter: &str) -> Result<u64, Failure> {
        let answer =
            timeout(CALL_TIMEOUT, async { self.stream().await?.next(counter).await }).await;
        answer.unwrap_or_else(|_| Err(Failure::new(ErrorCode::Unknown)))
    }

    async fn stream(&self) -> Result<Numbers, Failure> {
        let mut numbers = self.numbers.lock().await;
        if let Some(open) = numbers.as_ref().filter(|numbers| numbers.is_open()) {
            return Ok(open.clone());
        }
        let opened = Numbers::open(self.channel.clone(), &self.token).await?;
        Ok(numbers.insert(opened).clone())
    }

    /// The last number that was taken from a counter.
    pub async fn last_number(&self, counter: &str) -> Result<u64, Failure> {
        let request = v1::CurrentRequest { counter: counter.to_owned() };
        let mut client = SequenceClient::new(self.channel.clone());
        let answer = client.current(self.request(request)).await;
        Ok(answer.map_err(|status| Failure::from(&status))?.into_inner().last)
    }

    /// From now on `user` refuses what `sender` sends.
    pub async fn block(&self, user: &UserId, sender: &UserId) -> Result<(), Failure> {
        let request = v1::BlockRequest { user: user.to_string(), sender: sender.to_string() };
        let mut client = SettingsClient::new(self.channel.clone());
        let answer = client.block(self.request(request)).await;
        answer.map(drop).map_err(|status| Failure::from(&status))
    }
}
