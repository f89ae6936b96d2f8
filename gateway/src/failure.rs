//! What the store refuses, as a device or back end is told.

use tidemark_proto::{Detail, Failure, Position};
use tidemark_store_client::Error;
use tidemark_store_core::read::Answer;
use tidemark_store_core::{Reject, Reply};
use tidemark_types::ErrorCode;

/// A refusal of the state machine.
pub(crate) fn of_reject(reject: &Reject) -> Failure {
    let failure = Failure::new(reject.code());
    match reject {
        Reject::Invalid(text) => failure.message(text.clone()),
        Reject::Stale { live } => failure.detail(Detail::Live(*live)),
        Reject::OutOfOrder { expected } => failure.detail(Detail::Expected(*expected)),
        Reject::SessionEnded { last_n } => failure.detail(Detail::LastN(*last_n)),
        Reject::Reset { epoch, floor, head } => {
            Position { epoch: *epoch, floor: *floor, head: *head }.into()
        }
        Reject::WrongShard(_)
        | Reject::Settled
        | Reject::Conflict
        | Reject::WindowFull
        | Reject::SessionExpired
        | Reject::DedupExpired
        | Reject::NoDevice
        | Reject::SeqExhausted
        | Reject::NotEmpty => failure,
    }
}

/// A call without a reply.
pub(crate) fn of_error(error: &Error) -> Failure {
    if let Error::BadAnswer(_) = error {
        tracing::error!(%error, "the store cannot be understood");
    }
    let message = match error {
        Error::Refused { message, .. } => message.clone(),
        Error::Unknown(_) | Error::Unavailable(_) | Error::BadAnswer(_) => error.to_string(),
    };
    Failure::new(error.code()).message(message)
}

/// A reply that does not go with what was asked: the store contradicts itself.
pub(crate) fn of_reply(reply: &Reply) -> Failure {
    match reply {
        Reply::Rejected(reject) => of_reject(reject),
        other => {
            tracing::error!(?other, "the store's reply does not go with the command");
            Failure::new(ErrorCode::Internal)
        }
    }
}

/// An answer that does not go with what was asked.
pub(crate) fn of_answer(answer: &Answer) -> Failure {
    tracing::error!(?answer, "the store's answer does not go with the query");
    Failure::new(ErrorCode::Internal)
}
