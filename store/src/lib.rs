//! The store node: Raft groups over one log and one RocksDB.

pub mod raft;
pub mod storage;
