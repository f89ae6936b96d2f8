//! When layers go to the database, and who waits for that.

use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::pace;
use super::state_db::Inner;

/// Bytes of all groups' layers at which they go to the database.
pub(super) const SPILL_BYTES: usize = 32 << 20;

/// Bytes at which writing out does not rest any more, so that it ends before anybody has to wait for it.
const HURRIED_BYTES: usize = SPILL_BYTES / 2 * 3;

/// Bytes at which whoever applies waits until some have gone.
pub(super) const PENDING_BYTES_MAX: usize = 2 * SPILL_BYTES;

/// For one who does not rest, since others wait for it.
pub(super) const AT_ONCE: fn() = || {};

/// Between two looks of one who waits, whether the state can still be written.
const LOOK: Duration = Duration::from_millis(100);

/// What the spilling thread is told, and tells.
#[derive(Debug, Default)]
pub(super) struct Signal {
    asked: Mutex<Asked>,
    changed: Condvar,
    alone: Mutex<()>,
}

#[derive(Debug, Default)]
struct Asked {
    spill: bool,
    end: bool,
    /// How many wait to be alone.
    waiting: usize,
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

    /// For one at a time: takes layers to the database, or replaces what they lie over. Who has it rests no
    /// more while others wait.
    pub(super) fn alone(&self) -> MutexGuard<'_, ()> {
        self.asked.lock().waiting += 1;
        self.changed.notify_all();
        let alone = self.alone.lock();
        self.asked.lock().waiting -= 1;
        alone
    }

    /// Rests for as long as the `bytes` that are pending allow; to be called after each piece of work of one
    /// who is alone.
    pub(super) fn resting(&self, bytes: impl Fn() -> usize) -> impl FnMut() {
        let mut began = Instant::now();
        move || {
            let rest = pace::rest(began.elapsed(), bytes(), SPILL_BYTES..HURRIED_BYTES);
            self.rest(rest);
            began = Instant::now();
        }
    }

    /// Rests, but not while others wait.
    fn rest(&self, how_long: Duration) {
        let mut asked = self.asked.lock();
        if asked.waiting == 0 {
            self.changed.wait_for(&mut asked, how_long);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_waited_for_does_not_rest() {
        let signal = Signal::default();
        thread::scope(|threads| {
            let alone = signal.alone();
            threads.spawn(|| drop(signal.alone()));
            while signal.asked.lock().waiting == 0 {
                thread::yield_now();
            }
            signal.rest(Duration::MAX);
            drop(alone);
        });
    }
}
