//! The Raft log on disk: one sequence of records for all groups of a node, in files of about one size.
//!
//! ```text
//!   commit(batch) ──► one record ──► the newest segment (fdatasync if durable) ──► index, in memory
//!
//!   000…1.log   000…2.log   000…3.log     MANIFEST: which are the oldest and the newest
//!   │ needed entries, or not │ written to
//! ```
//!
//! Its own format, because its needs are the reverse of the state's: every commit is synced, nothing is
//! read back while the node is well, everything is deleted soon after. A segment goes when no entry in it
//! is needed, and its file becomes a later one's; a few entries that hold up the others are copied. Each
//! segment begins with a checkpoint of all marks and of which entries there are, so that the ones before are
//! needed for their entries only.
//!
//! What is on the disk when:
//! * a record with a durable batch, and all before it, before the batch's commit returns;
//! * a whole segment, before there is a next one: only the newest can be torn;
//! * a segment and its name, before the manifest names it, and that before a batch is written to it;
//! * what makes a segment unneeded, and a manifest without it, before its file goes or is written over;
//! * what was found at start, before anybody is told of it.
//!
//! It refuses to create what should be there, and to open what it does not fully understand: a log that is
//! created anew where one was lost is amnesia about votes and acknowledged entries. Only what a power cut
//! left of the last, unsynced records is cut off ([`record::end`]).

mod error;
mod index;
mod manifest;
mod newest;
mod reads;
mod record;
mod replay;
mod sectors;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use tidemark_mutants::{Mutant, is};

pub use error::{Contradiction, LogDamage, SegmentLogError};
pub use reads::SegmentReads;

use super::{LogBackend, LogBatch, LogReads, sync_parent};
use error::io_error;
use index::{Index, Segment};
use manifest::Manifest;
use newest::Newest;
use record::Record;
use replay::{Replayed, replay};
use sectors::Content;

/// With fewer segments nobody minds what is not needed any more.
const SEGMENTS_FEW: usize = 4;

/// Of entries that hold up others this part of a segment is copied at once: copying holds up the log.
const COPIED_PART: usize = 8;

/// Records of a segment before the manifest names it: its checkpoint, and what was copied.
const BEGINNING_RECORDS: usize = 2;

/// Files that wait for being written over.
const SPARES: usize = 2;

/// What a new log takes until it is opened.
const FIRST_BYTES: usize = 4 << 10;

const LOCK: &str = "LOCK";

/// The log, opened by the node that owns it.
pub struct SegmentLog {
    folder: PathBuf,
    reads: SegmentReads,
    newest: Newest,
    segment_bytes: usize,
    /// By the number that each had last. A start finds none: whether they are still called so on the disk is
    /// not known then, and a file must not be written by two segments of one number.
    spares: VecDeque<u32>,
    /// Reused for every record.
    buffer: Vec<u8>,
    /// A write or a sync has failed: what is on the disk is not known, so nothing more is taken.
    failed: bool,
    _lock: File,
}

impl SegmentLog {
    /// Creates an empty log at `path`. For a node's first start only; refuses if one is there. Durable
    /// when it returns.
    pub fn create(path: &Path) -> Result<(), SegmentLogError> {
        let io = io_error(path);
        fs::create_dir_all(path).map_err(&io)?;
        let _lock = lock(path)?;
        match Manifest::load(path) {
            Err(SegmentLogError::NoManifest { .. }) => {}
            Err(refusal) => return Err(refusal),
            Ok(_) => return Err(SegmentLogError::Exists { path: path.to_owned() }),
        }
        let file = newest::allocated(path, 1, FIRST_BYTES).map_err(&io)?;
        Newest::create(file, 1, Index::default().checkpoint()).map_err(&io)?;
        save(Manifest { oldest: 1, newest: 1 }, path).map_err(&io)?;
        sync_parent(path).map_err(&io)
    }

