//! Wall-clock time as it travels in commands and frames.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch.
///
/// In the store this is *log time*: stamped by a leader, made monotonic by apply, and therefore
/// the same on every replica.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UnixMs(u64);

impl UnixMs {
    /// The time `ms` milliseconds after the epoch.
    pub const fn new(ms: u64) -> Self {
        UnixMs(ms)
    }

    /// Milliseconds since the epoch.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// This time moved back, no further than the epoch.
    pub fn minus(self, by: Duration) -> UnixMs {
        UnixMs(self.0.saturating_sub(millis(by)))
    }

    /// This time moved forward, no further than the last one there is.
    pub fn plus(self, by: Duration) -> UnixMs {
        UnixMs(self.0.saturating_add(millis(by)))
    }
}

impl fmt::Display for UnixMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
