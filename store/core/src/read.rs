//! What can be asked of a shard: a mailbox's head, and pages of its entries (R13); the outbox, for
//! the relay (R4); a counter; what became of a message; a group and its members (R10); and, in the
//! control group, the cluster's map.
//!
//! Floor, head and entries of one answer come from one snapshot of the state.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};
use tidemark_types::{
    CounterId, DeviceId, Epoch, ErrorCode, GroupId, Id, Recipient, Seq, SeqRange, ShardCount,
    ShardId, UserId,
};

use crate::codec::{self, DecodeError};
use crate::devices;
use crate::feed::{self, FeedPage};
use crate::group_read::{self, GroupInfo, MembersPage};
use crate::key::{
    ClusterMapKey, CounterKey, EntryKey, InboundKey, Key, MailboxKey, OutRecordKey, OutboundKey,
    ShardKey, after,
};
use crate::slot;
use crate::status::{self, MessageStatus};
use crate::storage::{Fatal, Read};
use crate::unread::{self, Unread};
use crate::value::{
    ClusterMap, Device, Entry, Inbound, Mailbox, Origin, OutSeq, Outbound, Payload, Shard, Value,
};

/// How much a page may hold; it holds one entry at least, however large.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageLimits {
    /// Entries.
    pub entries: usize,
    /// Bytes of the entries as they are stored.
    pub bytes: usize,
}

/// Entries of a mailbox, as a device at `seq_cli` asked for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The mailbox's epoch.
    pub epoch: Epoch,
    /// Its floor.
    pub floor: Seq,
    /// Its head, the paper's `seq_svr`.
    pub head: Seq,
    /// What the device lacks and retention removed: it records the gap and goes on behind it.
    pub gap: Option<SeqRange>,
    /// The entries after the gap, or after `seq_cli`, without a hole.
    pub entries: Vec<(Seq, Entry)>,
}

/// What a device that asks for a page gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PageAnswer {
    /// The page.
    Page(Page),
    /// Its epoch is not the mailbox's, or its cursor is above the head (R11).
    Reset {
        /// The mailbox's epoch.
        epoch: Epoch,
        /// Its floor.
        floor: Seq,
        /// Its head.
        head: Seq,
    },
}

/// What can be asked of a shard's state, as it travels to the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// A mailbox without its entries.
    Mailbox {
        /// Which one.
        mailbox: Recipient,
    },
    /// Entries after `seq_cli`.
    Page {
        /// Whose.
        mailbox: Recipient,
        /// The epoch in which `seq_cli` counts.
        epoch: Epoch,
        /// The last entry the device has.
        seq_cli: Seq,
        /// How much it takes.
        limits: PageLimits,
    },
    /// The last number of a counter (R9).
    Counter {
        /// Which one.
        counter: CounterId,
    },
    /// What the sender's shard knows of a send.
    Message {
        /// Which one.
        origin: Origin,
    },
    /// A user's devices.
    Devices {
        /// Whose.
        user: UserId,
    },
    /// A group.
    Group {
        /// Which one.
        group: GroupId,
        /// Who asks, and must be a member; none for a back end.
        by: Option<UserId>,
    },
    /// Some of a group's members.
    GroupMembers {
        /// Which group.
        group: GroupId,
        /// Who asks, and must be a member; none for a back end.
        by: Option<UserId>,
        /// Which page, from 0.
        page: u32,
    },
    /// Records of a shard's feed (R20).
    Feed {
        /// Which shard's.
        shard: ShardId,
        /// The last record that the reader has, 0 for none.
        after: u64,
        /// How much it takes.
        limits: PageLimits,
    },
    /// What a user has not read, and how far the user has come.
    Unread {
        /// Whose.
        user: UserId,
    },
}

