//! What every server's process does in the same way: reads its configuration, writes its log,
//! collects its metrics, does not interrupt others, ends itself when it hangs. What is in them is each server's own.

mod config;
mod manual;
mod runtime;
mod scheduling;
mod telemetry;
pub mod usage;
mod watchdog;

pub use config::{ConfigError, load};
pub use manual::hold_metrics_table;
pub use runtime::runtime;
pub use scheduling::work_in_batches;
pub use telemetry::{LogFormat, logs, recorder};
pub use watchdog::watch_runtime;
