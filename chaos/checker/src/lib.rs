//! The history of a run under faults, and whether Tidemark kept its promises in it.
//!
//! Whoever drives a run writes down what it asks, what it is answered, what devices take, and at
//! the end what each replica holds. The checker reads that and says what contradicts what. It
//! knows nothing of the system but its promises (G1 to G7 in `docs/architecture.md`): no cluster,
//! no clock, no network, so that it cannot share the system's mistakes.
//!
//! ```text
//!   runner, a file per writer          checker
//!   ─────────────────────────          ─────────────────────────────────────────────
//!   Writer ──► events ──► file ─┐      1st pass: sends, answers, what replicas hold
//!   Writer ──► events ──► file ─┼────► 2nd pass: reads, devices, Raft, faults
//!   Writer ──► events ──► file ─┘      then each mailbox, then each send ──► Report
//!              (Files: in order        last pass, where something is wrong: the events
//!               of time)               that contradict each other
//! ```
//!
//! A history is never held in memory; what is held is in proportion to the sends and entries.
//! Nothing is sampled, and nothing takes more than O(n log n): a mailbox's seqs are the order that
//! the run claims to have had, so it is only compared with what was seen, never searched for.

pub mod acts;
pub mod check;
pub mod groups;
pub mod history;
pub mod report;
pub mod story;

pub use check::{Demands, check};
pub use history::{Event, Files, History, Reader, Writer};
pub use report::{Code, Report, Verdict, Violation};
pub use story::Story;
