//! The history of a run: its events, the files they are in, and all of them in order of time.

mod digest;
mod event;
mod file;
mod files;

pub use digest::Digest;
pub use event::{
    Copy, Device, Event, Group, Judgement, Nanos, Node, Op, Origin, Outcome, RaftFacts, User, Way,
};
pub use file::{FRAME_BYTES_MAX, MAGIC, ReadError, Reader, VERSION, WriteError, Writer};
pub use files::{Files, History, Merged};
