//! What a failure says of a send: the table of docs/protocol.md, section 5.
//!
//! Judges by the code alone, and remembers nothing. A code is only called definite when it is the
//! outcome of every attempt (R3).

use tidemark_proto::{Detail, Failure};
use tidemark_types::ErrorCode;

/// What a failure says of a send, or of an `Open`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Definite: refused for good.
    Refused,
    /// Definite: not taken, and never will be in this session, which took this n last.
    Ended(u64),
    /// The session takes this n next.
    OutOfOrder(u64),
    /// It was answered before.
    Settled,
    /// Nobody knows what the session took.
    Expired,
    /// The number was used for other content.
    Conflict,
    /// Nothing is decided: later again, the same.
    Wait,
    /// After another `Hello`, the same.
    Hello,
    /// With another token, the same.
    Token,
    /// Through another gateway, the same.
    Elsewhere,
    /// Repeating it cannot heal it.
    Stop,
}

impl Answer {
    /// What this failure says.
    pub(super) fn of(failure: &Failure) -> Answer {
        match failure.code {
            ErrorCode::BodyTooLarge
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
            | ErrorCode::Stranger => Answer::Refused,
            // Without its number it says nothing of this send; asking again does no harm.
            ErrorCode::SessionEnded => match failure.detail {
                Some(Detail::LastN(last_n)) => Answer::Ended(last_n),
                _ => Answer::Wait,
            },
            ErrorCode::OutOfOrder => match failure.detail {
                Some(Detail::Expected(expected)) => Answer::OutOfOrder(expected),
                _ => Answer::Wait,
            },
            ErrorCode::Settled => Answer::Settled,
            ErrorCode::SessionExpired => Answer::Expired,
            ErrorCode::Conflict => Answer::Conflict,
            ErrorCode::NotLeader
            | ErrorCode::Unavailable
            | ErrorCode::Overloaded
            | ErrorCode::RetryAfter
            | ErrorCode::Unknown
            | ErrorCode::Displaced
            | ErrorCode::WindowFull => Answer::Wait,
            ErrorCode::NoDevice => Answer::Hello,
            ErrorCode::Unauthenticated | ErrorCode::TokenExpired => Answer::Token,
            ErrorCode::GoingAway => Answer::Elsewhere,
            ErrorCode::Invalid
            | ErrorCode::PermissionDenied
            | ErrorCode::LoggedOut
            | ErrorCode::TooManyDevices
            | ErrorCode::FrameTooLarge
            | ErrorCode::UnknownFrame
            | ErrorCode::WrongCluster
            | ErrorCode::WrongShard
            | ErrorCode::Internal
            | ErrorCode::Stale
            | ErrorCode::DedupExpired
            | ErrorCode::IdInFuture
            | ErrorCode::GroupFull
            | ErrorCode::Forbidden
            | ErrorCode::Reset
            | ErrorCode::NotEmpty => Answer::Stop,
        }
    }

    /// Is it the outcome of the send, whoever tells it and however late?
    pub(super) fn is_definite(self) -> bool {
        matches!(self, Answer::Refused | Answer::Ended(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definite_is_what_settles_all_attempts() {
        for code in ErrorCode::ALL {
            let failure = Failure::new(*code).detail(Detail::LastN(1));
            assert_eq!(Answer::of(&failure).is_definite(), code.is_final(), "{code}");
        }
    }

    #[test]
    fn what_may_be_tried_again_is_tried_again() {
        for code in ErrorCode::ALL.iter().filter(|code| code.is_retryable()) {
            let answer = Answer::of(&Failure::new(*code));
            assert!(matches!(answer, Answer::Wait | Answer::Elsewhere), "{code}: {answer:?}");
        }
    }
}
