//! What a dispatcher tells about itself, so that whoever runs it can count.

use std::time::Duration;

use crate::provider::Outcome;

/// Hears what a dispatcher does. It is called between two steps: it must not block.
pub trait Observer: Send + Sync + 'static {
    /// An attempt through `provider` took that long and ended so.
    fn attempted(&self, provider: &str, outcome: &Outcome, took: Duration) {
        let _ = (provider, outcome, took);
    }

    /// So many hints are leased, under way or being reported now.
    fn in_hand(&self, hints: usize) {
        let _ = hints;
    }

    /// Something else happened.
    fn event(&self, provider: &str, event: Event) {
        let _ = (provider, event);
    }
}

/// What happens beside attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A hint was leased that adds nothing to what is in hand, or was replaced by a newer one.
    Superseded,
    /// A hint was leased again that had been sent: it is reported again, not sent.
    Repeated,
    /// A hint was given back to be leased later.
    Postponed,
    /// A lease ended before there was an outcome.
    Lapsed,
    /// A token was reported dead.
    Removed,
    /// A token was called dead as of a time before its registration: it lives.
    Revived,
    /// The lane stops: the provider refuses us, or fails again and again.
    BreakerOpened,
    /// The lane goes on.
    BreakerClosed,
    /// A device named a provider that is not configured here.
    Unconfigured,
}

impl Event {
    /// A bounded label, for metrics.
    pub fn label(self) -> &'static str {
        match self {
            Event::Superseded => "superseded",
            Event::Repeated => "repeated",
            Event::Postponed => "postponed",
            Event::Lapsed => "lapsed",
            Event::Removed => "removed",
            Event::Revived => "revived",
            Event::BreakerOpened => "breaker_opened",
            Event::BreakerClosed => "breaker_closed",
            Event::Unconfigured => "unconfigured",
        }
    }
}

/// Nobody listens.
impl Observer for () {}
