//! Consensus: the only folder that may use openraft.

pub mod group;
pub mod log;
pub mod machine;
pub mod network;
pub mod snapshot;
pub mod types;
