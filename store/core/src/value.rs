//! The values of a shard's state: what is stored under each key of [`crate::key`].
//!
//! Each is encoded by [`crate::codec`] behind a version byte of its own kind. When a kind's
//! fields change, its version rises and its decoder learns to read the older one; golden bytes in
//! `tests/testdata/formats.txt` make such a change visible. Until there is a release, the state's
//! format version rises instead, and older data is refused.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tidemark_types::limits::GROUP_MEMBERS_MAX;
use tidemark_types::{
    ClientMsgId, ClusterId, ContentHash, DeviceId, Epoch, ErrorCode, GroupId, NodeId, OpenId,
    Recipient, Seq, SessionId, ShardCount, ShardId, UnixMs, UserId,
};

use crate::act::{Act, Marks};
use crate::codec::{self, DecodeError};
use crate::feed::{Feed, FeedRecord};
use crate::group::{Group, GroupEntry, Members, Waiting};
use crate::slot::{Holders, Reference, Shared};
use crate::value_bytes::ValueBytes;

/// A kind of value, with the version in which it is written.
pub trait Value: Serialize + DeserializeOwned {
    /// Its name in errors.
    const NAME: &'static str;
    /// The version this build writes and reads.
    const VERSION: u8;

    /// Its bytes.
    fn encode(&self) -> Bytes {
        codec::encode(Self::VERSION, self).into()
    }

    /// Its bytes, beside those of others in memory: for what is not kept long.
    fn encode_chunked(&self) -> Bytes {
        codec::encode_chunked(Self::VERSION, self)
    }

    /// Its bytes, as a state keeps them.
    fn stored(&self) -> ValueBytes {
        codec::encode_stored(Self::VERSION, self)
    }

    /// The value with these bytes.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(Self::NAME, Self::VERSION, bytes)
    }
}

macro_rules! values {
    ($($value:ident = $version:literal;)*) => {
        $(impl Value for $value {
            const NAME: &'static str = stringify!($value);
            const VERSION: u8 = $version;
        })*
    };
}

values! {
    Shard = 3;
    Chain = 1;
    Mailbox = 4;
    Entry = 3;
    Device = 2;
    Devices = 1;
    Due = 1;
    Block = 1;
    Allow = 1;
    Session = 2;
    Ack = 1;
    Idle = 1;
    Outbound = 1;
    OutRecord = 4;
    Inbound = 1;
    Sent = 1;
    Counter = 1;
    Allocated = 1;
    ClusterMap = 3;
    Group = 2;
    Members = 1;
    Waiting = 1;
    Reference = 128;
    Shared = 1;
    Holders = 1;
    Feed = 1;
    FeedRecord = 1;
    Marks = 1;
}

/// The shard's own facts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Which one it is.
    pub shard: ShardId,
    /// How many the cluster has; with the hash version it decides who lives here (R8).
    pub shards: ShardCount,
    /// The version of the hash from ids to shards.
    pub hash_version: u8,
    /// Windows and maxima, the same on every replica.
    pub settings: Settings,
    /// Log time: the highest time of any batch so far (R17).
    pub time: UnixMs,
    /// The highest `now` of any `Expire` so far.
    pub expired_to: UnixMs,
    /// Back ends' message ids made before this are no longer remembered (R1).
    pub dedup_floor: UnixMs,
    /// Allocations' ids made before this are no longer remembered (R9).
    pub allocate_floor: UnixMs,
    /// Refusals that could not be written into their sender's mailbox (R6).
    pub refusals_unwritable: u64,
    /// Messages dropped because their recipient refuses the sender silently (R6).
    pub blocked_silently: u64,
    /// Copies that nobody got because the gateway's verdict was to drop the message (R2): one for
    /// each recipient but the sender.
    pub dropped: u64,
    /// Entries of groups that a member's mailbox could not take (R10).
    pub group_entries_untaken: u64,
}

