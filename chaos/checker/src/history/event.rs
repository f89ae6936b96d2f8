//! What a history is made of.
//!
//! An operation has two events, one before its request leaves and one after its answer came, under
//! the same [`Op`]. One without an answer may have happened, and may still happen at any later
//! time. Users, devices, groups and nodes are numbers; the runner knows whom it gave which.

use std::fmt;

use serde::{Deserialize, Serialize};
use tidemark_types::{ErrorCode, Seq};

/// A point of time: nanoseconds of the machine's monotonic clock, which all writers share.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Nanos(pub u64);

/// A user, and so a mailbox.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct User(pub u32);

/// A device of a user, counted within the user.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Device(pub u8);

/// A Raft group.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Group(pub u32);

/// A store node.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Node(pub u64);

/// An operation: unique in the history, over all its files.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Op(pub u64);

impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09} s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

macro_rules! show {
    ($($kind:ident: $word:literal),*) => {
        $(impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($word, " {}"), self.0)
            }
        })*
    };
}

show!(User: "user", Device: "device", Group: "group", Node: "node", Op: "op");

/// By which door a send comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// A device's send session.
    Session,
    /// A back end's unary call.
    Backend,
}

/// Which send of its sender something comes from: the same in every copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Origin {
    /// Send number `n` of a session.
    Session {
        /// The session's number, unique within the sender.
        session: u64,
        /// Which send of it, from 1.
        n: u64,
    },
    /// A back end's, which the message's id names.
    Backend,
}

/// One entry of a mailbox, without its seq.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Copy {
    /// A message.
    Message {
        /// Who sent it.
        sender: User,
        /// Which send of the sender's.
        origin: Origin,
        /// Its `client_msg_id`.
        id: u128,
        /// XXH3-64 over its kind (u32, little-endian) and body.
        content: u64,
    },
    /// In the sender's mailbox: a recipient's side refused a message.
    Refusal {
        /// Who sent the message.
        sender: User,
        /// Which send of the sender's.
        origin: Origin,
        /// A back end's `client_msg_id`. None for a session's send: the entry does not carry it.
        id: Option<u128>,
        /// Who did not get it.
        recipient: User,
        /// Why.
        code: ErrorCode,
    },
}

/// How an attempt at a send ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It was acknowledged.
    Accepted {
        /// Its seq in the sender's own mailbox.
        seq: Seq,
        /// Which send it was, where the answer says so; a device's library does not.
        origin: Option<Origin>,
    },
    /// It was refused. The code knows what that says of this attempt and of earlier ones. A device
    /// repeats a send unseen, so of a session's only the codes count that settle a send for good.
    Refused {
        /// Why; encoded as the code's number.
        code: ErrorCode,
    },
    /// Nobody knows.
    Unknown,
}

/// What the operator's checks make of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Judgement {
    /// It goes as it was sent.
    Allow,
    /// It is refused for good.
    Refuse {
        /// Why.
        code: ErrorCode,
    },
    /// It goes with another body.
    Replace {
        /// As in [`Copy::Message`].
        content: u64,
    },
    /// It is accepted, and nobody but its sender has it.
    Drop,
}

/// What a node says of its replica of a group. Indexes are 0 where there is none yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftFacts {
    /// When the answer came.
    pub at: Nanos,
    /// Whose replica.
    pub node: Node,
    /// How often the node was started before.
    pub life: u32,
    /// Of which group.
    pub group: Group,
    /// The replica's term.
    pub term: u64,
    /// Does it take itself for the leader of that term?
    pub leads: bool,
    /// Index of the last entry in its log.
    pub last: u64,
    /// Index up to which it knows entries to be committed, if it says so. It may hear of that
    /// before it has the entries.
    pub committed: Option<u64>,
    /// Index of the last entry in its state.
    pub applied: u64,
    /// Index up to which its last snapshot goes.
    pub snapshot: u64,
    /// Index up to which its log was purged.
    pub purged: u64,
}

