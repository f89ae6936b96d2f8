//! A disk with little space left: a file that takes the rest.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use rustix::fs::{FallocateFlags, StatVfs, fallocate, statvfs};

/// A file that takes space until it is dropped.
pub struct Ballast {
    path: PathBuf,
}

impl Ballast {
    /// Leaves `bytes` to whoever is not the administrator, on the filesystem of `folder`.
    pub fn leave(folder: &Path, bytes: u64) -> Result<Self> {
        let StatVfs { f_bavail, f_frsize, .. } = statvfs(folder)?;
        Self::take(folder, (f_bavail * f_frsize).saturating_sub(bytes))
    }

    /// Leaves nothing to anybody: the administrator's reserve is taken too.
    pub fn fill(folder: &Path) -> Result<Self> {
        let StatVfs { f_bfree, f_frsize, .. } = statvfs(folder)?;
        let ballast = Self::take(folder, (f_bfree * f_frsize).saturating_sub(64 << 20))?;
        let file = File::options().append(true).open(&ballast.path)?;
        // Smaller and smaller pieces, as the filesystem needs some for its own books.
        let mut piece: u64 = 16 << 20;
        while piece >= 4 << 10 {
            let end = file.metadata()?.len();
            if fallocate(&file, FallocateFlags::empty(), end, piece).is_err() {
                piece /= 2;
            }
        }
        Ok(ballast)
    }

    fn take(folder: &Path, bytes: u64) -> Result<Self> {
        let ballast = Ballast { path: folder.join("ballast") };
        let file = File::create_new(&ballast.path)?;
        ensure!(bytes > 0, "there is no space to take in {}", folder.display());
        fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
        Ok(ballast)
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            eprintln!("{} stays: {error}", self.path.display());
        }
    }
}
