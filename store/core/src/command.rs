//! What a leader proposes: batches of commands, encoded once and carried opaquely by Raft.
//!
//! A command holds all that apply may know: ids, content, and the batch's time. Kinds are numbered
//! by their place in [`Command`]; a new kind goes to the end, and is proposed only once every
//! replica knows it (R5).

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidemark_types::limits::NAME_BYTES_MAX;
use tidemark_types::{
    ClientMsgId, ClusterId, ContentHash, CounterId, DeviceId, Epoch, ErrorCode, GroupId, Id,
    OpenId, Recipient, Seq, SessionId, ShardCount, ShardId, UnixMs, UserId,
};

use crate::act::Asked;
use crate::codec::{self, DecodeError};
use crate::group::GroupCommand;
use crate::value::{AcceptFrom, ClusterMap, Label, OutSeq, Payload, PushTarget, Settings};

/// One log entry: commands that are applied one after the other, each with a reply of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Cluster time when the leader proposed it (R17).
    pub time: UnixMs,
    /// The commands; one that is rejected does not touch its neighbours (R5).
    pub commands: Vec<Command>,
}

impl Batch {
    const VERSION: u8 = 3;

    /// Its bytes, as they lie in the Raft log.
    pub fn encode(&self) -> Bytes {
        codec::encode(Self::VERSION, self).into()
    }

    /// The batch with these bytes, whose bodies are parts of them. A command of an unknown kind is an
    /// error, and stops the node.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        codec::decode_shared("Batch", Self::VERSION, bytes)
    }
}

