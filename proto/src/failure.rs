//! A refusal or failure as a value, on its way to a frame or a gRPC status and back.

use std::time::Duration;

use thiserror::Error;
use tidemark_types::{Epoch, ErrorCode, Seq, SessionId};

use crate::convert::{FieldError, error_code, session_number};
use crate::v1;

/// Bytes of a failure's message: it travels in a header, and headers are bounded.
pub const MESSAGE_BYTES_MAX: usize = 1024;

/// What an error comes from in the end, such as "Connection refused": what wraps it says less.
pub fn first_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// Why a request was refused or failed, and what the caller needs to go on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{code}: {message}")]
pub struct Failure {
    /// Why.
    pub code: ErrorCode,
    /// For a person; at most [`MESSAGE_BYTES_MAX`] bytes.
    pub message: String,
    /// When to try again; whole milliseconds, none for no hint.
    pub retry_after: Option<Duration>,
    /// Where the leader is, as host:port.
    pub leader: Option<String>,
    /// For a program.
    pub detail: Option<Detail>,
}

/// What a program needs to go on after a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// With `OUT_OF_ORDER`: the n that the session takes next.
    Expected(u64),
    /// With `STALE`: the live session.
    Live(Option<SessionId>),
    /// With `SESSION_ENDED`: the last n that the session took.
    LastN(u64),
    /// With `RESET`: where the mailbox stands.
    Position(Position),
}

/// Where a mailbox stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Its epoch.
    pub epoch: Epoch,
    /// The last seq removed.
    pub floor: Seq,
    /// The last seq assigned.
    pub head: Seq,
}

impl Failure {
    /// A failure with this code, which says what the code means.
    pub fn new(code: ErrorCode) -> Self {
        Failure {
            code,
            message: code.meaning().trim().to_owned(),
            retry_after: None,
            leader: None,
            detail: None,
        }
    }

    /// With a message of its own; what is above [`MESSAGE_BYTES_MAX`] is cut off.
    #[must_use]
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        let end = self.message.floor_char_boundary(MESSAGE_BYTES_MAX);
        self.message.truncate(end);
        self
    }

    /// With a hint when to try again.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// With a hint where the leader is.
    #[must_use]
    pub fn leader(mut self, address: impl Into<String>) -> Self {
        self.leader = Some(address.into());
        self
    }

    /// With what a program needs.
    #[must_use]
    pub fn detail(mut self, detail: Detail) -> Self {
        self.detail = Some(detail);
        self
    }
}

impl From<FieldError> for Failure {
    fn from(error: FieldError) -> Self {
        Failure::new(error.code()).message(error.to_string())
    }
}

impl From<Position> for Failure {
    fn from(position: Position) -> Self {
        Failure::new(ErrorCode::Reset).detail(Detail::Position(position))
    }
}

/// A duration in whole milliseconds, rounded up so that a hint never becomes "no hint".
pub(crate) fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
}

impl From<Failure> for v1::Failure {
    fn from(failure: Failure) -> Self {
        use v1::failure::Detail as Wire;
        v1::Failure {
            code: v1::ErrorCode::from(failure.code).into(),
            message: failure.message,
            retry_after_ms: failure.retry_after.map_or(0, millis),
            leader: failure.leader.unwrap_or_default(),
            detail: failure.detail.map(|detail| match detail {
                Detail::Expected(n) => Wire::Expected(n),
                Detail::Live(session) => Wire::Live(session_number(session)),
                Detail::LastN(n) => Wire::LastN(n),
                Detail::Position(position) => Wire::Position(position.into()),
            }),
        }
    }
}

impl From<v1::Failure> for Failure {
    fn from(failure: v1::Failure) -> Self {
        use v1::failure::Detail as Wire;
        let retry = Duration::from_millis(failure.retry_after_ms.into());
        let detail = failure.detail.map(|detail| match detail {
            Wire::Expected(n) => Detail::Expected(n),
            Wire::Live(session) => Detail::Live(SessionId::new(session).ok()),
            Wire::LastN(n) => Detail::LastN(n),
            Wire::Position(position) => Detail::Position(position.into()),
        });
        let bare = Failure::new(error_code(failure.code)).message(failure.message);
        Failure {
            retry_after: Some(retry).filter(|retry| !retry.is_zero()),
            leader: Some(failure.leader).filter(|leader| !leader.is_empty()),
            detail,
            ..bare
        }
    }
}