    /// Opens the log at `path`; refuses if none is there, if it is damaged, or if its format is not ours.
    /// A segment that is as long as `segment_bytes` is not written to any more.
    pub fn open(path: &Path, segment_bytes: usize) -> Result<Self, SegmentLogError> {
        if is(Mutant::StartOnEmptyDisk) && !path.exists() {
            Self::create(path)?;
        }
        // Before the lock's file is made where no log is.
        Manifest::load(path)?;
        let lock = lock(path)?;
        let manifest = Manifest::load(path)?;
        let leftovers = leftovers(path, manifest)?;
        let Replayed { mut index, newest, synced } = replay(path, manifest)?;
        let io = io_error(path);
        let newest =
            Newest::reopen(path, manifest.newest, &newest, synced, segment_bytes).map_err(&io)?;
        // Where the disk was full there was no next segment, with which unneeded ones go.
        let (oldest, unneeded) = index.let_go();
        // Like the newest segment's end: what can be seen need not be on the disk.
        save(Manifest { oldest, ..manifest }, path).map_err(&io)?;
        remove(path, leftovers.into_iter().chain(unneeded.into_keys())).map_err(&io)?;
        Ok(SegmentLog {
            folder: path.to_owned(),
            reads: SegmentReads::new(path, index),
            newest,
            segment_bytes,
            spares: VecDeque::new(),
            buffer: Vec::new(),
            failed: false,
            _lock: lock,
        })
    }

    /// Opens the log of a node that is down, to look at it: nothing is written, no lock is taken.
    pub fn open_read_only(path: &Path) -> Result<SegmentReads, SegmentLogError> {
        let Replayed { index, .. } = replay(path, Manifest::load(path)?)?;
        Ok(SegmentReads::new(path, index))
    }

    /// The files of the segments of the log at `path`, the oldest first.
    pub fn segments(path: &Path) -> Result<Vec<PathBuf>, SegmentLogError> {
        let segments = Manifest::load(path)?.segments();
        Ok(segments.map(|number| segment_path(path, number)).collect())
    }

    /// How many bytes of a segment's file the segment has taken; behind them is what the file was before.
    pub fn written(segment: &Path) -> Result<usize, SegmentLogError> {
        let number = segment_number(segment).unwrap_or_default();
        let bytes = fs::read(segment).map_err(io_error(segment))?;
        Ok(Content::of(number, bytes).map_err(error::damaged(segment))?.file_bytes())
    }

    fn write(&mut self, batch: LogBatch) -> io::Result<()> {
        let mut record = Record::new(std::mem::take(&mut self.buffer));
        batch.writes.iter().for_each(|write| record.add(write));
        if self.newest.bytes() >= self.segment_bytes {
            self.begin_next()?;
        }
        let (places, buffer) = self.newest.append(record, batch.durable)?;
        self.buffer = buffer;
        Ok(self.reads.index.write().apply(batch.writes, places)?)
    }

    /// Goes on in a new segment, and lets go of old ones.
    fn begin_next(&mut self) -> io::Result<()> {
        self.newest.finish()?;
        let number = self.newest.number + 1;
        let checkpoint = self.reads.index.read().checkpoint();
        self.newest = Newest::create(self.next_file(number)?, number, checkpoint)?;
        self.reads.index.write().segments.insert(number, Segment::default());
        self.copy_what_holds_up_others()?;
        let (oldest, unneeded) = self.reads.index.write().let_go();
        save(Manifest { oldest, newest: number }, &self.folder)?;
        for (gone, segment) in unneeded {
            // Else somebody still reads from it.
            match Arc::into_inner(segment.in_use).is_some() && self.spares.len() < SPARES {
                true => self.spares.push_back(gone),
                false => remove(&self.folder, [gone])?,
            }
        }
        Ok(())
    }

