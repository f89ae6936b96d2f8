//! One line for each entry of a mailbox, in text or JSON, and for what is missing.
//!
//! It refuses no entry: what this version cannot read is a line that says so.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use tidemark_client::{Act, ActKind, Content, Entry, GroupChange, Message};
use tidemark_proto::Origin;
use tidemark_types::SeqRange;

use crate::change::Change;
use crate::output::{date, plain};

/// One line of a mailbox.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Line {
    /// A message, received or sent.
    Message {
        #[serde(flatten)]
        place: Place,
        #[serde(skip_serializing_if = "Option::is_none")]
        device: Option<String>,
        sent_ms: u64,
        /// In the sender's own copy.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        to: Vec<String>,
        /// A group.
        #[serde(skip_serializing_if = "Option::is_none")]
        conversation: Option<String>,
        /// Its number in the group's log.
        #[serde(skip_serializing_if = "Option::is_none")]
        group_seq: Option<u32>,
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
    /// A group changed.
    Group {
        #[serde(flatten)]
        place: Place,
        group: String,
        group_seq: u32,
        #[serde(flatten)]
        change: Change,
    },
    /// Somebody did something about a message that is there.
    Act {
        #[serde(flatten)]
        place: Place,
        act: &'static str,
        of: Of,
        #[serde(skip_serializing_if = "Option::is_none")]
        device: Option<String>,
        sent_ms: u64,
        /// In the sender's own copy.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        to: Vec<String>,
        /// A group.
        #[serde(skip_serializing_if = "Option::is_none")]
        conversation: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        group_seq: Option<u32>,
        /// The message's.
        kind: u32,
        /// Of an edit: the new one.
        #[serde(flatten)]
        body: Option<Body>,
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
pub(crate) struct Place {
    seq: u32,
    time_ms: u64,
    /// None in what this version cannot read at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    sender: Option<String>,
    /// Of a device's send: its session and number there.
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<u64>,
    /// Of a message, and of whatever comes from a back end's send.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_msg_id: Option<String>,
}

/// The message that an act is about.
#[derive(Serialize)]
pub(crate) struct Of {
    sender: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_msg_id: Option<String>,
}

impl From<&Origin> for Of {
    fn from(origin: &Origin) -> Self {
        let (session, n, client_msg_id) = key(origin);
        Of { sender: origin.sender().to_string(), session, n, client_msg_id }
    }
}

/// A send's key beside its sender: session and n, or an id.
fn key(origin: &Origin) -> (Option<u64>, Option<u64>, Option<String>) {
    match origin {
        Origin::Session { session, n, .. } => (Some(session.get()), Some(*n), None),
        Origin::Backend { id, .. } => (None, None, Some(id.to_string())),
        Origin::Group { .. } => (None, None, None),
    }
}

/// A body: text where it is, else bytes.
#[derive(Serialize)]
pub(crate) enum Body {
    #[serde(rename = "body")]
    Text(String),
    #[serde(rename = "body_base64", serialize_with = "base64")]
    Bytes(Vec<u8>),
}

impl From<&Message> for Body {
    fn from(message: &Message) -> Self {
        match String::from_utf8(message.body.to_vec()) {
            Ok(text) => Body::Text(text),
            Err(error) => Body::Bytes(error.into_bytes()),
        }
    }
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Body::Text(text) => write!(f, "{}", plain(text)),
            Body::Bytes(bytes) => write!(f, "{}", bytes.escape_ascii()),
        }
    }
}

fn base64<S: serde::Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&STANDARD.encode(bytes))
}

impl From<&Entry> for Line {
    fn from(entry: &Entry) -> Self {
        let place = Place::from(entry);
        match &entry.content {
            Content::Unknown(_) => Line::Unknown { place },
            Content::Refused { recipient, code } => {
                Line::Refused { place, recipient: recipient.to_string(), code: code.name() }
            }
            Content::Message(message) => Line::message(place, message),
            Content::Act(act) => Line::act(place, act),
            Content::Group(GroupChange { group, group_seq, change }) => Line::Group {
                place,
                group: group.to_string(),
                group_seq: group_seq.get(),
                change: Change::from(change),
            },
        }
    }
}

