//! The store's client: used by gateways, the command line and the tests.
//!
//! It knows the cluster's map, remembers who leads each shard, and follows the hints in the
//! answers, so that routing heals itself after a failover. It retries what may be retried until
//! the caller's deadline, and never turns *unknown* into *failed*: once an attempt may have been
//! taken, only an answer of the state machine ends the doubt (R3).
//!
//! ```text
//!   Client::command ─► shard of the id ─► leader cache ─► Link (one stream per node) ─► node
//!         ▲                                   ▲                        │
//!         └── until answered or the deadline ─┴── leader hint, failure ┘
//! ```
//!
//! Repeating a command is safe whatever became of the first attempt: sends and allocations with an
//! id are recognised, the others mean the same twice. An allocation without an id may skip numbers.

mod client;
mod error;
mod link;
mod watch;

pub use client::{Client, ClientConfig, NodeClock, Pending, Present};
pub use error::{Attempt, Error};
pub use watch::{Watch, WatchEvent};
