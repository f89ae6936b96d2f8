//! The seams to the world outside: time and randomness.
//!
//! Whatever runs in the store, the gateways and the SDK asks these traits, never the system, so
//! that a simulation can drive the same code from one seed. Sleeping is not here: it goes through
//! `tokio::time`, which a simulation controls by itself.

mod clock;
mod rng;

pub use clock::{Clock, ManualClock, SystemClock};
pub use rng::{Rng, SeededRng, SystemRng};
