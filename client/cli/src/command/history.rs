//! `history`: a mailbox's entries, page after page, checked as a device would check them. It
//! confirms nothing.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use tidemark_proto::convert::{error_code, required, uuid};
use tidemark_proto::page::Page;
use tidemark_proto::v1::mailboxes_client::MailboxesClient;
use tidemark_proto::v1::{Entry, SyncRequest, entry};
use tidemark_proto::{FieldError, Origin};
use tidemark_token::Role;
use tidemark_types::{ClientMsgId, ErrorCode, Id, UserId};

use crate::error::Error;
use crate::gateways::Gateways;
use crate::outcome::Outcome;
use crate::output::{Output, date, plain};

/// Between two questions, when a page had nothing and there may be more all the same: a replica
/// that is behind answered, and its leader is being asked for.
const PAUSE: Duration = Duration::from_millis(100);

/// Prints the entries after a seq, up to `limit`, or all there are.
pub(crate) async fn run(
    user: &UserId,
    after: u32,
    limit: Option<u32>,
    gateways: &mut Gateways,
    output: Output,
) -> Result<(), Error> {
    let rpc = async |channel, request| MailboxesClient::new(channel).sync(request).await;
    let mut left = limit.unwrap_or(u32::MAX);
    let mut next =
        SyncRequest { user: user.to_string(), epoch: 0, seq_cli: after, limit: limit.unwrap_or(0) };
    let mut progress = gateways.clock.monotonic();
    loop {
        let answer = gateways.call(Role::Service, Outcome::of_read(), next.clone(), rpc).await?;
        let page = page(answer.page, next.seq_cli)?;
        if let Some(gap) = &page.gap {
            output.print(&Line::Gap { from: gap.first().get(), to: gap.last().get() })?;
        }
        for entry in page.page.entries.iter().take(left as usize) {
            output.print(&Line::new(entry).map_err(Error::bad_answer)?)?;
        }
        left = left.saturating_sub(page.last.since(page.prev));
        if left == 0 || !page.page.more {
            return Ok(());
        }
        let now = gateways.clock.monotonic();
        if page.last.get() > next.seq_cli {
            progress = now;
        } else if now - progress > gateways.deadline() {
            return Err(Error::Unavailable("there may be more, but nobody has it now".to_owned()));
        } else {
            tokio::time::sleep(PAUSE).await;
        }
        // From here on in this epoch: a mailbox that is restored meanwhile is another history.
        next.epoch = page.page.epoch;
        next.seq_cli = page.last.get();
        next.limit = limit.map_or(0, |_| left);
    }
}

/// The page after `seq`, whose parts agree with each other and with what was asked.
fn page(page: Option<tidemark_proto::v1::Page>, seq: u32) -> Result<Page, Error> {
    let page = required("page", page).and_then(Page::try_from).map_err(Error::bad_answer)?;
    let begins = page.gap.as_ref().map_or(page.prev.get(), |gap| gap.first().get() - 1);
    match begins == seq {
        true => Ok(page),
        false => Err(Error::bad_answer(format!("it begins after {begins} instead of {seq}"))),
    }
}

/// One line of a history.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line {
    /// A message, received or sent.
    Message {
        #[serde(flatten)]
        place: Place,
        #[serde(skip_serializing_if = "String::is_empty")]
        device: String,
        sent_ms: u64,
        /// In the sender's own copy.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        to: Vec<String>,
        /// A group.
        #[serde(skip_serializing_if = "Option::is_none")]
        conversation: Option<String>,
        kind: u32,
        #[serde(flatten)]
        body: Body,
    },
    /// A recipient did not get a message of this mailbox's owner.
    Refused {
        #[serde(flatten)]
        place: Place,
        recipient: String,
        code: &'static str,
    },
    /// A content that this version does not know.
    Unknown {
        #[serde(flatten)]
        place: Place,
    },
    /// Entries that retention has removed, both ends included.
    Gap { from: u32, to: u32 },
}

/// Where an entry stands, and which send it comes from.
#[derive(Serialize)]
struct Place {
    seq: u32,
    time_ms: u64,
    sender: String,
    /// Of a device's send: its session and number there.
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<u64>,
    /// Of a message, and of whatever comes from a back end's send.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_msg_id: Option<String>,
}

/// A body: text where it is, else bytes.
#[derive(Serialize)]
enum Body {
    #[serde(rename = "body")]
    Text(String),
    #[serde(rename = "body_base64", serialize_with = "base64")]
    Bytes(Vec<u8>),
}

fn base64<S: serde::Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&STANDARD.encode(bytes))
}

impl Line {
    fn new(entry: &Entry) -> Result<Self, FieldError> {
        let place = Place::new(entry)?;
        let name = |id| Id::try_from(id).map(|id| id.to_string());
        Ok(match &entry.content {
            None => Line::Unknown { place },
            Some(entry::Content::Refused(refused)) => Line::Refused {
                place,
                recipient: name(required("refused.recipient", refused.recipient.as_ref())?)?,
                code: ErrorCode::name(error_code(refused.code)),
            },
            Some(entry::Content::Message(message)) => Line::Message {
                place: place.of(uuid("client_msg_id", &message.client_msg_id)?),
                device: message.device.clone(),
                sent_ms: message.sent_ms,
                to: message.to.iter().map(name).collect::<Result<_, _>>()?,
                conversation: message.conversation.as_ref().map(name).transpose()?,
                kind: message.kind,
                body: match String::from_utf8(message.body.to_vec()) {
                    Ok(text) => Body::Text(text),
                    Err(error) => Body::Bytes(error.into_bytes()),
                },
            },
        })
    }
}

impl Place {
    fn new(entry: &Entry) -> Result<Self, FieldError> {
        let origin = Origin::try_from(required("origin", entry.origin.as_ref())?)?;
        let (session, n, id) = match &origin {
            Origin::Session { session, n, .. } => (Some(session.get()), Some(*n), None),
            Origin::Backend { id, .. } => (None, None, Some(id.to_string())),
        };
        let sender = origin.sender().to_string();
        Ok(Place { seq: entry.seq, time_ms: entry.time_ms, sender, session, n, client_msg_id: id })
    }

    /// The same place, of the message with this id.
    fn of(self, id: ClientMsgId) -> Self {
        Place { client_msg_id: Some(id.to_string()), ..self }
    }

    /// Which send an entry without a message is about.
    fn send(&self) -> String {
        match (self.session, self.n, &self.client_msg_id) {
            (Some(session), Some(n), _) => format!("session {session}, n {n}"),
            (_, _, Some(id)) => format!("id {id}"),
            _ => String::new(),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Message { place, to, conversation, kind, body, .. } => {
                write!(f, "{place}  {}", plain(&place.sender))?;
                if !to.is_empty() {
                    write!(f, " to {}", plain(&to.join(", ")))?;
                } else if let Some(group) = conversation {
                    write!(f, " in {}", plain(group))?;
                }
                if *kind != 0 {
                    write!(f, " [kind {kind}]")?;
                }
                match body {
                    Body::Text(text) => write!(f, ": {}", plain(text)),
                    Body::Bytes(bytes) => write!(f, ": {}", bytes.escape_ascii()),
                }
            }
            Line::Refused { place, recipient, code } => {
                write!(f, "{place}  refused by {}: {code} ({})", plain(recipient), place.send())
            }
            Line::Unknown { place } => {
                write!(f, "{place}  {}: (newer than this program)", plain(&place.sender))
            }
            Line::Gap { from, to } => write!(f, "{from} to {to} were removed by retention"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>6}  {}", self.seq, date(self.time_ms))
    }
}
