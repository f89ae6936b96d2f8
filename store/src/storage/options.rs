//! How the database is set up that holds the state.

use rocksdb::{BlockBasedOptions, DBCompressionType, Options};

/// More than one spill writes: each becomes one file, by the flush that follows it.
const WRITE_BUFFER_BYTES: usize = 64 << 20;

/// Writes stall when all are full; only a snapshot that is being installed fills more than one.
const WRITE_BUFFERS_MAX: i32 = 3;

/// Bits per key of the Bloom filters: most lookups of sessions' ids and blocks find nothing.
const BLOOM_BITS: f64 = 10.0;

/// By level; the last one counts for all below.
pub(super) const COMPRESSION: [DBCompressionType; 3] =
    [DBCompressionType::None, DBCompressionType::None, DBCompressionType::Lz4];

/// Bytes of a file after which they are on their way to the disk, so that its end has little left to wait
/// for, and the log does not wait behind all of it.
const SYNC_BYTES: u64 = 1 << 20;

/// Bytes that are read and checked together. A page of a mailbox has several of them; single values that
/// are asked for all the time are in memory anyway.
const BLOCK_BYTES: usize = 16 << 10;

/// Info log files to keep.
const INFO_LOGS_MAX: usize = 10;

/// Those of a database at any place.
pub(super) fn options() -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_bloom_filter(BLOOM_BITS, false);
    blocks.set_block_size(BLOCK_BYTES);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    // Much of what is young is overwritten or deleted before it gets old: heads, sessions, records.
    options.set_compression_per_level(&COMPRESSION);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_write_buffer_number(WRITE_BUFFERS_MAX);
    options.set_bytes_per_sync(SYNC_BYTES);
    options.set_paranoid_checks(true);
    options.set_keep_log_file_num(INFO_LOGS_MAX);
    options
}