/// Windows and maxima of a shard; replicated, so that apply never reads a node's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// A session unused for this long expires (R1).
    pub session_idle: Duration,
    /// A back end's message id is remembered for this long (R1).
    pub dedup_window: Duration,
    /// An allocation's id is remembered for this long (R9).
    pub allocate_window: Duration,
    /// A mailbox keeps this many entries; one more removes the oldest (R14).
    pub mailbox_entries_max: u32,
    /// An entry that all of its owner's devices confirmed is kept for this long (R14).
    pub keep: Duration,
    /// An entry is kept for this long, whoever confirmed it (R14).
    pub hard_keep: Duration,
    /// A device that was not seen for this long is not waited for (R14).
    pub eligible: Duration,
    /// A device that was not seen for this long is forgotten (R14).
    pub device_expiry: Duration,
    /// A user has this many devices at most.
    pub devices_max: u32,
    /// A connected device may take this long to confirm before it gets a hint (R18).
    pub push_after: Duration,
    /// Between two hints to a device there is at least this time (R18).
    pub push_every: Duration,
    /// A group may be made for so many members at most (R10).
    pub group_members_max: u32,
    /// The shard's feed keeps its newest records, this many; 0 for no feed (R20).
    pub feed_records_max: u32,
    /// Its sender may recall a message for this long after it was accepted.
    pub recall_within: Duration,
    /// Its sender may edit a message for this long after it was accepted.
    pub edit_within: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Settings {
            session_idle: 90 * DAY,
            dedup_window: 7 * DAY,
            allocate_window: Duration::from_secs(10 * 60),
            mailbox_entries_max: 1_000_000,
            keep: 30 * DAY,
            hard_keep: 365 * DAY,
            eligible: 30 * DAY,
            device_expiry: 180 * DAY,
            devices_max: 32,
            push_after: Duration::from_secs(10),
            push_every: Duration::from_secs(10),
            group_members_max: GROUP_MEMBERS_MAX,
            feed_records_max: 0,
            recall_within: Duration::from_secs(2 * 60),
            edit_within: Duration::from_secs(15 * 60),
        }
    }
}

impl Settings {
    /// Why they make no sense, if they do not.
    ///
    /// # Errors
    /// The text names the setting.
    pub fn check(&self) -> Result<(), String> {
        let checks = [
            ("mailbox_entries_max: at least 1", self.mailbox_entries_max > 0),
            ("devices_max: at least 1", self.devices_max > 0),
            ("hard_keep: at least keep", self.hard_keep >= self.keep),
            ("device_expiry: at least eligible", self.device_expiry >= self.eligible),
            (
                "group_members_max: 1 to 10000",
                (1..=GROUP_MEMBERS_MAX).contains(&self.group_members_max),
            ),
        ];
        match checks.iter().find(|(_, holds)| !holds) {
            Some((reason, _)) => Err((*reason).to_owned()),
            None => Ok(()),
        }
    }
}

/// The state hash: chained over each batch, its replies and its writes.
///
/// Two replicas at the same applied index have the same one, or one of them is broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// XXH3-128 over the previous hash and what the last batch did.
    pub hash: u128,
}

/// A mailbox without its entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mailbox {
    /// The life of its log (R11).
    pub epoch: Epoch,
    /// The last seq removed, 0 for none (R13).
    pub floor: Seq,
    /// The last seq assigned, 0 for none.
    pub head: Seq,
    /// Entries up to here are gone from the storage; those up to `floor` follow little by little.
    pub swept: Seq,
    /// Deleted: it refuses until its owner's `Hello` reopens it, and keeps its numbers (R14).
    pub deleted: bool,
    /// Whom the owner blocks, or does not know, is not told so (R6).
    pub silent: bool,
    /// How many senders the owner blocks; most block none, and need no look for each message.
    pub blocks: u32,
    /// The number of the newest send session, 0 for none; never goes back (R1).
    pub last_session: u64,
    /// How many of the owner's devices have a push token; most mailboxes have none, and need no look
    /// for each message.
    pub pushes: u32,
    /// When the owner's devices are to be looked at for hints, 0 for never: the time in the key of
    /// its [`Due`] (R18).
    pub due: UnixMs,
    /// Whose messages the owner takes; most take everybody's, and need no look either.
    pub accept_from: AcceptFrom,
    /// How many senders the owner has allowed.
    pub allows: u32,
    /// How many entries behind `swept` are references to shared ones; most mailboxes have none, and
    /// are swept blindly.
    pub shared: u32,
}

/// Whose messages a user takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AcceptFrom {
    /// Everybody's, but for those whom the user blocks.
    #[default]
    Everybody,
    /// Of those only the senders whom the user has allowed.
    Contacts,
}

impl Default for Mailbox {
    fn default() -> Self {
        Mailbox {
            epoch: Epoch::FIRST,
            floor: Seq::NONE,
            head: Seq::NONE,
            swept: Seq::NONE,
            deleted: false,
            silent: false,
            blocks: 0,
            last_session: 0,
            pushes: 0,
            due: UnixMs::default(),
            accept_from: AcceptFrom::Everybody,
            allows: 0,
            shared: 0,
        }
    }
}

