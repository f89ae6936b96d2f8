//! Free space on the disk of the data directory, and what is refused when little is left.
//!
//! A full disk stops the node: what cannot be written cannot be acknowledged. Before that, new
//! messages are refused while everything that frees space, or finishes what was begun, goes on
//! (R7): cursors, trims, expiry, elections. Last of all, other shards' records are refused too.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidemark_store_core::Command;

use crate::config::DiskConfig;
use crate::metrics;

/// Between two measurements: at a gigabyte a second the smaller mark is not passed in between.
const MEASURE_EVERY: Duration = Duration::from_millis(250);

/// Free space as it was measured last; a cheap handle.
#[derive(Clone)]
pub struct Space(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    config: DiskConfig,
    free: AtomicU64,
}

impl Space {
    /// Measures the disk of `folder`.
    pub fn of(folder: &Path, config: &DiskConfig) -> io::Result<Self> {
        // Before the first measurement nothing is scarce: one that finds little space says so.
        let free = AtomicU64::new(u64::MAX);
        let space =
            Space(Arc::new(Inner { folder: folder.to_owned(), config: config.clone(), free }));
        space.measure()?;
        Ok(space)
    }

    /// Free bytes, for whoever is not the system's administrator.
    pub fn free(&self) -> u64 {
        self.0.free.load(Ordering::Relaxed)
    }

    /// May it be proposed? Gives what is free if that is too little.
    pub(crate) fn check(&self, command: &Command) -> Result<(), u64> {
        let DiskConfig { free_bytes_min, free_bytes_reserve } = self.0.config;
        let needed = match command {
            Command::Send(_) | Command::BackendSend(_) | Command::DropBackend(_) => free_bytes_min,
            Command::RelayIn { .. } => free_bytes_reserve,
            _ => 0,
        };
        let free = self.free();
        if free < needed { Err(free) } else { Ok(()) }
    }

    /// Measures again and again, for ever.
    pub(crate) async fn keep(self) {
        let mut told = None;
        loop {
            let error = self.measure().err().map(|error| error.to_string());
            if error.is_some() && error != told {
                // The log writer will find out by itself if it is the disk.
                tracing::error!(error, folder = %self.0.folder.display(), "no free space can be told");
            }
            told = error;
            tokio::time::sleep(MEASURE_EVERY).await;
        }
    }

    fn measure(&self) -> io::Result<()> {
        let disk = rustix::fs::statvfs(&self.0.folder)?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let before = self.0.free.swap(free, Ordering::Relaxed);
        let min = self.0.config.free_bytes_min;
        metrics::disk_free(free, min);
        if free < min && before >= min {
            tracing::error!(free, min, "little space is left: new messages are refused");
        } else if free >= min && before < min {
            tracing::info!(free, "there is space again");
        }
        Ok(())
    }
}
