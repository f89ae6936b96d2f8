//! A filesystem whose power can be cut.
//!
//! ```text
//!   image file ── loop device ── ext4 ── mount point ── the data of the program under test
//!                                 └ shut down by ioctl: from then on every write fails, and what
//!                                   was not synced before is gone after the next mount
//! ```
//!
//! Killing a process loses nothing that the kernel already has; only this finds a missing fsync.
//! Every cut proves itself: of two files written just before, the synced one must come back and
//! the other must not.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher as _};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Result, ensure};
use tempfile::TempDir;
use tidemark_env::Rng;

use crate::tool::run;

/// One file of this many bytes is written without a sync before each cut.
const UNSYNCED_BYTES: usize = 256 << 10;

const PAGE: u64 = 4096;

/// What of the unsynced bytes a power cut spares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nothing.
    Plain,
    /// The metadata: files keep names and lengths without their content.
    Metadata,
    /// The metadata, and some pages of the newest files, not the first ones first.
    Torn,
}

/// What a power cut lost: bytes of pages of files of the data folder that came back as others, or not at all.
#[derive(Clone, Debug, Default)]
pub struct Loss(pub BTreeMap<PathBuf, u64>);

impl Loss {
    /// In all files.
    pub fn bytes(&self) -> u64 {
        self.0.values().sum()
    }
}

/// An ext4 filesystem of its own, in a file.
pub struct LoopFs {
    folder: TempDir,
    mounted: bool,
    before: BTreeMap<PathBuf, Pages>,
}

/// A file's pages, by what stands for their content.
type Pages = Vec<u64>;

