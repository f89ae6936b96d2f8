//! Sends: what a gateway can say of one without asking anybody.
//!
//! A session send that names its session and number can be answered under that number, so whatever
//! else is wrong with it becomes its verdict (R2): [`Send::judged`] holds it, and the content's
//! hash beside it, by which a retry with other content is noticed. A send that does not name them
//! is INVALID, and nothing can be stored for it.

use std::collections::BTreeSet;

use bytes::Bytes;
use tidemark_types::limits::{BODY_BYTES_MAX, RECIPIENTS_MAX};
use tidemark_types::{ClientMsgId, ContentHash, Recipient, SessionId, UserId};

use crate::convert::{self, FieldError, Reason};
use crate::v1;

/// A session send that can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    /// Its session.
    pub session: SessionId,
    /// Its number there, from 1.
    pub n: u64,
    /// The lowest number without an acknowledgement, from 1.
    pub base: u64,
    /// The hash of what the device asked for, legal or not.
    pub content: ContentHash,
    /// The message, or why it is refused for good; the error's code is the verdict.
    pub judged: Result<Draft, FieldError>,
}

/// A back end's send, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendSend {
    /// In whose name.
    pub sender: UserId,
    /// The hash of what the back end asked for.
    pub content: ContentHash,
    /// The message; its id is the key beside the sender.
    pub draft: Draft,
}

/// A message that is within all limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// 1 to 256 users, each once, or one group.
    pub to: Vec<Recipient>,
    /// The application's kind.
    pub kind: u32,
    /// The application's name for it.
    pub client_msg_id: ClientMsgId,
    /// The application's bytes.
    pub body: Bytes,
}

impl TryFrom<v1::Send> for Send {
    type Error = FieldError;
    fn try_from(send: v1::Send) -> Result<Self, FieldError> {
        checked_send(send).map_err(|error| error.within("send"))
    }
}

fn checked_send(send: v1::Send) -> Result<Send, FieldError> {
    let session = convert::session("session", send.session)?;
    let n = convert::at_least_1("n", send.n)?;
    let base = convert::at_least_1("base", send.base)?;
    let client_msg_id = convert::uuid("client_msg_id", &send.client_msg_id)?;
    let content = content(&send.to, send.kind, &send.body);
    let judged = validate(&send.to, &send.body)
        .map(|to| Draft { to, kind: send.kind, client_msg_id, body: send.body })
        .map_err(|error| error.within("send"));
    Ok(Send { session, n, base, content, judged })
}

impl TryFrom<v1::SendRequest> for BackendSend {
    type Error = FieldError;
    fn try_from(send: v1::SendRequest) -> Result<Self, FieldError> {
        Ok(BackendSend {
            sender: convert::name("sender", &send.sender)?,
            content: content(&send.to, send.kind, &send.body),
            draft: Draft {
                client_msg_id: convert::uuid("client_msg_id", &send.client_msg_id)?,
                to: validate(&send.to, &send.body)?,
                kind: send.kind,
                body: send.body,
            },
        })
    }
}

/// Is this a content that can be sent? Gives the recipients, each once.
///
/// An SDK calls it before it numbers a send, so that what can be refused here never takes a number.
/// A content with several faults always gets the same code, the first of: too many recipients, bad
/// recipient, body too large.
pub fn validate(to: &[v1::Id], body: &[u8]) -> Result<Vec<Recipient>, FieldError> {
    let to = recipients(to)?;
    if body.len() > BODY_BYTES_MAX {
        return Err(FieldError::new("body", Reason::BodyTooLarge { bytes: body.len() }));
    }
    Ok(to)
}

fn recipients(to: &[v1::Id]) -> Result<Vec<Recipient>, FieldError> {
    match to.len() {
        0 => return Err(FieldError::new("to", Reason::NoRecipient)),
        1..=RECIPIENTS_MAX => {}
        count => return Err(FieldError::new("to", Reason::TooManyRecipients { count })),
    }
    let mut seen = BTreeSet::new();
    let mut recipients = Vec::with_capacity(to.len());
    for (at, id) in to.iter().enumerate() {
        let field = || format!("to[{at}]");
        let recipient = Recipient::try_from(id).map_err(|error| error.within(field()))?;
        if matches!(recipient, Recipient::Group(_)) && to.len() > 1 {
            return Err(FieldError::new(field(), Reason::GroupNotAlone));
        }
        if seen.insert(recipient.clone()) {
            recipients.push(recipient);
        }
    }
    Ok(recipients)
}

fn content(to: &[v1::Id], kind: u32, body: &[u8]) -> ContentHash {
    let parts = to.iter().map(|id| (id.kind, id.name.as_str()));
    ContentHash::of_parts(parts, kind, body)
}
