//! What became of a message, as the sender's shard knows it.
//!
//! Best effort, but for what it says was accepted. The seq of the sender's own copy stands in the
//! stored acknowledgement; without one (the device has had it, or its time is over) the newest part
//! of the mailbox is searched. Refusals are looked for behind the copy, where they were appended.
//!
//! ```text
//!   floor ········ own copy ─── refusals (R6), up to LOOK ───► head
//!         ◄─── LOOK, where no acknowledgement is stored ─────┘
//! ```
//!
//! A send to a group has no copy of its own: the copy that the group gives its sender says that the
//! group took it, and a refusal by the group that it did not (R10).
//!
//! It tells a sender no more than the sender's mailbox does: a message that was dropped because
//! its recipient refuses silently counts as delivered, and so does one that the gateway's verdict
//! dropped, which has no record for other shards.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};
use tidemark_types::{ErrorCode, Recipient, Seq, SeqRange, ShardId, UnixMs};

use crate::group::{GroupEntry, GroupEvent};
use crate::key::{AckKey, EntryKey, Key, KeyBytes, SentKey, after};
use crate::read;
use crate::slot::{self, Slot};
use crate::storage::{Fatal, Read};
use crate::value::{Content, Entry, Mailbox, Origin, OutSeq, Outgoing, Value, Verdict};

/// How much of a mailbox is read to find a message or its refusals, since one question must not
/// keep a shard busy: as many entries, and bytes of them.
const LOOK_ENTRIES: u32 = 4_096;
const LOOK_BYTES: usize = 8 << 20;

/// What became of an accepted message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageStatus {
    /// Its seq in the sender's own mailbox; none if it went to a group that has not taken it yet.
    pub seq: Seq,
    /// Log time of the acceptance; of the refusal, where a group refused it and no acknowledgement
    /// is stored any more.
    pub time: UnixMs,
    /// How far it has come at each recipient; empty when the sender's copy is no longer kept, or
    /// has not come yet from a group.
    pub recipients: Vec<(Recipient, Stage)>,
}

/// How far a message has come at one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// The recipient will have an outcome.
    Accepted,
    /// The recipient's shard has taken it: into the mailbox, or the group's log.
    Delivered,
    /// It was refused, for good.
    Refused(ErrorCode),
}

/// What is known of a send; none if it was not accepted, or cannot be found any more.
pub fn message(state: &dyn Read, origin: &Origin) -> Result<Option<MessageStatus>, Fatal> {
    let own = Own::of(state, origin)?;
    let found = match stored_verdict(state, origin)? {
        Some(Verdict::Accepted { seq: Seq::NONE, time }) => {
            let nothing = Found { seq: Seq::NONE, time, told: None };
            let found = own.search()?.unwrap_or(nothing);
            Some(Found { time, ..found })
        }
        Some(Verdict::Accepted { seq, time }) => Some(Found { seq, time, told: own.copy(seq)? }),
        Some(Verdict::Refused(_)) => None,
        None => own.search()?,
    };
    let Some(Found { seq, time, told }) = found else { return Ok(None) };
    let recipients = match told {
        Some(Told::Copy(outgoing)) => own.stages(outgoing, &own.refusals(seq)?)?,
        Some(Told::ByGroup(group, stage, _)) => vec![(group, stage)],
        None => Vec::new(),
    };
    Ok(Some(MessageStatus { seq, time, recipients }))
}

/// What was found of a message.
struct Found {
    seq: Seq,
    time: UnixMs,
    told: Option<Told>,
}

impl Found {
    /// An entry that tells of the message, appended at this time.
    fn at(seq: Seq, appended: UnixMs, told: Told) -> Self {
        let (seq, time) = match &told {
            Told::Copy(_) => (seq, appended),
            Told::ByGroup(_, Stage::Refused(_), _) => (Seq::NONE, appended),
            Told::ByGroup(_, _, sent) => (seq, sent.unwrap_or(appended)),
        };
        Found { seq, time, told: Some(told) }
    }
}

/// What an entry of its sender's mailbox tells of a message.
enum Told {
    /// It is the sender's copy, and says where the message went.
    Copy(Outgoing),
    /// It comes from the group that the message was sent to: how far it has come there, and when it
    /// was accepted, if that is known.
    ByGroup(Recipient, Stage, Option<UnixMs>),
}

fn stored_verdict(state: &dyn Read, origin: &Origin) -> Result<Option<Verdict>, Fatal> {
    let ack = match origin.clone() {
        Origin::Session { sender: user, session, n } => {
            read::get(state, &AckKey { user, session, n })?
        }
        Origin::Backend { sender, id } => {
            read::get(state, &SentKey { id, sender })?.map(|sent| sent.ack)
        }
        Origin::Group { .. } => None,
    };
    Ok(ack.map(|ack| ack.verdict))
}

/// The mailbox of a message's sender.
struct Own<'a> {
    state: &'a dyn Read,
    origin: &'a Origin,
    id: Recipient,
    mailbox: Mailbox,
}

