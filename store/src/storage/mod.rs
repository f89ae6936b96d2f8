//! The disk: the log's segments and the state's database. The only folder that may use RocksDB.
//!
//! Nothing here knows openraft. What goes into the log arrives as opaque bytes with a place
//! (group, index) and is given back as it was; what the bytes mean is decided above.

mod damage;
mod direct;
mod group;
mod layer;
mod log_backend;
mod merge;
mod options;
mod pace;
mod pending;
mod recent;
mod segments;
mod simulated;
mod spill;
mod spill_file;
mod state_db;
mod state_key;
mod steps;
mod touch;

use std::fs::File;
use std::io;
use std::path::Path;

pub use group::GroupId;
pub use log_backend::{
    Change, ENTRY_HEAD_BYTES, EntryValue, GroupMarks, LogBackend, LogBatch, LogReads, LogWrite,
};
pub use segments::{Contradiction, LogDamage, SegmentLog, SegmentLogError, SegmentReads};
pub use simulated::SimulatedDisk;
pub use state_db::{GroupState, Staging, StateDb, StateDbError};
pub use steps::{Step, Steps};

/// Makes durable that the file or folder at `path` was created, renamed or removed.
fn sync_parent(path: &Path) -> io::Result<()> {
    // The parent of a bare file name is "", which means here.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}
