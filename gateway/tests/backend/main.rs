//! Tests of the unary services and of the process around them: real sockets, the real state
//! machine in memory.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod acts;
mod callers;
mod checks;
mod cluster;
mod command_line;
mod counters;
mod feed;
mod gateway;
mod groups;
mod live;
mod mailboxes;
mod memory;
mod messages;
mod process;
mod streams;
mod users;