    /// The file of the next segment: an old one, if there is one.
    fn next_file(&mut self, number: u32) -> io::Result<File> {
        // In turn: what was removed must be written over some time.
        let Some(spare) = self.spares.pop_front() else {
            return newest::allocated(&self.folder, number, self.segment_bytes);
        };
        let path = segment_path(&self.folder, number);
        fs::rename(segment_path(&self.folder, spare), &path)?;
        File::options().write(true).open(path)
    }

    /// Copies needed entries of the oldest segment into the newest, a part of them at a time, if most of what
    /// lies in all segments is not needed: some group writes seldom, and keeps what the others have left.
    fn copy_what_holds_up_others(&mut self) -> io::Result<()> {
        let oldest = {
            let index = self.reads.index.read();
            let segments = &index.segments;
            let needed: u64 = segments.values().map(|segment| segment.live_bytes).sum();
            let all = segments.len() as u64 * self.segment_bytes as u64;
            let oldest = segments.first_key_value();
            match oldest.filter(|_| segments.len() > SEGMENTS_FEW && needed < all / 2) {
                Some((number, segment)) if segment.live > 0 => *number,
                _ => return Ok(()),
            }
        };
        let entries = self.reads.entries_in(oldest, self.segment_bytes / COPIED_PART)?;
        let mut record = Record::new(Vec::new());
        for (group, index, entry) in &entries {
            record.entry(*group, *index, [entry, &[]]);
        }
        let (places, _) = self.newest.append(record, true)?;
        let mut index = self.reads.index.write();
        for ((group, at, _), place) in entries.into_iter().zip(places) {
            index.entry(group, at, place)?;
        }
        Ok(())
    }
}

impl LogBackend for SegmentLog {
    fn reads(&self) -> Arc<dyn LogReads> {
        Arc::new(self.reads.clone())
    }

    fn commit(&mut self, batch: LogBatch) -> io::Result<()> {
        if self.failed {
            return Err(io::Error::other("the log has failed before"));
        }
        let written = self.write(batch);
        self.failed = written.is_err();
        written
    }
}

/// Replaces the manifest, once the names of the segments that it names are on the disk.
fn save(manifest: Manifest, folder: &Path) -> io::Result<()> {
    sync_parent(&segment_path(folder, manifest.newest))?;
    manifest.save(folder)
}

/// What an interrupted change of segments left: ones that were not needed any more, and the next one, with
/// its checkpoint and what was copied. Refuses if there is more, which the manifest should name.
fn leftovers(folder: &Path, manifest: Manifest) -> Result<Vec<u32>, SegmentLogError> {
    let io = io_error(folder);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(&io)? {
        let path = entry.map_err(&io)?.path();
        let Some(number) = segment_number(&path) else { continue };
        if manifest.segments().contains(&number) {
            continue;
        }
        let damaged = error::damaged(&path);
        let is_more = match number.checked_sub(manifest.newest) {
            Some(1) => {
                let content = Content::of(number, fs::read(&path).map_err(&io)?);
                record::count(&content.map_err(&damaged)?.bytes, number) > BEGINNING_RECORDS
            }
            Some(_) => true,
            None => false,
        };
        if is_more {
            return Err(damaged(LogDamage::Unnamed));
        }
        found.push(number);
    }
    Ok(found)
}

fn remove(folder: &Path, segments: impl IntoIterator<Item = u32>) -> io::Result<()> {
    segments.into_iter().try_for_each(|gone| fs::remove_file(segment_path(folder, gone)))
}

fn segment_path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number:010}.log"))
}

/// The number of the segment in this file, if it is one.
fn segment_number(path: &Path) -> Option<u32> {
    let is_segment = path.extension().is_some_and(|extension| extension == "log");
    path.file_stem().filter(|_| is_segment)?.to_str()?.parse().ok()
}

fn lock(folder: &Path) -> Result<File, SegmentLogError> {
    let path = folder.join(LOCK);
    let file = File::create(&path).map_err(io_error(&path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(SegmentLogError::InUse { path: folder.to_owned() })
        }
        Err(error) => Err(io_error(&path)(error.into())),
    }
}