impl From<SeqRange> for Line {
    fn from(gap: SeqRange) -> Self {
        Line::Gap { from: gap.first().get(), to: gap.last().get() }
    }
}

impl Line {
    fn message(place: Place, message: &Message) -> Self {
        Line::Message {
            place: Place { client_msg_id: Some(message.client_msg_id.to_string()), ..place },
            device: message.device.as_ref().map(ToString::to_string),
            sent_ms: message.sent.get(),
            to: message.to.iter().map(ToString::to_string).collect(),
            conversation: message.conversation.as_ref().map(ToString::to_string),
            group_seq: message.group_seq.map(|seq| seq.get()),
            kind: message.kind,
            body: Body::from(message),
        }
    }

    fn act(place: Place, Act { kind, of, message }: &Act) -> Self {
        Line::Act {
            place: Place { client_msg_id: Some(message.client_msg_id.to_string()), ..place },
            act: match kind {
                ActKind::Delivered => "delivered",
                ActKind::Read => "read",
                ActKind::Recall => "recall",
                ActKind::Edit => "edit",
                ActKind::Unspecified => "unknown",
            },
            of: Of::from(of),
            device: message.device.as_ref().map(ToString::to_string),
            sent_ms: message.sent.get(),
            to: message.to.iter().map(ToString::to_string).collect(),
            conversation: message.conversation.as_ref().map(ToString::to_string),
            group_seq: message.group_seq.map(|seq| seq.get()),
            kind: message.kind,
            body: (*kind == ActKind::Edit).then(|| Body::from(message)),
        }
    }
}

impl From<&Entry> for Place {
    fn from(entry: &Entry) -> Self {
        // Where the content cannot be read, the origin often can.
        let origin = match &entry.content {
            Content::Unknown(raw) => raw.origin.as_ref().and_then(|it| Origin::try_from(it).ok()),
            Content::Message(_) | Content::Act(_) | Content::Refused { .. } | Content::Group(_) => {
                entry.origin.clone()
            }
        };
        let (session, n, client_msg_id) = origin.as_ref().map(key).unwrap_or_default();
        let sender = origin.map(|origin| origin.sender().to_string());
        let (seq, time_ms) = (entry.seq.get(), entry.time.get());
        Place { seq, time_ms, sender, session, n, client_msg_id }
    }
}

impl Place {
    fn sender(&self) -> &str {
        self.sender.as_deref().unwrap_or("somebody")
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
                write!(f, "{place}  {}", plain(place.sender()))?;
                if !to.is_empty() {
                    write!(f, " to {}", plain(&to.join(", ")))?;
                } else if let Some(group) = conversation {
                    write!(f, " in {}", plain(group))?;
                }
                if *kind != 0 {
                    write!(f, " [kind {kind}]")?;
                }
                write!(f, ": {body}")
            }
            Line::Act { place, act, of, conversation, body, .. } => {
                let (sender, of) = (plain(place.sender()), of.to_string());
                write!(f, "{place}  {sender}: {act} of {of}")?;
                if let Some(group) = conversation {
                    write!(f, " in {}", plain(group))?;
                }
                body.iter().try_for_each(|body| write!(f, ": {body}"))
            }
            Line::Refused { place, recipient, code } => {
                write!(f, "{place}  refused by {}: {code} ({})", plain(recipient), place.send())
            }
            Line::Group { place, group, change, .. } => {
                let sender = plain(place.sender());
                write!(f, "{place}  {sender} in {}: {change}", plain(group))
            }
            Line::Unknown { place } => {
                write!(f, "{place}  {}: (newer than this program)", plain(place.sender()))
            }
            Line::Gap { from, to } => write!(f, "{from} to {to} were removed by retention"),
        }
    }
}

impl fmt::Display for Of {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sender = plain(&self.sender);
        match (self.session, self.n, &self.client_msg_id) {
            (Some(session), Some(n), _) => write!(f, "{sender}'s session {session}, n {n}"),
            (_, _, Some(id)) => write!(f, "{sender}'s id {id}"),
            _ => write!(f, "{sender}"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>6}  {}", self.seq, date(self.time_ms))
    }
}