/// Something that happened in a run, or that was found after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// An attempt at a send is about to leave. Attempts at one message have the same sender, id,
    /// way, recipients and content, and each an operation of its own.
    Send {
        /// This attempt.
        op: Op,
        /// Before the request left.
        at: Nanos,
        /// Whose message.
        sender: User,
        /// Which device sends it; any number for a back end.
        device: Device,
        /// By which door.
        way: Way,
        /// Its `client_msg_id`: one for each message of a sender.
        id: u128,
        /// The recipients, in any order; the sender may be one, and counts once.
        to: Vec<User>,
        /// As in [`Copy::Message`].
        content: u64,
    },
    /// The attempt ended.
    Sent {
        /// Which attempt.
        op: Op,
        /// After the answer came, or the waiting ended.
        at: Nanos,
        /// How.
        outcome: Outcome,
    },
    /// A linearizable read of a mailbox's head is about to leave.
    Head {
        /// This read.
        op: Op,
        /// Before the request left.
        at: Nanos,
        /// Whose mailbox.
        user: User,
    },
    /// The read was answered; one that failed has no such event.
    HeadIs {
        /// Which read.
        op: Op,
        /// After the answer came.
        at: Nanos,
        /// The head; [`Seq::NONE`] of an empty mailbox.
        seq: Seq,
    },
    /// A request for a page is about to leave.
    Range {
        /// This request.
        op: Op,
        /// Before the request left.
        at: Nanos,
        /// Whose mailbox.
        user: User,
        /// Of the entries after this one.
        after: Seq,
    },
    /// The page came; one that failed has no such event.
    RangeIs {
        /// Which request.
        op: Op,
        /// After the page came.
        at: Nanos,
        /// The mailbox's floor, as the page says; the page begins after it, or after `after`.
        floor: Seq,
        /// The entries. None means that there are no more.
        entries: Vec<(Seq, Copy)>,
    },
    /// A device's application begins, for the first time or again.
    Start {
        /// Before it is given anything.
        at: Nanos,
        /// Whose device.
        user: User,
        /// Which one.
        device: Device,
        /// The cursor of the device's own store. The first time: the start that it was given.
        cursor: Seq,
    },
    /// A device's application ended, or was killed; it takes nothing until it starts again.
    Stop {
        /// After it took the last entry.
        at: Nanos,
        /// Whose device.
        user: User,
        /// Which one.
        device: Device,
    },
    /// A device's handler took an entry with success.
    Taken {
        /// Before the device was told so, and so before its cursor could move.
        at: Nanos,
        /// Whose device.
        user: User,
        /// Which one.
        device: Device,
        /// The entry's seq.
        seq: Seq,
        /// The entry.
        copy: Copy,
    },
    /// A device was told that retention had removed what it lacked.
    Gap {
        /// When its handler was told.
        at: Nanos,
        /// Whose device.
        user: User,
        /// Which one.
        device: Device,
        /// The last seq removed; the device goes on after it.
        to: Seq,
    },
    /// A linearizable read of the server's cursor of a device.
    CursorIs {
        /// Before the request left.
        asked: Nanos,
        /// After the answer came.
        at: Nanos,
        /// Whose device.
        user: User,
        /// Which one.
        device: Device,
        /// The cursor.
        seq: Seq,
    },
    /// From now on this user may drop, without telling, what comes from those whom it blocks.
    Silent {
        /// Before the request left.
        at: Nanos,
        /// Who is silent.
        user: User,
    },
    /// All load has stopped, every outbox is empty, and every device had time to take the rest.
    Quiet {
        /// When that was so.
        at: Nanos,
    },
    /// Ground truth, read from a replica's own files after the run: a mailbox.
    Mailbox {
        /// Whose replica.
        node: Node,
        /// Whose mailbox.
        user: User,
        /// Its floor.
        floor: Seq,
        /// Its head.
        head: Seq,
        /// [`Digest`](super::Digest) over its entries.
        digest: u64,
    },
    /// Ground truth: an entry, as one of the replicas has it. They come in ascending order, after
    /// the mailbox.
    Entry {
        /// Whose mailbox.
        user: User,
        /// Its seq.
        seq: Seq,
        /// What it is.
        copy: Copy,
    },
    /// Ground truth: an entry as this replica has it. Written for every entry of every replica
    /// where the digests of a mailbox differ, so that the difference can be shown.
    ReplicaEntry {
        /// Whose replica.
        node: Node,
        /// Whose mailbox.
        user: User,
        /// Its seq.
        seq: Seq,
        /// What it is.
        copy: Copy,
    },
    /// The state hash of a replica.
    StateHash {
        /// When it was read, during the run or after it.
        at: Nanos,
        /// Whose replica.
        node: Node,
        /// Of which group.
        group: Group,
        /// After which entry of the group's log.
        index: u64,
        /// The chain's value.
        hash: u128,
    },
    /// What a node says of its replica of a group.
    Raft(RaftFacts),
    /// A fault begins.
    Fault {
        /// When.
        at: Nanos,
        /// Which kind.
        kind: String,
        /// Whom it befalls.
        target: String,
    },
    /// The fault is over: what was cut is joined, what was killed is up.
    Healed {
        /// When.
        at: Nanos,
        /// As in the fault.
        kind: String,
        /// As in the fault.
        target: String,
    },
    /// What a fault was seen to do.
    Effect {
        /// When it was counted.
        at: Nanos,
        /// The fault's kind.
        kind: String,
        /// What was counted: packets dropped, leaders changed, bytes lost.
        name: String,
        /// How many.
        amount: u64,
    },
    /// A probe of a group is about to leave.
    Probe {
        /// Before the request left.
        at: Nanos,
        /// Which group.
        group: Group,
    },
    /// A probe of a group was acknowledged.
    ProbeAck {
        /// After the answer came.
        at: Nanos,
        /// Which group.
        group: Group,
    },
    /// What a process used of something that has a bound.
    Cost {
        /// When it was measured.
        at: Nanos,
        /// Which process.
        process: String,
        /// Of what, with its unit.
        what: String,
        /// How much, at most.
        amount: u64,
        /// How much it may be.
        bound: u64,
    },
    /// What a user decided about a sender was acknowledged, and holds for what is sent from now on. A
    /// history has all decisions of its run.
    Decided {
        /// Before the request left.
        asked: Nanos,
        /// After the answer came.
        at: Nanos,
        /// Whose mailbox.
        user: User,
        /// Whose messages.
        sender: User,
        /// They are refused: the sender is blocked, or a stranger where only contacts are taken.
        refused: bool,
    },
    /// Where a device is woken was acknowledged: from now on it is told by hints of what comes while it
    /// does not run.
    Target {
        /// After the answer came.
        at: Nanos,
        /// Whose device.
        user: User,
        /// Which one.
        device: Device,
    },
    /// A push service took a hint for a device.
    Hint {
        /// When that was seen.
        at: Nanos,
        /// Whose device.
        user: User,
        /// Which one.
        device: Device,
        /// The head that it is told of.
        head: Seq,
    },
    /// From now on this may become of a message: whoever judges it is about to say so, or it may go so
    /// unjudged. The first judgement that is committed counts for every attempt. Of a message with such
    /// an event nothing else may become than what one of them says; of all others nobody judges.
    Judged {
        /// Before the gateway hears of it, or before the message is sent.
        at: Nanos,
        /// Whose message, which was begun to be sent.
        sender: User,
        /// Its `client_msg_id`.
        id: u128,
        /// None: nothing, as long as nobody has judged it.
        judgement: Option<Judgement>,
    },
    /// Ground truth: the verdict that was committed of a message is that it is dropped, as its sender's own
    /// entry says. One replica is enough: that all hold the same is what their state hashes say.
    Dropped {
        /// The sender, in whose mailbox it is.
        user: User,
        /// Where.
        seq: Seq,
    },
}

