//! Writes down what happens in a run, in the order in which it happens.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use parking_lot::Mutex;
use tidemark_checker::history::{Nanos, Op};
use tidemark_checker::{Event, Writer};
use tidemark_env::{Clock, SystemClock};

/// The history of a run, being written; a cheap handle.
#[derive(Clone)]
pub struct Notes(Arc<Inner>);

struct Inner {
    file: Mutex<File>,
    clock: Arc<dyn Clock>,
    ops: AtomicU64,
}

struct File {
    writer: Writer,
    /// Why the history is not whole.
    failed: Option<String>,
}

impl Notes {
    /// A new file, with the system's time.
    pub fn create(path: &Path) -> Result<Self> {
        Self::by_clock(path, Arc::new(SystemClock::new()))
    }

    /// A new file, with the monotonic time of `clock`.
    pub fn by_clock(path: &Path, clock: Arc<dyn Clock>) -> Result<Self> {
        let writer = Writer::create(path).with_context(|| format!("{}", path.display()))?;
        let file = Mutex::new(File { writer, failed: None });
        Ok(Notes(Arc::new(Inner { file, clock, ops: AtomicU64::new(0) })))
    }

    /// The time, since the run began.
    pub fn now(&self) -> Nanos {
        Nanos(u64::try_from(self.0.clock.monotonic().as_nanos()).unwrap_or(u64::MAX))
    }

    /// A new operation.
    pub fn op(&self) -> Op {
        Op(self.0.ops.fetch_add(1, Ordering::Relaxed))
    }

    /// Notes what happens now; when that was.
    pub fn note(&self, event: impl FnOnce(Nanos) -> Event) -> Nanos {
        let mut file = self.0.file.lock();
        // Under the lock: events stand in the order of their times.
        let now = self.now();
        if let Err(error) = file.writer.write(&event(now)) {
            file.failed.get_or_insert(error.to_string());
        }
        now
    }

    /// Notes what a process used; above its bound it is what must not be, and the run is violated.
    pub fn amount(&self, process: &dyn Display, what: &str, amount: u64, bound: u64) {
        let (process, what) = (process.to_string(), what.to_owned());
        self.note(|at| Event::Cost { at, process, what, amount, bound });
    }

    /// Everything is on its way to the disk; an error if the history is not whole.
    pub fn finish(&self) -> Result<()> {
        let mut file = self.0.file.lock();
        file.writer.flush()?;
        match file.failed.take() {
            Some(reason) => anyhow::bail!("the history is not whole: {reason}"),
            None => Ok(()),
        }
    }
}
