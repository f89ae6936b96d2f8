//! Sends: forwarded in the order of their numbers, pipelined, repeated until the store has
//! answered or the time is up.
//!
//! It judges what can be judged without asking anybody; a refusal is a command like any other, and
//! the store's first verdict wins (R2). It stores nothing: when the gateway dies, the device
//! repeats.

mod open;
mod uplink;
mod window;

pub(crate) use open::open;
pub(crate) use uplink::Uplink;
pub(crate) use window::Answer;
