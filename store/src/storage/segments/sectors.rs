//! Where a segment's content lies in its file, and which of its sectors hold any.
//!
//! ```text
//!   content 504   number u32   the number's complement u32                        a sector
//! ```
//!
//! A file that is not needed any more becomes a later segment's, and is written over: a sync need not tell
//! the file system then that the file has grown. So what a power cut left unwritten is not zeros but what
//! an older segment had there. Each sector says whose it is: the number of the segment that wrote it. In
//! a file that was filled with zeros before, sectors that nobody wrote have no mark.
//!
//! Places are those of the content; only here it is known that marks lie in between.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use super::error::LogDamage;

/// A disk writes these whole.
pub(super) const SECTOR: usize = 512;

/// What a sector holds besides its mark.
pub(super) const CONTENT: usize = SECTOR - size_of::<Mark>();

/// The system reads the rest of a page that is written in part from the disk first.
const PAGE_SECTORS: usize = 8;

/// The content of whole pages is a multiple of this.
const PAGE_CONTENT: usize = PAGE_SECTORS * CONTENT;

type Mark = [u8; 8];

/// Of a sector that nobody wrote.
const UNWRITTEN: Mark = [0; 8];

/// The mark of what segment `number` wrote.
fn mark(number: u32) -> Mark {
    let mut mark = UNWRITTEN;
    mark[..4].copy_from_slice(&number.to_le_bytes());
    mark[4..].copy_from_slice(&(!number).to_le_bytes());
    mark
}

/// Whose a sector is; `None` if nobody wrote it. Refuses what is no mark.
fn writer(mark: &[u8]) -> Result<Option<u32>, ()> {
    let (number, complement) = mark.split_at(4);
    let number = u32::from_le_bytes(number.try_into().map_err(drop)?);
    match u32::from_le_bytes(complement.try_into().map_err(drop)?) {
        0 if number == 0 => Ok(None),
        complement if complement == !number => Ok(Some(number)),
        _ => Err(()),
    }
}

/// Where in the file the page with the content at `at` begins, and where its content does.
pub(super) fn page(at: usize) -> (u64, usize) {
    let page = at / PAGE_CONTENT;
    ((page * PAGE_SECTORS * SECTOR) as u64, page * PAGE_CONTENT)
}

/// How long a file is with content up to `end`: whole pages.
pub(super) fn file_len(end: usize) -> u64 {
    (end.div_ceil(PAGE_CONTENT) * PAGE_SECTORS * SECTOR) as u64
}

/// Puts `content`, which begins with a page, into `pages`: whole ones, the rest of the last one unwritten.
pub(super) fn seal(content: &[u8], number: u32, pages: &mut Vec<u8>) {
    let mark = mark(number);
    pages.clear();
    pages.resize(content.len().div_ceil(PAGE_CONTENT) * PAGE_SECTORS * SECTOR, 0);
    for (content, sector) in content.chunks(CONTENT).zip(pages.chunks_mut(SECTOR)) {
        sector[..content.len()].copy_from_slice(content);
        sector[CONTENT..].copy_from_slice(&mark);
    }
}

/// The content at `range` of segment `number`, whose file this is.
pub(super) fn read_at(file: &File, number: u32, range: Range<usize>) -> io::Result<Vec<u8>> {
    let sectors = range.start / CONTENT..range.end.div_ceil(CONTENT);
    let mut bytes = vec![0; sectors.len() * SECTOR];
    file.read_exact_at(&mut bytes, (sectors.start * SECTOR) as u64)?;
    let mut read = Vec::with_capacity(range.len());
    for (at, sector) in sectors.zip(bytes.chunks(SECTOR)) {
        let (content, mark) = sector.split_at(CONTENT);
        if writer(mark) != Ok(Some(number)) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, LogDamage::Sector { at }));
        }
        let from = at * CONTENT;
        let part = range.start.max(from)..range.end.min(from + CONTENT);
        read.extend_from_slice(&content[part.start - from..part.end - from]);
    }
    Ok(read)
}

/// All that a segment wrote to its file.
pub(super) struct Content {
    /// Up to the last sector that it wrote; zeros for those before that it did not write.
    pub(super) bytes: Vec<u8>,
    /// Which of them it wrote.
    written: Vec<bool>,
}

impl Content {
    /// Of segment `number`, whose file is `file`. Refuses sectors of which nobody knows whose they are.
    pub(super) fn of(number: u32, file: Vec<u8>) -> Result<Self, LogDamage> {
        let mut bytes = file;
        let mut written = Vec::with_capacity(bytes.len() / SECTOR);
        for at in 0..bytes.len() / SECTOR {
            let sector = at * SECTOR;
            let wrote = match writer(&bytes[sector + CONTENT..sector + SECTOR]) {
                Ok(wrote) if wrote <= Some(number) => wrote == Some(number),
                _ => return Err(LogDamage::Sector { at }),
            };
            match wrote {
                true => bytes.copy_within(sector..sector + CONTENT, at * CONTENT),
                false => bytes[at * CONTENT..(at + 1) * CONTENT].fill(0),
            }
            written.push(wrote);
        }
        let sectors = written.iter().rposition(|written| *written).map_or(0, |last| last + 1);
        written.truncate(sectors);
        bytes.truncate(sectors * CONTENT);
        Ok(Content { bytes, written })
    }

    /// How much of the file it takes.
    pub(super) fn file_bytes(&self) -> usize {
        self.written.len() * SECTOR
    }

    /// Is there a sector in `range` that was never written?
    pub(super) fn has_hole(&self, range: Range<usize>) -> bool {
        let sectors = range.start / CONTENT..range.end.div_ceil(CONTENT);
        self.written.get(sectors).is_none_or(|sectors| sectors.contains(&false))
    }

    /// What is in the sector of `at`, from there on.
    pub(super) fn rest_of_sector(&self, at: usize) -> &[u8] {
        let end = next_sector(at).min(self.bytes.len());
        &self.bytes[at.min(end)..end]
    }

    /// Is nothing written in a sector behind that of `at`?
    pub(super) fn is_last(&self, at: usize) -> bool {
        next_sector(at) >= self.bytes.len()
    }
}

/// Where the content behind the sector of `at` begins.
fn next_sector(at: usize) -> usize {
    (at / CONTENT + 1) * CONTENT
}
