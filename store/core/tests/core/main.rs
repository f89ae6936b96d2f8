//! Tests of the state machine from outside: golden scripts, and a model in every order of faults.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod cluster;
mod formats;
mod golden;
mod groups;
mod model;
mod show;
mod status;
