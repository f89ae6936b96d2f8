//! Writing past the page cache: what is flushed and merged is not read again soon, would push out
//! what is, and would be written back at a moment when the log waits for its own bytes.

use std::path::Path;

use rocksdb::Options;
use rustix::fs::{Mode, OFlags};

/// `options` for a database at `path` that flushes and merges so. Not every file system can; the
/// others go through the page cache.
pub(super) fn where_possible(mut options: Options, path: &Path) -> Options {
    // A file without a name: nothing is left of it.
    let flags = OFlags::TMPFILE | OFlags::DIRECT | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = |folder| rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR);
    let possible = path.parent().is_some_and(|folder| file(folder).is_ok());
    options.set_use_direct_io_for_flush_and_compaction(possible);
    options
}
