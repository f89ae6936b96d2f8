//! Protocol limits: what a peer may send, the same for both sides of every wire.
//!
//! These are not tunables. A limit that one side enforces and the other does not know becomes a
//! message that can never be sent; tunables with defaults live in each binary's `config.rs`.

use std::time::Duration;

/// Bytes of a user's, group's, counter's or device's name, at least 1.
pub const NAME_BYTES_MAX: usize = 64;

/// Recipients of one send; the whole list is one atomic command.
pub const RECIPIENTS_MAX: usize = 256;

/// Bytes of one client frame, as encoded.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;

/// Bytes of one frame to a client, as encoded: the limit that gRPC libraries have by default, so
/// that an SDK in any language works without setting one.
pub const SERVER_FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of one message body.
pub const BODY_BYTES_MAX: usize = 192 * 1024;

/// Sends of one session that may be without an acknowledgement: `n - base` stays below it.
pub const SEND_WINDOW: u64 = 256;

/// Bytes of the bodies of those sends, so that buffers on the way are bounded as well.
pub const SEND_WINDOW_BYTES: usize = 1024 * 1024;

/// Ended send sessions kept per device, so that late retries still get their stored ack.
pub const ENDED_SESSIONS_MAX: usize = 4;

/// Bytes of what a device's owner calls it, and of what it runs on.
pub const LABEL_BYTES_MAX: usize = 64;

/// Bytes of a push provider's name.
pub const PUSH_PROVIDER_BYTES_MAX: usize = 32;

/// Bytes of what a push provider knows a device by: a token, an address with keys.
pub const PUSH_TARGET_BYTES_MAX: usize = 4_096;

/// Numbers that one call may allocate from a counter.
pub const ALLOCATE_MAX: u32 = 1_000_000;

/// Calls in one frame of a stream of allocations, calls of one such stream that may be without an
/// answer, and allocations in one command.
pub const ALLOCATE_CALLS_MAX: usize = 1_024;

/// Cursors that one command confirms. Few beside what a batch of commands holds, since what users wait for may be
/// applied behind them.
pub const CONFIRMATIONS_MAX: usize = 64;

/// Members of a group, for which a larger maximum is never set; beyond it fan-out by writing does
/// not pay.
pub const GROUP_MEMBERS_MAX: u32 = 10_000;

/// Members that a group may have when it is made without a maximum of its own.
pub const GROUP_MEMBERS_DEFAULT: u32 = 500;

/// Users whom one change of a group may name: its entry has all of them, for all members.
pub const GROUP_CHANGE_USERS_MAX: usize = 256;

/// How far ahead of cluster time the creation time in a client's message id may lie.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(5 * 60);

/// Virtual shards of a cluster, fixed when it is created, at least 1.
pub const SHARDS_MAX: u16 = 1024;

/// What a recipient costs in a frame beside its name: kind, tags and lengths.
const RECIPIENT_OVERHEAD: usize = 8;

/// What a send costs in a frame beside its body and recipients.
const SEND_OVERHEAD: usize = 256;

// The largest legal send fits into a frame, and the window holds it.
const _: () = assert!(
    BODY_BYTES_MAX + RECIPIENTS_MAX * (NAME_BYTES_MAX + RECIPIENT_OVERHEAD) + SEND_OVERHEAD
        <= FRAME_BYTES_MAX
);
const _: () = assert!(BODY_BYTES_MAX <= SEND_WINDOW_BYTES);
// A change of a group fits as well, as a call and as an entry.
const _: () =
    assert!(GROUP_CHANGE_USERS_MAX * (NAME_BYTES_MAX + RECIPIENT_OVERHEAD) <= FRAME_BYTES_MAX);
const _: () = assert!(GROUP_MEMBERS_DEFAULT <= GROUP_MEMBERS_MAX);
// As do the calls of a stream of allocations, with their numbers and lengths.
const _: () = assert!(ALLOCATE_CALLS_MAX * (NAME_BYTES_MAX + 16) <= FRAME_BYTES_MAX);
// An entry holds what a send holds, and fits into a frame of its own.
const _: () = assert!(2 * FRAME_BYTES_MAX <= SERVER_FRAME_BYTES_MAX);
