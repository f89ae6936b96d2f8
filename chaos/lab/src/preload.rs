//! Libraries that come between a program and the system: clocks that are wrong, disks that fail.
//!
//! ```text
//!   program ── libfaketime ── the clock        told by a file: how far, how fast
//!           └─ libfiu      ── reads, writes    told by a pipe: which call fails
//! ```
//!
//! Both are loaded when the program starts and do nothing until they are told. The monotonic clock
//! stays as it is.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

const FIU: [&str; 2] = ["/usr/lib/fiu/fiu_run_preload.so", "/usr/lib/fiu/fiu_posix_preload.so"];

const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();

/// How long a program may take to say that it has understood.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What comes between one program and the system.
#[derive(Clone, Debug)]
pub struct Preload {
    clock: Option<PathBuf>,
    calls: Option<PathBuf>,
}

/// How a clock goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Right.
    Right,
    /// So many seconds ahead; behind if negative.
    Off(i64),
    /// So many times as fast, since the program started.
    Times(f64),
}

/// A call that fails with EIO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// fsync.
    Fsync,
    /// fdatasync.
    Fdatasync,
    /// write at a position.
    Pwrite,
    /// read at a position.
    Pread,
}

impl Call {
    /// The system's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Call::Fsync => "fsync",
            Call::Fdatasync => "fdatasync",
            Call::Pwrite => "pwrite",
            Call::Pread => "pread",
        }
    }

    fn point(self) -> &'static str {
        match self {
            Call::Fsync => "posix/io/sync/fsync",
            Call::Fdatasync => "posix/io/sync/fdatasync",
            Call::Pwrite => "posix/io/rw/pwrite",
            Call::Pread => "posix/io/rw/pread",
        }
    }
}

impl Preload {
    /// For a program whose files here begin with `name`: a clock, or calls, or both.
    pub fn new(folder: &Path, name: &str, clock: bool, calls: bool) -> Result<Self> {
        let wanted = clock.then(faketime).into_iter();
        for library in wanted.chain(FIU.map(str::to_owned).into_iter().filter(|_| calls)) {
            let there = Path::new(&library).is_file();
            ensure!(there, "{library} is missing: scripts/setup installs it");
        }
        let file = |kind: &str| folder.join(format!("{name}.{kind}"));
        let preload =
            Preload { clock: clock.then(|| file("clock")), calls: calls.then(|| file("calls")) };
        preload.set_clock(Pace::Right)?;
        Ok(preload)
    }

    /// What stands between `env` and the program.
    pub fn environment(&self) -> Vec<String> {
        let mut libraries = Vec::new();
        let mut variables = Vec::new();
        if let Some(file) = &self.clock {
            libraries.push(faketime());
            variables.push(format!("FAKETIME_TIMESTAMP_FILE={}", file.display()));
            variables.push("FAKETIME_CACHE_DURATION=1".to_owned());
            variables.push("FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned());
        }
        if let Some(pipe) = &self.calls {
            libraries.extend(FIU.map(str::to_owned));
            variables.push(format!("FIU_CTRL_FIFO={}", pipe.display()));
        }
        if !libraries.is_empty() {
            variables.push(format!("LD_PRELOAD={}", libraries.join(":")));
        }
        variables
    }

    /// How the clock goes from now on; within a second the program knows.
    pub fn set_clock(&self, pace: Pace) -> Result<()> {
        let Some(file) = &self.clock else { return Ok(()) };
        let text = match pace {
            Pace::Right => "+0".to_owned(),
            Pace::Off(seconds) => format!("{seconds:+}"),
            Pace::Times(times) => format!("+0 x{times}"),
        };
        // Never half of it.
        let new = file.with_extension("new");
        fs::write(&new, text)?;
        Ok(fs::rename(new, file)?)
    }

    /// From now on this call of the process fails with EIO, or only the next one.
    pub fn fail(&self, process: u32, call: Call, once: bool) -> Result<()> {
        const EIO: i32 = 5;
        let once = if once { ",onetime" } else { "" };
        self.tell(process, &format!("enable name={}{once},failinfo={EIO}", call.point()))
    }

    /// It does what it should again.
    pub fn mend(&self, process: u32, call: Call) -> Result<()> {
        self.tell(process, &format!("disable name={}", call.point()))
    }

    fn tell(&self, process: u32, what: &str) -> Result<()> {
        let pipe = self.calls.as_ref().context("no calls of this program can fail")?;
        let end = |side: &str| PathBuf::from(format!("{}-{process}.{side}", pipe.display()));
        // Neither end waits: the program may be gone.
        let nonblocking =
            |options: &mut OpenOptions, side: &str| options.custom_flags(NONBLOCK).open(end(side));
        let mut answers = nonblocking(OpenOptions::new().read(true), "out")?;
        let mut orders = nonblocking(OpenOptions::new().write(true), "in")?;
        orders.write_all(format!("{what}\n").as_bytes())?;
        let from = Instant::now();
        let mut answer = [0; 64];
        loop {
            match answers.read(&mut answer) {
                Ok(length) if length > 0 => {
                    let said = String::from_utf8_lossy(&answer[..length]);
                    ensure!(said.trim() == "0", "{what}: {said}");
                    return Ok(());
                }
                _ if from.elapsed() > ANSWER_WITHIN => bail!("{what}: no answer"),
                _ => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }
}

/// Where Debian puts it.
fn faketime() -> String {
    format!("/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1", std::env::consts::ARCH)
}
