//! What speaks to one push service.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use thiserror::Error;
use tidemark_types::UnixMs;

use crate::hint::Hint;

/// Bytes of a target at most. A Web Push subscription with the longest endpoints in use has below 1024.
pub const TARGET_BYTES_MAX: usize = 4096;

/// An attempt under way.
pub type Sending<'a> = Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;

/// Speaks one service's protocol.
///
/// It makes one attempt per call, and says what the answer means. It never retries (a request that a
/// credential spoiled is repeated once, with another one), never waits, and knows nothing of
/// other hints. It may be dropped at any point: the attempt's outcome is unknown then, and the hint
/// is sent again.
pub trait PushProvider: Send + Sync + 'static {
    /// Could this be a target of this service? Asked when a device registers, before anything is
    /// stored: the target is the client's word, and may be a URL that this process will call.
    fn check(&self, target: &str) -> Result<(), TargetError>;

    /// One attempt.
    fn send<'a>(&'a self, hint: &'a Hint) -> Sending<'a>;

    /// Does a failure at one target say something about the others? It does where all go to one
    /// vendor. It does not where clients name the servers: one of them must not be able to stop the
    /// pushes of all others.
    fn shares_fate(&self) -> bool {
        true
    }
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The service took it. Whether the device ever sees it nobody knows.
    Accepted,
    /// The device is not reached by this target any more.
    TokenDead {
        /// Since when, if the service says so: what was registered later lives.
        since: Option<UnixMs>,
    },
    /// Not now: the service is busy, or was not reached.
    Retry {
        /// When to come back, if the service says so.
        after: Option<Duration>,
        /// Why, for people.
        reason: String,
    },
    /// The service will never take this hint at this target.
    Reject {
        /// Its words.
        reason: String,
    },
    /// The service takes nothing from us: credentials or configuration are wrong, and a human must
    /// look.
    AuthBroken {
        /// Its words.
        reason: String,
    },
}

impl Outcome {
    /// A bounded label, for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Outcome::Accepted => "accepted",
            Outcome::TokenDead { .. } => "token_dead",
            Outcome::Retry { .. } => "retry",
            Outcome::Reject { .. } => "reject",
            Outcome::AuthBroken { .. } => "auth_broken",
        }
    }

    pub(crate) fn dead() -> Self {
        Outcome::TokenDead { since: None }
    }

    pub(crate) fn retry(after: Option<Duration>, reason: impl Into<String>) -> Self {
        Outcome::Retry { after, reason: reason.into() }
    }

    pub(crate) fn reject(reason: impl Into<String>) -> Self {
        Outcome::Reject { reason: reason.into() }
    }

    pub(crate) fn broken(reason: impl Into<String>) -> Self {
        Outcome::AuthBroken { reason: reason.into() }
    }
}

/// Why something is no target of a provider.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TargetError {
    /// There is no provider of that name.
    #[error("no push provider is called {0:?}")]
    NoProvider(String),
    /// Too long for any service.
    #[error("a push target has {0} bytes: it takes 1 to {TARGET_BYTES_MAX}")]
    Length(usize),
    /// Not of the service's form.
    #[error("the push target is not {0}")]
    Form(&'static str),
    /// A URL that this server must not call.
    #[error("the push target's URL is refused: {0}")]
    Address(&'static str),
}

/// Has it 1 to [`TARGET_BYTES_MAX`] bytes?
pub(crate) fn length(target: &str) -> Result<(), TargetError> {
    match target.len() {
        1..=TARGET_BYTES_MAX => Ok(()),
        bytes => Err(TargetError::Length(bytes)),
    }
}
