//! The keys of a shard's state: the only place that knows their bytes.
//!
//! A key is one byte of [`Kind`] and its fields in scan order: numbers big-endian and of fixed
//! width, names escaped (`00` becomes `00 ff`) and terminated (`00 00`), so that encoded keys sort
//! as their fields do. The store puts shard and generation before it.
//!
//! A kind's number is never reused once it was shipped.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, Range};

use smallvec::SmallVec;
use tidemark_types::{
    ClientMsgId, CounterId, DeviceId, GroupId, IdError, IdKind, Recipient, Seq, SessionId, ShardId,
    UnixMs, UserId,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::act::Marks;
use crate::codec::DecodeError;
use crate::feed::{Feed, FeedRecord};
use crate::group::{Group, Members, Waiting};
use crate::slot::{Holders, Shared, Slot};
use crate::value::{
    Ack, Allocated, Allow, Block, Chain, ClusterMap, Counter, Device, Devices, Due, Idle, Inbound,
    Mailbox, OutRecord, OutSeq, Outbound, Sent, Session, Shard, Value,
};

/// What a key's first byte says its value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Applied log id and membership; the Raft layer's, opaque to this crate.
    Applied = 0x01,
    /// `02` → [`Shard`].
    Shard = 0x02,
    /// `03` → [`Chain`].
    Chain = 0x03,
    /// `10 id-kind name` → [`Mailbox`].
    Mailbox = 0x10,
    /// `11 id-kind name seq:u32` → [`Slot`].
    Slot = 0x11,
    /// `12 user device` → [`Device`].
    Device = 0x12,
    /// `13 user sender` → [`Block`].
    Block = 0x13,
    /// `14 user session:u64` → [`Session`].
    Session = 0x14,
    /// `15 day:u32 user session:u64` → [`Idle`].
    Idle = 0x15,
    /// `16 user session:u64 n:u64` → [`Ack`].
    Ack = 0x16,
    /// `17 user sender` → [`Allow`].
    Allow = 0x17,
    /// `18 user` → [`Devices`].
    Devices = 0x18,
    /// `19 at:u64 user` → [`Due`].
    Due = 0x19,
    /// `1a user id-kind name` → [`Marks`].
    Marks = 0x1a,
    /// `20 shard:u16` → [`Outbound`].
    Outbound = 0x20,
    /// `21 shard:u16 out_seq:u64` → [`OutRecord`].
    OutRecord = 0x21,
    /// `22 shard:u16` → [`Inbound`].
    Inbound = 0x22,
    /// `30 id:16 sender` → [`Sent`].
    Sent = 0x30,
    /// `40 counter` → [`Counter`].
    Counter = 0x40,
    /// `41 id:16 counter` → [`Allocated`].
    Allocated = 0x41,
    /// `50` → [`ClusterMap`], in the control group only.
    ClusterMap = 0x50,
    /// `60 group` → [`Group`].
    Group = 0x60,
    /// `61 group bucket:u32` → [`Members`].
    Members = 0x61,
    /// `62 group` → [`Waiting`].
    Waiting = 0x62,
    /// `63 group seq:u32` → [`Shared`].
    Shared = 0x63,
    /// `64 group seq:u32` → [`Holders`].
    Holders = 0x64,
    /// `70` → [`Feed`].
    Feed = 0x70,
    /// `71 number:u64` → [`FeedRecord`].
    FeedRecord = 0x71,
}

impl Kind {
    /// The bounds of all keys of this kind.
    pub fn range(self) -> ([u8; 1], [u8; 1]) {
        ([self as u8], [self as u8 + 1])
    }
}

/// Room for the keys of users whose names are UUIDs, without a place of their own in memory.
const INLINE_BYTES: usize = 64;

/// The bytes of a key without their hash.
pub type Collected = SmallVec<[u8; INLINE_BYTES]>;

/// The factor by which a number in a log is spread over hashes: odd, so that no two numbers meet.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// A key's bytes with their hash, so that whoever looks for them or keeps them need not hash again.
#[derive(Clone)]
pub struct KeyBytes {
    hash: u64,
    bytes: Collected,
}

