//! The rig of the tests with real processes: a filesystem whose power can be cut, and a child
//! process to be killed.
//!
//! ```text
//!   image file ── loop device ── ext4 ── mount point ── the child's data directory
//!                                 └ shut down by ioctl: from then on every write fails, and what
//!                                   was not synced before is gone after the next mount
//! ```
//!
//! Killing a process loses nothing that the kernel already has; only this finds a missing fsync.
//! Every cut proves itself: of two files written just before, the synced one must come back and
//! the other must not.
//!
//! Everything here cleans up after itself, also when a test panics, and touches only what it made.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use tidemark_env::{Rng, SeededRng};

/// The slowest line of a child: a node that replays its log on a busy machine.
const LINE_WITHIN: Duration = Duration::from_secs(60);

/// One file of this many bytes is written without a sync before each cut.
const UNSYNCED_BYTES: usize = 256 << 10;

const PAGE: u64 = 4096;

const NEEDS: &str = "this test needs root, loop devices, ext4, and the programs of e2fsprogs \
                     (mkfs.ext4), xfsprogs (xfs_io) and util-linux (mount, umount)";

/// A lock that all tests with real processes on this machine share: they need both cores, and
/// loop devices are few.
pub(crate) fn machine_lock() -> Result<File> {
    let path = std::env::temp_dir().join("tidemark-real-processes.lock");
    let file = File::create(&path).with_context(|| format!("{}", path.display()))?;
    file.lock()?;
    Ok(file)
}

/// Numbers from a seed; the same seed gives the same numbers.
pub(crate) struct Random(SeededRng);

impl Random {
    /// The seed comes from `TIDEMARK_SEED`, or from the clock.
    pub(crate) fn from_environment() -> Result<(u64, Random)> {
        let seed = match std::env::var("TIDEMARK_SEED") {
            Ok(text) => text.parse().context("TIDEMARK_SEED is a number")?,
            Err(_) => UNIX_EPOCH.elapsed()?.subsec_nanos().into(),
        };
        Ok((seed, Random(SeededRng::new(seed))))
    }

    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.0.number() % bound
    }
}

/// What of the unsynced bytes a power cut spares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Nothing.
    Plain,
    /// The metadata: files keep names and lengths without their content.
    Metadata,
    /// The metadata, and some pages of the newest files, not the first ones first.
    Torn,
}

/// What a power cut lost.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Loss {
    /// Bytes by which files came back shorter, the rig's own file included.
    pub(crate) bytes: u64,
    /// Files that did not come back.
    pub(crate) files: usize,
}

/// An ext4 filesystem of its own, in a file.
pub(crate) struct LoopFs {
    folder: TempDir,
    mounted: bool,
    before: BTreeMap<PathBuf, u64>,
}

