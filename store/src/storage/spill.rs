//! When layers go to the database, and who waits for that.

use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::state_db::Inner;

/// Bytes of all groups' layers at which they go to the database.
pub(super) const SPILL_BYTES: usize = 32 << 20;

/// Bytes at which whoever applies waits until some have gone.
pub(super) const PENDING_BYTES_MAX: usize = 2 * SPILL_BYTES;

/// Between two looks of one who waits, whether the state can still be written.
const LOOK: Duration = Duration::from_millis(100);

/// What the spilling thread is told, and tells.
#[derive(Debug, Default)]
pub(super) struct Signal {
    asked: Mutex<Asked>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Asked {
    spill: bool,
    end: bool,
}

impl Signal {
    /// Layers are to go to the database.
    pub(super) fn spill(&self) {
        let mut asked = self.asked.lock();
        if !asked.spill {
            asked.spill = true;
            self.changed.notify_all();
        }
    }

    /// Nobody needs the thread any more.
    pub(super) fn end(&self) {
        self.asked.lock().end = true;
        self.changed.notify_all();
    }

    /// Some layers have gone.
    fn done(&self) {
        self.asked.lock().spill = false;
        self.changed.notify_all();
    }

    /// Waits while `full`.
    pub(super) fn wait_while(&self, full: impl Fn() -> bool) {
        let mut asked = self.asked.lock();
        while full() {
            self.changed.wait_for(&mut asked, LOOK);
        }
    }

    /// Waits until layers are to go; false at the end.
    fn wait(&self) -> bool {
        let mut asked = self.asked.lock();
        while !asked.spill && !asked.end {
            self.changed.wait(&mut asked);
        }
        !asked.end
    }
}

/// Starts the thread, which lives no longer than the state.
pub(super) fn start(state: Weak<Inner>, signal: Arc<Signal>) -> std::io::Result<()> {
    let spill = move || {
        while signal.wait() {
            let Some(state) = state.upgrade() else { return };
            state.spill();
            signal.done();
        }
    };
    thread::Builder::new().name("state-spill".to_owned()).spawn(spill).map(drop)
}
