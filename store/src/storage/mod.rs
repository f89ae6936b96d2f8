//! The disk: the only folder that may use RocksDB.

pub mod group;
pub mod state_db;

pub use group::GroupId;
pub use state_db::{GroupState, Staging, StateDb, StateDbError};
