//! What the store refuses, as a device or back end is told.

use tidemark_proto::{Detail, Failure, Position};
use tidemark_store_client::{Attempt, Error};
use tidemark_store_core::read::Answer;
use tidemark_store_core::{Reject, Reply};
use tidemark_types::ErrorCode;

/// A refusal of the state machine.
pub(crate) fn of_reject(reject: Reject) -> Failure {
    let failure = Failure::new(reject.code());
    match reject {
        Reject::Invalid(text) => failure.message(text),
        Reject::Stale { live } => failure.detail(Detail::Live(live)),
        Reject::OutOfOrder { expected } => failure.detail(Detail::Expected(expected)),
        Reject::SessionEnded { last_n } => failure.detail(Detail::LastN(last_n)),
        Reject::Reset { epoch, floor, head } => Position { epoch, floor, head }.into(),
        Reject::TooManyDevices => failure.message("the user has as many devices as there may be"),
        Reject::WrongShard(_)
        | Reject::Settled
        | Reject::Conflict
        | Reject::WindowFull
        | Reject::SessionExpired
        | Reject::DedupExpired
        | Reject::NoDevice
        | Reject::SeqExhausted
        | Reject::LoggedOut
        | Reject::NotEmpty
        | Reject::Group(_) => failure,
    }
}

/// A call without a reply. What the store client says of nodes and addresses stays here.
pub(crate) fn of_error(error: Error) -> Failure {
    match &error {
        Error::BadAnswer(_) => tracing::error!(%error, "the store cannot be understood"),
        _ => tracing::debug!(%error, "a call to the store gave no reply"),
    }
    let failure = Failure::new(error.code());
    match error {
        Error::Overloaded { retry_after: Some(after), .. } => failure.retry_after(after),
        _ => failure,
    }
}

/// A token that is not good, or not good for this.
pub(crate) fn of_token(error: tidemark_token::Error) -> Failure {
    Failure::new(error.code()).message(error.to_string())
}

/// An attempt without a reply.
pub(crate) fn of_attempt(attempt: Attempt) -> Failure {
    match attempt {
        Attempt::Failed(failure) => failure,
        other => Failure::new(other.code()),
    }
}

/// A reply that is not the one that was hoped for: a refusal, or the store contradicts itself.
pub(crate) fn of_reply(reply: Reply) -> Failure {
    match reply {
        Reply::Rejected(reject) => of_reject(reject),
        other => {
            tracing::error!(?other, "the store's reply does not go with the command");
            Failure::new(ErrorCode::Internal)
        }
    }
}

/// An answer that does not go with what was asked.
pub(crate) fn of_answer(answer: Answer) -> Failure {
    tracing::error!(?answer, "the store's answer does not go with the query");
    Failure::new(ErrorCode::Internal)
}
