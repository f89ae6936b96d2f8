//! Gateways in this process, over one state machine in memory that can be made to fail.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod acts;
mod bad_input;
mod carriers;
mod checks;
mod device;
mod hooks;
mod lifecycle;
mod passing;
mod place;
mod push;
mod sends;
mod socket;
mod store;
