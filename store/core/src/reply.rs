//! What apply answers, and what it lets happen outside.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidemark_types::{
    DeviceId, Epoch, ErrorCode, GroupId, Id, Recipient, Seq, SessionId, ShardId, UserId,
};

use crate::codec::{self, DecodeError};
use crate::value::{OutSeq, Verdict};

/// The outcome of one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The answer to whoever proposed it; part of the state hash.
    pub reply: Reply,
    /// What the leader does once the writes are in; losing them is safe.
    pub effects: Vec<Effect>,
}

/// The answer to a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It is done, and there is nothing to say.
    Done,
    /// `RegisterDevice`.
    Registered(Registered),
    /// `Open`.
    Opened {
        /// The device's live session.
        session: SessionId,
    },
    /// `Send` and `BackendSend`: the stored verdict, the same for every retry.
    Sent(Verdict),
    /// `Confirm`: the device's cursor, which may be above what was confirmed.
    Confirmed {
        /// Where it stands now.
        cursor: Seq,
    },
    /// `RelayIn`.
    Relayed(Relayed),
    /// `TrimOutbox`: everything up to here is gone; may be short of what was asked, ask again.
    OutboxTrimmed {
        /// The new trim mark.
        trim: OutSeq,
    },
    /// `TrimMailbox` and `DeleteMailbox`.
    MailboxTrimmed {
        /// The new floor.
        floor: Seq,
        /// Entries below it still lie in the storage; ask again to remove more.
        more: bool,
    },
    /// `Allocate`: these numbers are the caller's alone.
    Allocated {
        /// The first one.
        first: u64,
        /// How many.
        count: u32,
    },
    /// `Expire`: more is due than one command may remove; ask again.
    Expired {
        /// There is more.
        more: bool,
    },
    /// It was refused and had no effect.
    Rejected(Reject),
    /// `AllocateMany`: for each, in the same order, the first number, or why it has none.
    AllocatedMany(Vec<Result<u64, Reject>>),
    /// `Retain`.
    Retained {
        /// The mailbox's floor.
        floor: Seq,
        /// There is more to remove; ask again.
        more: bool,
    },
    /// `FanOut`: one command gives an entry to so many members; ask again for more.
    FannedOut {
        /// There is more.
        more: bool,
        /// Entries wait behind the one that is given.
        behind: bool,
    },
    /// `ConfirmMany`: for each, in the same order, the device's cursor, or why it has none.
    ConfirmedMany(Vec<Result<Seq, Reject>>),
}

impl Reply {
    const VERSION: u8 = 1;

    /// Its bytes, as a leader sends it to a client.
    pub fn encode(&self) -> Bytes {
        codec::encode_chunked(Self::VERSION, self)
    }

    /// The reply with these bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode("Reply", Self::VERSION, bytes)
    }
}

/// Where a device and its mailbox stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The mailbox's epoch.
    pub epoch: Epoch,
    /// Its floor.
    pub floor: Seq,
    /// Its head.
    pub head: Seq,
    /// Where a device without a cursor starts that asked for this start.
    pub start: Seq,
    /// The device's confirmed cursor.
    pub cursor: Seq,
    /// Its live send session.
    pub live: Option<SessionId>,
    /// The number of the connection that it said `Hello` on, 0 for none.
    pub connection: u64,
    /// It has a push token, so that it matters when the connection ends.
    pub pushes: bool,
}

/// What a relay learns from the destination (R4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relayed {
    /// Every record up to here is applied; the relay goes on after it.
    pub in_seq: OutSeq,
    /// The last record that the destination has put into its own stream to the source: refusals of
    /// what is applied are not behind it.
    pub returns: OutSeq,
    /// Why the batch was not taken to its end.
    pub stopped: Option<RelayStop>,
    /// What became of the records that this command applied, for each user they were sent to.
    pub outcomes: Vec<(OutSeq, Vec<(UserId, Outcome)>)>,
}

/// Why a destination stopped taking records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RelayStop {
    /// A record is missing before the next one: go on after `in_seq`.
    Gap,
    /// A record does not belong here; nobody may go on before a person has looked (R8).
    WrongShard,
}

/// What became of a message at one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It is in the mailbox under this seq.
    Appended(Seq),
    /// It was refused, and the sender learns it.
    Refused(ErrorCode),
    /// It was dropped: the recipient blocks the sender and does not tell (R6).
    Silenced,
}