/// The answer to a [`Query`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Query::Mailbox`].
    Mailbox(Mailbox),
    /// To [`Query::Page`].
    Page(PageAnswer),
    /// To [`Query::Counter`].
    Counter {
        /// The last number given out, 0 for none.
        last: u64,
    },
    /// To [`Query::Message`]; none when nothing is known of it.
    Message(Option<MessageStatus>),
    /// To [`Query::Devices`], by name.
    Devices(Vec<(DeviceId, Device)>),
    /// To [`Query::Group`].
    Group(Result<GroupInfo, ErrorCode>),
    /// To [`Query::GroupMembers`].
    GroupMembers(Result<MembersPage, ErrorCode>),
    /// To [`Query::Feed`].
    Feed(FeedPage),
    /// To [`Query::Unread`].
    Unread(Unread),
}

impl Query {
    const VERSION: u8 = 1;

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(Self::VERSION, self)
    }

    /// The query with these bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode("Query", Self::VERSION, bytes)
    }

    /// The shard that can answer it, of so many.
    pub fn shard(&self, shards: ShardCount) -> ShardId {
        let id = match self {
            Query::Mailbox { mailbox } | Query::Page { mailbox, .. } => mailbox.id(),
            Query::Counter { counter } => Id::Counter(counter.clone()),
            Query::Message { origin } => Id::User(origin.sender().clone()),
            Query::Devices { user } | Query::Unread { user } => Id::User(user.clone()),
            Query::Group { group, .. } | Query::GroupMembers { group, .. } => {
                Id::Group(group.clone())
            }
            Query::Feed { shard, .. } => return *shard,
        };
        shards.shard_of(&id)
    }

    /// Answers it from one view of the state.
    pub fn answer(&self, state: &dyn Read) -> Result<Answer, Fatal> {
        match self {
            Query::Mailbox { mailbox: id } => mailbox(state, id).map(Answer::Mailbox),
            Query::Page { mailbox, epoch, seq_cli, limits } => {
                page(state, mailbox, *epoch, *seq_cli, *limits).map(Answer::Page)
            }
            Query::Counter { counter } => {
                let counter = get(state, &CounterKey { counter: counter.clone() })?;
                Ok(Answer::Counter { last: counter.unwrap_or_default().last })
            }
            Query::Message { origin } => status::message(state, origin).map(Answer::Message),
            Query::Devices { user } => devices::all(state, user).map(Answer::Devices),
            Query::Group { group, by } => {
                group_read::group(state, group, by.as_ref()).map(Answer::Group)
            }
            Query::GroupMembers { group, by, page } => {
                group_read::members(state, group, by.as_ref(), *page).map(Answer::GroupMembers)
            }
            Query::Feed { after, limits, .. } => {
                feed::page(state, *after, *limits).map(Answer::Feed)
            }
            Query::Unread { user } => unread::count(state, user).map(Answer::Unread),
        }
    }
}

impl Answer {
    const VERSION: u8 = 2;

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(Self::VERSION, self)
    }

    /// The answer with these bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode("Answer", Self::VERSION, bytes)
    }
}

/// The value of `key`.
pub(crate) fn get<K: Key>(state: &dyn Read, key: &K) -> Result<Option<K::Value>, Fatal> {
    let bytes = state.get(&key.encode())?;
    Ok(bytes.map(|bytes| K::Value::decode(&bytes)).transpose()?)
}

/// A mailbox without its entries; one that nobody used yet is empty.
pub fn mailbox(state: &dyn Read, mailbox: &Recipient) -> Result<Mailbox, Fatal> {
    let mailbox = get(state, &MailboxKey { mailbox: mailbox.clone() })?;
    Ok(mailbox.unwrap_or_default())
}

/// The mailboxes after `after`, by id, as many as `limit`.
pub fn mailboxes(
    state: &dyn Read,
    after: Option<&Recipient>,
    limit: usize,
) -> Result<Vec<Recipient>, Fatal> {
    let (first, to) = MailboxKey::KIND.range();
    let from = match after {
        Some(mailbox) => self::after(&MailboxKey { mailbox: mailbox.clone() }.encode()),
        None => first.to_vec(),
    };
    let limits = PageLimits { entries: limit, bytes: usize::MAX };
    let found = pairs::<MailboxKey>(state, &from, &to, limits)?;
    Ok(found.into_iter().map(|(key, _)| key.mailbox).collect())
}

