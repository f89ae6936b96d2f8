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

use std::fs::{File, OpenOptions};

use anyhow::{Context, Result};

/// Waits until nobody else runs real processes on this machine: they need both cores, loop devices
/// are few, and timings should mean something. Held until it is dropped.
pub fn alone() -> Result<File> {
    let path = std::env::temp_dir().join("tidemark-real-processes.lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| format!("{}", path.display()))?;
    file.lock()?;
    Ok(file)
}