/// Why a command was refused, with what the caller needs to go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reject {
    /// Malformed; the text names the field.
    Invalid(String),
    /// The id lives elsewhere.
    WrongShard(Id),
    /// `Open` does not name the live session.
    Stale {
        /// The live one.
        live: Option<SessionId>,
    },
    /// The send lies below `base`.
    Settled,
    /// The number or id was used for other content.
    Conflict,
    /// The send is not the next one.
    OutOfOrder {
        /// The next one.
        expected: u64,
    },
    /// Too many are in flight.
    WindowFull,
    /// The session was replaced before it took this send.
    SessionEnded {
        /// The last one it took.
        last_n: u64,
    },
    /// The session is no longer kept.
    SessionExpired,
    /// The id is older than the window for which ids are remembered.
    DedupExpired,
    /// The user has no such device.
    NoDevice,
    /// The counter has no such many numbers left.
    SeqExhausted,
    /// The cursor is of another epoch, or above the head.
    Reset {
        /// The mailbox's epoch.
        epoch: Epoch,
        /// Its floor.
        floor: Seq,
        /// Its head.
        head: Seq,
    },
    /// The mailbox to adopt is in use.
    NotEmpty,
    /// The device was logged out after its token was made.
    LoggedOut,
    /// The user has as many devices as there may be.
    TooManyDevices,
    /// The group is not there, is full, or lets the one who asks not do it (R10).
    Group(ErrorCode),
}

impl Reject {
    /// Its code in the one list.
    pub fn code(&self) -> ErrorCode {
        match self {
            Reject::Invalid(_) => ErrorCode::Invalid,
            Reject::WrongShard(_) => ErrorCode::WrongShard,
            Reject::Stale { .. } => ErrorCode::Stale,
            Reject::Settled => ErrorCode::Settled,
            Reject::Conflict => ErrorCode::Conflict,
            Reject::OutOfOrder { .. } => ErrorCode::OutOfOrder,
            Reject::WindowFull => ErrorCode::WindowFull,
            Reject::SessionEnded { .. } => ErrorCode::SessionEnded,
            Reject::SessionExpired => ErrorCode::SessionExpired,
            Reject::DedupExpired => ErrorCode::DedupExpired,
            Reject::NoDevice => ErrorCode::NoDevice,
            Reject::SeqExhausted => ErrorCode::SeqExhausted,
            Reject::Reset { .. } => ErrorCode::Reset,
            Reject::NotEmpty => ErrorCode::NotEmpty,
            Reject::LoggedOut => ErrorCode::LoggedOut,
            Reject::TooManyDevices => ErrorCode::TooManyDevices,
            Reject::Group(code) => *code,
        }
    }
}

/// Something for the leader to do after the writes are in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A mailbox has a new entry: tell who watches it.
    Appended {
        /// The mailbox.
        mailbox: Recipient,
        /// The entry's seq.
        seq: Seq,
        /// The entry, encoded as it is stored.
        entry: Bytes,
    },
    /// The outbox to a shard has a new record: wake its relay.
    Outgoing {
        /// That shard.
        shard: ShardId,
    },
    /// Connections of a device have ended, wherever they are: end them.
    Unseated {
        /// The device's owner.
        user: UserId,
        /// The device.
        device: DeviceId,
        /// The lowest number of a connection that goes on.
        below: u64,
        /// Why the others do not.
        code: ErrorCode,
    },
    /// A group's log was not yet given to all its members: propose `FanOut`.
    FanOut {
        /// Which group.
        group: GroupId,
    },
    /// The cluster's map has changed.
    MapChanged,
    /// Something that a person must see; it also stands in the log and in a metric.
    Alarm(Alarm),
}

/// What must never happen, and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// A command reached a shard where its id does not live (R8).
    WrongShard(Id),
    /// A device confirmed what was never assigned (R11).
    CursorAboveHead {
        /// The device's owner.
        user: UserId,
        /// What it confirmed.
        seq: Seq,
        /// The mailbox's head.
        head: Seq,
    },
    /// A shard acknowledged records that were never sent to it (R4).
    RelayAboveHead {
        /// That shard.
        shard: ShardId,
        /// What it acknowledged.
        upto: OutSeq,
        /// The stream's head.
        head: OutSeq,
    },
}
