//! What a user has not read yet, counted when somebody asks: a counter that every message raised
//! would cost every message a write.
//!
//! ```text
//!   floor ······ from ─── counted, newest first, up to LOOK ───► head
//!                    read marks: what lies behind its conversation's counts
//! ```
//!
//! The answer says from where it counted; a message before that is not in it, read or not.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tidemark_mutants::{Mutant, is};
use tidemark_types::{Epoch, Recipient, Seq, SeqRange, UserId};

use crate::act::{Act, ActKind, Held, Marks};
use crate::group::{GroupEntry, GroupEvent};
use crate::key::MarksKey;
use crate::read;
use crate::slot;
use crate::storage::{Fatal, Read};
use crate::value::{Content, Entry, Mailbox};

/// How much of a mailbox is read for one answer, since one question must not keep a shard busy: as
/// many entries, and bytes of them.
const LOOK_ENTRIES: u32 = 4_096;
const LOOK_BYTES: usize = 8 << 20;

/// What a user has not read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unread {
    /// The epoch in which the seqs count.
    pub epoch: Epoch,
    /// Everything after this was looked at, up to `head`.
    pub from: Seq,
    /// The mailbox's head then.
    pub head: Seq,
    /// Every conversation of which a message was seen there.
    pub conversations: Vec<Conversation>,
}

/// How a user stands in one conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conversation {
    /// The other user, or the group.
    pub with: Recipient,
    /// Messages received and not read; none that was recalled.
    pub unread: u32,
    /// How far the user has come.
    pub marks: Marks,
}

/// Counts what a user has not read.
pub fn count(state: &dyn Read, user: &UserId) -> Result<Unread, Fatal> {
    let id = Recipient::User(user.clone());
    let Mailbox { epoch, floor, head, .. } = read::mailbox(state, &id)?;
    let mut count = Count { state, user, recalled: BTreeSet::new(), found: BTreeMap::new() };
    let mut from = floor.max(head.back(LOOK_ENTRIES));
    let mut bytes_left = LOOK_BYTES;
    for seq in SeqRange::missing(from, head).iter().flat_map(|range| range.iter().rev()) {
        let Some((entry, bytes)) = slot::entry(state, &id, seq)? else {
            return Err(Fatal::Corrupt(format!("mailbox {id}: entry {seq} is missing")));
        };
        let Some(left) = bytes_left.checked_sub(bytes) else {
            from = seq;
            break;
        };
        bytes_left = left;
        count.take(seq, entry)?;
    }
    let conversations = count.found.into_iter();
    let conversations =
        conversations.map(|(with, (marks, unread))| Conversation { with, unread, marks }).collect();
    Ok(Unread { epoch, from, head, conversations })
}

/// A count under way, which goes from the newest entry to older ones: a recall is met before its
/// message.
struct Count<'a> {
    state: &'a dyn Read,
    user: &'a UserId,
    recalled: BTreeSet<crate::value::Origin>,
    found: BTreeMap<Recipient, (Marks, u32)>,
}

impl Count<'_> {
    fn take(&mut self, seq: Seq, entry: Entry) -> Result<(), Fatal> {
        if let Some(Act { kind: ActKind::Recall, of }) = act_of(&entry) {
            self.recalled.insert(of.clone());
        }
        let Some(held) = Held::of(entry).filter(|held| held.origin.sender() != self.user) else {
            return Ok(());
        };
        let Some(with) = held.place.conversation() else { return Ok(()) };
        if !self.found.contains_key(&with) {
            let key = MarksKey { user: self.user.clone(), conversation: with.clone() };
            let marks = read::get(self.state, &key)?.unwrap_or_default();
            self.found.insert(with.clone(), (marks, 0));
        }
        let (marks, unread) = self.found.get_mut(&with).expect("it is there");
        let recalled = self.recalled.contains(&held.origin) && !is(Mutant::CountRecalled);
        *unread += u32::from(seq > marks.read && !recalled);
        Ok(())
    }
}

/// What the entry does about another one.
fn act_of(entry: &Entry) -> Option<&Act> {
    let message = match &entry.content {
        Content::Message { message, .. } => message,
        Content::Group(GroupEntry { event: GroupEvent::Message(message), .. }) => message,
        Content::Refused { .. } | Content::Group(_) => return None,
    };
    message.act.as_ref()
}
