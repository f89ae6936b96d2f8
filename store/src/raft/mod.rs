//! Consensus: the only folder that may use openraft.

pub mod log;
pub mod types;
