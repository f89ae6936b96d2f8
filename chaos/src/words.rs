//! The system's words in the history's: users by number, messages by what stands in their bodies.

use anyhow::{Context, Result};
use bytes::{BufMut, Bytes, BytesMut};
use tidemark_checker::history::{Copy, Origin, User};
use tidemark_client as client;
use tidemark_proto as proto;
use tidemark_store_core::value;
use tidemark_types::{ClientMsgId, Recipient, UserId};
use xxhash_rust::xxh3::Xxh3;

/// The kind of every message.
pub const KIND: u32 = 1;

/// Bytes of a message's id, which its body begins with.
const ID_BYTES: usize = 16;

/// The name of a user.
pub fn name(user: User) -> UserId {
    UserId::new(format!("user-{}", user.0)).expect("a legal name")
}

/// The user of this name.
pub fn user(name: &UserId) -> Result<User> {
    let number = name.as_str().strip_prefix("user-").and_then(|number| number.parse().ok());
    number.map(User).with_context(|| format!("{name} is nobody of this run"))
}

/// A body of so many bytes, but for the id in front of them.
pub fn body(id: u128, bytes: usize) -> Bytes {
    let mut body = BytesMut::with_capacity(ID_BYTES + bytes);
    body.put_u128(id);
    body.extend(id.to_le_bytes().iter().cycle().take(bytes));
    body.freeze()
}

/// What a message's kind and body say, in one number.
pub fn content(kind: u32, body: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&kind.to_le_bytes());
    hash.update(body);
    hash.digest()
}

/// A back end's id, which its messages' bodies begin with.
fn number(id: &ClientMsgId) -> u128 {
    u128::from_be_bytes(*id.as_bytes())
}

/// The id that a body begins with.
pub fn id(body: &[u8]) -> Result<u128> {
    let id = body.first_chunk::<ID_BYTES>().context("a body is too short for an id")?;
    Ok(u128::from_be_bytes(*id))
}

fn recipient(recipient: &Recipient) -> Result<User> {
    match recipient {
        Recipient::User(name) => user(name),
        Recipient::Group(_) => anyhow::bail!("there are no groups in this run"),
    }
}

/// What a device was given.
pub fn taken(entry: &client::Entry) -> Result<Copy> {
    let (sender, origin, key) = match entry.origin.as_ref().context("an entry without an origin")? {
        proto::Origin::Session { sender, session, n } => {
            (user(sender)?, Origin::Session { session: session.get(), n: *n }, None)
        }
        proto::Origin::Backend { sender, id } => (user(sender)?, Origin::Backend, Some(number(id))),
        proto::Origin::Group { .. } => anyhow::bail!("there are no groups in this run"),
    };
    match &entry.content {
        client::Content::Message(message) => Ok(Copy::Message {
            sender,
            origin,
            id: id(&message.body)?,
            content: content(message.kind, &message.body),
        }),
        client::Content::Refused { recipient: to, code } => {
            Ok(Copy::Refusal { sender, origin, id: key, recipient: recipient(to)?, code: *code })
        }
        client::Content::Act(_) => anyhow::bail!("there are no acts in this run"),
        client::Content::Group(_) => anyhow::bail!("there are no groups in this run"),
        client::Content::Unknown(entry) => anyhow::bail!("an unknown entry: {entry:?}"),
    }
}

/// What a store holds.
pub fn held(entry: &value::Entry) -> Result<Copy> {
    let (sender, origin, key) = match &entry.origin {
        value::Origin::Session { sender, session, n } => {
            (user(sender)?, Origin::Session { session: session.get(), n: *n }, None)
        }
        value::Origin::Backend { sender, id } => (user(sender)?, Origin::Backend, Some(number(id))),
        value::Origin::Group { .. } => anyhow::bail!("there are no groups in this run"),
    };
    match &entry.content {
        value::Content::Message { message, .. } => Ok(Copy::Message {
            sender,
            origin,
            id: id(&message.body)?,
            content: content(message.kind, &message.body),
        }),
        value::Content::Refused { recipient: to, code } => {
            Ok(Copy::Refusal { sender, origin, id: key, recipient: recipient(to)?, code: *code })
        }
        value::Content::Group(_) => anyhow::bail!("there are no groups in this run"),
    }
}
