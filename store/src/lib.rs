//! The store node: Raft groups over one log and one RocksDB.

pub mod metrics;
pub mod raft;
pub mod storage;
