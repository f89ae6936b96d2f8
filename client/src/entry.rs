//! Entries of a mailbox as an application gets them: checked where this version knows them, and
//! whole where it does not.

use std::sync::Arc;

use bytes::Bytes;
use tidemark_proto::convert::{FieldError, at_least_1, error_code, name, required, uuid};
use tidemark_proto::{Origin, v1};
use tidemark_types::limits::NAME_BYTES_MAX;
use tidemark_types::{
    ClientMsgId, DeviceId, Epoch, ErrorCode, GroupId, Id, Recipient, Seq, SeqRange, UnixMs,
};

use crate::act::{Act, ActKind};

/// What an entry costs in memory beside its body and its recipients: names, numbers.
const OVERHEAD_BYTES: usize = 256;
const RECIPIENT_BYTES: usize = size_of::<Recipient>() + NAME_BYTES_MAX;

/// One entry of the user's mailbox.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The epoch in which `seq` counts.
    pub epoch: Epoch,
    /// Its number: 1, 2, 3 and so on, without a hole.
    pub seq: Seq,
    /// When it was appended, by the cluster's time; never goes back within a mailbox.
    pub time: UnixMs,
    /// Which send it comes from; unique together with a refusal's recipient. None in an entry that
    /// this version cannot read.
    pub origin: Option<Origin>,
    /// What it says.
    pub content: Content,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// A message, received, or sent by one of the user's own devices.
    Message(Message),
    /// A recipient's side refused a message of this user, after it was accepted.
    Refused {
        /// Who did not get it.
        recipient: Recipient,
        /// Why.
        code: ErrorCode,
    },
    /// A group changed. It stands at the same place among the group's messages for all members.
    Group(GroupChange),
    /// Somebody did something about a message that is there already.
    Act(Act),
    /// Something that this version does not know. It counts as any other entry.
    Unknown(Box<v1::Entry>),
}

/// A message; its sender stands in the entry's origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The sender's device; none when a back end sent it.
    pub device: Option<DeviceId>,
    /// The sender's application's name for it.
    pub client_msg_id: ClientMsgId,
    /// When it was accepted, by the cluster's time.
    pub sent: UnixMs,
    /// The recipients; only in the sender's own copy.
    pub to: Vec<Recipient>,
    /// The conversation, when it is a group.
    pub conversation: Option<Id>,
    /// Its number in the group's log; the messages and changes of a group come in this order.
    pub group_seq: Option<Seq>,
    /// The application's kind of message.
    pub kind: u32,
    /// The application's bytes.
    pub body: Bytes,
}

/// A change of a group; who made it stands in the entry's origin.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupChange {
    /// Which group.
    pub group: GroupId,
    /// Its number in the group's log.
    pub group_seq: Seq,
    /// What changed.
    pub change: v1::group_change::Change,
}

/// What the application is given, in the order of seqs.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// An entry.
    Entry(Arc<Entry>),
    /// Entries that retention removed before this device had them.
    Gap(SeqRange),
}

impl Item {
    /// The cursor of a device whose application has taken it.
    pub fn last(&self) -> Seq {
        match self {
            Item::Entry(entry) => entry.seq,
            Item::Gap(gap) => gap.last(),
        }
    }

    /// About how much memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        OVERHEAD_BYTES
            + match self {
                Item::Gap(_) => 0,
                Item::Entry(entry) => match &entry.content {
                    Content::Message(message) | Content::Act(Act { message, .. }) => {
                        message.body.len() + message.to.len() * RECIPIENT_BYTES
                    }
                    Content::Refused { .. } => 0,
                    Content::Group(change) => group_change_bytes(&change.change),
                    Content::Unknown(raw) => prost::Message::encoded_len(raw.as_ref()),
                },
            }
    }
}

impl Entry {
    /// The entry of this frame. It never fails: what cannot be read is [`Content::Unknown`], since
    /// an entry that is passed over would be a hole.
    pub fn read(epoch: Epoch, mut raw: v1::Entry) -> Entry {
        let (seq, time) = (Seq::new(raw.seq), UnixMs::new(raw.time_ms));
        match parts(&mut raw) {
            Ok((origin, content)) => Entry { epoch, seq, time, origin: Some(origin), content },
            Err(error) => {
                tracing::warn!(%seq, %error, "an entry that this version cannot read");
                let content = Content::Unknown(Box::new(raw));
                Entry { epoch, seq, time, origin: None, content }
            }
        }
    }
}