impl LoopFs {
    /// Makes and mounts one of `bytes`; the file is sparse.
    pub(crate) fn create(bytes: u64) -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), NEEDS);
        let folder = tempfile::Builder::new().prefix("tidemark-power-").tempdir()?;
        let mut fs = LoopFs { folder, mounted: false, before: BTreeMap::new() };
        File::create(fs.image())?.set_len(bytes)?;
        fs::create_dir(fs.mount_point())?;
        run("mkfs.ext4", [OsStr::new("-q"), "-F".as_ref(), fs.image().as_ref()])?;
        fs.mount()?;
        Ok(fs)
    }

    /// A folder for the program under test.
    pub(crate) fn data(&self) -> PathBuf {
        self.mount_point().join("data")
    }

    /// A folder on a filesystem that keeps its power.
    pub(crate) fn safe(&self) -> &Path {
        self.folder.path()
    }

    /// Cuts the power. Whoever writes gets errors from now on. Returns a time just before it, since
    /// the epoch: what was synced by then is kept.
    pub(crate) fn cut(&mut self, cut: Cut, random: &Random) -> Result<Duration> {
        let mut synced = File::create(self.mount_point().join("synced"))?;
        synced.write_all(b"kept")?;
        synced.sync_all()?;
        File::open(self.mount_point())?.sync_all()?;
        fs::write(self.mount_point().join("unsynced"), [b'x'; UNSYNCED_BYTES])?;
        if cut == Cut::Torn {
            self.write_some_pages(random)?;
        }
        self.before = files(&self.mount_point());
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
    pub(crate) fn restore(&mut self) -> Result<Loss> {
        self.unmount()?;
        self.mount()?;
        let after = files(&self.mount_point());
        let mut loss = Loss::default();
        for (path, before) in &self.before {
            match after.get(path) {
                Some(left) => loss.bytes += before.saturating_sub(*left),
                None => loss.files += 1,
            }
        }
        let synced = fs::read(self.mount_point().join("synced"))?;
        ensure!(synced == b"kept", "a synced file was lost: the rig loses too much");
        let unsynced = self.mount_point().join("unsynced");
        let survived = fs::read(&unsynced).unwrap_or_default() == [b'x'; UNSYNCED_BYTES];
        ensure!(!survived, "an unsynced file survived: no power was cut");
        let _ = fs::remove_file(unsynced);
        Ok(loss)
    }

    /// Lets the disk have a few pages of the newest files, as it pleases.
    fn write_some_pages(&self, random: &Random) -> Result<()> {
        const FILES: usize = 3;
        const PAGES: u64 = 4;
        let mut newest = Vec::new();
        for (path, bytes) in files(&self.data()) {
            // The child may have removed it.
            if let Ok(modified) = fs::metadata(&path).and_then(|metadata| metadata.modified()) {
                newest.push((modified, path, bytes));
            }
        }
        newest.sort();
        for (_, path, bytes) in newest.into_iter().rev().filter(|file| file.2 > 0).take(FILES) {
            let pages = bytes.div_ceil(PAGE);
            let mut arguments = vec!["-r".to_owned()];
            for _ in 0..PAGES {
                // What is not synced yet lies at the end.
                let page = pages - 1 - random.below(pages.min(16));
                for flag in ["-w", "-a"] {
                    arguments.push("-c".to_owned());
                    arguments.push(format!("sync_range {flag} {} {PAGE}", page * PAGE));
                }
            }
            arguments.push(path.display().to_string());
            let written = run("xfs_io", arguments.iter().map(OsStr::new));
            ensure!(written.is_ok() || !path.exists(), "{written:?}");
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
        run("umount", [self.mount_point().as_ref()])?;
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

/// All files below a folder with their lengths; those that vanish meanwhile are left out.
fn files(folder: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                Ok(metadata) => drop(found.insert(entry.path(), metadata.len())),
                Err(_) => {}
            }
        }
    }
    found
}

fn run<'a>(program: &str, arguments: impl IntoIterator<Item = &'a OsStr>) -> Result<()> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("{NEEDS}: cannot run {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    // xfs_io says what went wrong and returns 0.
    let failed = !output.status.success() || (program == "xfs_io" && !said.trim().is_empty());
    ensure!(!failed, "{NEEDS}: {program}: {}: {}", output.status, said.trim());
    Ok(())
}

/// A child process that says what it does line by line; killed when it is dropped.
pub(crate) struct Child {
    process: std::process::Child,
    lines: mpsc::Receiver<String>,
    errors: PathBuf,
}

impl Child {
    /// Starts `command`; what it writes to stderr goes to the file `errors`.
    pub(crate) fn start(mut command: Command, errors: PathBuf) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&errors)?);
        let mut process = command.spawn()?;
        let stdout = process.stdout.take().context("stdout is piped")?;
        let (tx, lines) = mpsc::channel();
        // Ends when the child does, and with it the pipe.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if tx.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Child { process, lines, errors })
    }

    /// Waits for its next line.
    pub(crate) fn line(&mut self) -> Result<String> {
        match self.lines.recv_timeout(LINE_WITHIN) {
            Ok(line) => Ok(line),
            Err(error) => {
                let said = fs::read_to_string(&self.errors).unwrap_or_default();
                bail!("the child says nothing more ({error}); it said on stderr:\n{said}")
            }
        }
    }

    /// Waits until it has ended by itself.
    pub(crate) fn exited(&mut self, within: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status);
            }
            ensure!(Instant::now() < deadline, "the child still runs");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills it by SIGKILL, and returns the lines that nobody read yet.
    pub(crate) fn kill(mut self) -> Result<Vec<String>> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(self.lines.iter().collect())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may be dead already, which is all that is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
