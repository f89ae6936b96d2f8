//! The one list of error codes, and what each tells a caller.
//!
//! Every refusal and failure that crosses a wire is one of these. Each code answers three
//! questions, by exhaustive match, so that a new code cannot forget one: may the same request be
//! tried again ([`ErrorCode::is_retryable`]), is it certain that nothing happened
//! ([`ErrorCode::has_no_effect`] of this attempt, [`ErrorCode::is_final`] of all of them), and what
//! should a person do ([`ErrorCode::advice`]). The gRPC status of each lives beside the generated
//! code, in the crate that knows gRPC.
//!
//! Invariant: once a request was handed to Raft, every failure is [`ErrorCode::Unknown`] (R3).

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

macro_rules! error_codes {
    ($($(#[doc = $doc:literal])* $variant:ident = $number:literal, $name:literal;)*) => {
        /// Why a request was refused or failed. The numbers stand in frames, keys and stored
        /// acknowledgements; they are never reused.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(try_from = "u16", into = "u16")]
        #[repr(u16)]
        pub enum ErrorCode {
            $($(#[doc = $doc])* $variant = $number,)*
        }

        impl ErrorCode {
            /// Every code, in the order of their numbers.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$variant,)*];

            /// Its name in frames, logs, metrics and documents.
            pub const fn name(self) -> &'static str {
                match self {
                    $(ErrorCode::$variant => $name,)*
                }
            }

            /// What it means, in one sentence or two.
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(ErrorCode::$variant => concat!($($doc),*),)*
                }
            }
        }

        impl TryFrom<u16> for ErrorCode {
            type Error = UnknownErrorCode;
            fn try_from(number: u16) -> Result<Self, UnknownErrorCode> {
                match number {
                    $($number => Ok(ErrorCode::$variant),)*
                    _ => Err(UnknownErrorCode(number)),
                }
            }
        }
    };
}

error_codes! {
    /// The request is malformed: a field is missing, out of range or contradicts another one.
    Invalid = 1, "INVALID";
    /// No token, or one that does not verify.
    Unauthenticated = 2, "UNAUTHENTICATED";
    /// The token was good and has expired.
    TokenExpired = 3, "TOKEN_EXPIRED";
    /// The token does not allow this: another user's mailbox, or a role that is missing.
    PermissionDenied = 4, "PERMISSION_DENIED";
    /// The frame is larger than the limit.
    FrameTooLarge = 5, "FRAME_TOO_LARGE";
    /// The frame is of a kind that this server does not know.
    UnknownFrame = 6, "UNKNOWN_FRAME";
    /// The request names another cluster.
    WrongCluster = 7, "WRONG_CLUSTER";
    /// The id does not live on the shard that the request names.
    WrongShard = 8, "WRONG_SHARD";

    /// This node does not lead the shard; the reply carries the leader when it is known.
    NotLeader = 20, "NOT_LEADER";
    /// The shard has no leader or no quorum now; nothing was proposed.
    Unavailable = 21, "UNAVAILABLE";
    /// A bounded queue is full; the reply says when to try again.
    Overloaded = 22, "OVERLOADED";
    /// The caller exceeded its rate; the reply says when to try again.
    RetryAfter = 23, "RETRY_AFTER";
    /// The server is stopping; another one takes the request.
    GoingAway = 24, "GOING_AWAY";
    /// Nobody knows whether it happened: an answer was lost after the request may have been taken.
    Unknown = 25, "UNKNOWN";
    /// The server contradicts itself; it has logged the reason.
    Internal = 26, "INTERNAL";
    /// The device has connected again, and its newer connection is used.
    Displaced = 27, "DISPLACED";

    /// `Open` names another session to replace than the live one, which the reply carries.
    Stale = 40, "STALE";
    /// The send lies below the session's `base`: its sender has had the acknowledgement.
    Settled = 41, "SETTLED";
    /// The number or id was used before for other content.
    Conflict = 42, "CONFLICT";
    /// The send is not the session's next one, which the reply carries.
    OutOfOrder = 43, "OUT_OF_ORDER";
    /// Too many sends of the session are without an acknowledgement.
    WindowFull = 44, "WINDOW_FULL";
    /// The session was replaced, and this send was not taken in it.
    SessionEnded = 45, "SESSION_ENDED";
    /// The session is no longer kept; what it took is unknown.
    SessionExpired = 46, "SESSION_EXPIRED";
    /// The message id is older than the time for which ids are remembered.
    DedupExpired = 47, "DEDUP_EXPIRED";
    /// The message id was made more than 5 minutes in the future.
    IdInFuture = 48, "ID_IN_FUTURE";
    /// The user has no such device, or it was forgotten.
    NoDevice = 49, "NO_DEVICE";
    /// The device was logged out after its token was made.
    LoggedOut = 50, "LOGGED_OUT";
    /// The user has as many devices as one may have.
    TooManyDevices = 51, "TOO_MANY_DEVICES";

    /// The body is larger than the limit.
    BodyTooLarge = 60, "BODY_TOO_LARGE";
    /// More recipients than one send may have.
    TooManyRecipients = 61, "TOO_MANY_RECIPIENTS";
    /// No recipient, an illegal id, or a group beside others.
    BadRecipient = 62, "BAD_RECIPIENT";
    /// The cluster's operator does not take this kind of message.
    KindNotAllowed = 63, "KIND_NOT_ALLOWED";
    /// The operator's content filter refuses the body.
    Filtered = 64, "FILTERED";
    /// The operator's hook refuses the message.
    HookRefused = 65, "HOOK_REFUSED";
    /// The message that an act is about is not there, or is none that this user may do that to.
    NoMessage = 66, "NO_MESSAGE";
    /// The time in which a message can be recalled or edited is over.
    TooLate = 67, "TOO_LATE";

    /// The recipient blocks the sender.
    Blocked = 80, "BLOCKED";
    /// The mailbox or counter has used up its numbers.
    SeqExhausted = 81, "SEQ_EXHAUSTED";
    /// The mailbox was deleted and its owner has not come back.
    NoMailbox = 82, "NO_MAILBOX";
    /// The sender is not a member of the group, or may not post there.
    NotMember = 83, "NOT_MEMBER";
    /// The group does not exist.
    GroupGone = 84, "GROUP_GONE";
    /// The recipient takes messages of contacts only, and the sender is none.
    Stranger = 90, "STRANGER";
    /// The group has as many members as it may have.
    GroupFull = 85, "GROUP_FULL";
    /// The group does not let the one who asks do this: it takes another role, or its policy.
    Forbidden = 86, "FORBIDDEN";

    /// The cursor is of another epoch or above the head; the reply carries epoch, floor and head.
    Reset = 100, "RESET";
    /// The mailbox is in use, and only an unused one can be adopted.
    NotEmpty = 101, "NOT_EMPTY";
}

impl ErrorCode {
    /// Its number in frames and stored acknowledgements.
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// May the very same request succeed later, or elsewhere, with nothing changed?
    pub const fn is_retryable(self) -> bool {
        match self {
            ErrorCode::NotLeader
            | ErrorCode::Unavailable
            | ErrorCode::Overloaded
            | ErrorCode::RetryAfter
            | ErrorCode::GoingAway
            | ErrorCode::Unknown
            | ErrorCode::Displaced
            | ErrorCode::OutOfOrder
            | ErrorCode::WindowFull => true,
            ErrorCode::Invalid
            | ErrorCode::Unauthenticated
            | ErrorCode::TokenExpired
            | ErrorCode::PermissionDenied
            | ErrorCode::FrameTooLarge
            | ErrorCode::UnknownFrame
            | ErrorCode::WrongCluster
            | ErrorCode::WrongShard
            | ErrorCode::Internal
            | ErrorCode::Stale
            | ErrorCode::Settled
            | ErrorCode::Conflict
            | ErrorCode::SessionEnded
            | ErrorCode::SessionExpired
            | ErrorCode::DedupExpired
            | ErrorCode::IdInFuture
            | ErrorCode::NoDevice
            | ErrorCode::LoggedOut
            | ErrorCode::TooManyDevices
            | ErrorCode::BodyTooLarge
            | ErrorCode::TooManyRecipients
            | ErrorCode::BadRecipient
            | ErrorCode::KindNotAllowed
            | ErrorCode::Filtered
            | ErrorCode::HookRefused
            | ErrorCode::NoMessage
            | ErrorCode::TooLate
            | ErrorCode::Blocked
            | ErrorCode::SeqExhausted
            | ErrorCode::NoMailbox
            | ErrorCode::NotMember
            | ErrorCode::GroupGone
            | ErrorCode::Stranger
            | ErrorCode::GroupFull
            | ErrorCode::Forbidden
            | ErrorCode::Reset
            | ErrorCode::NotEmpty => false,
        }
    }

    /// Is it certain that this attempt changed nothing?
    ///
    /// It says nothing of earlier attempts at the same request; for those see
    /// [`ErrorCode::is_final`].
    pub const fn has_no_effect(self) -> bool {
        match self {
            ErrorCode::Unknown | ErrorCode::Internal | ErrorCode::Settled => false,
            ErrorCode::Invalid
            | ErrorCode::Unauthenticated
            | ErrorCode::TokenExpired
            | ErrorCode::PermissionDenied
            | ErrorCode::FrameTooLarge
            | ErrorCode::UnknownFrame
            | ErrorCode::WrongCluster
            | ErrorCode::WrongShard
            | ErrorCode::NotLeader
            | ErrorCode::Unavailable
            | ErrorCode::Overloaded
            | ErrorCode::RetryAfter
            | ErrorCode::GoingAway
            | ErrorCode::Displaced
            | ErrorCode::Stale
            | ErrorCode::Conflict
            | ErrorCode::OutOfOrder
            | ErrorCode::WindowFull
            | ErrorCode::SessionEnded
            | ErrorCode::SessionExpired
            | ErrorCode::DedupExpired
            | ErrorCode::IdInFuture
            | ErrorCode::NoDevice
            | ErrorCode::LoggedOut
            | ErrorCode::TooManyDevices
            | ErrorCode::BodyTooLarge
            | ErrorCode::TooManyRecipients
            | ErrorCode::BadRecipient
            | ErrorCode::KindNotAllowed
            | ErrorCode::Filtered
            | ErrorCode::HookRefused
            | ErrorCode::NoMessage
            | ErrorCode::TooLate
            | ErrorCode::Blocked
            | ErrorCode::SeqExhausted
            | ErrorCode::NoMailbox
            | ErrorCode::NotMember
            | ErrorCode::GroupGone
            | ErrorCode::Stranger
            | ErrorCode::GroupFull
            | ErrorCode::Forbidden
            | ErrorCode::Reset
            | ErrorCode::NotEmpty => true,
        }
    }

    /// Does it settle a send for good: neither this attempt nor an earlier one was or will be
    /// taken (R3)?
    ///
    /// These are the stored verdicts of a send (R2), and the end of its session. Any other code
    /// leaves an attempt that was unknown before as unknown as it was.
    pub const fn is_final(self) -> bool {
        match self {
            ErrorCode::SessionEnded
            | ErrorCode::BodyTooLarge
            | ErrorCode::TooManyRecipients
            | ErrorCode::BadRecipient
            | ErrorCode::KindNotAllowed
            | ErrorCode::Filtered
            | ErrorCode::HookRefused
            | ErrorCode::NoMessage
            | ErrorCode::TooLate
            | ErrorCode::Blocked
            | ErrorCode::SeqExhausted
            | ErrorCode::NoMailbox
            | ErrorCode::NotMember
            | ErrorCode::GroupGone
            | ErrorCode::Stranger => true,
            ErrorCode::Invalid
            | ErrorCode::Unauthenticated
            | ErrorCode::TokenExpired
            | ErrorCode::PermissionDenied
            | ErrorCode::FrameTooLarge
            | ErrorCode::UnknownFrame
            | ErrorCode::WrongCluster
            | ErrorCode::WrongShard
            | ErrorCode::NotLeader
            | ErrorCode::Unavailable
            | ErrorCode::Overloaded
            | ErrorCode::RetryAfter
            | ErrorCode::GoingAway
            | ErrorCode::Unknown
            | ErrorCode::Internal
            | ErrorCode::Displaced
            | ErrorCode::Stale
            | ErrorCode::Settled
            | ErrorCode::Conflict
            | ErrorCode::OutOfOrder
            | ErrorCode::WindowFull
            | ErrorCode::SessionExpired
            | ErrorCode::DedupExpired
            | ErrorCode::IdInFuture
            | ErrorCode::NoDevice
            | ErrorCode::LoggedOut
            | ErrorCode::TooManyDevices
            | ErrorCode::GroupFull
            | ErrorCode::Forbidden
            | ErrorCode::Reset
            | ErrorCode::NotEmpty => false,
        }
    }

    /// What a person does about it.
    pub const fn advice(self) -> &'static str {
        match self {
            ErrorCode::Invalid => "Correct the request; the message names the field.",
            ErrorCode::Unauthenticated => "Send a token made with a key that the server knows.",
            ErrorCode::TokenExpired => "Get a new token and say Hello again.",
            ErrorCode::PermissionDenied => "Use a token for this user, or one with the role.",
            ErrorCode::FrameTooLarge => "Send less in one frame.",
            ErrorCode::UnknownFrame => "Upgrade the server, or use an older client.",
            ErrorCode::WrongCluster => "Check the endpoint: it belongs to another cluster.",
            ErrorCode::WrongShard => "Fetch the cluster map; report it if it happens again.",
            ErrorCode::NotLeader => "Try again at the leader that the reply names.",
            ErrorCode::Unavailable => {
                "Try again; if it lasts, look whether a majority of the \
                                       shard's replicas is up."
            }
            ErrorCode::Overloaded => "Wait as long as the reply says, then try again.",
            ErrorCode::RetryAfter => "Slow down; wait as long as the reply says.",
            ErrorCode::GoingAway => "Connect to another server of the list.",
            ErrorCode::Unknown => "Repeat it with the same number or id: it is taken once at most.",
            ErrorCode::Internal => "Report it with the server's log.",
            ErrorCode::Displaced => {
                "Give each device a name of its own; one that two use goes to and fro."
            }
            ErrorCode::Stale => "Open again, naming the live session of the reply in `ends`.",
            ErrorCode::Settled => "Nothing: the acknowledgement was received before.",
            ErrorCode::Conflict => "Use a new number or id for new content.",
            ErrorCode::OutOfOrder => "Send again from the number of the reply.",
            ErrorCode::WindowFull => "Wait for acknowledgements, then raise `base`.",
            ErrorCode::SessionEnded => "Send it again in the new session.",
            ErrorCode::SessionExpired => {
                "Sync, look for it by session and number, and let the \
                                          application decide about the rest."
            }
            ErrorCode::DedupExpired => "Look for it in the history before sending it anew.",
            ErrorCode::IdInFuture => "Set the clock of the machine that makes the ids.",
            ErrorCode::NoDevice => "Say Hello again, which registers the device.",
            ErrorCode::LoggedOut => "Log in again: Hello needs a token that is newer than that.",
            ErrorCode::TooManyDevices => "Forget a device that is not used any more.",
            ErrorCode::BodyTooLarge => "Send a shorter body, or a reference to it.",
            ErrorCode::TooManyRecipients => "Split the list over several sends.",
            ErrorCode::BadRecipient => "Name 1 to 256 users, or one group.",
            ErrorCode::KindNotAllowed => "Send a kind that the operator takes.",
            ErrorCode::Filtered => "Send other content.",
            ErrorCode::HookRefused => "Nothing: the operator decides.",
            ErrorCode::NoMessage => {
                "Name a message of the user's own mailbox: one that was sent, to recall or edit it, \
                 one that was received, to mark it."
            }
            ErrorCode::TooLate => "Nothing: the time is over.",
            ErrorCode::Blocked => "Nothing: the recipient decides.",
            ErrorCode::SeqExhausted => "Move to a new mailbox or counter; this one is full.",
            ErrorCode::NoMailbox => "Wait until its owner comes back.",
            ErrorCode::NotMember => "Join the group first.",
            ErrorCode::GroupGone => "Check the group's id.",
            ErrorCode::Stranger => "Nothing: the recipient decides whom it takes messages of.",
            ErrorCode::GroupFull => "Make a group for more members, or remove some.",
            ErrorCode::Forbidden => "Ask an admin of the group, or its owner.",
            ErrorCode::Reset => {
                "Start again from the floor of the reply, dropping by origin what \
                                 is known."
            }
            ErrorCode::NotEmpty => "Adopt a mailbox that nobody has used.",
        }
    }
}

/// A number that is not an [`ErrorCode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("error code {0} is unknown")]
pub struct UnknownErrorCode(pub u16);

impl From<ErrorCode> for u16 {
    fn from(code: ErrorCode) -> u16 {
        code.number()
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_found_again_by_its_number() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::try_from(code.number()), Ok(*code));
        }
        assert_eq!(ErrorCode::try_from(0), Err(UnknownErrorCode(0)));
    }

    #[test]
    fn what_settles_a_send_had_no_effect_and_needs_no_retry() {
        for code in ErrorCode::ALL.iter().filter(|code| code.is_final()) {
            assert!(code.has_no_effect(), "{code}");
            assert!(!code.is_retryable(), "{code}");
        }
    }

    #[test]
    fn unknown_is_never_taken_for_failed() {
        assert!(!ErrorCode::Unknown.has_no_effect());
        assert!(!ErrorCode::Unknown.is_final());
        assert!(ErrorCode::Unknown.is_retryable());
    }
}
