//! The seams to the world outside: time, randomness and connections.
//!
//! Whatever runs in the store, the gateways and the SDK asks these traits, never the system, so
//! that a simulation can drive the same code from one seed. Sleeping is not here: it goes through
//! `tokio::time`, which a simulation controls by itself.

mod clock;
mod connect;
mod rng;
mod tcp;

pub use clock::{Clock, ManualClock, SystemClock};
pub use connect::{Connecting, Connector, Duplex};
pub use rng::{Rng, SeededRng, SystemRng};
pub use tcp::{SERVER_GONE_AFTER, TcpConnector, tune};