/// Takes a body only when all else can be read.
fn parts(raw: &mut v1::Entry) -> Result<(Origin, Content), FieldError> {
    let origin = Origin::try_from(required("origin", raw.origin.as_ref())?)?;
    let content = match required("content", raw.content.as_mut())? {
        v1::entry::Content::Message(message) => Content::Message(checked_message(message)?),
        v1::entry::Content::GroupChange(change) => Content::Group(checked_change(change)?),
        v1::entry::Content::Act(act) => Content::Act(checked_act(act)?),
        v1::entry::Content::Refused(refused) => Content::Refused {
            recipient: Recipient::try_from(required("recipient", refused.recipient.as_ref())?)?,
            code: error_code(refused.code),
        },
    };
    Ok((origin, content))
}

/// An act of a kind that this version does not know is no act that it can show.
fn checked_act(act: &mut v1::Act) -> Result<Act, FieldError> {
    let kind = ActKind::try_from(act.kind).ok().filter(|kind| *kind != ActKind::Unspecified);
    Ok(Act {
        kind: required("kind", kind)?,
        of: Origin::try_from(required("of", act.of.as_ref())?)?,
        message: checked_message(required("message", act.message.as_mut())?)?,
    })
}

fn checked_change(change: &v1::GroupChange) -> Result<GroupChange, FieldError> {
    at_least_1("group_seq", change.group_seq.into())?;
    Ok(GroupChange {
        group: name("group", &change.group)?,
        group_seq: Seq::new(change.group_seq),
        change: required("change", change.change.clone())?,
    })
}

fn group_change_bytes(change: &v1::group_change::Change) -> usize {
    use v1::group_change::Change;
    match change {
        Change::Created(v1::GroupCreated { members: users })
        | Change::Joined(v1::GroupJoined { users })
        | Change::Left(v1::GroupLeft { users }) => users.len() * RECIPIENT_BYTES,
        Change::RoleSet(_) | Change::PolicySet(_) | Change::Deleted(_) => 0,
    }
}

fn checked_message(message: &mut v1::Message) -> Result<Message, FieldError> {
    let device = Some(message.device.as_str()).filter(|device| !device.is_empty());
    Ok(Message {
        device: device.map(|device| name("device", device)).transpose()?,
        client_msg_id: uuid("client_msg_id", &message.client_msg_id)?,
        sent: UnixMs::new(message.sent_ms),
        to: message.to.iter().map(Recipient::try_from).collect::<Result<_, _>>()?,
        conversation: message.conversation.as_ref().map(Id::try_from).transpose()?,
        group_seq: Some(Seq::new(message.group_seq)).filter(|seq| *seq != Seq::NONE),
        kind: message.kind,
        body: std::mem::take(&mut message.body).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> Option<v1::Id> {
        Some(v1::Id { kind: 1, name: name.to_owned() })
    }

    fn origin() -> Option<v1::Origin> {
        let send = v1::SessionSend { session: 1, n: 1 };
        let key = Some(v1::origin::Key::SessionSend(send));
        Some(v1::Origin { sender: "alice".to_owned(), key })
    }

    fn message() -> v1::Message {
        let client_msg_id = "0192f5a0-1234-7abc-8def-0123456789ab".parse::<ClientMsgId>();
        v1::Message {
            client_msg_id: client_msg_id.expect("version 7").as_bytes().to_vec(),
            conversation: id("bob"),
            body: b"hello".to_vec(),
            ..v1::Message::default()
        }
    }

    fn act() -> v1::Act {
        v1::Act { kind: v1::ActKind::Edit.into(), of: origin(), message: Some(message()) }
    }

    #[test]
    fn what_cannot_be_read_is_kept_whole() {
        let entry =
            |origin, content| v1::Entry { seq: 1, time_ms: 1, origin, content: Some(content) };
        let sent = |origin, message| entry(origin, v1::entry::Content::Message(message));
        let edited = |act| entry(origin(), v1::entry::Content::Act(act));
        for whole in [sent(origin(), message()), edited(act())] {
            let read = Entry::read(Epoch::new(1), whole.clone()).content;
            let (Content::Message(message) | Content::Act(Act { message, .. })) = read else {
                panic!("{whole:?} can be read");
            };
            assert_eq!(message.body, "hello");
        }
        for spoilt in [
            sent(None, message()),
            sent(origin(), v1::Message { device: "x".repeat(65), ..message() }),
            sent(origin(), v1::Message { client_msg_id: vec![1], ..message() }),
            sent(origin(), v1::Message { to: vec![v1::Id::default()], ..message() }),
            sent(origin(), v1::Message { conversation: id(""), ..message() }),
            edited(v1::Act { kind: 99, ..act() }),
            edited(v1::Act { of: None, ..act() }),
        ] {
            let read = Entry::read(Epoch::new(1), spoilt.clone()).content;
            assert_eq!(read, Content::Unknown(Box::new(spoilt)));
        }
    }
}
