//! The store's state machine: what a shard does with a committed batch of commands.
//!
//! Pure. No clock, no randomness, no I/O, no threads, no unordered map: the same state and the
//! same batch give the same replies, the same writes and the same state hash on every replica.
//! Time and ids arrive inside the commands, stamped by whoever proposed them; effects on the
//! outside leave as values.
//!
//! ```text
//!            Batch (encoded once, by the proposer)
//!              │
//!   Read ──► Transaction::apply ──► Applied { reply, effects } per command
//!  (state)     │
//!              └─► finish() ──► Writes: one RocksDB batch, together with the applied index
//! ```
//!
//! Two channels of failure: a [`Reject`] is a reply like any other (the command had no effect,
//! the entry counts as applied); a [`Fatal`] stops the node, because its state or its log cannot
//! be trusted.
//!
//! The rules it keeps (R1 to R20) are in `docs/invariants.md`; each has a golden script under
//! `tests/scripts/`.

pub mod act;
mod apply;
pub mod codec;
pub mod command;
pub mod devices;
pub mod feed;
pub mod group;
pub mod group_read;
pub mod hints;
pub mod key;
pub mod memory;
pub mod presence;
pub mod read;
pub mod reply;
pub mod retention;
pub mod slot;
pub mod status;
pub mod storage;
mod transaction;
pub mod unread;
pub mod value;
mod value_bytes;

pub use command::{Batch, Command};
pub use reply::{Alarm, Applied, Effect, Reject, Reply};
pub use storage::{Change, Fatal, Layered, Read, StorageError, Writes};
pub use transaction::Transaction;
pub use value_bytes::ValueBytes;
