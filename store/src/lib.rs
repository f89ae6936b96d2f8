//! The store node: Raft groups over one log and one RocksDB.
//!
//! ```text
//!   server ── gRPC and HTTP
//!   node ── composition: directory, log, state, shards
//!    └─ shard ── proposals and reads of one shard
//!        └─ raft ── openraft, kept here: log, state machine, snapshots
//!            └─ storage ── RocksDB, kept here
//!                └─ store/core ── what a command does
//! ```
//!
//! A module uses those below it, never the reverse.

pub mod alarms;
pub mod config;
pub mod identity;
pub mod inspect;
pub mod metrics;
pub mod node;
pub mod raft;
pub mod server;
pub mod shard;
pub mod storage;
