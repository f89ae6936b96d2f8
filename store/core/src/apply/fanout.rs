//! The fan-out of a group's log: each entry to those who were members at its seq, in the order of
//! the log (R10).
//!
//! ```text
//!   append ──► log ──► portion ──► mailboxes here, one record per other shard of theirs
//!                        ▲  │
//!          FanOut ───────┘  └── more: a mark, and the effect that makes the leader propose FanOut
//! ```
//!
//! Most groups are given an entry in the apply that appends it. A large one is given it in portions,
//! each in a command of its own, so that it does not keep its shard busy. The position is in the
//! state: whoever leads next goes on from there.
//!
//! Invariant: entries are given one after the other, each to the end, so all members see one order.
//! The log keeps what was not given yet.

use std::collections::BTreeMap;

use bytes::Bytes;
use tidemark_types::{ErrorCode, GroupId, Id, Recipient, Seq, ShardId, UserId};

use super::mailbox::Open;
use super::members::Roll;
use super::{deliver, share};
use crate::group::{FanOut, Group, GroupEntry, GroupEvent, Waiting};
use crate::key::{GroupKey, WaitingKey};
use crate::reply::{Effect, Reply};
use crate::slot;
use crate::storage::Fatal;
use crate::transaction::{Step, Stop};
use crate::value::{Content, Entry, Origin, Payload, Shard, Value};

/// A group of so many members is given an entry at once: what a shard does without a pause.
const AT_ONCE_MEMBERS: u32 = 512;

/// Members of a larger one whom one command gives an entry, at least, in whole buckets: few, since all who are
/// told of it work without a pause; not fewer, since each portion is a commit here and one in its members' shard.
/// One bucket of a group that is nearly full is enough. Where entries wait behind it, the leader's commands give
/// it to as many as at once.
const PORTION_MEMBERS: u32 = 96;

/// Entries of a log that may wait to be given. Beyond it an append gives the oldest one to the end
/// itself: relayed messages cannot be refused for lack of room, and the log must keep what waits.
const BACKLOG_ENTRIES_MAX: u32 = 1_024;

/// A group being worked on; [`Self::save`] writes it.
pub(super) struct Work {
    /// Which one.
    pub(super) id: GroupId,
    /// Its value.
    pub(super) group: Group,
    /// Its members.
    pub(super) roll: Roll,
    /// Its log.
    log: Open,
    stored: Option<Group>,
}

impl Work {
    /// A group that is there, or was.
    pub(super) fn of(step: &Step<'_>, id: &GroupId) -> Result<Option<Self>, Fatal> {
        let Some(group) = step.get(&GroupKey { group: id.clone() })? else { return Ok(None) };
        Self::on(step, id, group.clone(), Some(group)).map(Some)
    }

    /// A new group.
    pub(super) fn new(step: &Step<'_>, id: &GroupId, group: Group) -> Result<Self, Fatal> {
        Self::on(step, id, group, None)
    }

    fn on(
        step: &Step<'_>,
        id: &GroupId,
        group: Group,
        stored: Option<Group>,
    ) -> Result<Self, Fatal> {
        let log = Open::at(step, Recipient::Group(id.clone()))?;
        Ok(Work { id: id.clone(), group, roll: Roll::of(id), log, stored })
    }

    /// The seq that the log's next entry would get, or why there can be none.
    pub(super) fn vacancy(&self) -> Result<Seq, ErrorCode> {
        self.log.vacancy()
    }

    /// Appends an entry to the log, under the seq of [`Self::vacancy`], and gives what is due.
    pub(super) fn append(
        &mut self,
        step: &mut Step<'_>,
        shard: &mut Shard,
        origin: Origin,
        event: GroupEvent,
    ) -> Result<Result<Seq, ErrorCode>, Fatal> {
        let seq = match self.vacancy() {
            Ok(seq) => seq,
            Err(code) => return Ok(Err(code)),
        };
        let entry = GroupEntry { group: self.id.clone(), seq, event };
        let entry = Entry { time: shard.time, origin, content: Content::Group(entry) };
        let waits_from = self.group.giving().unwrap_or(seq);
        let oldest = seq.back(shard.settings.mailbox_entries_max).min(waits_from.back(1));
        let bytes = entry.encode_chunked();
        self.log.append_above(step, oldest, &bytes, None)?.expect("there is a vacancy");
        self.group.fan_out.get_or_insert_with(|| FanOut::giving(seq));
        let newest = Newest { seq, entry: &entry, bytes: &bytes };
        self.portion(step, shard, Some(&newest))?;
        if seq.since(waits_from) > BACKLOG_ENTRIES_MAX {
            self.finish_oldest(step, shard)?;
        }
        Ok(Ok(seq))
    }

