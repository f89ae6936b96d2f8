//! `send`: one message without a session, under an id that is told before anything is sent.

use std::fmt;
use std::io::{self, Read};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tidemark_proto::convert::{bytes_of, error_code};
use tidemark_proto::v1::messages_client::MessagesClient;
use tidemark_proto::v1::{
    self, MessageStatus, MessagesStatusRequest, RecipientStatus, SendRequest, SendResponse, Stage,
};
use tidemark_proto::{Failure, Origin, send};
use tidemark_token::Role;
use tidemark_types::limits::BODY_BYTES_MAX;
use tidemark_types::{ClientMsgId, ErrorCode, Recipient, UserId};

use crate::arguments::{Send, Wait};
use crate::error::Error;
use crate::gateways::Gateways;
use crate::outcome::Outcome;
use crate::output::{Output, plain, row, table};

/// Between two questions whether a message was delivered: most are within the first.
const POLL: Duration = Duration::from_millis(100);

/// Sends, and waits as long as it was asked to.
pub(crate) async fn run(send: Send, gateways: &mut Gateways, output: Output) -> Result<(), Error> {
    let outcome = if send.id.is_some() { Outcome::of_repetition() } else { Outcome::of_change() };
    let id = send.id.unwrap_or_else(|| new_id(gateways));
    let (from, wait) = (send.from.clone(), send.wait);
    let request = request(send, id)?;
    let accepted = accepted(request, id, outcome, gateways, output).await?;
    let recipients = match wait {
        Wait::Accepted => Vec::new(),
        Wait::Delivered => {
            let delivered = delivered(from, id, &accepted, gateways).await;
            delivered.map_err(|error| with_id(error, id))?
        }
    };
    let SendResponse { seq, time_ms } = accepted;
    let refusal = recipients.iter().find_map(|recipient| recipient.refusal.clone());
    let printed = output.print(&Sent { id: id.to_string(), seq, time_ms, recipients });
    // Whoever cannot read the answer must not take the message for one that was not sent.
    let told = |error| Error::Unknown { reason: format!("accepted, but {error}"), id: Some(id) };
    printed.map_err(told)?;
    refusal.map_or(Ok(()), |refusal| Err(Error::Refused(refusal)))
}

/// Tells the id, then sends.
pub(super) async fn accepted(
    request: SendRequest,
    id: ClientMsgId,
    outcome: Outcome,
    gateways: &mut Gateways,
    output: Output,
) -> Result<SendResponse, Error> {
    announce(id, output)?;
    let rpc = async |channel, request| MessagesClient::new(channel).send(request).await;
    let accepted = gateways.call(Role::Service, outcome, request, rpc).await;
    accepted.map_err(|error| with_id(error, id))
}

/// Tells an id, before anything is done under it.
pub(super) fn announce(id: ClientMsgId, output: Output) -> Result<(), Error> {
    let announced = output.note(&Announced { id: id.to_string() });
    announced.map_err(|error| Error::Usage(format!("the id cannot be told: {error}")))
}

/// Under which id an unknown outcome can be repeated.
pub(super) fn with_id(error: Error, id: ClientMsgId) -> Error {
    match error {
        Error::Unknown { reason, .. } => Error::Unknown { reason, id: Some(id) },
        other => other,
    }
}

pub(super) fn new_id(gateways: &Gateways) -> ClientMsgId {
    let mut random = [0; 10];
    gateways.rng.fill(&mut random);
    ClientMsgId::new(gateways.clock.wall(), random)
}

fn request(send: Send, id: ClientMsgId) -> Result<SendRequest, Error> {
    let users = send.to.into_iter().map(Recipient::User);
    let to = users.chain(send.group.map(Recipient::Group));
    let to: Vec<v1::Id> = to.map(|recipient| v1::Id::from(&recipient)).collect();
    let body = body_of(send.text)?;
    send::validate(&to, &body)?;
    Ok(SendRequest {
        sender: send.from.to_string(),
        client_msg_id: bytes_of(id.as_bytes()),
        to,
        kind: send.kind,
        body: Bytes::from(body),
        about: None,
    })
}

/// What the command line says, else standard input.
pub(super) fn body_of(text: Option<String>) -> io::Result<Vec<u8>> {
    match text {
        Some(text) => Ok(text.into_bytes()),
        None => standard_input(),
    }
}