/// One entry of a mailbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Log time of the append.
    pub time: UnixMs,
    /// Which send it comes from.
    pub origin: Origin,
    /// What it says.
    pub content: Content,
}

/// Which send something comes from: unique, and the same in every copy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Origin {
    /// Send number `n` of a device's session.
    Session {
        /// Whose session.
        sender: UserId,
        /// Which one.
        session: SessionId,
        /// Which send of it, from 1.
        n: u64,
    },
    /// A back end's send.
    Backend {
        /// In whose name.
        sender: UserId,
        /// Its key beside the sender.
        id: ClientMsgId,
    },
    /// No send: a change of a group.
    Group {
        /// In whose name it was made.
        sender: UserId,
        /// Which group.
        group: GroupId,
        /// The change's place in the group's log.
        seq: Seq,
    },
}

impl Origin {
    /// Whose send it was, or in whose name a group was changed.
    pub fn sender(&self) -> &UserId {
        match self {
            Origin::Session { sender, .. }
            | Origin::Backend { sender, .. }
            | Origin::Group { sender, .. } => sender,
        }
    }
}

/// What an entry says. With its origin (and, for a refusal, the recipient) it is unique.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// A message.
    Message {
        /// The message.
        message: Message,
        /// In the sender's own mailbox: where it went.
        outgoing: Option<Outgoing>,
    },
    /// In the sender's own mailbox: a recipient's side refused the message of this origin (R6).
    Refused {
        /// Who did not get it: a user, or the group it was sent to.
        recipient: Recipient,
        /// Why.
        code: ErrorCode,
    },
    /// An entry of a group's log, in the log or in a member's mailbox (R10).
    Group(GroupEntry),
}

/// A message as every copy carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The device that sent it, unless a back end did.
    pub device: Option<DeviceId>,
    /// Log time at which its sender's shard accepted it.
    pub sent: UnixMs,
    /// The application's name for it.
    pub client_msg_id: ClientMsgId,
    /// The application's kind of message.
    pub kind: u32,
    /// The application's bytes; of an edit, the message's new ones.
    #[serde(deserialize_with = "codec::bytes")]
    pub body: Bytes,
    /// What it does about a message that is there already; none for a message of its own.
    pub act: Option<Act>,
}

impl Message {
    /// Is it worth waking a device for (R18)? Nobody wants to be woken by another's reading.
    pub(crate) fn wakes(&self) -> bool {
        self.act.as_ref().is_none_or(|act| !act.kind.is_mark())
    }
}

/// Where a message went, in the sender's own copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outgoing {
    /// Its recipients, each once.
    pub to: Vec<Recipient>,
    /// Its record in the stream to each other shard: it is delivered there once the shard
    /// acknowledged that number (R4).
    pub records: Vec<(ShardId, OutSeq)>,
    /// It reached none of them: a gateway's verdict dropped it, or it is the sender's own affair.
    pub dropped: bool,
}

/// One of a user's devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// The epoch in which `cursor` counts.
    pub epoch: Epoch,
    /// Everything up to here was confirmed by the device; never goes back in an epoch (R12).
    pub cursor: Seq,
    /// Log time at which it was last heard of, to the hour (R14).
    pub last_seen: UnixMs,
    /// Its live send session.
    pub live: Option<SessionId>,
    /// Its ended send sessions that are still kept, oldest first (R1).
    pub ended: Vec<SessionId>,
    /// What its owner sees in a list of devices.
    pub label: Label,
    /// The number of its newest connection, 0 before the first one; older ones are displaced.
    pub connection: u64,
    /// Its newest connection was not said to have ended. A gateway that was killed says nothing.
    pub connected: bool,
    /// Tokens made up to then are not good for it any more; 0 if it was never logged out.
    pub logged_out: UnixMs,
    /// Where hints for it go.
    pub push: Option<PushToken>,
    /// It was sent a hint of everything up to here, in its epoch (R18).
    pub pushed_upto: Seq,
    /// Log time of its newest hint.
    pub pushed_at: UnixMs,
}

/// What a device is called, and what it runs on; both may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// Its owner's name for it, for people.
    pub name: String,
    /// The system, as `iOS 19`.
    pub platform: String,
}

