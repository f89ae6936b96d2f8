//! The gateway's bounds: what an operator may set, and what is fixed with its reason.

use std::time::Duration;

use tidemark_types::limits::{FRAME_BYTES_MAX, NAME_BYTES_MAX, SERVER_FRAME_BYTES_MAX};

/// What an operator may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at most; one more is refused with `OVERLOADED`.
    pub connections_max: u32,
    /// The shortest time between two `Ping`s that devices are told.
    pub heartbeat_min: Duration,
    /// A device that is silent for longer is cut.
    pub heartbeat_max: Duration,
    /// Users whom a device may watch, whether they are there.
    pub presence_max: u32,
    /// Bytes that the newest entries of all mailboxes hold together; beyond it devices are told to ask.
    pub tails_bytes_max: usize,
}

/// A refused connection may try again after this: a full gateway does not empty faster, and two that
/// displace each other do so slowly.
pub(crate) const REFUSED_RETRY: Duration = Duration::from_secs(2);

/// A connection that has not said a good `Hello` by then costs a place that a device could use.
pub(crate) const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// From a token's expiry to the cut; devices are promised at most 60 s, and their clocks differ.
pub(crate) const TOKEN_GRACE: Duration = Duration::from_secs(30);

/// A cursor waits this long for newer ones, so that a busy device costs one command a second.
pub(crate) const CONFIRM_EVERY: Duration = Duration::from_secs(1);

/// Cursors that are due within this time of each other are told together.
pub(crate) const CONFIRM_TOGETHER: Duration = Duration::from_millis(10);

/// Commands by which a shard is being told cursors, up to
/// [`CONFIRMATIONS_MAX`](tidemark_types::limits::CONFIRMATIONS_MAX) in each; with more, those that are due wait.
/// Together they are as many as a full batch of commands, which leaves at once.
pub(crate) const CONFIRMS_MAX: usize = 4;

/// How long closing frames may take to be written; a device that reads nothing is just cut.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Calls at once, each from its request until its answer was taken, which may hold a page: a gigabyte if
/// nobody reads. A stream of allocations is one of them for as long as it lasts.
pub(crate) const CALLS_MAX: usize = 2_048;

/// What the store said of a device's log-out is asked for again after this: a call of one that was
/// logged out through another gateway is refused by then.
pub(crate) const LOGINS_FRESH: Duration = Duration::from_secs(2);

/// Devices whose log-outs are remembered for that time, some 200 bytes each; more are asked for each time.
pub(crate) const LOGINS_MAX: usize = 4_096;

/// Sockets beside those of devices that have a place, on each port: back ends, and those that are to
/// hear that the gateway is full.
pub(crate) const SOCKETS_SPARE: usize = 1_024;

/// Frames on their way into a carrier. Few, since each may be as large as a page; what waits
/// longer waits as a cursor, which costs nothing.
pub const OUTGOING_FRAMES: usize = 4;

/// Answers that wait for room on their way out; with more, no frame is read.
pub(crate) const ANSWERS_MAX: usize = 64;

/// Others who type to a user, of whom the user's connections are told; with more the oldest news is
/// dropped.
pub(crate) const TYPING_MAX: usize = 16;

/// A user who is said to have gone is told of as gone after this, if it lasts: a device that changes its
/// gateway is back by then, and so is one whose leader has changed.
pub(crate) const PRESENCE_SETTLES: Duration = Duration::from_secs(5);

/// A device that may not follow a user, since too many do, is told to try again after this.
pub(crate) const FOLLOW_AGAIN: Duration = Duration::from_secs(60);

/// Users whom an operator may let a device watch: their names fit into a frame.
pub(crate) const PRESENCE_MAX: u32 = 3_000;

/// How often it is looked who has gone for so long.
pub(crate) const SETTLE_EVERY: Duration = Duration::from_secs(1);

/// Requests of one connection that the store has not answered; with more, no frame is read.
pub(crate) const WORK_MAX: usize = 8;

