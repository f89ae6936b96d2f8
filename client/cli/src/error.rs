//! How a command fails: the exit code, and what to do about it.

use std::fmt;
use std::io;
use std::process::ExitCode;

use serde::Serialize;
use thiserror::Error;
use tidemark_proto::{Detail, Failure, FieldError};
use tidemark_types::{ClientMsgId, ErrorCode};

use crate::output::Output;

/// How a command fails.
#[derive(Debug, Error)]
pub(crate) enum Error {
    /// It cannot be carried out as it was given.
    #[error("{0}")]
    Usage(String),
    /// It was refused, for good.
    #[error("{0}")]
    Refused(Failure),
    /// Nobody could be asked, and nothing was taken.
    #[error("UNAVAILABLE: {0}")]
    Unavailable(String),
    /// It may have been taken.
    #[error("UNKNOWN: nobody knows whether it was taken: {reason}")]
    Unknown {
        /// What happened.
        reason: String,
        /// Of a send: the id to repeat it with.
        id: Option<ClientMsgId>,
    },
    /// The result cannot be printed, or the input not be read.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// An error as it is told, in text or JSON.
#[derive(Serialize)]
struct Told {
    /// The name of its kind, which goes with the exit code.
    error: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    message: String,
    advice: &'static str,
    /// The command to repeat.
    #[serde(skip_serializing_if = "Option::is_none")]
    again: Option<String>,
}

impl Error {
    /// An unknown outcome.
    pub(crate) fn unknown(reason: impl Into<String>) -> Self {
        Error::Unknown { reason: reason.into(), id: None }
    }

    /// The error of an answer that makes no sense.
    pub(crate) fn bad_answer(reason: impl fmt::Display) -> Self {
        let message = format!("the gateway's answer makes no sense: {reason}");
        Error::Refused(Failure::new(ErrorCode::Internal).message(message))
    }

    /// The code with which the process exits.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Error::Refused(_) => 1,
            Error::Usage(_) | Error::Io(_) => 2,
            Error::Unavailable(_) => 3,
            Error::Unknown { .. } => 4,
        }
    }

    /// Prints it on standard error; `given` are the words of the command line.
    pub(crate) fn report(&self, given: &[String], output: Output) -> ExitCode {
        // Whoever closed our standard output has seen enough.
        if matches!(self, Error::Io(error) if error.kind() == io::ErrorKind::BrokenPipe) {
            return ExitCode::SUCCESS;
        }
        // Nobody is left to tell when this fails.
        let _ = output.note(&self.told(given));
        ExitCode::from(self.exit_code())
    }

    fn told(&self, given: &[String]) -> Told {
        let (error, code, advice) = match self {
            Error::Usage(_) => ("usage", None, "See tidemark --help."),
            Error::Io(_) => ("io", None, "See that files and pipes are whole."),
            Error::Refused(failure) => ("refused", Some(failure.code), failure.code.advice()),
            Error::Unavailable(_) => ("unavailable", Some(ErrorCode::Unavailable), UNAVAILABLE),
            Error::Unknown { .. } => {
                ("unknown", Some(ErrorCode::Unknown), ErrorCode::Unknown.advice())
            }
        };
        let mut message = self.to_string();
        let mut repeated = None;
        if let Error::Refused(Failure { detail: Some(Detail::Position(at)), .. }) = self {
            message += &format!(" (epoch {}, floor {}, head {})", at.epoch, at.floor, at.head);
        }
        if let Error::Unknown { id, .. } = self {
            repeated = Some(again(given, *id));
        }
        Told { error, code: code.map(ErrorCode::name), message, advice, again: repeated }
    }
}

const UNAVAILABLE: &str = "Nothing was taken. Try again; if it lasts, see `tidemark health`.";

impl From<FieldError> for Error {
    /// What a gateway would refuse is refused here in the same way.
    fn from(error: FieldError) -> Self {
        Error::Refused(error.into())
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tidemark: {}\n  {}", self.message, self.advice)?;
        match &self.again {
            None => Ok(()),
            Some(again) => write!(f, "\n  {again}"),
        }
    }
}

/// What clap says: help and versions on standard output, faults on standard error.
pub(crate) fn usage(error: &clap::Error, output: Output) -> ExitCode {
    // Nobody is left to tell when this fails.
    let _ = if output == Output::Json && error.use_stderr() {
        let message = error.render().to_string();
        let message = message.trim().trim_start_matches("error: ").to_owned();
        output.note(&Error::Usage(message).told(&[]))
    } else {
        error.print()
    };
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// The same command line once more, for a shell: with the id of the send, and without the token.
fn again(given: &[String], id: Option<ClientMsgId>) -> String {
    let mut words = vec!["tidemark".to_owned()];
    let mut given = given.iter().skip(1);
    // What stands behind a bare `--` is the body.
    let mut flags = given.clone().take_while(|word| *word != "--");
    let with_id = flags.any(|word| word == "--id" || word.starts_with("--id="));
    let mut id = id.filter(|_| !with_id);
    while let Some(word) = given.next() {
        if word == "--token" || word.starts_with("--token=") {
            words.push("--token \"$TIDEMARK_TOKEN\"".to_owned());
            if word == "--token" {
                given.next();
            }
            continue;
        }
        words.push(shlex::try_quote(word).map_or_else(|_| word.clone(), Into::into));
        if word == "send" {
            words.extend(id.take().map(|id| format!("--id {id}")));
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &[&str]) -> Vec<String> {
        line.iter().map(|word| (*word).to_owned()).collect()
    }

    fn id() -> ClientMsgId {
        "019a0000-0000-7000-8000-000000000001".parse().expect("a UUID of version 7")
    }

    #[test]
    fn the_command_to_repeat_has_the_id_and_not_the_token() {
        let given = words(&["/x/tidemark", "--token", "s", "send", "--from", "a b", "--", "it's"]);
        let line = again(&given, Some(id()));
        let expected = format!(
            "tidemark --token \"$TIDEMARK_TOKEN\" send --id {} --from 'a b' -- \"it's\"",
            id()
        );
        assert_eq!(line, expected);
        let repeated = words(&["tidemark", "send", "--id", "x", "--token=s", "y"]);
        let expected = "tidemark send --id x --token \"$TIDEMARK_TOKEN\" y";
        assert_eq!(again(&repeated, Some(id())), expected);
        let body = words(&["tidemark", "send", "--", "--id"]);
        assert_eq!(again(&body, Some(id())), format!("tidemark send --id {} -- --id", id()));
    }

    #[test]
    fn each_kind_has_its_exit_code() {
        for (error, code) in [
            (Error::Refused(Failure::new(ErrorCode::Blocked)), 1),
            (Error::Usage(String::new()), 2),
            (Error::Unavailable(String::new()), 3),
            (Error::unknown(""), 4),
        ] {
            assert_eq!(error.exit_code(), code, "{error:?}");
        }
    }
}
