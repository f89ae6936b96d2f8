//! The store node as a whole: in this process, and in a child whose power is cut.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod command_line;
mod device;
mod disk;
mod fail_stop;
mod groups;
mod ledger;
mod look;
mod metrics;
mod node;
mod power_cut;
mod relay;
mod rig;
mod server;
mod upkeep;
