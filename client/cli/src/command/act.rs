//! `mark`, `recall`, `edit`: sends about messages that are there; `unread`: what a user has not read.

use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use tidemark_proto::convert::bytes_of;
use tidemark_proto::send;
use tidemark_proto::v1::mailboxes_client::MailboxesClient;
use tidemark_proto::v1::{
    About, ActKind, HeadRequest, SendRequest, UnreadConversation, UnreadRequest,
};
use tidemark_token::Role;
use tidemark_types::{ClientMsgId, Recipient, UserId};

use super::send::{accepted, body_of, new_id};
use crate::arguments::{Edit, Mark, MarkKind, Named};
use crate::error::Error;
use crate::gateways::Gateways;
use crate::outcome::Outcome;
use crate::output::{Output, plain, row, table};

/// Marks a conversation up to a message.
pub(crate) async fn mark(mark: Mark, gateways: &mut Gateways, output: Output) -> Result<(), Error> {
    let kind = match mark.kind {
        MarkKind::Delivered => ActKind::Delivered,
        MarkKind::Read => ActKind::Read,
    };
    act(mark.message, kind, 0, Vec::new(), gateways, output).await
}

/// Takes a message back.
pub(crate) async fn recall(
    message: Named,
    gateways: &mut Gateways,
    output: Output,
) -> Result<(), Error> {
    act(message, ActKind::Recall, 0, Vec::new(), gateways, output).await
}

/// Gives a message another body.
pub(crate) async fn edit(edit: Edit, gateways: &mut Gateways, output: Output) -> Result<(), Error> {
    let body = body_of(edit.text)?;
    act(edit.message, ActKind::Edit, edit.kind, body, gateways, output).await
}

/// Prints what a user has not read.
pub(crate) async fn unread(
    user: &UserId,
    gateways: &mut Gateways,
    output: Output,
) -> Result<(), Error> {
    let request = UnreadRequest { user: user.to_string() };
    let rpc = async |channel, request| MailboxesClient::new(channel).unread(request).await;
    let answer = gateways.call(Role::Service, Outcome::of_read(), request, rpc).await?;
    let counts = answer.counts.unwrap_or_default();
    let conversations = counts.conversations.iter().map(Conversation::new);
    output.print(&Unread {
        user: user.to_string(),
        unread: counts.unread,
        from: counts.from,
        head: counts.head,
        conversations: conversations.collect::<Result<_, _>>()?,
    })?;
    Ok(())
}

async fn act(
    Named { user, seq, id }: Named,
    kind: ActKind,
    message_kind: u32,
    body: Vec<u8>,
    gateways: &mut Gateways,
    output: Output,
) -> Result<(), Error> {
    let outcome = if id.is_some() { Outcome::of_repetition() } else { Outcome::of_change() };
    let id = id.unwrap_or_else(|| new_id(gateways));
    let head = HeadRequest { user: user.to_string() };
    let rpc = async |channel, request| MailboxesClient::new(channel).head(request).await;
    let epoch = gateways.call(Role::Service, Outcome::of_read(), head, rpc).await?.epoch;
    let about = About { kind: kind.into(), epoch, seq };
    send::validate_act(&about, &body)?;
    let request = SendRequest {
        sender: user.to_string(),
        client_msg_id: bytes_of(id.as_bytes()),
        kind: message_kind,
        body: Bytes::from(body),
        about: Some(about),
        ..SendRequest::default()
    };
    let accepted = accepted(request, id, outcome, gateways, output).await?;
    let told = Acted { id: id.to_string(), seq: accepted.seq, time_ms: accepted.time_ms };
    output.print(&told).map_err(|error| unread_answer(&error, id))
}

/// Whoever cannot read the answer must not take the act for one that was not sent.
fn unread_answer(error: &dyn fmt::Display, id: ClientMsgId) -> Error {
    Error::Unknown { reason: format!("accepted, but {error}"), id: Some(id) }
}

/// An accepted act.
#[derive(Serialize)]
struct Acted {
    id: String,
    /// In the user's own mailbox; 0 in a group, and for a mark that said nothing new.
    seq: u32,
    time_ms: u64,
}

impl fmt::Display for Acted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seq {
            0 => write!(f, "accepted"),
            seq => write!(f, "accepted, seq {seq}"),
        }
    }
}

/// What a user has not read.
#[derive(Serialize)]
struct Unread {
    user: String,
    unread: u32,
    /// Only what comes after this seq was counted.
    from: u32,
    head: u32,
    conversations: Vec<Conversation>,
}

/// How the user stands in one conversation.
#[derive(Serialize)]
struct Conversation {
    conversation: String,
    unread: u32,
    delivered_seq: u32,
    read_seq: u32,
}

impl Conversation {
    fn new(it: &UnreadConversation) -> Result<Self, Error> {
        let with = it.conversation.as_ref().ok_or_else(|| Error::bad_answer("nobody"))?;
        let with = Recipient::try_from(with).map_err(Error::bad_answer)?;
        Ok(Conversation {
            conversation: with.to_string(),
            unread: it.unread,
            delivered_seq: it.delivered_seq,
            read_seq: it.read_seq,
        })
    }
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unread { unread, from, head, conversations, .. } = self;
        write!(f, "{unread} unread among seq {} to {head}", from.saturating_add(1))?;
        if conversations.is_empty() {
            return Ok(());
        }
        let head = row([&"CONVERSATION", &"UNREAD", &"DELIVERED", &"READ"]);
        let rows = conversations
            .iter()
            .map(|it| row([&plain(&it.conversation), &it.unread, &it.delivered_seq, &it.read_seq]));
        write!(f, "\n{}", table(std::iter::once(head).chain(rows)))
    }
}
