//! The store node: Raft groups over one log and one RocksDB.