/// Where a platform's push service finds a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushToken {
    /// Which provider, and what it knows the device by.
    pub target: PushTarget,
    /// Unlike that of every other token that the user's devices had: who removes a token names it.
    pub version: u64,
    /// Log time at which the device gave it.
    pub registered: UnixMs,
}

/// A provider, and what it knows a device by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushTarget {
    /// The provider's name, as gateways are configured.
    pub provider: String,
    /// A token, or an address with keys: the provider says what.
    pub target: String,
}

/// The devices of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Devices {
    /// Their names, in order.
    pub names: Vec<DeviceId>,
    /// The last number given to a connection or a push token of any of them.
    pub last_number: u64,
}

/// A user's devices are to be looked at for hints (R18).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    /// Log time since which a device lacks an entry of which it had no hint.
    pub since: UnixMs,
}

impl Device {
    /// A device that stands at `cursor` and was never heard of.
    pub fn at(epoch: Epoch, cursor: Seq) -> Self {
        Device {
            epoch,
            cursor,
            last_seen: UnixMs::default(),
            live: None,
            ended: Vec::new(),
            label: Label::default(),
            connection: 0,
            connected: false,
            logged_out: UnixMs::default(),
            push: None,
            pushed_upto: Seq::NONE,
            pushed_at: UnixMs::default(),
        }
    }
}

/// A block has no fields: it is there or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block;

/// An allowed sender has no fields either.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allow;

/// A send session (R1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The device it is bound to.
    pub device: DeviceId,
    /// By which the device finds it again.
    pub open_id: OpenId,
    /// Replaced by a newer one: takes nothing more, and still answers.
    pub ended: bool,
    /// The lowest n whose acknowledgement the device may lack.
    pub base: u64,
    /// The last n taken, `base - 1` when none is in flight. The acknowledgements of
    /// `base ..= last_n` stand beside the session, under keys of their own.
    pub last_n: u64,
    /// The day of log time on which it last took a send.
    pub used_day: u32,
}

/// The stored acknowledgement of a send: every retry gets it, byte for byte (G2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// What was asked, so that other content under the same number is noticed.
    pub content: ContentHash,
    /// What was decided.
    pub verdict: Verdict,
}

/// What was decided about a send; the first committed one wins (R2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It is durable, and each recipient will have one outcome.
    Accepted {
        /// Its seq in the sender's own mailbox; none for a send to a group, whose copies all come
        /// from the group (R10).
        seq: Seq,
        /// Log time of the acceptance.
        time: UnixMs,
    },
    /// It is nowhere, and never will be.
    Refused(ErrorCode),
}

/// An idle mark has no fields: its key says all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idle;

/// A number in the stream of records from one shard to another, from 1.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct OutSeq(u64);

impl OutSeq {
    /// The place before the first record.
    pub const NONE: OutSeq = OutSeq(0);

    /// The one with this number.
    pub const fn new(number: u64) -> Self {
        OutSeq(number)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The one after it.
    pub fn next(self) -> OutSeq {
        OutSeq(self.0.checked_add(1).expect("a shard never sends 2^64 records"))
    }
}

/// The stream of records to another shard. Head and trim mark are stored, never derived from the
/// keys that happen to be there (R4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outbound {
    /// The last number assigned.
    pub head: OutSeq,
    /// Everything up to here was acknowledged and removed.
    pub trim: OutSeq,
    /// Bytes of all records up to `head`, ever.
    pub head_bytes: u64,
    /// Bytes of all records up to `trim`, ever.
    pub trim_bytes: u64,
    /// What the destination had sent back when it acknowledged `trim`: once the stream from there
    /// is taken as far, no refusal of a record up to `trim` is on its way.
    pub returns: OutSeq,
}

impl Outbound {
    /// Bytes waiting for the destination; what a leader compares with its budget (R7).
    pub fn queued_bytes(&self) -> u64 {
        self.head_bytes - self.trim_bytes
    }
}

/// A record for another shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutRecord {
    /// Bytes of all records of the stream up to and with this one, ever.
    pub bytes_upto: u64,
    /// What it carries.
    pub payload: Payload,
}

