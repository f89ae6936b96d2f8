//! The unary calls of a back end to a gateway. gRPC is named nowhere else here.

use std::time::Duration;

use anyhow::{Context, Result};
use tidemark_proto::v1::devices_client::DevicesClient;
use tidemark_proto::v1::mailboxes_client::MailboxesClient;
use tidemark_proto::v1::messages_client::MessagesClient;
use tidemark_proto::v1::settings_client::SettingsClient;
use tidemark_proto::{Failure, headers, v1};
use tidemark_types::limits::SERVER_FRAME_BYTES_MAX;
use tidemark_types::{ClientMsgId, DeviceId, Recipient, Seq, UserId};
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
    bearer: String,
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
        Ok(Wire { channel, bearer: format!("{}{token}", headers::BEARER) })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let bearer = self.bearer.parse().expect("tokens are visible ASCII");
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
            client_msg_id: bytes::Bytes::copy_from_slice(id.as_bytes()),
            to: to.iter().map(v1::Id::from).collect(),
            kind,
            body,
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
        let request = v1::RegisterRequest { user, device, start };
        let mut client = DevicesClient::new(self.channel.clone());
        let answer = client.register(self.request(request)).await;
        Ok(Seq::new(answer.map_err(|status| Failure::from(&status))?.into_inner().cursor))
    }

    /// From now on `user` refuses what `sender` sends.
    pub async fn block(&self, user: &UserId, sender: &UserId) -> Result<(), Failure> {
        let request = v1::BlockRequest { user: user.to_string(), sender: sender.to_string() };
        let mut client = SettingsClient::new(self.channel.clone());
        let answer = client.block(self.request(request)).await;
        answer.map(drop).map_err(|status| Failure::from(&status))
    }
}
