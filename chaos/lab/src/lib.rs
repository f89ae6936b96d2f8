//! What faults need of a machine: filesystems whose power can be cut, disks that are slow, full or
//! broken, networks that can be split and weak, clocks that are wrong, and the right to be alone.
//!
//! Knows nothing of Tidemark. Everything here cleans up after itself, also when a test panics, and
//! touches only what it made.

pub mod ballast;
pub mod disk;
pub mod lan;
pub mod packets;
pub mod preload;
pub mod throttle;
mod tool;

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result};

/// The same for everybody on the machine, whatever folder for temporary files they have.
const LOCK: &str = "/tmp/tidemark-real-processes.lock";

/// Waits until nobody else runs real processes on this machine: they need both cores, loop devices
/// are few, and timings should mean something. Held until it is dropped.
pub fn alone() -> Result<File> {
    // Anybody may take it; an open for reading is enough, since others may own the file.
    let open = || OpenOptions::new().read(true).open(LOCK);
    let file = open().or_else(|_| {
        let create = OpenOptions::new().create(true).append(true).mode(0o666).open(LOCK);
        create.and_then(|_| open())
    });
    let file = file.context(LOCK)?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(error).context(LOCK),
    }
    eprintln!("waiting for others who run real processes on this machine ({LOCK})");
    file.lock()?;
    Ok(file)
}