/// How keys of a kind are used, which is how they are best kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// Looked for by itself.
    Point,
    /// Looked for among its neighbours.
    Ordered,
    /// One number of a log: the numbers are given out one after the other and taken away from the
    /// lowest, and what stands under one is written once.
    Log {
        /// The bytes before the number, which all keys of the log have in common.
        prefix: &'a [u8],
        /// Their hash.
        hash: u64,
        /// The number.
        number: u64,
    },
}

impl KeyBytes {
    /// The key with these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        KeyBytes::of(Collected::from_slice(bytes))
    }

    fn of(bytes: Collected) -> Self {
        let hash = match numbered(&bytes) {
            Some((prefix, number)) => xxh3_64(prefix).wrapping_add(number.wrapping_mul(SPREAD)),
            None => xxh3_64(&bytes),
        };
        KeyBytes { hash, bytes }
    }

    /// The hash of a log's prefix, as [`Place::Log`] has it.
    pub fn hash_of_log(prefix: &[u8]) -> u64 {
        xxh3_64(prefix)
    }

    /// Their hash, the same on every machine.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How it is used.
    pub fn place(&self) -> Place<'_> {
        if let Some((prefix, number)) = numbered(&self.bytes) {
            let hash = self.hash.wrapping_sub(number.wrapping_mul(SPREAD));
            return Place::Log { prefix, hash, number };
        }
        const ORDERED: [u8; 8] = [
            Kind::Block as u8,
            Kind::Allow as u8,
            Kind::Idle as u8,
            Kind::Due as u8,
            Kind::Sent as u8,
            Kind::Allocated as u8,
            Kind::Waiting as u8,
            Kind::Marks as u8,
        ];
        match self.bytes.first() {
            Some(kind) if ORDERED.contains(kind) => Place::Ordered,
            _ => Place::Point,
        }
    }
}

/// The prefix and the number of a key that is one of a log's.
fn numbered(key: &[u8]) -> Option<(&[u8], u64)> {
    let (prefix, number) = key.split_at_checked(key.len().checked_sub(number_len(key)?)?)?;
    Some((prefix, be(number)))
}

/// How many bytes the number of such a key has, if it is one of a log's.
fn number_len(key: &[u8]) -> Option<usize> {
    const ENTRY: u8 = Kind::Slot as u8;
    const ACK: u8 = Kind::Ack as u8;
    const OUT_RECORD: u8 = Kind::OutRecord as u8;
    const FEED_RECORD: u8 = Kind::FeedRecord as u8;
    match *key.first()? {
        ENTRY => Some(size_of::<u32>()),
        ACK | OUT_RECORD | FEED_RECORD => Some(size_of::<u64>()),
        _ => None,
    }
}

/// A few bytes as a number, the highest first.
fn be(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The bytes of the key with this number in the log with this prefix.
pub fn in_log(prefix: &[u8], number: u64) -> Collected {
    let bytes = number.to_be_bytes();
    let skipped = prefix.len() + bytes.len() - len_in_log(prefix);
    let mut key = Collected::from_slice(prefix);
    key.extend_from_slice(&bytes[skipped..]);
    key
}

/// How many bytes each key has in the log with this prefix.
pub fn len_in_log(prefix: &[u8]) -> usize {
    prefix.len() + number_len(prefix).unwrap_or(size_of::<u64>())
}

/// Is it an outbox's? Its records are written in the order of their numbers: whoever holds one as the newest
/// of what was written holds all that follow.
pub fn is_out_record(key: &[u8]) -> bool {
    key.first() == Some(&(Kind::OutRecord as u8))
}

/// The prefix of the log that all keys with `from <= key < to` belong to, and their numbers; none if
/// there is more than one such log, or if they are no log's.
pub fn log_range<'k>(from: &'k [u8], to: &[u8]) -> Option<(&'k [u8], Range<u64>)> {
    let len = number_len(from)?;
    let after_name = |at: usize| {
        let ends = from.get(at..)?.windows(2).position(|pair| pair == [0, 0])?;
        Some(at + ends + 2)
    };
    let prefix_len = match from[0] {
        kind if kind == Kind::Slot as u8 => after_name(2)?,
        kind if kind == Kind::Ack as u8 => after_name(1)? + size_of::<u64>(),
        kind if kind == Kind::FeedRecord as u8 => 1,
        _ => 1 + size_of::<u16>(),
    };
    let (prefix, first) = from.split_at_checked(prefix_len)?;
    let bound = |rest: &[u8]| {
        let number = &rest[..rest.len().min(len)];
        // What is cut off is as small as it can be; what is behind the number lies above it.
        let missing = 8 * (len - number.len()) as u32;
        let number = be(number).checked_shl(missing).unwrap_or(0);
        number.saturating_add(u64::from(rest.len() > len))
    };
    Some((prefix, bound(first)..bound(to.strip_prefix(prefix)?)))
}