/// What can be asked of a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The first command of a shard: fixes who it is.
    Init {
        /// The cluster.
        cluster: ClusterId,
        /// Which of its shards this is.
        shard: ShardId,
        /// How many it has.
        shards: ShardCount,
        /// The version of the hash from ids to shards.
        hash_version: u8,
        /// Windows and maxima.
        settings: Settings,
    },
    /// Changes windows and maxima.
    Configure {
        /// All of them.
        settings: Settings,
    },
    /// A device says `Hello`: registers it, and reopens a deleted mailbox.
    RegisterDevice {
        /// Its owner.
        user: UserId,
        /// Its name.
        device: DeviceId,
        /// Where it starts if it has no cursor.
        start: Start,
        /// It says so itself, on a new connection.
        arrival: Option<Arrival>,
        /// What it is called from now on; none leaves it as it is.
        label: Option<Label>,
    },
    /// Forgets a device, its cursor and its sessions.
    ForgetDevice {
        /// Its owner.
        user: UserId,
        /// Its name.
        device: DeviceId,
    },
    /// Opens a send session (R1).
    Open {
        /// The device's owner.
        user: UserId,
        /// The device.
        device: DeviceId,
        /// By which the device finds the session again.
        open_id: OpenId,
        /// The session it replaces.
        ends: Option<SessionId>,
    },
    /// A send inside a session (R1, R2).
    Send(Send),
    /// A back end's send, without a session.
    BackendSend(BackendSend),
    /// A device confirms everything up to `seq` (R12).
    Confirm {
        /// The device's owner.
        user: UserId,
        /// The device.
        device: DeviceId,
        /// The epoch in which `seq` counts.
        epoch: Epoch,
        /// Its new cursor.
        seq: Seq,
    },
    /// Records from another shard's outbox (R4).
    RelayIn {
        /// That shard.
        source: ShardId,
        /// Records with their numbers, in order.
        records: Vec<(OutSeq, Payload)>,
    },
    /// Another shard acknowledged records of our outbox (R4).
    TrimOutbox {
        /// That shard.
        shard: ShardId,
        /// The last number it has applied.
        upto: OutSeq,
        /// What it had sent us by then, as it said with that.
        returns: OutSeq,
    },
    /// Removes a mailbox's entries up to `upto` (R13).
    TrimMailbox {
        /// Its owner.
        user: UserId,
        /// The new floor.
        upto: Seq,
    },
    /// Deletes a mailbox's content; its numbers stay (R14).
    DeleteMailbox {
        /// Its owner.
        user: UserId,
    },
    /// Lets an unused mailbox continue at `seq + 1` (a migration from another system).
    Adopt {
        /// Its owner.
        user: UserId,
        /// The last seq that the other system assigned.
        seq: Seq,
    },
    /// Blocks or unblocks a sender.
    Block {
        /// Who blocks.
        user: UserId,
        /// Whom.
        sender: UserId,
        /// Or unblocks.
        blocked: bool,
    },
    /// Chooses whether blocked senders are told (R6).
    Silence {
        /// Whose setting.
        user: UserId,
        /// They are not.
        silent: bool,
    },
    /// Takes numbers from a counter (R9).
    Allocate {
        /// Which one.
        counter: CounterId,
        /// How many, at least 1.
        count: u32,
        /// A retry with the same id gets the same numbers.
        id: Option<ClientMsgId>,
    },
    /// Lets things expire that are older than their windows before `now` (R17).
    Expire {
        /// Cluster time measured from a majority.
        now: UnixMs,
    },
    /// The control group's first command: fixes the cluster and its map.
    CreateCluster {
        /// The whole map.
        map: ClusterMap,
    },
    /// Takes numbers from many counters at once, from each as `Allocate` without an id does (R9).
    AllocateMany {
        /// Which counter, and how many numbers; 1 to
        /// [`ALLOCATE_CALLS_MAX`](tidemark_types::limits::ALLOCATE_CALLS_MAX) of them, all of one shard.
        allocations: Vec<(CounterId, u32)>,
    },
    /// Refuses a device's tokens that were made up to now, and ends its connections.
    LogOut {
        /// The device's owner.
        user: UserId,
        /// The device.
        device: DeviceId,
    },
    /// A device's connection has ended.
    Depart {
        /// The device's owner.
        user: UserId,
        /// The device.
        device: DeviceId,
        /// Which connection; one that is not the newest says nothing.
        connection: u64,
    },
    /// Sets where hints for a device go, or that none do (R18).
    SetPush {
        /// The device's owner.
        user: UserId,
        /// The device.
        device: DeviceId,
        /// There.
        target: Option<PushTarget>,
    },
    /// A hint of everything up to `upto` was handed to a device's platform (R18).
    PushSent {
        /// The device's owner.
        user: UserId,
        /// The device.
        device: DeviceId,
        /// The epoch in which `upto` counts.
        epoch: Epoch,
        /// The head that the hint told.
        upto: Seq,
    },
    /// A platform does not know a push token any more (R18).
    DropPush {
        /// The device's owner.
        user: UserId,
        /// The device.
        device: DeviceId,
        /// Which token; a newer one stays.
        version: u64,
        /// Since when; one that was registered later stays.
        since: Option<UnixMs>,
    },
    /// Removes what a mailbox need not keep any longer, as far as the last `Expire` allows (R14).
    Retain {
        /// Which mailbox.
        mailbox: Recipient,
    },
    /// Chooses whose messages a user takes (R6).
    AcceptFrom {
        /// Whose setting.
        user: UserId,
        /// Everybody's, or contacts'.
        from: AcceptFrom,
    },
    /// Allows a sender, who is a contact then, or no longer.
    Allow {
        /// Who allows.
        user: UserId,
        /// Whom.
        sender: UserId,
        /// Or no longer.
        allowed: bool,
    },
    /// A back end's send that a gateway refuses for good (R2); nothing of its content is kept.
    RefuseBackend {
        /// In whose name.
        sender: UserId,
        /// The key beside the sender.
        id: ClientMsgId,
        /// Hash of what the back end asked for.
        content: ContentHash,
        /// Why.
        code: ErrorCode,
    },
    /// A back end's send that is accepted, and reaches nobody (R2).
    DropBackend(BackendSend),
    /// Somebody asks for a change of a group (R10).
    Group(GroupCommand),
    /// Goes on giving a group's log to its members.
    FanOut {
        /// Which group.
        group: GroupId,
    },
    /// Confirms what many devices have, for each as `Confirm` does (R12).
    ConfirmMany {
        /// 1 to [`CONFIRMATIONS_MAX`](tidemark_types::limits::CONFIRMATIONS_MAX) of them, all of one shard.
        confirmations: Vec<Confirmation>,
    },
}

