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
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result};

/// The same for everybody on the machine, whatever folder for temporary files they have.
const LOCK: &str = "/tmp/tidemark-real-processes.lock";

/// An address on loopback for a server in a process of its own, which is to be known before that
/// listens. Its host is this process's: on the usual one the system might give the port to somebody's
/// connection meanwhile.
pub fn own_address() -> SocketAddr {
    static PORT: AtomicU16 = AtomicU16::new(10_000);
    let [.., high, low] = std::process::id().to_be_bytes();
    let port = PORT.fetch_add(1, Ordering::Relaxed);
    SocketAddr::from((Ipv4Addr::new(127, 7, high, low), port))
}

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