/// Frames and answers that a connection takes before it looks at what else has happened.
pub(crate) const TAKES_MAX: usize = 32;

/// Frames that a connection writes before it looks at what else has happened.
pub(crate) const WRITES_MAX: usize = 32;

/// Entries of a page.
pub(crate) const PAGE_ENTRIES_MAX: usize = 256;

/// Records of an answer from the feed.
pub(crate) const FEED_RECORDS_MAX: usize = 1_000;

/// How long a reader of the feed may wait for a record; a call's place is taken meanwhile.
pub(crate) const FEED_WAIT_MAX: Duration = Duration::from_secs(30);

/// Before a leader of whose feed nothing is heard is asked again for one who waits.
pub(crate) const FEED_ASK_AGAIN: Duration = Duration::from_millis(100);

/// Bytes of a page's entries as stored; a single entry may be larger.
pub(crate) const PAGE_BYTES_MAX: usize = 512 * 1024;

/// Entries that the gateway keeps of a mailbox, for the time between a device's last page and its
/// first `Deliver`, and while a device is slow; all of them go into one `Deliver`. More is had by
/// `Sync`.
pub(crate) const TAIL_ENTRIES_MAX: usize = 128;

/// Bytes of those entries, as encoded.
pub(crate) const TAIL_BYTES_MAX: usize = 320 * 1024;

/// A mailbox nobody is connected for, and entries nobody waits for, go after one to two of these.
pub(crate) const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// A send that the store has not answered by then is given back to its device.
pub(crate) const SEND_DEADLINE: Duration = Duration::from_secs(10);

/// The first pause before sends are repeated, doubled up to the longest.
pub(crate) const PAUSE_FIRST: Duration = Duration::from_millis(10);
pub(crate) const PAUSE_LONGEST: Duration = Duration::from_secs(1);

/// A device that sends too fast is not read for up to this long; if that does not do, its send is
/// given back. Short, since a device that is not read cannot be heard either.
pub(crate) const RATE_PAUSE_MAX: Duration = Duration::from_secs(1);

/// A hook may take up to this long: a send waits for it, and those of its session behind it.
pub(crate) const HOOK_DEADLINE_MAX: Duration = Duration::from_secs(2);

/// A hook over gRPC of which nothing was heard for so long is pinged, whether it is asked something or not,
/// and its connection given up if it does not answer within the other: a peer that has vanished says nothing, and
/// TCP waits for it for a quarter of an hour.
pub(crate) const HOOK_PING_EVERY: Duration = Duration::from_secs(10);
pub(crate) const HOOK_PONG_WITHIN: Duration = Duration::from_secs(5);

/// Bytes of a word list, and of one word in it.
pub(crate) const WORD_LIST_BYTES_MAX: u64 = 16 * 1024 * 1024;
pub(crate) const WORD_BYTES_MAX: usize = 256;

/// What an entry costs in a frame beside what is stored of it: tags, lengths, names in full.
const ENTRY_OVERHEAD: usize = 512;

// A send is judged before its time is up.
const _: () = assert!(HOOK_DEADLINE_MAX.as_millis() < SEND_DEADLINE.as_millis());
// So do the names of all whom a device may watch, with what is around each.
const _: () = assert!(PRESENCE_MAX as usize * (NAME_BYTES_MAX + 4) < FRAME_BYTES_MAX);
// Pages, tails and the largest entry fit into frames.
const _: () = assert!(PAGE_BYTES_MAX + PAGE_ENTRIES_MAX * ENTRY_OVERHEAD < SERVER_FRAME_BYTES_MAX);
const _: () = assert!(FRAME_BYTES_MAX + ENTRY_OVERHEAD <= TAIL_BYTES_MAX);
const _: () = assert!(TAIL_BYTES_MAX + ENTRY_OVERHEAD <= SERVER_FRAME_BYTES_MAX);
