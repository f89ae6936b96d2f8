//! Why a token is refused, and why a key cannot be used.

use std::io;
use std::path::PathBuf;

use thiserror::Error;
use tidemark_types::{DeviceId, ErrorCode, UnixMs, UserId};

/// Why a token is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// It is no JWT with the claims of a token.
    #[error("the token is malformed: {0}")]
    Malformed(String),
    /// Its header has no `kid`.
    #[error("the token does not name its key (`kid`)")]
    NoKeyId,
    /// Its key is not in the set.
    #[error("the token's key {0:?} is not known here")]
    UnknownKey(String),
    /// The key that it names did not make it, or not with that key's algorithm.
    #[error("the token was not made with the key that it names")]
    Unverified,
    /// It was good until then.
    #[error("the token expired {at} ms after the Unix epoch")]
    Expired {
        /// Until when.
        at: UnixMs,
    },
    /// It is another user's.
    #[error("the token is for the user {0:?} only")]
    OtherUser(UserId),
    /// It is another device's.
    #[error("the token is for the device {0:?} only")]
    OtherDevice(DeviceId),
    /// It is of another role.
    #[error("this takes a token of role {0}")]
    NeedsRole(&'static str),
}

impl Error {
    /// Its code in the one list.
    pub fn code(&self) -> ErrorCode {
        match self {
            Error::Malformed(_) | Error::NoKeyId | Error::UnknownKey(_) | Error::Unverified => {
                ErrorCode::Unauthenticated
            }
            Error::Expired { .. } => ErrorCode::TokenExpired,
            Error::OtherUser(_) | Error::OtherDevice(_) | Error::NeedsRole(_) => {
                ErrorCode::PermissionDenied
            }
        }
    }
}

/// Why a key cannot be used.
#[derive(Debug, Error)]
pub enum KeyError {
    /// It cannot be read or written.
    #[error("{path}: {error}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's words.
        error: io::Error,
    },
    /// It is no key, or not one for this use.
    #[error("{path}: {reason}")]
    NotAKey {
        /// The file.
        path: PathBuf,
        /// What is wrong, without a byte of its content.
        reason: &'static str,
    },
    /// A set without a key, which could verify nothing.
    #[error("{0}: there is no key")]
    NoKey(PathBuf),
    /// A set with more keys than a rotation needs.
    #[error("{path}: there are more than {max} files")]
    TooMany {
        /// The folder.
        path: PathBuf,
        /// How many there may be.
        max: usize,
    },
    /// Two files with one stem: a token could not say which one it means.
    #[error("{path}: another key has the id {id:?}")]
    Twice {
        /// The second file.
        path: PathBuf,
        /// The id of both.
        id: String,
    },
}