impl<'a> Own<'a> {
    fn of(state: &'a dyn Read, origin: &'a Origin) -> Result<Self, Fatal> {
        let id = Recipient::User(origin.sender().clone());
        let mailbox = read::mailbox(state, &id)?;
        Ok(Own { state, origin, id, mailbox })
    }

    fn key(&self, seq: Seq) -> KeyBytes {
        EntryKey { mailbox: self.id.clone(), seq }.encode()
    }

    /// What the sender's copy tells, if the entry at `seq` is still kept.
    fn copy(&self, seq: Seq) -> Result<Option<Told>, Fatal> {
        if seq <= self.mailbox.floor {
            return Ok(None);
        }
        let entry = slot::entry(self.state, &self.id, seq)?;
        Ok(entry.and_then(|(entry, _)| self.told(entry)))
    }

    /// What an entry tells of the message by itself: the sender's copy (a message to self has no
    /// other one), or what its group made of it.
    fn told(&self, entry: Entry) -> Option<Told> {
        if entry.origin != *self.origin {
            return None;
        }
        match entry.content {
            Content::Message { outgoing, .. } => outgoing.map(Told::Copy),
            Content::Group(GroupEntry { group, event: GroupEvent::Message(message), .. }) => {
                let group = Recipient::Group(group);
                Some(Told::ByGroup(group, Stage::Delivered, Some(message.sent)))
            }
            Content::Refused { recipient: group @ Recipient::Group(_), code } => {
                Some(Told::ByGroup(group, Stage::Refused(code), None))
            }
            Content::Refused { .. } | Content::Group(_) => None,
        }
    }

    /// The message among the newest entries, newest first.
    fn search(&self) -> Result<Option<Found>, Fatal> {
        let Mailbox { floor, head, .. } = self.mailbox;
        let look = SeqRange::missing(floor.max(head.back(LOOK_ENTRIES)), head);
        let mut bytes_left = LOOK_BYTES;
        for seq in look.iter().flat_map(|range| range.iter().rev()) {
            let Some((entry, bytes)) = slot::entry(self.state, &self.id, seq)? else {
                return Err(Fatal::Corrupt(format!("mailbox {}: entry {seq} is missing", self.id)));
            };
            let appended = entry.time;
            if let Some(told) = self.told(entry) {
                return Ok(Some(Found::at(seq, appended, told)));
            }
            let Some(left) = bytes_left.checked_sub(bytes) else { break };
            bytes_left = left;
        }
        Ok(None)
    }

    /// Who refused the message at `seq`, as told in the entries after it.
    fn refusals(&self, seq: Seq) -> Result<BTreeMap<Recipient, ErrorCode>, Fatal> {
        let mut refusals = BTreeMap::new();
        let (mut entries_left, mut bytes_left) = (LOOK_ENTRIES, LOOK_BYTES);
        let mut broken = None;
        let mut visit = |_: &[u8], value: &[u8]| {
            match Slot::decode(value) {
                Ok(Slot::Own(Entry {
                    origin,
                    content: Content::Refused { recipient, code },
                    ..
                })) if origin == *self.origin => {
                    refusals.insert(recipient, code);
                }
                Ok(_) => {}
                Err(error) => broken = Some(error),
            }
            entries_left -= 1;
            bytes_left = bytes_left.saturating_sub(value.len());
            match broken.is_some() || entries_left == 0 || bytes_left == 0 {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        let (from, to) = (after(&self.key(seq)), after(&self.key(self.mailbox.head)));
        self.state.scan(&from, &to, &mut visit)?;
        match broken {
            Some(error) => Err(error.into()),
            None => Ok(refusals),
        }
    }

    fn stages(
        &self,
        outgoing: Outgoing,
        refusals: &BTreeMap<Recipient, ErrorCode>,
    ) -> Result<Vec<(Recipient, Stage)>, Fatal> {
        let shard = read::shard(self.state)?;
        let shards = shard.ok_or_else(|| Fatal::Corrupt("entries before Init".to_owned()))?.shards;
        let records: BTreeMap<ShardId, OutSeq> = outgoing.records.into_iter().collect();
        let mut stages = Vec::with_capacity(outgoing.to.len());
        for to in outgoing.to {
            let stage = match refusals.get(&to) {
                Some(code) => Stage::Refused(*code),
                None => {
                    let lives_on = shards.shard_of(&to.id());
                    self.stage(lives_on, records.get(&lives_on).copied())?
                }
            };
            stages.push((to, stage));
        }
        Ok(stages)
    }

    /// Without a record the recipient lives in the sender's shard, and was served in the same
    /// apply, or the message was dropped. Another shard has taken what it acknowledged (R4), and it was not refused once
    /// everything is here that the shard had sent back by then.
    fn stage(&self, shard: ShardId, record: Option<OutSeq>) -> Result<Stage, Fatal> {
        let Some(out_seq) = record else { return Ok(Stage::Delivered) };
        let outbound = read::outbound(self.state, shard)?;
        let heard = read::inbound(self.state, shard)?.in_seq >= outbound.returns;
        Ok(if out_seq <= outbound.trim && heard { Stage::Delivered } else { Stage::Accepted })
    }
}