    /// Do entries wait behind the one that is given?
    fn is_behind(&self) -> bool {
        self.group.giving().is_some_and(|seq| seq < self.log.value.head)
    }

    /// Gives the oldest entry that waits to the end.
    fn finish_oldest(&mut self, step: &mut Step<'_>, shard: &mut Shard) -> Result<(), Fatal> {
        let oldest = self.group.giving();
        while oldest.is_some() && self.group.giving() == oldest {
            self.portion(step, shard, None)?;
        }
        Ok(())
    }

    /// Gives what is due to about as many members as one command may.
    fn portion(
        &mut self,
        step: &mut Step<'_>,
        shard: &mut Shard,
        newest: Option<&Newest<'_>>,
    ) -> Result<(), Fatal> {
        // A group that is deleted has no members any more, but its entries still go to all it had.
        let is_large = self.group.deleted || self.group.members > AT_ONCE_MEMBERS;
        let hurries = newest.is_none() && self.is_behind();
        let mut left = if is_large && !hurries { PORTION_MEMBERS } else { AT_ONCE_MEMBERS };
        while left > 0 {
            match self.group.fan_out.clone() {
                Some(FanOut::Giving { seq, buckets, open }) => {
                    let stored;
                    let entry = match newest {
                        Some(newest) if newest.seq == seq => newest.entry,
                        _ => {
                            stored = self.entry(step, seq)?;
                            &stored
                        }
                    };
                    let bytes = newest.filter(|newest| newest.seq == seq).map(|it| it.bytes);
                    self.give(step, shard, (seq, buckets, open), entry, bytes, &mut left)?;
                    if hurries && !self.is_behind() {
                        left = left.min(PORTION_MEMBERS);
                    }
                }
                Some(FanOut::Sweeping) => {
                    left = 0;
                    if self.log.sweep_all(step)? {
                        self.group.fan_out = None;
                    }
                }
                None => break,
            }
        }
        Ok(())
    }

    /// Gives one entry to the members in some more buckets.
    fn give(
        &mut self,
        step: &mut Step<'_>,
        shard: &mut Shard,
        (seq, mut buckets, mut open): (Seq, u32, Vec<ShardId>),
        entry: &Entry,
        bytes: Option<&Bytes>,
        left: &mut u32,
    ) -> Result<(), Fatal> {
        let Content::Group(said) = &entry.content else {
            let text = format!("group {}: entry {seq} is none of a group", self.id);
            return Err(Fatal::Corrupt(text));
        };
        let mut to = Vec::new();
        while buckets < self.group.buckets() && *left > 0 {
            let bucket = self.group.bucket_at(&self.id, buckets);
            let members = self.roll.at(step, bucket, seq)?;
            // Looking into a bucket costs something too.
            *left = left.saturating_sub(u32::try_from(members.len()).unwrap_or(u32::MAX).max(1));
            to.extend(members);
            if matches!(said.event, GroupEvent::Deleted) {
                self.roll.empty(step, bucket)?;
            }
            buckets += 1;
        }
        let more = buckets < self.group.buckets();
        spread(step, shard, (&entry.origin, said), bytes, to, &mut open, more)?;
        self.group.fan_out = match more {
            true => Some(FanOut::Giving { seq, buckets, open }),
            false => self.given(step, seq, &said.event)?,
        };
        Ok(())
    }

