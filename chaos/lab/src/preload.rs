//! What stands between a program and the system: a clock that is wrong, calls that fail, syncs that
//! wait.
//!
//! ```text
//!   program ── preload.c ── clock_gettime, fsync, fdatasync, write, pwrite, pread
//!                 ▲
//!                 └── a file that both map: how wrong, how many fail or wait; how many did
//! ```
//!
//! It is loaded when the program starts, and does nothing until it is told. The monotonic clock
//! stays as it is.
//!
//! A library of our own, since libfaketime and libfiu cannot stand before a program that brings its
//! own allocator: they allocate before they are ready, the allocator asks for the time or for
//! memory, and that asks them. It is compiled where it is needed, by the compiler that a build of
//! this repository needs anyway.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result};

use crate::tool::run;

const SOURCE: &str = include_str!("preload.c");

/// Bytes of each number that the library and we share, and the places of the first ones.
const NUMBER: u64 = 8;
const OFF_NS: u64 = 0;
const FAST_PPM: u64 = 1;
const SINCE_NS: u64 = 2;
const CALLS: u64 = 3;
const HOLDS: u64 = CALLS + 2 * 5;
const HELD: u64 = HOLDS + 1;
const NUMBERS: u64 = HELD + 1;

/// The library, compiled.
pub struct Library {
    path: PathBuf,
}

impl Library {
    /// Compiles it into `folder`.
    pub fn compile(folder: &Path) -> Result<Self> {
        let (source, path) = (folder.join("preload.c"), folder.join("preload.so"));
        fs::write(&source, SOURCE)?;
        let [source, library] = [&source, &path].map(|path| path.as_os_str());
        let flags = ["-O2", "-shared", "-fPIC", "-o"].map(AsRef::as_ref);
        run("cc", flags.into_iter().chain([library, source]))?;
        Ok(Library { path })
    }

    /// For one program, which does not run yet; `control` is a file of its own.
    pub fn before(&self, control: &Path) -> Result<Preload> {
        let file = File::options().create(true).truncate(true).read(true).write(true).open(control);
        let file = file.with_context(|| control.display().to_string())?;
        file.set_len(NUMBERS * NUMBER)?;
        Ok(Preload { file, control: control.to_owned(), library: self.path.clone() })
    }
}

/// What stands between one program and the system.
pub struct Preload {
    file: File,
    control: PathBuf,
    library: PathBuf,
}

/// How a clock goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Right.
    Right,
    /// So many seconds ahead; behind if negative.
    Off(i64),
    /// So many millionths too fast, from now on.
    Fast(i64),
}

/// A call that fails with EIO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// fsync.
    Fsync,
    /// fdatasync.
    Fdatasync,
    /// write to a file.
    Write,
    /// write to a place in a file.
    Pwrite,
    /// read from a place in a file.
    Pread,
}

impl Call {
    /// The system's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Call::Fsync => "fsync",
            Call::Fdatasync => "fdatasync",
            Call::Write => "write",
            Call::Pwrite => "pwrite",
            Call::Pread => "pread",
        }
    }

    /// The place of its first number.
    fn place(self) -> u64 {
        CALLS + 2 * self as u64
    }
}

impl Preload {
    /// What stands between `env` and the program, where another library may stand before this one:
    /// what that one does itself does not get here.
    pub fn environment(&self, first: Option<&str>) -> [String; 2] {
        let library = self.library.display().to_string();
        let libraries: Vec<&str> = first.into_iter().chain([library.as_str()]).collect();
        [
            format!("LAB_CONTROL={}", self.control.display()),
            format!("LD_PRELOAD={}", libraries.join(":")),
        ]
    }

    /// How the clock goes from now on.
    pub fn set_clock(&self, pace: Pace) -> Result<()> {
        let (off, fast) = match pace {
            Pace::Right => (0, 0),
            Pace::Off(seconds) => (seconds * 1_000_000_000, 0),
            Pace::Fast(millionths) => (0, millionths),
        };
        self.set(SINCE_NS, i64::try_from(UNIX_EPOCH.elapsed()?.as_nanos())?)?;
        self.set(FAST_PPM, fast)?;
        self.set(OFF_NS, off)
    }

    /// From now on this call fails with EIO, or only the next one.
    pub fn fail(&self, call: Call, once: bool) -> Result<()> {
        self.set(call.place(), if once { 1 } else { -1 })
    }

    /// It does what it should again.
    pub fn mend(&self, call: Call) -> Result<()> {
        self.set(call.place(), 0)
    }

    /// How often it failed so far.
    pub fn failed(&self, call: Call) -> Result<u64> {
        self.get(call.place() + 1)
    }

    /// From now on fsync and fdatasync wait before they begin, or go on: what was written and is to be
    /// synced is not on the disk meanwhile.
    pub fn hold_syncs(&self, hold: bool) -> Result<()> {
        self.set(HOLDS, i64::from(hold))
    }

    /// How many have waited so far.
    pub fn held_syncs(&self) -> Result<u64> {
        self.get(HELD)
    }

    fn get(&self, place: u64) -> Result<u64> {
        let mut number = [0; NUMBER as usize];
        self.file.read_exact_at(&mut number, place * NUMBER)?;
        Ok(u64::from_ne_bytes(number))
    }

    fn set(&self, place: u64, number: i64) -> Result<()> {
        Ok(self.file.write_all_at(&number.to_ne_bytes(), place * NUMBER)?)
    }
}
