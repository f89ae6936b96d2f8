//! The workloads: what is done, to whom, how fast, and when the clock stops.

use crate::settings::Selection;

/// A workload. `docs/performance.md` says what each one measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) scale: Scale,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Devices send messages, and may receive them.
    Messages(Messages),
    /// Devices come back that have missed messages.
    CatchUp,
    /// Back ends take numbers from counters.
    Numbers,
}

/// How large a workload is, if nobody says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scale {
    /// Senders of messages or calls.
    pub(crate) senders: u32,
    /// What each has in flight in a closed loop.
    pub(crate) in_flight: u32,
    /// Seconds measured.
    pub(crate) seconds: u32,
    /// Messages in a second in an open loop, of all senders together.
    pub(crate) rate: u32,
}

/// Messages from devices to users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Messages {
    pub(crate) pace: Pace,
    pub(crate) recipients: Recipients,
    /// What recipients who are online come by.
    pub(crate) line: Line,
    /// Devices take entries from pages only, as if every `Deliver` were a `Notice`.
    pub(crate) pulls: bool,
    /// Something is done to the cluster in the middle of the measured time.
    pub(crate) disturbed: bool,
}

/// What makes a message due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// The acknowledgement of another one.
    Closed,
    /// Its time.
    Open,
    /// The end of the measured time: one of each sender, which shows that everybody is still there.
    AtLast,
}

/// Whom messages go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recipients {
    /// Each sender has one of its own, who is online and on another shard.
    Online,
    /// Any other sender who is on another shard.
    EachOther,
    /// All of some who are online, on all shards: every message goes to every one.
    Everyone,
    /// The members of one group, who are all online, on all shards; the sender is one of them.
    Group,
    /// As many as one send can have for each sender, who are online, so that all of many are reached.
    Idle,
    /// Any of many on the sender's shard, all offline: the acknowledgement says that the message
    /// is in their mailbox.
    OfflineHere,
    /// Any of many on other shards, all offline: the clock stops when all outboxes are empty.
    OfflineElsewhere,
}

/// What devices come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Streams on a few connections, so that the servers are measured and not the sockets.
    Shared,
    /// A connection of its own each, as in production.
    Own,
}

const SCALE: Scale = Scale { senders: 64, in_flight: 16, seconds: 10, rate: 1_000 };

const CLOSED: Messages = Messages {
    pace: Pace::Closed,
    recipients: Recipients::Online,
    line: Line::Shared,
    pulls: false,
    disturbed: false,
};

const OPEN: Messages = Messages { pace: Pace::Open, ..CLOSED };

const APPEND: Workload = Workload {
    name: "append",
    kind: Kind::Messages(Messages { recipients: Recipients::OfflineHere, ..CLOSED }),
    scale: SCALE,
};
const SEND: Workload = Workload {
    name: "send",
    kind: Kind::Messages(Messages { recipients: Recipients::OfflineElsewhere, ..CLOSED }),
    scale: SCALE,
};
const DELIVER: Workload = Workload { name: "deliver", kind: Kind::Messages(CLOSED), scale: SCALE };
const INBOX: Workload = Workload {
    name: "inbox",
    kind: Kind::Messages(Messages { recipients: Recipients::EachOther, ..CLOSED }),
    scale: Scale { senders: 1_000, in_flight: 1, ..SCALE },
};
const LATENCY: Workload = Workload { name: "latency", kind: Kind::Messages(OPEN), scale: SCALE };
const NOTICE: Workload = Workload {
    name: "notice",
    kind: Kind::Messages(Messages { pulls: true, ..OPEN }),
    scale: SCALE,
};
const SYNC: Workload =
    Workload { name: "sync", kind: Kind::CatchUp, scale: Scale { senders: 16, ..SCALE } };
const FANOUT: Workload = Workload {
    name: "fanout",
    kind: Kind::Messages(Messages { recipients: Recipients::Everyone, ..CLOSED }),
    scale: Scale { senders: 1, ..SCALE },
};
const GROUP: Workload = Workload {
    name: "group",
    kind: Kind::Messages(Messages { recipients: Recipients::Group, ..OPEN }),
    scale: Scale { senders: 1, seconds: 20, rate: 2, ..SCALE },
};
const ALLOCATE: Workload = Workload { name: "allocate", kind: Kind::Numbers, scale: SCALE };
/// Long enough for every device's heartbeat.
const IDLE: Workload = Workload {
    name: "idle",
    kind: Kind::Messages(Messages {
        pace: Pace::AtLast,
        recipients: Recipients::Idle,
        line: Line::Own,
        ..CLOSED
    }),
    scale: Scale { seconds: 60, ..SCALE },
};
/// Long enough for a leader to be missed on one side of its end, and for all to be well on the other.
const FAILOVER: Workload = Workload {
    name: "failover",
    kind: Kind::Messages(Messages { disturbed: true, ..OPEN }),
    scale: Scale { seconds: 20, ..SCALE },
};

impl Selection {
    /// The workloads to run, in this order.
    pub(crate) fn workloads(self) -> &'static [Workload] {
        match self {
            Selection::Quick => &[DELIVER, LATENCY, APPEND],
            Selection::Append => &[APPEND],
            Selection::Send => &[SEND],
            Selection::Deliver => &[DELIVER],
            Selection::Inbox => &[INBOX],
            Selection::Latency => &[LATENCY],
            Selection::Notice => &[NOTICE],
            Selection::Sync => &[SYNC],
            Selection::Fanout => &[FANOUT],
            Selection::Group => &[GROUP],
            Selection::Allocate => &[ALLOCATE],
            Selection::Idle => &[IDLE],
            Selection::Failover => &[FAILOVER],
        }
    }
}

impl Recipients {
    /// Are they connected?
    pub(crate) fn are_online(self) -> bool {
        match self {
            Recipients::Online
            | Recipients::EachOther
            | Recipients::Everyone
            | Recipients::Group
            | Recipients::Idle => true,
            Recipients::OfflineHere | Recipients::OfflineElsewhere => false,
        }
    }
}
