//! The seams to the world outside: clock and randomness.

use std::time::Duration;

use tidemark_types::UnixMs;

/// Where time comes from.
pub trait Clock: Send + Sync + 'static {
    /// Wall-clock time.
    fn wall(&self) -> UnixMs;
    /// Time since the clock was made; never goes back.
    fn monotonic(&self) -> Duration;
}
