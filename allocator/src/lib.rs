//! The memory allocator of servers and load, what it takes from the system, and how long it keeps what was freed.
//!
//! Servers allocate a lot of small things that live for a moment. jemalloc gives out first what was freed
//! last, which is still in the processor's caches; an allocator that goes through its pages in order finds
//! each block in memory, a sixth of a gateway's time (`docs/adr/0027-what-memory-costs.md`).
//!
//! Tens of megabytes are freed at once when a state is written out, to be asked for again within seconds.
//! What is given back to the system meanwhile comes back page by page, each cleared by the kernel: a tenth
//! of a store node's time under full load. So it is kept for a while. A huge page is cleared as one, and
//! whoever touched it first waits: for milliseconds where the system has to get its memory from a host. All
//! of it is taken, however little is used.

use std::io;

pub use tikv_jemallocator::Jemalloc as Allocator;

/// jemalloc's options, by the name under which it looks for them. What was freed is kept for 10 s, at most,
/// and then given back by a thread of its own, since a server that has nothing to do frees nothing either.
/// Whoever starts a server may say something else by `MALLOC_CONF`.
#[expect(unsafe_code, reason = "the allocator reads its options from a symbol")]
#[unsafe(no_mangle)]
#[used]
pub static malloc_conf: &[u8; 61] =
    b"background_thread:true,dirty_decay_ms:10000,muzzy_decay_ms:0\0";

/// Has the system give this process memory in pages of the usual size; called once, when a server begins.
///
/// # Errors
///
/// The system does not know of it.
pub fn take_small_pages() -> io::Result<()> {
    Ok(rustix::thread::disable_transparent_huge_pages(true)?)
}

#[cfg(test)]
mod tests {
    use tikv_jemalloc_ctl::{opt, raw};

    use super::*;

    #[global_allocator]
    static ALLOCATOR: Allocator = Allocator;

    #[test]
    fn the_options_are_what_the_allocator_goes_by() {
        assert!(opt::background_thread::read().expect("an option"));
        let kept = |name: &[u8]| {
            #[expect(unsafe_code, reason = "an option is read by its name")]
            // SAFETY: the name ends with a 0, and the option is an `ssize_t`.
            unsafe { raw::read::<isize>(name) }.expect("an option")
        };
        assert_eq!(kept(b"opt.dirty_decay_ms\0"), 10_000);
        assert_eq!(kept(b"opt.muzzy_decay_ms\0"), 0);
    }
}
