//! Raft: the only folder that knows openraft.

pub mod machine;
pub mod snapshot;
pub mod types;
