//! Writing past the page cache: what is flushed and merged is not read again soon, would push out
//! what is, and would be written back at a moment when the log waits for its own bytes.

use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// Can files of a database at `path` be written so? Not every file system can; the others go
/// through the page cache.
pub(super) fn possible_beside(path: &Path) -> bool {
    let Some(folder) = path.parent() else { return false };
    // A file without a name: nothing is left of it.
    let flags = OFlags::TMPFILE | OFlags::DIRECT | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR).is_ok()
}
