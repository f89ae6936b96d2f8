//! The whole of Tidemark in one process, over a simulated network, clock, randomness and disk, all
//! driven by one seed: the same seed gives the same run, byte for byte.
//!
//! ```text
//!   seed ─► plan: stores, shards, users, timers, faults
//!            │
//!   phone-0..2 ── real SDK ──┐                       ┌─ store-1 ─ simulated log, RocksDB in files
//!                            ├ gateway-0, 1 (real) ──┼─ store-2   that are copied when its power
//!   prober ── store client ──┘                       └─ store-3   is cut
//!            │
//!   history (the same events as tidemark-chaos writes) ─► tidemark-checker ─► verdict
//! ```
//!
//! Every host has a runtime of its own, so that a crash is its end; time passes only when all wait.
//! A process runs one seed: nothing of an earlier one can leak into it. What is checked while it
//! runs is in [`safety`]; then everything is healed and must come to rest; then the checker judges
//! the whole history, with what every replica's disk holds in the end.
//!
//! Not simulated: RocksDB below the state. It is the real one, but for automatic compactions, and
//! what a crash leaves of it are its files at that moment (`docs/adr/0013`).

pub mod away;
pub mod feed;
pub mod groups;
pub mod guest;
pub mod harm;
pub mod interpose;
pub mod ledger;
pub mod machine;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod net;
pub mod phone;
pub mod plan;
pub mod prober;
pub mod run;
pub mod safety;
pub mod servers;
pub mod stage;
pub mod talk;
pub mod trace;
pub mod world;
