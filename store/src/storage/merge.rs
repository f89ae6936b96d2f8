//! When young files of the database are merged into older ones, and how fast.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use rocksdb::{CompactionDecision, Options};

use super::pace::{self, PIECE_BYTES};

/// Young files that are merged into the next level together: twice RocksDB's, since each merge
/// rewrites that level, and a read of a missing key costs a Bloom filter for each.
const MERGED_FILES: usize = 8;

/// So many of them that a merge does not rest: each read looks into all.
const YOUNG_FILES_MAX: usize = 24;

/// So many that writing out waits for merges: RocksDB's own bound, which is lower, would be reached while
/// these still rest. Only a disk that cannot follow is so far behind.
const WAITED_FOR_FILES: usize = 2 * YOUNG_FILES_MAX;

/// Merges at the same time, and a flush: while old files are rewritten, which may take a minute, young ones
/// are merged with each other. Each has rests of its own.
const JOBS: i32 = 4;

/// A file that was not merged for so long is: what it says is deleted does not stay in older ones.
const MERGED_WITHIN_S: u64 = 30 * 24 * 3_600;

thread_local! {
    /// Bytes that this thread has merged since it rested last, and when that was.
    static PIECE: Cell<(usize, Option<Instant>)> = const { Cell::new((0, None)) };
}

/// How many young files there are, which whoever adds one says.
#[derive(Debug, Default)]
pub(super) struct Young(AtomicUsize);

impl Young {
    /// Says how many there are.
    pub(super) fn set(&self, files: usize) {
        self.0.store(files, Ordering::Relaxed);
    }

    /// Has files merged as above; the filter, which every key of a merge passes, removes nothing.
    pub(super) fn pace_merges(self: &Arc<Self>, options: &mut Options) {
        options.set_level_zero_file_num_compaction_trigger(MERGED_FILES as i32);
        options.set_level_zero_slowdown_writes_trigger(WAITED_FOR_FILES as i32);
        options.set_level_zero_stop_writes_trigger(WAITED_FOR_FILES as i32);
        options.set_max_background_jobs(JOBS);
        options.set_ttl(MERGED_WITHIN_S);
        let young = Arc::clone(self);
        options.set_compaction_filter("pace", move |_, key, value| {
            young.merged(key.len() + value.len());
            CompactionDecision::Keep
        });
    }

    /// Rests when a piece was merged.
    fn merged(&self, bytes: usize) {
        let (before, since) = PIECE.get();
        if before + bytes < PIECE_BYTES {
            return PIECE.set((before + bytes, since));
        }
        if let Some(since) = since {
            let young = self.0.load(Ordering::Relaxed);
            thread::sleep(pace::rest(since.elapsed(), young, MERGED_FILES..YOUNG_FILES_MAX));
        }
        PIECE.set((0, Some(Instant::now())));
    }
}
