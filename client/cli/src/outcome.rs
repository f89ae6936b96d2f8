//! What the attempts of one call add up to (R3): pure, so that the rule can be tested alone.
//!
//! Every call of this command line may be repeated: reads, sends under their id, and settings
//! whose second time changes nothing. What differs is what a lost answer means: for a read
//! nothing, for the others that the call may have been taken. From then on only a definite answer
//! ends the doubt.

use std::time::Duration;

use tidemark_proto::Failure;
use tidemark_types::ErrorCode;

use crate::error::Error;

/// Why one attempt gave no answer.
#[derive(Clone, Debug)]
pub(crate) enum Attempt {
    /// No connection came about: nothing was sent.
    NotSent(String),
    /// It was sent, and nobody answered.
    Lost(String),
    /// A refusal, or a failure of the connection, which then says UNKNOWN.
    Failed(Failure),
}

/// The attempts of one call so far.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Does the call change anything?
    changes: bool,
    /// Why an attempt may have been taken.
    doubt: Option<String>,
    /// What the last attempt said.
    last: Failure,
}

impl Outcome {
    /// Of a call that changes nothing.
    pub(crate) fn of_read() -> Self {
        let last = Failure::new(ErrorCode::Unavailable).message("there was no time to ask");
        Outcome { changes: false, doubt: None, last }
    }

    /// Of a call that changes something, for the first time.
    pub(crate) fn of_change() -> Self {
        Outcome { changes: true, ..Self::of_read() }
    }

    /// Of a call that may have been made before, by somebody who could not tell us how it ended.
    pub(crate) fn of_repetition() -> Self {
        let doubt = Some("an earlier attempt with this id may have been taken".to_owned());
        Outcome { doubt, ..Self::of_change() }
    }

    /// Takes an attempt's failure: when to try again, if the server says so, or how the call ends.
    pub(crate) fn add(&mut self, failed: Attempt) -> Result<Option<Duration>, Error> {
        self.last = match failed {
            Attempt::NotSent(reason) => Failure::new(ErrorCode::Unavailable).message(reason),
            Attempt::Lost(reason) => Failure::new(ErrorCode::Unknown).message(reason),
            Attempt::Failed(failure) => failure,
        };
        let code = self.last.code;
        if self.changes && !code.has_no_effect() {
            self.doubt = Some(self.last.to_string());
        }
        if code.is_retryable() {
            return Ok(self.last.retry_after);
        }
        // Under a back end's id there is one content for ever, so CONFLICT says that ours was not
        // taken by any attempt. In a send session, which this is not, it would say less.
        match (&self.doubt, code.is_final() || code == ErrorCode::Conflict) {
            (Some(_), false) => Err(self.end()),
            _ => Err(Error::Refused(self.last.clone())),
        }
    }

    /// How the call ends when there is no time for another attempt, or no use.
    pub(crate) fn end(&self) -> Error {
        let last = self.last.to_string();
        match &self.doubt {
            None => Error::Unavailable(self.last.message.clone()),
            Some(doubt) if *doubt == last => Error::unknown(doubt),
            Some(doubt) => Error::unknown(format!("{doubt}; then: {last}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(code: ErrorCode) -> Attempt {
        Attempt::Failed(Failure::new(code))
    }

    fn lost() -> Attempt {
        Attempt::Lost("no answer".to_owned())
    }

    fn not_sent() -> Attempt {
        Attempt::NotSent("refused".to_owned())
    }

    /// The exit code after these attempts, of which the last is the last there is time for.
    fn exit(mut outcome: Outcome, attempts: &[Attempt]) -> u8 {
        for attempt in attempts {
            if let Err(error) = outcome.add(attempt.clone()) {
                return error.exit_code();
            }
        }
        outcome.end().exit_code()
    }

    #[test]
    fn unknown_stays_unknown_until_a_definite_answer() {
        let change = Outcome::of_change;
        assert_eq!(exit(change(), &[not_sent()]), 3);
        assert_eq!(exit(change(), &[lost()]), 4);
        assert_eq!(exit(change(), &[lost(), not_sent()]), 4);
        assert_eq!(exit(change(), &[failed(ErrorCode::Unknown), not_sent()]), 4);
        assert_eq!(exit(change(), &[lost(), failed(ErrorCode::PermissionDenied)]), 4);
        assert_eq!(exit(change(), &[failed(ErrorCode::PermissionDenied)]), 1);
        assert_eq!(exit(change(), &[lost(), failed(ErrorCode::Blocked)]), 1);
        assert_eq!(exit(change(), &[lost(), failed(ErrorCode::Conflict)]), 1);
        assert_eq!(exit(change(), &[failed(ErrorCode::Internal)]), 4);
    }

    #[test]
    fn a_repetition_begins_in_doubt() {
        let repetition = Outcome::of_repetition;
        assert_eq!(exit(repetition(), &[not_sent()]), 4);
        assert_eq!(exit(repetition(), &[failed(ErrorCode::DedupExpired)]), 4);
        assert_eq!(exit(repetition(), &[failed(ErrorCode::BadRecipient)]), 1);
    }

    #[test]
    fn a_read_has_nothing_to_doubt() {
        let read = Outcome::of_read;
        assert_eq!(exit(read(), &[lost(), not_sent()]), 3);
        assert_eq!(exit(read(), &[lost(), failed(ErrorCode::PermissionDenied)]), 1);
        assert_eq!(exit(read(), &[failed(ErrorCode::Internal)]), 1);
    }

    #[test]
    fn every_code_ends_a_first_attempt_somehow() {
        for code in ErrorCode::ALL {
            let expected = match (code.has_no_effect(), code.is_retryable()) {
                (false, _) => 4,
                (true, true) => 3,
                (true, false) => 1,
            };
            assert_eq!(exit(Outcome::of_change(), &[failed(*code)]), expected, "{code}");
        }
    }

    #[test]
    fn a_hint_is_handed_on() {
        let after = Duration::from_millis(250);
        let failure = Failure::new(ErrorCode::Overloaded).retry_after(after);
        let hint = Outcome::of_change().add(Attempt::Failed(failure)).expect("try again");
        assert_eq!(hint, Some(after));
    }
}
