//! The system's clock and randomness, as the simulation's own thread sees them.
//!
//! What asks the system behind the seams' backs (the seeds of hash maps, of `rand`'s generators, the
//! date in a header) asks these functions, which take the place of libc's in this program. On the
//! simulation's thread they answer from the seed and from simulated time; on all others, RocksDB's
//! among them, they ask the kernel.
#![expect(unsafe_code, reason = "a function that takes the place of one of libc's is unsafe")]

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use tidemark_env::{Rng, SeededRng};

thread_local! {
    /// Is this the simulation's thread? Needs no memory and no destructor: it is asked anywhere.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

static RANDOM: OnceLock<SeededRng> = OnceLock::new();
static NANOS: AtomicU64 = AtomicU64::new(0);

/// 2026-01-01, when every simulation begins.
pub(crate) const EPOCH_SECONDS: u64 = 1_767_225_600;

/// From now on this thread gets its randomness from `seed`, and time from [`at`].
///
/// # Panics
/// If it is called twice: a process simulates once.
pub fn enter(seed: u64) {
    RANDOM.set(SeededRng::new(seed)).expect("one simulation in a process");
    INSIDE.set(true);
}

/// It is so many nanoseconds since the simulation began.
pub fn at(nanos: u64) {
    NANOS.store(nanos, Ordering::Relaxed);
}

fn random() -> Option<&'static SeededRng> {
    RANDOM.get().filter(|_| INSIDE.get())
}

/// # Safety
/// As of getrandom(2).
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, flags: u32) -> isize {
    match random() {
        Some(random) if !buffer.is_null() => {
            // SAFETY: the caller gives a buffer of this length to write to.
            random.fill(unsafe { std::slice::from_raw_parts_mut(buffer, length) });
            isize::try_from(length).unwrap_or(-1)
        }
        // SAFETY: the caller's arguments, as they are.
        _ => unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) as isize },
    }
}

/// # Safety
/// As of getentropy(3).
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn getentropy(buffer: *mut u8, length: usize) -> i32 {
    // SAFETY: the caller's arguments, as they are.
    let filled = unsafe { getrandom(buffer, length, 0) };
    if usize::try_from(filled) == Ok(length) { 0 } else { -1 }
}

/// # Safety
/// As of clock_gettime(2).
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> i32 {
    if !INSIDE.get() || time.is_null() {
        // SAFETY: the caller's arguments, as they are.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as i32 };
    }
    let nanos = NANOS.load(Ordering::Relaxed);
    let from = match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => EPOCH_SECONDS,
        _ => 1,
    };
    let seconds = from + nanos / 1_000_000_000;
    // SAFETY: the caller gives a place to write to, and it is not null.
    unsafe {
        (*time).tv_sec = libc::time_t::try_from(seconds).unwrap_or(libc::time_t::MAX);
        (*time).tv_nsec = (nanos % 1_000_000_000) as libc::c_long;
    }
    0
}