/// A device has everything up to `seq`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// The device's owner.
    pub user: UserId,
    /// The device.
    pub device: DeviceId,
    /// The epoch in which `seq` counts.
    pub epoch: Epoch,
    /// Its new cursor.
    pub seq: Seq,
}

/// A device's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// When its token was made, 0 if that does not say: one that was logged out since is refused.
    pub issued: UnixMs,
}

/// Where a device starts that has no cursor (R12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Start {
    /// After the newest entry.
    Head,
    /// With the oldest entry that is kept.
    Floor,
    /// With the newest `n` entries.
    Last(u32),
}

/// A send inside a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Send {
    /// The device's owner.
    pub user: UserId,
    /// The device that the session is bound to.
    pub device: DeviceId,
    /// The session.
    pub session: SessionId,
    /// Which send of it, from 1 without a hole.
    pub n: u64,
    /// The lowest n whose acknowledgement the device lacks.
    pub base: u64,
    /// Hash of what the device asked for.
    pub content: ContentHash,
    /// What the gateway found.
    pub judged: Judged,
}

/// A gateway's judgement of a send; the first one committed becomes the verdict (R2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Judged {
    /// It may go.
    Allow(Draft),
    /// It is refused for good; nothing of its content is kept.
    Refuse(ErrorCode),
    /// It is accepted, and reaches nobody: its sender must not learn that it is unwelcome.
    Drop(Draft),
}

impl Judged {
    /// The message, unless it is refused.
    pub fn draft(&self) -> Option<&Draft> {
        match self {
            Judged::Allow(draft) | Judged::Drop(draft) => Some(draft),
            Judged::Refuse(_) => None,
        }
    }
}

/// A back end's send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendSend {
    /// In whose name.
    pub sender: UserId,
    /// Hash of what the back end asked for.
    pub content: ContentHash,
    /// The message; its id is the key beside the sender.
    pub draft: Draft,
}

/// A message before its sender's shard accepted it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draft {
    /// 1 to 256 users, or one group; nobody for an act, which goes where its message went.
    pub to: Vec<Recipient>,
    /// The application's kind of message.
    pub kind: u32,
    /// The application's name for it.
    pub client_msg_id: ClientMsgId,
    /// The application's bytes.
    #[serde(deserialize_with = "codec::bytes")]
    pub body: Bytes,
    /// What it is to do about a message that is there already; none for a message of its own. Only
    /// an edit has a body, and its kind must be the message's.
    pub act: Option<Asked>,
}

impl Command {
    const VERSION: u8 = 3;

    /// Its bytes, as a client sends it to a leader.
    pub fn encode(&self) -> Bytes {
        codec::encode(Self::VERSION, self).into()
    }

