//! The servers' memory allocator, what it takes from the system, and how long it keeps what was freed.
//!
//! Servers allocate a lot of small things, and free tens of megabytes at once when a state is written
//! out, to ask for them again within seconds. What is given back to the system meanwhile comes back page
//! by page, each cleared by the kernel: a tenth of a store node's time under full load.
//!
//! A huge page is cleared as one, and whoever touched it first waits: for milliseconds where the system
//! has to get its memory from a host. All of it is taken, however little is used.

use std::ffi::{c_int, c_long};
use std::io;
use std::time::Duration;

pub use mimalloc::MiMalloc as Allocator;

/// mimalloc's `mi_option_purge_delay`, which its crate does not name.
const PURGE_DELAY: c_int = 15;

/// How long freed memory is kept. A server under load asks for it again long before; one that has nothing
/// to do gives it back.
const KEPT: Duration = Duration::from_secs(10);

/// By which whoever starts a server may say something else, in milliseconds; the allocator reads it.
const KEPT_VARIABLE: &str = "MIMALLOC_PURGE_DELAY";

/// Has the allocator keep freed memory for a while; called once, when a server begins.
pub fn keep_freed_memory() {
    if std::env::var_os(KEPT_VARIABLE).is_some() {
        return;
    }
    let millis = c_long::try_from(KEPT.as_millis()).expect("a few seconds");
    set(PURGE_DELAY, millis);
}

/// Has the system give this process memory in pages of the usual size; called once, when a server begins.
///
/// # Errors
///
/// The system does not know of it.
pub fn take_small_pages() -> io::Result<()> {
    Ok(rustix::thread::disable_transparent_huge_pages(true)?)
}

#[expect(unsafe_code, reason = "the option is a number in a table of the allocator's")]
fn set(option: c_int, value: c_long) {
    // SAFETY: any number may be written into the table, whose length the allocator checks; it reads it
    // from all threads.
    unsafe { libmimalloc_sys::mi_option_set(option, value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(unsafe_code, reason = "the option is a number in a table of the allocator's")]
    fn get(option: c_int) -> c_long {
        // SAFETY: as for writing.
        unsafe { libmimalloc_sys::mi_option_get(option) }
    }

    /// An update of the allocator might move the option: then its default is another one.
    #[test]
    fn the_option_is_the_one_that_is_meant() {
        assert_eq!(get(PURGE_DELAY), 1_000, "milliseconds, as mimalloc 3 documents it");
        keep_freed_memory();
        assert_eq!(get(PURGE_DELAY), 10_000);
    }
}
