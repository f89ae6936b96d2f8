//! What every server's process does in the same way: reads its configuration, writes its log,
//! collects its metrics. What is in them is each server's own.

mod config;
mod telemetry;

pub use config::{ConfigError, load};
pub use telemetry::{LogFormat, logs, recorder};