/// Standard input to its end, or just beyond what a body may have.
fn standard_input() -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    io::stdin().lock().take(BODY_BYTES_MAX as u64 + 1).read_to_end(&mut body)?;
    Ok(body)
}

/// Asks until each recipient has its outcome. The message was accepted, so whatever fails here
/// leaves only the delivery unknown, and the same command asks again.
async fn delivered(
    sender: UserId,
    id: ClientMsgId,
    accepted: &SendResponse,
    gateways: &mut Gateways,
) -> Result<Vec<Delivery>, Error> {
    let ends = gateways.clock.monotonic().saturating_add(gateways.deadline());
    let request =
        MessagesStatusRequest { origin: Some(v1::Origin::from(&Origin::Backend { sender, id })) };
    let rpc = async |channel, request| MessagesClient::new(channel).status(request).await;
    let unknown = |reason: &dyn fmt::Display| {
        Error::unknown(format!("accepted with seq {}, but {reason}", accepted.seq))
    };
    loop {
        let answer = gateways.call(Role::Service, Outcome::of_read(), request.clone(), rpc).await;
        let status = answer.map_err(|error| unknown(&error))?.status.unwrap_or_default();
        if let Some(deliveries) = settled(&status).map_err(|error| unknown(&error))? {
            return Ok(deliveries);
        }
        if gateways.clock.monotonic() >= ends {
            return Err(unknown(&format_args!("not delivered to: {}", missing(&status))));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// How each recipient got it, once each has its outcome.
fn settled(status: &MessageStatus) -> Result<Option<Vec<Delivery>>, Error> {
    let all = status.recipients.iter().all(|recipient| is_settled(recipient.stage()));
    if !all || status.recipients.is_empty() {
        return Ok(None);
    }
    status.recipients.iter().map(Delivery::new).collect::<Result<_, _>>().map(Some)
}

fn is_settled(stage: Stage) -> bool {
    match stage {
        Stage::Unspecified | Stage::Accepted => false,
        Stage::Delivered | Stage::Confirmed | Stage::Read | Stage::Refused => true,
    }
}

fn missing(status: &MessageStatus) -> String {
    let open = status.recipients.iter().filter(|recipient| !is_settled(recipient.stage()));
    let names = open.filter_map(|open| Some(plain(&open.recipient.as_ref()?.name)));
    names.collect::<Vec<_>>().join(", ")
}

/// The id, told while nothing has happened: whatever becomes of this process, it is known.
#[derive(Serialize)]
struct Announced {
    id: String,
}

impl fmt::Display for Announced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "id {}", self.id)
    }
}

/// An accepted message.
#[derive(Serialize)]
struct Sent {
    id: String,
    /// In the sender's own mailbox; 0 for a send to a group.
    seq: u32,
    time_ms: u64,
    /// With `--wait delivered`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    recipients: Vec<Delivery>,
}

/// How one recipient got it.
#[derive(Serialize)]
struct Delivery {
    recipient: String,
    stage: &'static str,
    /// In the recipient's mailbox, 0 when it is not known.
    seq: u32,
    /// With stage REFUSED: why.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip)]
    refusal: Option<Failure>,
}

impl Delivery {
    fn new(status: &RecipientStatus) -> Result<Self, Error> {
        let recipient = status.recipient.as_ref().ok_or_else(|| Error::bad_answer("nobody"))?;
        let recipient = Recipient::try_from(recipient).map_err(Error::bad_answer)?.to_string();
        let stage = status.stage();
        let code = (stage == Stage::Refused).then(|| error_code(status.refused));
        let refusal = |code: ErrorCode| {
            let meaning = code.meaning().trim();
            Failure::new(code).message(format!("accepted, but not by {recipient}: {meaning}"))
        };
        Ok(Delivery {
            stage: stage.as_str_name().trim_start_matches("STAGE_"),
            seq: status.seq,
            code: code.map(ErrorCode::name),
            refusal: code.map(refusal),
            recipient,
        })
    }
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seq {
            0 => write!(f, "accepted")?,
            seq => write!(f, "accepted, seq {seq}")?,
        }
        if self.recipients.is_empty() {
            return Ok(());
        }
        let rows = self.recipients.iter().map(|to| {
            let detail = match (to.code, to.seq) {
                (Some(code), _) => code.to_owned(),
                (None, 0) => String::new(),
                (None, seq) => format!("seq {seq}"),
            };
            row([&plain(&to.recipient), &to.stage.to_lowercase(), &detail])
        });
        write!(f, "\n{}", table(rows))
    }
}
