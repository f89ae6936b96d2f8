//! The store node: Raft groups over one log, files of our own, and one RocksDB.
//!
//! ```text
//!   server ── gRPC and HTTP
//!   node ── composition: directory, log, state, shards
//!    ├─ watch ── appends, on their way to gateways
//!    ├─ hints ── hints to devices, handed out to gateways
//!    ├─ relay ── a shard's outbox to other shards
//!    ├─ fan_out ── the logs of large groups to their members
//!    └─ shard ── proposals and reads of one shard
//!        └─ raft ── openraft, kept here: log, state machine, snapshots
//!            └─ storage ── the log's files and RocksDB, kept here
//!                └─ store/core ── what a command does
//! ```
//!
//! A module uses those below it, never the reverse.

pub mod config;
pub mod effects;
pub mod fan_out;
pub mod hints;
pub mod identity;
pub mod inspect;
pub mod metrics;
pub mod node;
pub mod raft;
pub mod relay;
pub mod server;
pub mod settings;
pub mod shard;
pub mod space;
pub mod storage;
pub mod time;
pub mod watch;