macro_rules! position {
    ($($type:ident)*) => {$(
        impl From<Position> for v1::$type {
            fn from(position: Position) -> Self {
                v1::$type {
                    epoch: position.epoch.get(),
                    floor: position.floor.get(),
                    head: position.head.get(),
                }
            }
        }

        impl From<v1::$type> for Position {
            fn from(position: v1::$type) -> Self {
                Position {
                    epoch: Epoch::new(position.epoch),
                    floor: Seq::new(position.floor),
                    head: Seq::new(position.head),
                }
            }
        }
    )*};
}

position! { Position Reset HeadResponse }

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::*;

    fn position() -> Position {
        Position { epoch: Epoch::new(2), floor: Seq::new(10), head: Seq::MAX }
    }

    fn every_shape() -> Vec<Failure> {
        let details = [
            None,
            Some(Detail::Expected(u64::MAX)),
            Some(Detail::Live(None)),
            Some(Detail::Live(SessionId::new(7).ok())),
            Some(Detail::LastN(0)),
            Some(Detail::Position(position())),
        ];
        let mut shapes = Vec::new();
        for code in ErrorCode::ALL {
            for detail in details {
                let bare = Failure { detail, ..Failure::new(*code) };
                shapes.push(bare.clone().message("zwölf % \u{1f30a}\nlines"));
                shapes.push(bare.clone().retry_after(Duration::from_millis(250)));
                shapes.push(bare.leader("[::1]:7401").message(""));
            }
        }
        shapes
    }

    #[test]
    fn a_failure_crosses_both_carriers_whole() {
        for failure in every_shape() {
            assert_eq!(Failure::from(v1::Failure::from(failure.clone())), failure);
            // By way of the headers, as on a wire.
            let mut headers = tonic::metadata::MetadataMap::new().into_headers();
            Status::from(failure.clone()).add_header(&mut headers).expect("legal headers");
            let status = Status::from_header_map(&headers).expect("a status");
            assert_eq!(Failure::from(&status), failure);
        }
    }

    #[test]
    fn what_middleware_repeats_by_itself_had_no_effect() {
        for code in ErrorCode::ALL {
            if crate::status::grpc(*code) == tonic::Code::Unavailable {
                assert!(code.has_no_effect(), "{code}");
                assert!(code.is_retryable(), "{code}");
            }
            assert_ne!(crate::status::grpc(*code), tonic::Code::Ok, "{code}");
        }
    }

    #[test]
    fn a_status_of_another_making_is_unknown() {
        for code in (1..=16).map(tonic::Code::from_i32) {
            let failure = Failure::from(&Status::new(code, "connection reset"));
            assert_eq!(failure.code, ErrorCode::Unknown, "{code}");
            assert!(failure.message.ends_with(": connection reset"));
        }
    }

    #[test]
    fn spoilt_trailers_are_left_out() {
        for spoilt in ["", "1,2", "1,2,3,4", "1,2,x", "1,2,4294967296", "-1,0,0"] {
            let mut status = Status::from(Failure::from(position()));
            let value = spoilt.parse().expect("a header value");
            status.metadata_mut().insert(crate::headers::POSITION, value);
            let failure = Failure::from(&status);
            assert_eq!((failure.code, failure.detail), (ErrorCode::Reset, None), "{spoilt:?}");
        }
        let odd = Failure::new(ErrorCode::NotLeader).leader("ümlaut\n:1");
        assert_eq!(Failure::from(&Status::from(odd)).leader, None);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let failure = Failure::new(ErrorCode::Invalid).message("é".repeat(MESSAGE_BYTES_MAX));
        assert_eq!(failure.message.len(), MESSAGE_BYTES_MAX);
        let failure = Failure::new(ErrorCode::Invalid).message(format!("x{}", failure.message));
        assert_eq!(failure.message.len(), MESSAGE_BYTES_MAX - 1);
    }

    #[test]
    fn a_hint_is_never_rounded_to_none() {
        assert_eq!(millis(Duration::from_nanos(1)), 1);
        assert_eq!(millis(Duration::from_millis(7)), 7);
        assert_eq!(millis(Duration::MAX), u32::MAX);
    }

    #[test]
    fn a_position_is_the_same_in_each_message() {
        assert_eq!(Position::from(v1::Reset::from(position())), position());
        assert_eq!(Position::from(v1::HeadResponse::from(position())), position());
        let failure = v1::Failure::from(Failure::from(position()));
        assert_eq!(failure.code(), v1::ErrorCode::Reset);
    }
}