/// What one shard tells another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// A message for users of the destination; the body once, however many they are.
    Message {
        /// Which send it is.
        origin: Origin,
        /// The message.
        message: Message,
        /// Its recipients there, each once.
        to: Vec<UserId>,
    },
    /// Refusals for a sender of the destination (R6).
    Refused {
        /// Which send was refused.
        origin: Origin,
        /// By whom, and why.
        refusals: Vec<(Recipient, ErrorCode)>,
    },
    /// A message for a group of the destination, which decides whether its log takes it (R10).
    GroupPost {
        /// Which send it is.
        origin: Origin,
        /// The message.
        message: Message,
        /// The group.
        group: GroupId,
    },
    /// An entry of a group's log for members on the destination; the body once, however many they
    /// are.
    GroupEntry {
        /// Which send it comes from, or which change.
        origin: Origin,
        /// The entry.
        entry: GroupEntry,
        /// The members there, each once.
        to: Vec<UserId>,
        /// Other members there may follow.
        more: bool,
    },
    /// The same entry for more members of the destination, which has it.
    MoreMembers {
        /// Which group.
        group: GroupId,
        /// The entry's number in its log.
        seq: Seq,
        /// The members there, each once.
        to: Vec<UserId>,
        /// Others may follow.
        more: bool,
    },
}

impl Payload {
    /// What the record costs in the outbox, in bytes: what budgets count (R7).
    pub fn cost(&self) -> u64 {
        const RECORD: usize = 128;
        const NAME: usize = tidemark_types::limits::NAME_BYTES_MAX;
        let bytes = match self {
            Payload::Message { message, to, .. } => message.body.len() + to.len() * NAME,
            Payload::Refused { refusals, .. } => refusals.len() * NAME,
            Payload::GroupPost { message, .. } => message.body.len(),
            Payload::GroupEntry { entry, to, .. } => entry.event.cost() + to.len() * NAME,
            Payload::MoreMembers { to, .. } => to.len() * NAME,
        };
        (bytes + RECORD) as u64
    }
}

/// The stream of records from another shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inbound {
    /// Every record up to here was applied, each once.
    pub in_seq: OutSeq,
}

/// The stored acknowledgement of a back end's send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// What was asked and what was decided.
    pub ack: Ack,
}

/// A named source of numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// The last number given out, 0 for none.
    pub last: u64,
}

/// The stored answer to an allocation with an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocated {
    /// The first number given out.
    pub first: u64,
    /// How many.
    pub count: u32,
}

/// The cluster's map: where everything should be. Each group's own Raft membership is the truth;
/// the map is what it was made from, and where a client looks first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterMap {
    /// Rises with every change.
    pub version: u64,
    /// The cluster.
    pub cluster: ClusterId,
    /// The version of the hash from ids to shards.
    pub hash_version: u8,
    /// Windows and maxima of every shard.
    pub settings: Settings,
    /// The store nodes.
    pub nodes: BTreeMap<NodeId, NodeAddress>,
    /// The control group's replicas: on which node each is.
    pub control: BTreeMap<u64, NodeId>,
    /// Every shard's replicas, by shard number from 0.
    pub shards: Vec<Placement>,
    /// The lowest replica id that was never given out; ids are never reused.
    pub next_replica: u64,
}

/// Where a node is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAddress {
    /// By gateways, clients and other nodes, as `host:port`.
    pub grpc: String,
}

/// Where a shard's replicas are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// On which node each replica is.
    pub replicas: BTreeMap<u64, NodeId>,
    /// The node that should lead it when all is well, so that leaders spread evenly.
    pub preferred: NodeId,
}

impl ClusterMap {
    /// A new cluster's map: every group has a replica on every node, leaders are spread evenly.
    pub fn new(
        cluster: ClusterId,
        shards: ShardCount,
        nodes: BTreeMap<NodeId, NodeAddress>,
        settings: Settings,
    ) -> Self {
        let ids: Vec<NodeId> = nodes.keys().copied().collect();
        let mut next_replica = 1;
        let mut replicas = || {
            let first = next_replica;
            next_replica += ids.len() as u64;
            (first..).zip(ids.iter().copied()).collect::<BTreeMap<u64, NodeId>>()
        };
        let control = replicas();
        let shards = shards.shards().map(|shard| Placement {
            replicas: replicas(),
            preferred: ids[usize::from(shard.get()) % ids.len()],
        });
        let shards = shards.collect();
        let hash_version = tidemark_types::routing::HASH_VERSION;
        ClusterMap {
            version: 1,
            cluster,
            hash_version,
            settings,
            nodes,
            control,
            shards,
            next_replica,
        }
    }

    /// How many shards there are; `None` if there can be no such number.
    pub fn shard_count(&self) -> Option<ShardCount> {
        ShardCount::new(u16::try_from(self.shards.len()).ok()?).ok()
    }
}
