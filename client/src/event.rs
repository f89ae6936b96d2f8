//! What a device tells its application beside entries and the outcomes it waits for.

use std::time::Duration;

use thiserror::Error;
use tidemark_types::{Epoch, ErrorCode, Seq, SeqRange, UnixMs, UserId};

use crate::outcome::Settled;

/// What a device tells its application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A gateway has welcomed the device.
    Connected {
        /// Which one, as configured.
        gateway: String,
    },
    /// There is no connection; the device comes back by itself.
    Disconnected {
        /// Why.
        reason: String,
        /// When it tries again.
        retry_in: Duration,
    },
    /// What became of a send of an earlier run of this device, which nobody waits for any more.
    Outcome(Settled),
    /// Entries that retention removed before this device had them. The handler is told as well, in
    /// its turn.
    Gap(SeqRange),
    /// The mailbox was restored or rebuilt: what it keeps is delivered once more, but for what the
    /// device remembers to have handed over (see [`crate::ORIGINS_MAX`]).
    Reset {
        /// The mailbox's new epoch.
        epoch: Epoch,
        /// Delivery starts after this seq.
        floor: Seq,
    },
    /// The handler did not take an item; delivery waits, and the same item is handed over again.
    HandlerFailed {
        /// The item's last seq.
        seq: Seq,
        /// What the handler said.
        error: String,
        /// When it is handed over again.
        retry_in: Duration,
    },
    /// The send session is not the live one any more: another process opened one in this device's
    /// name, or it was idle for too long. The device goes on in a new one of its own; two that share
    /// a name take the session from each other for ever.
    SessionReplaced,
    /// The server refused a send in a way that repeating cannot heal. Nothing is sent until the
    /// device is opened again; the outbox keeps everything, and receiving goes on.
    SendingStopped {
        /// The server's code.
        code: ErrorCode,
        /// The server's words.
        message: String,
    },
    /// Another user types to this one, or has stopped. Whoever shows it forgets it after a few seconds
    /// without another one: what passes by may be lost.
    Typing {
        /// Who.
        by: UserId,
        /// Or has stopped.
        typing: bool,
    },
    /// A user that the device watches is there, or is not any more; or it has just begun to watch, and this
    /// is how it is. What passes by may be lost, and comes again when the device connects.
    Presence {
        /// Who.
        user: UserId,
        /// Is a device of the user connected?
        online: bool,
        /// When one was last heard of, to the hour; 0 for never.
        last_seen: UnixMs,
    },
    /// The gateway does not tell of the users whom the device wants to watch, since they are too many; or of
    /// one of them, whom too many follow.
    PresenceRefused {
        /// The server's words.
        message: String,
    },
    /// The device has stopped for good; open it again when the reason is gone.
    Stopped(Fatal),
    /// So many events were dropped because nobody took them; never an outcome.
    Missed(u64),
}

/// Why a device stops for good.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Fatal {
    /// The gateways belong to another cluster than the device's cursor.
    #[error("the gateway belongs to another cluster than this device's store: {0}")]
    WrongCluster(String),
    /// A second token in a row does not verify.
    #[error("the server does not accept the token: {0}")]
    Unauthenticated(String),
    /// The token is for another user or device.
    #[error("the token does not allow this device: {0}")]
    PermissionDenied(String),
    /// The device was logged out: it goes on with a token that was made since.
    #[error("the device was logged out: {0}")]
    LoggedOut(String),
    /// Server and device do not understand each other.
    #[error("the server refuses this device's Hello: {0}")]
    Refused(String),
    /// The device's own store failed: what it holds is not known any more.
    #[error("the device's store failed: {0}")]
    Store(String),
}