/// The shard's own facts; none before it was initialised.
pub fn shard(state: &dyn Read) -> Result<Option<Shard>, Fatal> {
    get(state, &ShardKey {})
}

/// The cluster's map, in the control group's state; none before the cluster was created.
pub fn cluster_map(state: &dyn Read) -> Result<Option<ClusterMap>, Fatal> {
    get(state, &ClusterMapKey {})
}

/// How the streams of records to other shards stand, those that were ever used.
pub fn outbounds(state: &dyn Read) -> Result<Vec<(ShardId, Outbound)>, Fatal> {
    let (from, to) = OutboundKey::KIND.range();
    let all = PageLimits { entries: usize::MAX, bytes: usize::MAX };
    let streams = pairs::<OutboundKey>(state, &from, &to, all)?;
    Ok(streams.into_iter().map(|(key, stream)| (key.shard, stream)).collect())
}

/// How the stream of records to one other shard stands.
pub fn outbound(state: &dyn Read, shard: ShardId) -> Result<Outbound, Fatal> {
    Ok(get(state, &OutboundKey { shard })?.unwrap_or_default())
}

/// How the stream of records from one other shard stands.
pub fn inbound(state: &dyn Read, shard: ShardId) -> Result<Inbound, Fatal> {
    Ok(get(state, &InboundKey { shard })?.unwrap_or_default())
}

/// The records for `shard` after `after`, as many as `limits` allow; the first one however large.
/// Those up to the trim mark are not there, whoever asks: their destination has acknowledged them.
pub fn out_records(
    state: &dyn Read,
    shard: ShardId,
    after: OutSeq,
    limits: PageLimits,
) -> Result<Vec<(OutSeq, Payload)>, Fatal> {
    let from = OutRecordKey { shard, out_seq: after.next() }.encode();
    let to = self::after(&OutRecordKey { shard, out_seq: OutSeq::new(u64::MAX) }.encode());
    let records = pairs::<OutRecordKey>(state, &from, &to, limits)?;
    let mut last = after;
    for (OutRecordKey { out_seq, .. }, _) in &records {
        // Asked for last: a trim may have come in between.
        let trimmed =
            || Ok::<_, Fatal>(last == after && *out_seq <= outbound(state, shard)?.trim.next());
        if *out_seq != last.next() && !trimmed()? {
            let (last, found) = (last.get(), out_seq.get());
            let text = format!("outbox to shard {shard}: {found} follows {last}");
            return Err(Fatal::Corrupt(text));
        }
        last = *out_seq;
    }
    Ok(records.into_iter().map(|(key, record)| (key.out_seq, record.payload)).collect())
}

/// The entries after `seq_cli`, as many as `limits` allow.
pub fn page(
    state: &dyn Read,
    id: &Recipient,
    epoch: Epoch,
    seq_cli: Seq,
    limits: PageLimits,
) -> Result<PageAnswer, Fatal> {
    let Mailbox { epoch: current, floor, head, .. } = mailbox(state, id)?;
    if epoch != current || seq_cli > head {
        return Ok(PageAnswer::Reset { epoch: current, floor, head });
    }
    let gap = SeqRange::missing(seq_cli, floor);
    let start = seq_cli.max(floor);
    let entries = match SeqRange::missing(start, head) {
        Some(range) => entries(state, id, range, limits)?,
        None => Vec::new(),
    };
    Ok(PageAnswer::Page(Page { epoch, floor, head, gap, entries }))
}

/// The first entries of `range`; all of the range is there, or the state is corrupt.
fn entries(
    state: &dyn Read,
    mailbox: &Recipient,
    range: SeqRange,
    limits: PageLimits,
) -> Result<Vec<(Seq, Entry)>, Fatal> {
    let key = |seq| EntryKey { mailbox: mailbox.clone(), seq }.encode();
    let (from, to) = (key(range.first()), after(&key(range.last())));
    let slots = sized_pairs::<EntryKey>(state, &from, &to, limits)?;
    let found = slots.iter().map(|(key, ..)| key.seq);
    if slots.is_empty() || !found.eq(range.iter().take(slots.len())) {
        let text = format!("mailbox {mailbox}: entries {range} are not all there");
        return Err(Fatal::Corrupt(text));
    }
    let (mut entries, mut bytes) = (Vec::with_capacity(slots.len()), 0);
    for (EntryKey { seq, .. }, slot, len) in slots {
        let (entry, len) = slot::sized(state, slot, len)?;
        bytes += len;
        // What is shared is longer than what stands for it.
        if !entries.is_empty() && bytes > limits.bytes {
            break;
        }
        entries.push((seq, entry));
    }
    Ok(entries)
}