impl Deref for KeyBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl PartialEq for KeyBytes {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.bytes == other.bytes
    }
}

impl Eq for KeyBytes {}

impl Hash for KeyBytes {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl fmt::Debug for KeyBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Is it one of the few values that nearly every command reads, or one of its user's or group's? They are
/// small; entries, records and acknowledgements are written once and seldom read by apply.
pub fn is_read_often(key: &[u8]) -> bool {
    const OFTEN: [u8; 8] = [
        Kind::Shard as u8,
        Kind::Chain as u8,
        Kind::Mailbox as u8,
        Kind::Device as u8,
        Kind::Session as u8,
        Kind::Outbound as u8,
        Kind::Inbound as u8,
        Kind::Group as u8,
    ];
    key.first().is_some_and(|kind| OFTEN.contains(kind))
}

/// A typed key: what it is made of, and what its value is.
pub trait Key: Sized {
    /// The type of its value.
    type Value: Value;
    /// Its first byte.
    const KIND: Kind;

    /// Its bytes.
    fn encode(&self) -> KeyBytes;

    /// The key with these bytes.
    fn decode(key: &[u8]) -> Result<Self, DecodeError>;
}

/// The least key above `key`: the exclusive bound of a scan that includes it.
pub fn after(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

macro_rules! keys {
    ($($(#[doc = $doc:literal])* $key:ident { $($field:ident: $type:ty),* } => $kind:ident;)*) => {
        $(
            $(#[doc = $doc])*
            #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
            pub struct $key {
                $(#[doc = concat!("The key's field `", stringify!($field), "`.")]
                pub $field: $type),*
            }

            impl Key for $key {
                type Value = $kind;
                const KIND: Kind = Kind::$kind;

                fn encode(&self) -> KeyBytes {
                    let mut out = Collected::new();
                    out.push(Self::KIND as u8);
                    $(self.$field.write(&mut out);)*
                    KeyBytes::of(out)
                }

                fn decode(key: &[u8]) -> Result<Self, DecodeError> {
                    let mut reader = Reader { what: stringify!($key), key, at: 0 };
                    if reader.number("kind")? != [Self::KIND as u8] {
                        return Err(reader.malformed("kind"));
                    }
                    $(let $field = Field::read(&mut reader, stringify!($field))?;)*
                    reader.end()?;
                    Ok($key { $($field),* })
                }
            }
        )*
    };
}

keys! {
    /// The shard's own facts; there is one.
    ShardKey {} => Shard;
    /// The shard's state hash; there is one.
    ChainKey {} => Chain;
    /// A user's or group's mailbox.
    MailboxKey { mailbox: Recipient } => Mailbox;
    /// One entry of a mailbox, or its name; a scan reads them in seq order.
    EntryKey { mailbox: Recipient, seq: Seq } => Slot;
    /// One of a user's devices.
    DeviceKey { user: UserId, device: DeviceId } => Device;
    /// A sender whom a user blocks.
    BlockKey { user: UserId, sender: UserId } => Block;
    /// A sender whom a user has allowed.
    AllowKey { user: UserId, sender: UserId } => Allow;
    /// A send session of a user.
    SessionKey { user: UserId, session: SessionId } => Session;
    /// The acknowledgement of a session's send that the device may lack.
    AckKey { user: UserId, session: SessionId, n: u64 } => Ack;
    /// The day on which a session was last used; a scan finds the longest idle first.
    IdleKey { day: u32, user: UserId, session: SessionId } => Idle;
    /// Which devices a user has.
    DevicesKey { user: UserId } => Devices;
    /// When a user's devices are to be looked at for hints; a scan finds the earliest first (R18).
    DueKey { at: UnixMs, user: UserId } => Due;
    /// How far a user has come in a conversation with another user, or in a group.
    MarksKey { user: UserId, conversation: Recipient } => Marks;
    /// The stream of records to another shard.
    OutboundKey { shard: ShardId } => Outbound;
    /// A record for another shard that it has not acknowledged yet.
    OutRecordKey { shard: ShardId, out_seq: OutSeq } => OutRecord;
    /// The stream of records from another shard.
    InboundKey { shard: ShardId } => Inbound;
    /// A back end's send; a scan reads them in the order of their ids' creation times.
    SentKey { id: ClientMsgId, sender: UserId } => Sent;
    /// A named source of numbers.
    CounterKey { counter: CounterId } => Counter;
    /// An allocation with an id; a scan reads them in the order of the ids' creation times.
    AllocatedKey { id: ClientMsgId, counter: CounterId } => Allocated;
    /// The cluster's map; there is one, in the control group.
    ClusterMapKey {} => ClusterMap;
    /// A group without its members and its log.
    GroupKey { group: GroupId } => Group;
    /// Some of a group's members.
    MembersKey { group: GroupId, bucket: u32 } => Members;
    /// A group that has something left to do; a scan finds them all.
    WaitingKey { group: GroupId } => Waiting;
    /// An entry of a group, for the members who live here.
    SharedKey { group: GroupId, seq: Seq } => Shared;
    /// Who holds it.
    HoldersKey { group: GroupId, seq: Seq } => Holders;
    /// How the feed stands; there is one.
    FeedKey {} => Feed;
    /// One record of the feed; a scan reads them in their order.
    FeedRecordKey { number: u64 } => FeedRecord;
}

impl MarksKey {
    /// The bounds of all keys of this user.
    pub fn range_of(user: &UserId) -> (Vec<u8>, Vec<u8>) {
        let mut from = Collected::new();
        from.push(Self::KIND as u8);
        user.write(&mut from);
        let mut to = from.to_vec();
        // A name ends with 00 00, and goes on with 00 ff.
        *to.last_mut().expect("the name's end") += 1;
        (from.to_vec(), to)
    }
}

/// A field of a key.
trait Field: Sized {
    fn write(&self, out: &mut Collected);
    fn read(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError>;
}

macro_rules! number_fields {
    ($($type:ty: $bytes:ty, $new:expr, $get:expr;)*) => {
        $(impl Field for $type {
            fn write(&self, out: &mut Collected) {
                let get: fn(&$type) -> $bytes = $get;
                out.extend_from_slice(&get(self).to_be_bytes());
            }
            fn read(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
                Ok($new(<$bytes>::from_be_bytes(reader.number(field)?)))
            }
        })*
    };
}

number_fields! {
    u32: u32, |number| number, |number| *number;
    u64: u64, |number| number, |number| *number;
    Seq: u32, Seq::new, |seq| seq.get();
    ShardId: u16, ShardId::new, |shard| shard.get();
    OutSeq: u64, OutSeq::new, |out_seq| out_seq.get();
    UnixMs: u64, UnixMs::new, |time| time.get();
}

impl Field for SessionId {
    fn write(&self, out: &mut Collected) {
        out.extend_from_slice(&self.get().to_be_bytes());
    }
    fn read(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        let number = u64::from_be_bytes(reader.number(field)?);
        SessionId::new(number).map_err(|_| reader.malformed(field))
    }
}

impl Field for ClientMsgId {
    fn write(&self, out: &mut Collected) {
        out.extend_from_slice(self.as_bytes());
    }
    fn read(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        ClientMsgId::from_bytes(reader.number(field)?).map_err(|_| reader.malformed(field))
    }
}

macro_rules! name_fields {
    ($($type:ty),*) => {
        $(impl Field for $type {
            fn write(&self, out: &mut Collected) {
                write_name(self.as_str(), out);
            }
            fn read(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
                reader.name(field, <$type>::new)
            }
        })*
    };
}

name_fields!(UserId, DeviceId, CounterId, GroupId);

impl Field for Recipient {
    fn write(&self, out: &mut Collected) {
        let id = self.id();
        out.push(id.kind() as u8);
        write_name(id.name(), out);
    }
    fn read(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        const USER: u8 = IdKind::User as u8;
        const GROUP: u8 = IdKind::Group as u8;
        match reader.number(field)? {
            [USER] => Field::read(reader, field).map(Recipient::User),
            [GROUP] => Field::read(reader, field).map(Recipient::Group),
            _ => Err(reader.malformed(field)),
        }
    }
}

fn write_name(name: &str, out: &mut Collected) {
    // Hardly any name holds one.
    if name.as_bytes().contains(&0) {
        let escaped = |byte| [byte, 0xff].into_iter().take(1 + usize::from(byte == 0));
        out.extend(name.bytes().flat_map(escaped));
    } else {
        out.extend_from_slice(name.as_bytes());
    }
    out.extend_from_slice(&[0, 0]);
}

/// Reads a key's fields.
struct Reader<'a> {
    what: &'static str,
    key: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn malformed(&self, field: &'static str) -> DecodeError {
        let reason = format!("{field} at byte {}", self.at);
        DecodeError::Malformed { what: self.what, bytes: self.key.len(), reason }
    }

    fn number<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let bytes = self.key.get(self.at..self.at + N).ok_or_else(|| self.malformed(field))?;
        self.at += N;
        Ok(bytes.try_into().expect("a slice of N bytes"))
    }

    fn name<T>(
        &mut self,
        field: &'static str,
        new: impl FnOnce(String) -> Result<T, IdError>,
    ) -> Result<T, DecodeError> {
        let mut name = Vec::new();
        loop {
            match self.number::<1>(field)? {
                [0] => match self.number::<1>(field)? {
                    [0] => break,
                    [0xff] => name.push(0),
                    _ => return Err(self.malformed(field)),
                },
                [byte] => name.push(byte),
            }
        }
        let name = String::from_utf8(name).map_err(|_| self.malformed(field))?;
        new(name).map_err(|_| self.malformed(field))
    }

    fn end(&self) -> Result<(), DecodeError> {
        match self.key.len() - self.at {
            0 => Ok(()),
            left => Err(DecodeError::Trailing { what: self.what, bytes: self.key.len(), left }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(key: &impl Key) -> String {
        key.encode().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn user(name: &str) -> UserId {
        UserId::new(name).expect("a test's own constant")
    }

    #[test]
    fn vectors_hold_the_bytes_still() {
        let id: ClientMsgId = "0192f5a0-1234-7abc-8def-0123456789ab".parse().expect("version 7");
        let session = SessionId::new(258).expect("not 0");
        let mailbox = Recipient::User(user("bob"));
        let group = Recipient::Group(GroupId::new("bob").expect("legal"));
        let counter = CounterId::new("c").expect("legal");
        let device = DeviceId::new("d").expect("legal");
        let shard = ShardId::new(7);
        assert_eq!(hex(&ShardKey {}), "02");
        assert_eq!(hex(&ChainKey {}), "03");
        assert_eq!(hex(&ClusterMapKey {}), "50");
        assert_eq!(hex(&MailboxKey { mailbox: mailbox.clone() }), "1001626f620000");
        assert_eq!(hex(&MailboxKey { mailbox: group }), "1002626f620000");
        assert_eq!(hex(&EntryKey { mailbox, seq: Seq::new(258) }), "1101626f62000000000102");
        assert_eq!(hex(&DeviceKey { user: user("a\0b"), device }), "126100ff620000640000");
        assert_eq!(hex(&BlockKey { user: user("a"), sender: user("b") }), "13610000620000");
        assert_eq!(hex(&AllowKey { user: user("a"), sender: user("b") }), "17610000620000");
        let key = SessionKey { user: user("a"), session };
        assert_eq!(hex(&key), "146100000000000000000102");
        let key = IdleKey { day: 20_000, user: user("a"), session };
        assert_eq!(hex(&key), "1500004e206100000000000000000102");
        let key = AckKey { user: user("a"), session, n: 3 };
        assert_eq!(hex(&key), "1661000000000000000001020000000000000003");
        assert_eq!(hex(&DevicesKey { user: user("a") }), "18610000");
        let key = DueKey { at: UnixMs::new(258), user: user("a") };
        assert_eq!(hex(&key), "190000000000000102610000");
        let conversation = Recipient::User(user("bob"));
        assert_eq!(hex(&MarksKey { user: user("a"), conversation }), "1a61000001626f620000");
        assert_eq!(hex(&OutboundKey { shard }), "200007");
        let key = OutRecordKey { shard, out_seq: OutSeq::new(258) };
        assert_eq!(hex(&key), "2100070000000000000102");
        assert_eq!(hex(&InboundKey { shard }), "220007");
        let key = SentKey { id, sender: user("a") };
        assert_eq!(hex(&key), "300192f5a012347abc8def0123456789ab610000");
        assert_eq!(hex(&CounterKey { counter: counter.clone() }), "40630000");
        let key = AllocatedKey { id, counter };
        assert_eq!(hex(&key), "410192f5a012347abc8def0123456789ab630000");
        let group = GroupId::new("g").expect("legal");
        assert_eq!(hex(&GroupKey { group: group.clone() }), "60670000");
        assert_eq!(hex(&MembersKey { group: group.clone(), bucket: 258 }), "6167000000000102");
        assert_eq!(hex(&WaitingKey { group }), "62670000");
    }

    #[test]
    fn keys_of_logs_are_a_prefix_and_a_number() {
        let mailbox = Recipient::User(user("bob"));
        let session = SessionId::new(258).expect("not 0");
        let keys = [
            EntryKey { mailbox: mailbox.clone(), seq: Seq::new(7) }.encode(),
            AckKey { user: user("a"), session, n: 7 }.encode(),
            OutRecordKey { shard: ShardId::new(1), out_seq: OutSeq::new(7) }.encode(),
        ];
        for key in &keys {
            let Place::Log { prefix, hash, number } = key.place() else { panic!("{key:?}") };
            assert_eq!(number, 7);
            let next = KeyBytes::new(&in_log(prefix, 8));
            assert_ne!(next.hash(), key.hash());
            assert_eq!(next.place(), Place::Log { prefix, hash, number: 8 });
            assert_eq!(*in_log(prefix, 7), **key);
        }
        let [entry, ack, record] = keys;
        let upto = in_log(&ack[..ack.len() - 8], 9);
        assert_eq!(log_range(&ack, &upto), Some((&ack[..ack.len() - 8], 7..9)));
        assert_eq!(log_range(&after(&ack), &after(&upto)), Some((&ack[..ack.len() - 8], 8..10)));
        assert_eq!(log_range(&record[..3], &record), Some((&record[..3], 0..7)));
        assert_eq!(log_range(&record, &[0x21, 0, 2]), None, "of two shards");
        assert_eq!(log_range(&entry[..4], &entry), None, "of other names");
        assert_eq!(MailboxKey { mailbox }.encode().place(), Place::Point);
        let idle = IdleKey { day: 1, user: user("a"), session };
        assert_eq!(idle.encode().place(), Place::Ordered);
    }

    #[test]
    fn a_broken_key_is_refused_by_name() {
        let key = EntryKey { mailbox: Recipient::User(user("bob")), seq: Seq::new(1) }.encode();
        let error = |bytes: &[u8]| EntryKey::decode(bytes).expect_err("broken").to_string();
        assert_eq!(error(&[]), "EntryKey: 0 bytes do not decode: kind at byte 0");
        assert_eq!(error(&key[..8]), "EntryKey: 8 bytes do not decode: seq at byte 7");
        assert_eq!(error(&[&key[..], &[0]].concat()), "EntryKey: 1 of 12 bytes are left over");
    }

    proptest! {
        #[test]
        fn encoded_keys_sort_as_their_fields_do(
            a in ("[a\0-\u{ff}]{1,4}", any::<u32>()), b in ("[a\0-\u{ff}]{1,4}", any::<u32>()),
        ) {
            let key = |(name, seq): &(String, u32)| EntryKey {
                mailbox: Recipient::User(user(name)), seq: Seq::new(*seq),
            };
            let (one, other) = (key(&a).encode(), key(&b).encode());
            prop_assert_eq!((*one).cmp(&*other), key(&a).cmp(&key(&b)));
            prop_assert_eq!(one == other, a == b);
            prop_assert_eq!(EntryKey::decode(&key(&a).encode()), Ok(key(&a)));
        }

        #[test]
        fn no_bytes_make_a_key_panic(bytes: Vec<u8>) {
            let _ = EntryKey::decode(&bytes);
            let _ = SentKey::decode(&bytes);
        }
    }
}