    /// The command with these bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode("Command", Self::VERSION, bytes)
    }

    /// The id whose shard the command belongs to, unless it is about the shard itself (R8); of many
    /// the first one.
    pub fn routed_by(&self) -> Option<Id> {
        match self {
            Command::RegisterDevice { user, .. }
            | Command::ForgetDevice { user, .. }
            | Command::Open { user, .. }
            | Command::Send(Send { user, .. })
            | Command::BackendSend(BackendSend { sender: user, .. })
            | Command::DropBackend(BackendSend { sender: user, .. })
            | Command::RefuseBackend { sender: user, .. }
            | Command::Confirm { user, .. }
            | Command::TrimMailbox { user, .. }
            | Command::DeleteMailbox { user }
            | Command::Adopt { user, .. }
            | Command::Block { user, .. }
            | Command::Silence { user, .. }
            | Command::LogOut { user, .. }
            | Command::Depart { user, .. }
            | Command::SetPush { user, .. }
            | Command::PushSent { user, .. }
            | Command::DropPush { user, .. }
            | Command::AcceptFrom { user, .. }
            | Command::Allow { user, .. } => Some(Id::User(user.clone())),
            Command::Retain { mailbox } => Some(mailbox.id()),
            Command::Allocate { counter, .. } => Some(Id::Counter(counter.clone())),
            Command::AllocateMany { allocations } => {
                allocations.first().map(|(counter, _)| Id::Counter(counter.clone()))
            }
            Command::ConfirmMany { confirmations } => {
                confirmations.first().map(|first| Id::User(first.user.clone()))
            }
            Command::Group(GroupCommand { group, .. }) | Command::FanOut { group } => {
                Some(Id::Group(group.clone()))
            }
            Command::Init { .. }
            | Command::Configure { .. }
            | Command::RelayIn { .. }
            | Command::TrimOutbox { .. }
            | Command::Expire { .. }
            | Command::CreateCluster { .. } => None,
        }
    }

    /// May it wait a little for others? No user waits for what becomes of it.
    pub fn is_patient(&self) -> bool {
        self.confirmations() > 0
    }

    /// How many cursors it confirms.
    pub fn confirmations(&self) -> usize {
        match self {
            Command::Confirm { .. } => 1,
            Command::ConfirmMany { confirmations } => confirmations.len(),
            _ => 0,
        }
    }

    /// Is it the cluster's own, which never waits behind clients (R7)?
    pub fn is_internal(&self) -> bool {
        match self {
            Command::Init { .. }
            | Command::Configure { .. }
            | Command::Confirm { .. }
            | Command::ConfirmMany { .. }
            | Command::RelayIn { .. }
            | Command::TrimOutbox { .. }
            | Command::TrimMailbox { .. }
            | Command::Expire { .. }
            | Command::CreateCluster { .. }
            | Command::Depart { .. }
            | Command::PushSent { .. }
            | Command::DropPush { .. }
            | Command::Retain { .. }
            | Command::FanOut { .. } => true,
            Command::RegisterDevice { .. }
            | Command::ForgetDevice { .. }
            | Command::Open { .. }
            | Command::Send(_)
            | Command::BackendSend(_)
            | Command::DropBackend(_)
            | Command::RefuseBackend { .. }
            | Command::DeleteMailbox { .. }
            | Command::Adopt { .. }
            | Command::Block { .. }
            | Command::Silence { .. }
            | Command::AcceptFrom { .. }
            | Command::Allow { .. }
            | Command::Allocate { .. }
            | Command::AllocateMany { .. }
            | Command::LogOut { .. }
            | Command::SetPush { .. }
            | Command::Group(_) => false,
        }
    }

    /// What it costs on its way through queues and log, in bytes: an upper estimate, for bounds.
    pub fn cost(&self) -> usize {
        const FIXED: usize = 256;
        let draft = match self {
            Command::Send(Send { judged, .. }) => judged.draft(),
            Command::BackendSend(BackendSend { draft, .. })
            | Command::DropBackend(BackendSend { draft, .. }) => Some(draft),
            Command::RelayIn { records, .. } => {
                let payloads = records.iter().map(|(_, payload)| payload.cost());
                return FIXED + usize::try_from(payloads.sum::<u64>()).unwrap_or(usize::MAX);
            }
            Command::AllocateMany { allocations } => {
                return FIXED + allocations.len() * (NAME_BYTES_MAX + size_of::<u64>());
            }
            Command::ConfirmMany { confirmations } => {
                return FIXED + confirmations.len() * 2 * (NAME_BYTES_MAX + size_of::<u64>());
            }
            Command::SetPush { target: Some(target), .. } => return FIXED + target.target.len(),
            Command::Group(GroupCommand { action, .. }) => {
                return FIXED + action.users().len() * NAME_BYTES_MAX;
            }
            _ => None,
        };
        FIXED + draft.map_or(0, |draft| draft.body.len() + draft.to.len() * NAME_BYTES_MAX)
    }
}
