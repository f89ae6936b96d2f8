//! The segment that is written to.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate};
use rustix::io::retry_on_intr;
use tidemark_mutants::{Mutant, is};

use super::index::Place;
use super::record::{self, Record};
use super::{sectors, segment_path};

/// Zeros are written in pieces of this.
const ZEROS: usize = 1 << 20;

/// An open file with a part that is on the disk, and a part that may not be.
///
/// ```text
///   segment head   checkpoint   record   record │ record   record │ an older segment, zeros, or nothing
///                                        synced ┘             end ┘
/// ```
pub(super) struct Newest {
    pub(super) number: u32,
    file: File,
    /// Up to where everything is on the disk.
    synced: usize,
    /// Where the next record goes.
    end: usize,
    /// The content of the last page, which is not full: it is written again with what comes next.
    page: Vec<u8>,
    /// Reused for every write.
    sealed: Vec<u8>,
}

impl Newest {
    /// Makes `file`, whatever is in it, segment `number`, which begins with `checkpoint`. All of it is on
    /// the disk at return, but for its name in the folder.
    pub(super) fn create(file: File, number: u32, checkpoint: Record) -> io::Result<Self> {
        let mut newest = Newest::at(file, number, 0);
        newest.write(&record::segment_head(number))?;
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
        let (_, from) = sectors::page(synced);
        let mut newest = Newest::at(file, number, from);
        newest.file.set_len(sectors::file_len(segment.len()))?;
        newest.write(&segment[from..])?;
        let end = sectors::file_len(newest.end);
        match fill(&newest.file, end..sectors::file_len(segment_bytes)) {
            Err(error) if is_no_room(&error) => {
                tracing::debug!(%error, "the log grows with each commit until its next segment");
                newest.file.set_len(end)?;
            }
            filled => filled?,
        }
        newest.file.sync_all()?;
        // The zeros are cached in large pieces, which each commit would go through.
        let _ = fadvise(&newest.file, 0, None, Advice::DontNeed);
        newest.synced = newest.end;
        Ok(newest)
    }

    /// Of which nothing is written behind `from`, where a page begins.
    fn at(file: File, number: u32, from: usize) -> Self {
        Newest { number, file, synced: from, end: from, page: Vec::new(), sealed: Vec::new() }
    }

    /// How long its content is.
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
        self.write(record.finish(self.number, at, self.synced))?;
        if durable && !is(Mutant::NoFsync) {
            self.sync()?;
        }
        let place =
            |range: &Range<usize>| Place::new(self.number, at + range.start..at + range.end);
        let places = record.entries().iter().map(place).collect();
        Ok((places, record.into_buffer()))
    }

    /// Nothing more comes: all of it is on the disk at return, and nothing of what its file was before.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.file.set_len(sectors::file_len(self.end))?;
        // Whatever is durable from now on, so is all before it.
        self.sync()
    }

    /// Everything that was written is on the disk at return.
    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        self.synced = self.end;
        Ok(())
    }

    /// Goes on with `content`, in whole pages.
    fn write(&mut self, content: &[u8]) -> io::Result<()> {
        let (at, _) = sectors::page(self.end);
        self.page.extend_from_slice(content);
        self.end += content.len();
        sectors::seal(&self.page, self.number, &mut self.sealed);
        self.file.write_all_at(&self.sealed, at)?;
        let (_, page) = sectors::page(self.end);
        self.page.drain(..self.page.len() - (self.end - page));
        Ok(())
    }
}

/// Has the disk no room, or a file system that cannot say so beforehand? All else is a disk that fails.
pub(super) fn is_no_room(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull, Unsupported};
    matches!(error.kind(), StorageFull | QuotaExceeded | Unsupported)
}

/// A new file for segment `number`, which has its place on the disk: one that grows with each commit lies in
/// pieces, and a sync writes them one by one.
pub(super) fn allocated(folder: &Path, number: u32, segment_bytes: usize) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // One of this name is what an interrupted change of segments left.
    options.write(true).create(true).truncate(true);
    let file = options.open(segment_path(folder, number))?;
    let bytes = sectors::file_len(segment_bytes);
    if let Err(error) = retry_on_intr(|| fallocate(&file, FallocateFlags::KEEP_SIZE, 0, bytes)) {
        tracing::debug!(%error, "a segment of the log is not allocated before it is written");
    }
    Ok(file)
}

/// Fills `range`, behind which the file ends, with zeros: a sync of what is written there later need not change
/// where the file's parts are.
fn fill(file: &File, range: Range<u64>) -> io::Result<()> {
    if range.is_empty() {
        return Ok(());
    }
    let bytes = range.end - range.start;
    retry_on_intr(|| fallocate(file, FallocateFlags::KEEP_SIZE, range.start, bytes))?;
    let zeros = vec![0; ZEROS];
    for at in range.clone().step_by(ZEROS) {
        file.write_all_at(&zeros[..(range.end - at).min(ZEROS as u64) as usize], at)?;
    }
    Ok(())
}
