//! The segment that is written to.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};
use tidemark_mutants::{Mutant, is};

use super::index::Place;
use super::record::{self, FILE_HEAD, Record};
use super::segment_path;

/// An open file with a part that is on the disk, and a part that may not be.
///
/// ```text
///   file head   checkpoint   record   record │ record   record │
///                                     synced ┘             end ┘
/// ```
pub(super) struct Newest {
    pub(super) number: u32,
    file: File,
    /// Up to where everything is on the disk.
    synced: usize,
    /// Where the next record goes.
    end: usize,
}

impl Newest {
    /// Makes segment `number`, which begins with `checkpoint`. All of it is on the disk at return, but for
    /// its name in the folder.
    pub(super) fn create(
        folder: &Path,
        number: u32,
        checkpoint: Record,
        segment_bytes: usize,
    ) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        // One of this name is what an interrupted change of segments left.
        options.write(true).create(true).truncate(true);
        let file = options.open(segment_path(folder, number))?;
        allocate(&file, segment_bytes);
        file.write_all_at(&record::file_head(number), 0)?;
        let mut newest = Newest { number, file, synced: FILE_HEAD, end: FILE_HEAD };
        newest.append(checkpoint, true)?;
        Ok(newest)
    }

    /// Opens what a node left, whose last whole record ends at the end of `segment`: what follows in the
    /// file goes, and what had not been synced from `synced` on is written again.
    ///
    /// A whole record may lie in the page cache alone, after a process was killed or, without a sign of
    /// it, after a sync has failed. From now on it counts, so it must be on the disk.
    pub(super) fn reopen(
        folder: &Path,
        number: u32,
        segment: &[u8],
        synced: usize,
        segment_bytes: usize,
    ) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).open(segment_path(folder, number))?;
        let end = segment.len();
        file.set_len(end as u64)?;
        allocate(&file, segment_bytes);
        file.write_all_at(&segment[synced..], synced as u64)?;
        file.sync_all()?;
        Ok(Newest { number, file, synced: end, end })
    }

    /// How long it is.
    pub(super) fn bytes(&self) -> usize {
        self.end
    }

    /// Writes a record; where its entries are, and the record's buffer.
    pub(super) fn append(
        &mut self,
        mut record: Record,
        durable: bool,
    ) -> io::Result<(Vec<Place>, Vec<u8>)> {
        let at = self.end;
        let bytes = record.finish(self.number, at, self.synced);
        self.file.write_all_at(bytes, at as u64)?;
        self.end += bytes.len();
        if durable && !is(Mutant::NoFsync) {
            self.sync()?;
        }
        let place = |range: &std::ops::Range<usize>| {
            Place::new(self.number, at + range.start..at + range.end)
        };
        let places = record.entries().iter().map(place).collect();
        Ok((places, record.into_buffer()))
    }

    /// Everything that was written is on the disk at return.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        self.synced = self.end;
        Ok(())
    }
}

/// Has the system choose one place for all of a file, which stays as long as it is: one that grows with each
/// commit lies in pieces, and a sync writes them one by one. Where this cannot be done it does so.
fn allocate(file: &File, segment_bytes: usize) {
    if let Err(error) = fallocate(file, FallocateFlags::KEEP_SIZE, 0, segment_bytes as u64) {
        tracing::debug!(%error, "a segment of the log is not allocated before it is written");
    }
}
