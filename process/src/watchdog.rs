//! A process whose tasks no longer run is worse than one that is gone: connections stay open and
//! nothing is answered. It aborts itself, so that whoever watches it starts it anew.
//!
//! A task beats; a thread of its own counts how long it has not. The thread counts its own wake-ups
//! and reads no clock, so that a process that was stopped and goes on (SIGSTOP, a suspended
//! machine) is not taken for one that hangs.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

const BEAT_EVERY: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks without a beat before the process aborts: longer than any pause that heals by itself.
const MISSES_MAX: u32 = 60;

/// Watches the runtime that this is called on, until the process ends.
pub fn watch_runtime() -> io::Result<()> {
    let beats = Arc::new(AtomicU64::new(0));
    let seen = beats.clone();
    thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
        let mut pulse = Pulse::default();
        while !pulse.is_gone(seen.load(Ordering::Relaxed)) {
            thread::sleep(LOOK_EVERY);
        }
        eprintln!("no task has run for {MISSES_MAX} s: the process aborts");
        std::process::abort();
    })?;
    tokio::spawn(async move {
        loop {
            beats.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(BEAT_EVERY).await;
        }
    });
    Ok(())
}

/// The beats as they were looked at.
#[derive(Default)]
struct Pulse {
    last: u64,
    misses: u32,
}

impl Pulse {
    /// Has there been no beat for too many looks?
    fn is_gone(&mut self, beats: u64) -> bool {
        self.misses = if beats == self.last { self.misses + 1 } else { 0 };
        self.last = beats;
        self.misses > MISSES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pulse_is_gone_only_after_many_looks_without_a_beat() {
        let mut pulse = Pulse::default();
        assert!(!pulse.is_gone(1));
        for _ in 0..MISSES_MAX {
            assert!(!pulse.is_gone(1));
        }
        let mut back = Pulse { ..pulse };
        assert!(!back.is_gone(2), "it beats again");
        assert!((0..MISSES_MAX).all(|_| !back.is_gone(2)));
        assert!(pulse.is_gone(1));
    }
}