impl LoopFs {
    /// Makes and mounts one of `bytes`; the file is sparse.
    pub fn create(bytes: u64) -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "a filesystem of its own needs root");
        let folder = tempfile::Builder::new().prefix("tidemark-power-").tempdir()?;
        let mut fs = LoopFs { folder, mounted: false, before: BTreeMap::new() };
        File::create(fs.image())?.set_len(bytes)?;
        fs::create_dir(fs.mount_point())?;
        run("mkfs.ext4", [OsStr::new("-q"), "-F".as_ref(), fs.image().as_ref()])?;
        fs.mount()?;
        Ok(fs)
    }

    /// A folder for the program under test.
    pub fn data(&self) -> PathBuf {
        self.mount_point().join("data")
    }

    /// The block device under it, as major and minor number.
    pub fn device(&self) -> Result<(u32, u32)> {
        let device = rustix::fs::stat(self.mount_point())?.st_dev;
        Ok((rustix::fs::major(device), rustix::fs::minor(device)))
    }

    /// A folder on a filesystem that keeps its power.
    pub fn safe(&self) -> &Path {
        self.folder.path()
    }

    /// Cuts the power. Whoever writes gets errors from now on. Returns a time just before it, since
    /// the epoch: what was synced by then is kept.
    pub fn cut(&mut self, cut: Cut, rng: &dyn Rng) -> Result<Duration> {
        let mut synced = File::create(self.mount_point().join("synced"))?;
        synced.write_all(b"kept")?;
        synced.sync_all()?;
        File::open(self.mount_point())?.sync_all()?;
        fs::write(self.mount_point().join("unsynced"), [b'x'; UNSYNCED_BYTES])?;
        if cut == Cut::Torn {
            self.write_some_pages(rng)?;
        }
        self.before = pages(&self.data());
        // The ioctl has the same number on XFS and ext4; `-x` lets xfs_io try it here.
        let command = if cut == Cut::Plain { "shutdown" } else { "shutdown -f" };
        let mount_point = self.mount_point();
        let when = UNIX_EPOCH.elapsed()?;
        run("xfs_io", [OsStr::new("-x"), "-c".as_ref(), command.as_ref(), mount_point.as_ref()])?;
        let alive = File::create(self.mount_point().join("alive"));
        ensure!(alive.is_err(), "the filesystem still takes writes after its power was cut");
        Ok(when)
    }

    /// Mounts what is left; nobody may use the filesystem any more.
    pub fn restore(&mut self) -> Result<Loss> {
        self.unmount()?;
        self.mount()?;
        let after = pages(&self.data());
        let lost = |(path, before): (PathBuf, Pages)| {
            let left = after.get(&path).map(Vec::as_slice).unwrap_or_default();
            let other = before.iter().zip(left).filter(|(was, is)| was != is).count();
            let lost = before.len().saturating_sub(left.len()) + other;
            (lost > 0).then_some((path, lost as u64 * PAGE))
        };
        let loss = std::mem::take(&mut self.before).into_iter().filter_map(lost).collect();
        let synced = fs::read(self.mount_point().join("synced"))?;
        ensure!(synced == b"kept", "a synced file was lost: the rig loses too much");
        let unsynced = self.mount_point().join("unsynced");
        let survived = fs::read(&unsynced).unwrap_or_default() == [b'x'; UNSYNCED_BYTES];
        ensure!(!survived, "an unsynced file survived: no power was cut");
        let _ = fs::remove_file(unsynced);
        Ok(Loss(loss))
    }

    /// Lets the disk have a few pages of the newest files, as it pleases.
    fn write_some_pages(&self, rng: &dyn Rng) -> Result<()> {
        const FILES: usize = 3;
        const PAGES: u64 = 256;
        let mut newest = Vec::new();
        for path in files(&self.data()) {
            // The child may have removed it.
            let Ok(metadata) = fs::metadata(&path) else { continue };
            if let Ok(modified) = metadata.modified() {
                newest.push((modified, path, metadata.len()));
            }
        }
        newest.sort();
        for (_, path, bytes) in newest.into_iter().rev().filter(|file| file.2 > 0).take(FILES) {
            let pages = bytes.div_ceil(PAGE);
            let mut arguments = vec!["-r".to_owned()];
            // What is not synced yet lies at the end, or anywhere in a file that is written over.
            for page in pages.saturating_sub(PAGES)..pages {
                if rng.number().is_multiple_of(2) {
                    continue;
                }
                for flag in ["-w", "-a"] {
                    arguments.push("-c".to_owned());
                    arguments.push(format!("sync_range {flag} {} {PAGE}", page * PAGE));
                }
            }
            arguments.push(path.display().to_string());
            let written = run("xfs_io", arguments.iter().map(OsStr::new));
            // By now another one may have its name.
            let gone = |error: &anyhow::Error| error.to_string().contains("No such file");
            ensure!(written.as_ref().err().is_none_or(gone), "{written:?}");
        }
        Ok(())
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    fn mount_point(&self) -> PathBuf {
        self.folder.path().join("mnt")
    }

    fn mount(&mut self) -> Result<()> {
        let (image, mount_point) = (self.image(), self.mount_point());
        // Without ext4's help for programs that forget to sync a file before they rename it.
        let options = OsStr::new("loop,noauto_da_alloc");
        run("mount", [OsStr::new("-o"), options, image.as_ref(), mount_point.as_ref()])?;
        self.mounted = true;
        Ok(())
    }

    /// The loop device goes with the mount.
    fn unmount(&mut self) -> Result<()> {
        run("umount", [self.mount_point()])?;
        self.mounted = false;
        Ok(())
    }
}

impl Drop for LoopFs {
    fn drop(&mut self) {
        // After a panic somebody may still hold a file: then it goes when that one does.
        if self.mounted && self.unmount().is_err() {
            let lazily = run("umount", [OsStr::new("-l"), self.mount_point().as_ref()]);
            if let Err(error) = lazily {
                eprintln!("{} stays mounted: {error:#}", self.mount_point().display());
            }
        }
    }
}

/// All files below a folder with what is in them; those that vanish meanwhile are left out.
fn pages(folder: &Path) -> BTreeMap<PathBuf, Pages> {
    let read = |path: PathBuf| {
        let content = fs::read(&path).ok()?;
        let pages = content.chunks(PAGE as usize).map(|page| {
            let mut hasher = DefaultHasher::new();
            hasher.write(page);
            hasher.finish()
        });
        Some((path, pages.collect()))
    };
    files(folder).into_iter().filter_map(read).collect()
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                Ok(_) => found.push(entry.path()),
                Err(_) => {}
            }
        }
    }
    found
}
