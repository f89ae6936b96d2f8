//! The history of a run under faults.
//!
//! Whoever drives a run writes down what it asks, what it is answered, what devices take, and at
//! the end what each replica holds.

pub mod history;
pub mod story;

pub use history::{Event, Files, History, Reader, Writer};
pub use story::Story;