/// The pairs from `from` to before `to`, as many as `limits` allow; the first one however large.
pub(crate) fn pairs<K: Key>(
    state: &dyn Read,
    from: &[u8],
    to: &[u8],
    limits: PageLimits,
) -> Result<Vec<(K, K::Value)>, Fatal> {
    let pairs = sized_pairs(state, from, to, limits)?.into_iter();
    Ok(pairs.map(|(key, value, _)| (key, value)).collect())
}

/// As [`pairs`], with how many bytes each value has.
fn sized_pairs<K: Key>(
    state: &dyn Read,
    from: &[u8],
    to: &[u8],
    limits: PageLimits,
) -> Result<Vec<(K, K::Value, usize)>, Fatal> {
    let mut pairs = Vec::new();
    let mut bytes = 0;
    state.scan(from, to, &mut |key, value| {
        bytes += value.len();
        if !pairs.is_empty() && (pairs.len() >= limits.entries || bytes > limits.bytes) {
            return ControlFlow::Break(());
        }
        let pair = K::decode(key).and_then(|key| Ok((key, K::Value::decode(value)?, value.len())));
        pairs.push(pair);
        ControlFlow::Continue(())
    })?;
    Ok(pairs.into_iter().collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use tidemark_types::SessionId;

    use super::*;
    use crate::memory::MemoryState;
    use crate::storage::Writes;
    use crate::value::{Origin, OutRecord};

    const TO: ShardId = ShardId::new(3);

    /// Who asks for the records after `after`, where these are there and the rest up to `trim` is not.
    fn asked(records: &[u64], trim: u64, after: u64) -> Result<Vec<u64>, Fatal> {
        let user = || UserId::new("a").expect("a name");
        let session = SessionId::new(1).expect("counted from 1");
        let origin = Origin::Session { sender: user(), session, n: 1 };
        let payload = Payload::Refused {
            origin,
            refusals: vec![(Recipient::User(user()), ErrorCode::Blocked)],
        };
        let record = OutRecord { bytes_upto: 0, payload };
        let stream = Outbound { trim: OutSeq::new(trim), ..Outbound::default() };
        let key = |number: &u64| OutRecordKey { shard: TO, out_seq: OutSeq::new(*number) };
        let records = records.iter().map(|number| (key(number).encode(), Some(record.stored())));
        let stream = (OutboundKey { shard: TO }.encode(), Some(stream.stored()));
        let mut state = MemoryState::default();
        state.write(records.chain([stream]).collect::<Writes>());
        let limits = PageLimits { entries: 10, bytes: 1_000 };
        let found = out_records(&state, TO, OutSeq::new(after), limits)?;
        Ok(found.into_iter().map(|(out_seq, _)| out_seq.get()).collect())
    }

    #[test]
    fn records_that_were_trimmed_are_not_missed() {
        assert_eq!(asked(&[58, 59], 57, 57).expect("all there"), [58, 59]);
        assert_eq!(asked(&[59, 60], 58, 57).expect("58 was trimmed"), [59, 60]);
        assert_eq!(asked(&[58, 59], 58, 57).expect("it was trimmed just now"), [58, 59]);
    }

    #[test]
    fn a_record_that_nobody_trimmed_is_missed() {
        for (records, trim, after) in
            [(&[59, 60], 57, 57), (&[58, 60], 59, 57), (&[60, 61], 58, 57)]
        {
            let missed = asked(records, trim, after).expect_err("one is missing");
            assert!(missed.to_string().contains("follows"), "{missed}");
        }
    }
}
