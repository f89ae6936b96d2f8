//! Acts: what a user does about messages that are there already. They are sent as messages are,
//! under a number of a session or a back end's id, and lie in mailboxes as entries of their own.
//!
//! ```text
//!   asked:  Asked { kind, epoch, seq }   the message's place in the asker's own mailbox
//!     │ judged against the entry there: whose is it, how old, of which conversation
//!     ▼
//!   told:   Act { kind, of: Origin }     the same in every copy; each reader knows the message by it
//! ```
//!
//! A mailbox is a log: no act changes an entry. A recall and an edit are entries behind the message,
//! and whoever shows it obeys them.

use serde::{Deserialize, Serialize};
use tidemark_types::{Epoch, Recipient, Seq, UnixMs, UserId};

use crate::group::{GroupEntry, GroupEvent};
use crate::read;
use crate::slot;
use crate::storage::{Fatal, Read};
use crate::value::{Content, Entry, Mailbox, Message, Origin, Outgoing};

/// What is done about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ActKind {
    /// A device has it, and all before it in the conversation.
    Delivered,
    /// It was read, as all before it in the conversation.
    Read,
    /// Its sender takes it back.
    Recall,
    /// Its sender gives it another body.
    Edit,
}

impl ActKind {
    /// Does it say how far somebody has come?
    pub fn is_mark(self) -> bool {
        match self {
            ActKind::Delivered | ActKind::Read => true,
            ActKind::Recall | ActKind::Edit => false,
        }
    }
}

/// What a user asks for: the message is named by its place in that user's own mailbox, which is
/// found without a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// What is to be done.
    pub kind: ActKind,
    /// The epoch in which `seq` counts: after a restore the number may be another message's.
    pub epoch: Epoch,
    /// The message.
    pub seq: Seq,
}

/// What was done, as every copy says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    /// What.
    pub kind: ActKind,
    /// Which message it is about.
    pub of: Origin,
}

/// How far a user has come in one conversation, in the seqs of the user's own mailbox. They never
/// go back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// A device of the user has everything up to here.
    pub delivered: Seq,
    /// The user has read everything up to here; never above `delivered`.
    pub read: Seq,
}

/// A message as one mailbox holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Which one.
    pub origin: Origin,
    /// When its sender's shard accepted it.
    pub sent: UnixMs,
    /// The application's kind.
    pub kind: u32,
    /// What it is to the mailbox's owner.
    pub place: Place,
}

/// What a message is to the owner of the mailbox that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The owner sent it there; to nobody, if it was dropped.
    Sent(Outgoing),
    /// Another user sent it to the owner.
    From(UserId),
    /// It was sent to a group of the owner's.
    InGroup(Recipient),
}

impl Place {
    /// The conversation that it is part of, as far as a message that was received is part of one.
    pub fn conversation(&self) -> Option<Recipient> {
        match self {
            Place::Sent(_) => None,
            Place::From(user) => Some(Recipient::User(user.clone())),
            Place::InGroup(group) => Some(group.clone()),
        }
    }
}

impl Held {
    /// The message of an entry; none, if it is something else.
    pub fn of(entry: Entry) -> Option<Held> {
        let Entry { origin, content, .. } = entry;
        let (message, place) = match content {
            Content::Message { message, outgoing: Some(outgoing) } => {
                (message, Place::Sent(outgoing))
            }
            Content::Message { message, outgoing: None } => {
                (message, Place::From(origin.sender().clone()))
            }
            Content::Group(GroupEntry { group, event: GroupEvent::Message(message), .. }) => {
                (message, Place::InGroup(Recipient::Group(group)))
            }
            Content::Refused { .. } | Content::Group(_) => return None,
        };
        let Message { sent, kind, act, .. } = message;
        match act {
            None => Some(Held { origin, sent, kind, place }),
            Some(_) => None,
        }
    }

    /// Whom its sender sent it to; nobody, if `user` is not the sender or it was dropped.
    pub fn recipients(&self, user: &UserId) -> &[Recipient] {
        match &self.place {
            Place::Sent(outgoing) if outgoing.dropped => &[],
            Place::Sent(outgoing) => &outgoing.to,
            Place::InGroup(group) if self.origin.sender() == user => std::slice::from_ref(group),
            Place::InGroup(_) | Place::From(_) => &[],
        }
    }
}

/// The message that a user means, if it is there and no retention has removed it.
pub fn held(state: &dyn Read, user: &UserId, asked: Asked) -> Result<Option<Held>, Fatal> {
    let id = Recipient::User(user.clone());
    let Mailbox { epoch, floor, head, .. } = read::mailbox(state, &id)?;
    if asked.epoch != epoch || asked.seq <= floor || asked.seq > head {
        return Ok(None);
    }
    let entry = slot::entry(state, &id, asked.seq)?;
    Ok(entry.and_then(|(entry, _)| Held::of(entry)))
}

/// Where an act will go, so that a leader can see whether there is room (R7).
pub fn destinations(
    state: &dyn Read,
    user: &UserId,
    asked: Asked,
) -> Result<Vec<Recipient>, Fatal> {
    let Some(held) = held(state, user, asked)? else { return Ok(Vec::new()) };
    Ok(match asked.kind {
        ActKind::Recall | ActKind::Edit => held.recipients(user).to_vec(),
        ActKind::Delivered | ActKind::Read => match held.place {
            Place::From(sender) => vec![Recipient::User(sender)],
            Place::Sent(_) | Place::InGroup(_) => Vec::new(),
        },
    })
}