    /// All have had the entry: what is next.
    fn given(
        &mut self,
        step: &Step<'_>,
        seq: Seq,
        event: &GroupEvent,
    ) -> Result<Option<FanOut>, Fatal> {
        if let GroupEvent::Left { users } = event {
            for user in users {
                self.roll.pass(step, &self.group, user, seq)?;
            }
        }
        let next = seq.next().filter(|next| *next <= self.log.value.head);
        Ok(match next {
            Some(seq) => Some(FanOut::giving(seq)),
            None if self.group.deleted => Some(FanOut::Sweeping),
            None => None,
        })
    }

    fn entry(&self, step: &Step<'_>, seq: Seq) -> Result<Entry, Fatal> {
        let missing = || Fatal::Corrupt(format!("group {}: entry {seq} is missing", self.id));
        let entry = slot::entry(&step.layers(), &Recipient::Group(self.id.clone()), seq)?;
        entry.map(|(entry, _)| entry).ok_or_else(missing)
    }

    /// Writes it; is there something left to do?
    pub(super) fn save(self, step: &mut Step<'_>) -> bool {
        let Work { id, group, roll, log, stored } = self;
        let waits = group.fan_out.is_some();
        let waited = stored.as_ref().is_some_and(|stored| stored.fan_out.is_some());
        let mark = WaitingKey { group: id.clone() };
        match (waited, waits) {
            (false, true) => step.put(&mark, &Waiting),
            (true, false) => step.delete(&mark),
            (false, false) | (true, true) => {}
        }
        if stored.as_ref() != Some(&group) {
            step.put(&GroupKey { group: id.clone() }, &group);
        }
        roll.save(step);
        log.save(step);
        if waits {
            step.effects.push(Effect::FanOut { group: id });
        }
        waits
    }
}

/// The entry that was just appended, which need not be read.
struct Newest<'a> {
    seq: Seq,
    entry: &'a Entry,
    bytes: &'a Bytes,
}

/// `FanOut`: goes on where the last portion ended.
pub(super) fn go_on(
    step: &mut Step<'_>,
    shard: &mut Shard,
    group: &GroupId,
) -> Result<Reply, Stop> {
    let (more, behind) = match Work::of(step, group)? {
        Some(mut work) if work.group.fan_out.is_some() => {
            work.portion(step, shard, None)?;
            let behind = work.is_behind();
            (work.save(step), behind)
        }
        Some(_) | None => (false, false),
    };
    Ok(Reply::FannedOut { more, behind })
}

/// Brings an entry to these members: into mailboxes here, and as one record to each other shard. Those
/// in `open` have it already, and keep it for `more` members.
fn spread(
    step: &mut Step<'_>,
    shard: &mut Shard,
    (origin, entry): (&Origin, &GroupEntry),
    bytes: Option<&Bytes>,
    to: Vec<UserId>,
    open: &mut Vec<ShardId>,
    more: bool,
) -> Result<(), Fatal> {
    let mut by_shard = BTreeMap::<ShardId, Vec<UserId>>::new();
    for user in to {
        by_shard.entry(shard.shards.shard_of(&Id::User(user.clone()))).or_default().push(user);
    }
    if !more {
        // These wait to hear that it was the last.
        for shard in open.iter() {
            by_shard.entry(*shard).or_default();
        }
    }
    for (to_shard, to) in by_shard {
        let (here, has_it) = (to_shard == shard.shard, open.contains(&to_shard));
        if more && !has_it {
            open.push(to_shard);
        }
        let (group, seq) = (&entry.group, entry.seq);
        match (here, has_it) {
            (true, false) => {
                share::to_members(step, shard, (origin, entry), bytes, &to, more)?;
            }
            (true, true) => share::to_more_members(step, shard, (group, seq), &to, more)?,
            (false, false) => {
                let (origin, entry) = (origin.clone(), entry.clone());
                let payload = Payload::GroupEntry { origin, entry, to, more };
                deliver::push_record(step, to_shard, payload)?;
            }
            (false, true) => {
                let payload = Payload::MoreMembers { group: group.clone(), seq, to, more };
                deliver::push_record(step, to_shard, payload)?;
            }
        }
    }
    Ok(())
}
