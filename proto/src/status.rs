//! `Failure` to `tonic::Status` and back, without loss: the one place where a status is built.
//!
//! The gRPC code is for middleware that knows nothing of Tidemark; the trailers named in
//! [`crate::headers`] carry the truth. Invariant: only codes that had no effect become UNAVAILABLE,
//! since that is what middleware repeats by itself.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use tidemark_types::{Epoch, ErrorCode, Seq, SessionId};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use crate::convert::session_number;
use crate::failure::{Detail, Failure, Position, millis};
use crate::headers;

/// The gRPC code of an error code.
pub const fn grpc(code: ErrorCode) -> Code {
    match code {
        ErrorCode::Invalid
        | ErrorCode::FrameTooLarge
        | ErrorCode::IdInFuture
        | ErrorCode::BodyTooLarge
        | ErrorCode::TooManyRecipients
        | ErrorCode::BadRecipient
        | ErrorCode::KindNotAllowed => Code::InvalidArgument,
        ErrorCode::Unauthenticated | ErrorCode::TokenExpired | ErrorCode::LoggedOut => {
            Code::Unauthenticated
        }
        ErrorCode::PermissionDenied
        | ErrorCode::Filtered
        | ErrorCode::HookRefused
        | ErrorCode::Blocked
        | ErrorCode::NotMember
        | ErrorCode::Stranger
        | ErrorCode::Forbidden => Code::PermissionDenied,
        ErrorCode::UnknownFrame => Code::Unimplemented,
        ErrorCode::NotLeader | ErrorCode::Unavailable | ErrorCode::GoingAway => Code::Unavailable,
        ErrorCode::Overloaded
        | ErrorCode::RetryAfter
        | ErrorCode::WindowFull
        | ErrorCode::TooManyDevices
        | ErrorCode::SeqExhausted
        | ErrorCode::GroupFull => Code::ResourceExhausted,
        ErrorCode::Unknown => Code::Unknown,
        ErrorCode::Internal => Code::Internal,
        ErrorCode::Displaced => Code::Aborted,
        ErrorCode::Settled | ErrorCode::Conflict => Code::AlreadyExists,
        ErrorCode::NoDevice
        | ErrorCode::NoMailbox
        | ErrorCode::NoMessage
        | ErrorCode::GroupGone => Code::NotFound,
        ErrorCode::WrongCluster
        | ErrorCode::WrongShard
        | ErrorCode::Stale
        | ErrorCode::OutOfOrder
        | ErrorCode::SessionEnded
        | ErrorCode::SessionExpired
        | ErrorCode::DedupExpired
        | ErrorCode::Reset
        | ErrorCode::TooLate
        | ErrorCode::NotEmpty => Code::FailedPrecondition,
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let mut trailers = MetadataMap::new();
        put(&mut trailers, headers::ERROR_CODE, failure.code.name());
        if let Some(after) = failure.retry_after {
            put(&mut trailers, headers::RETRY_AFTER_MS, millis(after));
        }
        if let Some(leader) = &failure.leader {
            put(&mut trailers, headers::LEADER, leader);
        }
        match failure.detail {
            None => {}
            Some(Detail::Expected(n)) => put(&mut trailers, headers::EXPECTED, n),
            Some(Detail::Live(live)) => put(&mut trailers, headers::LIVE, session_number(live)),
            Some(Detail::LastN(n)) => put(&mut trailers, headers::LAST_N, n),
            Some(Detail::Position(Position { epoch, floor, head })) => {
                put(&mut trailers, headers::POSITION, format_args!("{epoch},{floor},{head}"));
            }
        }
        Status::with_metadata(grpc(failure.code), failure.message, trailers)
    }
}

impl From<&Status> for Failure {
    /// A status without an error code of ours was made by a transport or a proxy: whatever it
    /// says, the request may have been taken, so it is `UNKNOWN` (R3).
    fn from(status: &Status) -> Self {
        let trailers = status.metadata();
        let name = text(trailers, headers::ERROR_CODE);
        let code = ErrorCode::ALL.iter().find(|code| Some(code.name()) == name);
        let Some(code) = code.copied() else {
            let message = format!("{}: {}", status.code(), status.message());
            return Failure::new(ErrorCode::Unknown).message(message);
        };
        let retry = number(trailers, headers::RETRY_AFTER_MS);
        Failure {
            retry_after: retry.map(Duration::from_millis),
            leader: text(trailers, headers::LEADER).map(str::to_owned),
            detail: detail(trailers),
            ..Failure::new(code).message(status.message())
        }
    }
}

fn detail(trailers: &MetadataMap) -> Option<Detail> {
    let expected = number(trailers, headers::EXPECTED).map(Detail::Expected);
    let live = || number(trailers, headers::LIVE).map(|n| Detail::Live(SessionId::new(n).ok()));
    let last_n = || number(trailers, headers::LAST_N).map(Detail::LastN);
    let position = || position(text(trailers, headers::POSITION)?).map(Detail::Position);
    expected.or_else(live).or_else(last_n).or_else(position)
}

fn position(text: &str) -> Option<Position> {
    let mut parts = text.split(',').map(|part| part.parse().ok());
    let position = Position {
        epoch: Epoch::new(parts.next()??),
        floor: Seq::new(parts.next()??),
        head: Seq::new(parts.next()??),
    };
    parts.next().is_none().then_some(position)
}

/// A value that no header can hold is left out: only a leader's address could be one, and it is
/// a hint.
fn put(trailers: &mut MetadataMap, name: &'static str, value: impl Display) {
    if let Ok(value) = value.to_string().parse() {
        trailers.insert(name, value);
    }
}

fn text<'a>(trailers: &'a MetadataMap, name: &str) -> Option<&'a str> {
    trailers.get(name)?.to_str().ok()
}

fn number<T: FromStr>(trailers: &MetadataMap, name: &str) -> Option<T> {
    text(trailers, name)?.parse().ok()
}
