//! Asking for memory before it is needed.
//!
//! What a node has in memory is many times what its processor's caches hold, and is looked for in no order.
//! A line that is not in a cache takes as long as hundreds of instructions, but many of them come at the same
//! time if nothing waits for the first: so whoever has several things to look at looks at a byte of each first.

use std::hint::black_box;

/// Bytes that come together.
const LINE: usize = 64;

/// As many lines are asked for: where a long copy goes on, the processor sees by itself.
const LINES: usize = 16;

/// Has these bytes come, or the first of them.
pub(super) fn touch(bytes: &[u8]) {
    for line in bytes.chunks(LINE).take(LINES) {
        black_box(line[0]);
    }
}