impl Event {
    /// When it was. None for ground truth, which is of the end.
    pub fn at(&self) -> Option<Nanos> {
        match self {
            Event::Send { at, .. }
            | Event::Sent { at, .. }
            | Event::Head { at, .. }
            | Event::HeadIs { at, .. }
            | Event::Range { at, .. }
            | Event::RangeIs { at, .. }
            | Event::Start { at, .. }
            | Event::Stop { at, .. }
            | Event::Taken { at, .. }
            | Event::Gap { at, .. }
            | Event::CursorIs { at, .. }
            | Event::Silent { at, .. }
            | Event::Quiet { at }
            | Event::StateHash { at, .. }
            | Event::Raft(RaftFacts { at, .. })
            | Event::Fault { at, .. }
            | Event::Healed { at, .. }
            | Event::Effect { at, .. }
            | Event::Probe { at, .. }
            | Event::ProbeAck { at, .. }
            | Event::Cost { at, .. }
            | Event::Decided { at, .. }
            | Event::Target { at, .. }
            | Event::Hint { at, .. }
            | Event::Judged { at, .. } => Some(*at),
            Event::Mailbox { .. }
            | Event::Entry { .. }
            | Event::ReplicaEntry { .. }
            | Event::Dropped { .. } => None,
        }
    }

    /// Its place in the order of time; ground truth comes last.
    pub(crate) fn rank(&self) -> Nanos {
        self.at().unwrap_or(Nanos(u64::MAX))
    }
}
