//! Sends: forwarded in the order of their numbers, pipelined, repeated until the store has
//! answered or the time is up.
//!
//! Each is judged first, by what is wrong with it at first sight and by an operator's checks; a
//! refusal is a command like any other, and the store's first verdict wins (R2). It stores nothing:
//! when the gateway dies, the device repeats.

mod judging;
mod open;
mod uplink;
mod window;

pub(crate) use open::open;
pub(crate) use uplink::Uplink;
pub(crate) use window::Answer;
