//! The Raft log on disk: one RocksDB of its own for all groups of a node.
//!
//! Its own database, because its needs are the reverse of the state's: every commit is synced,
//! nothing is read back while the node is well, everything is deleted soon after.
//!
//! It refuses to create what should be there, and to open what it does not fully understand: a
//! log that is created anew where one was lost is amnesia about votes and acknowledged entries.
//!
//! ```text
//!  commit(batch) ──> WriteBatch ──> WAL (fdatasync if durable) ──> memtable ──> SST files
//!                                    │
//!                 open: replayed; a torn end is cut off (it was never acknowledged),
//!                       any other damage refuses
//! ```

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rocksdb::{
    DB, DBCompressionType, DBRecoveryMode, ErrorKind, IteratorMode, Options, ReadOptions,
    WriteBatch, WriteOptions,
};
use thiserror::Error;
use tidemark_mutants::{Mutant, is};

use super::direct;
use super::log_key::{self, KeyError, LogKey};
use super::wal_tail;
use super::{Change, EntryValue, GroupId, GroupMarks, LogBackend, LogBatch, LogReads, LogWrite};

/// The version of keys and values that this build reads and writes.
const FORMAT_VERSION: u32 = 1;

/// Large, so that entries are mostly purged before they are ever merged into larger files.
const WRITE_BUFFER_BYTES: usize = 64 << 20;

/// Writes stall when all are full: room for bursts while one is written out.
const WRITE_BUFFERS_MAX: i32 = 4;

/// Flushed files that are merged together: most of what is in them is purged by then.
const COMPACTION_FILES: i32 = 8;

/// Info log files to keep: enough to see the last restarts, not a disk full of them.
const INFO_LOGS_MAX: usize = 10;

/// And how large one gets: a node may run for months.
const INFO_LOG_BYTES_MAX: usize = 16 << 20;

/// Why the log database cannot be created or opened.
#[derive(Debug, Error)]
pub enum LogDbError {
    /// RocksDB refuses: missing, damaged, locked, or there already.
    #[error("the log database {path}: {source}")]
    Rocks {
        /// Where it is, or should be.
        path: PathBuf,
        /// What RocksDB says.
        source: rocksdb::Error,
    },
    /// Its folder cannot be synced, so its creation might be forgotten.
    #[error("the folder of the log database {path}: {source}")]
    Folder {
        /// Where it is.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A database without our mark: another program's, or one whose creation was cut off.
    #[error("the log database {path} has no format version: creation was cut off, or not ours")]
    NoFormat {
        /// Where it is.
        path: PathBuf,
    },
    /// The mark is not a number.
    #[error("the format version of the log database {path} has {bytes} bytes, not 4")]
    FormatLength {
        /// Where it is.
        path: PathBuf,
        /// How long the mark is.
        bytes: usize,
    },
    /// Written by a version with another format.
    #[error("the log database {path} has format {found}, this build knows only {FORMAT_VERSION}")]
    UnknownFormat {
        /// Where it is.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

/// The log database, opened by the node that owns it.
pub struct LogDb {
    reads: LogDbReads,
    synced: WriteOptions,
    lazy: WriteOptions,
    /// Reused: an entry's head and body are joined here on their way into a `WriteBatch`.
    value: Vec<u8>,
}

impl LogDb {
    /// Creates an empty log at `path` and opens it. For a node's first start only; refuses if one
    /// is there. Durable when it returns.
    pub fn create(path: &Path) -> Result<Self, LogDbError> {
        let rocks = |source| rocks_error(path, source);
        let mut options = direct::where_possible(options(), path);
        options.create_if_missing(true);
        options.set_error_if_exists(true);
        let log = Self::new(DB::open(&options, path).map_err(rocks)?);
        let version = FORMAT_VERSION.to_be_bytes();
        log.reads.db.put_opt(log_key::FORMAT, version, &log.synced).map_err(rocks)?;
        super::sync_parent(path)
            .map_err(|source| LogDbError::Folder { path: path.to_owned(), source })?;
        Ok(log)
    }

    /// Opens the log at `path`; refuses if none is there, if it is damaged, or if its format is
    /// not ours.
    pub fn open(path: &Path) -> Result<Self, LogDbError> {
        if is(Mutant::StartOnEmptyDisk) && !path.exists() {
            return Self::create(path);
        }
        let db = match DB::open(&direct::where_possible(options(), path), path) {
            Err(refusal) if refusal.kind() == ErrorKind::Corruption => reopen(path, refusal),
            opened => opened,
        };
        let db = db.map_err(|source| rocks_error(path, source))?;
        check_format(&db, path)?;
        Ok(Self::new(db))
    }

    /// Opens the log of a node that is down, to look at it: nothing is written, no lock is taken.
    pub fn open_read_only(path: &Path) -> Result<LogDbReads, LogDbError> {
        let db = DB::open_for_read_only(&options(), path, false)
            .map_err(|source| rocks_error(path, source))?;
        check_format(&db, path)?;
        Ok(LogDbReads { db: Arc::new(db) })
    }

    fn new(db: DB) -> Self {
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        Self {
            reads: LogDbReads { db: Arc::new(db) },
            synced,
            lazy: WriteOptions::default(),
            value: Vec::new(),
        }
    }

    fn add(&mut self, batch: &mut WriteBatch, LogWrite { group, change }: LogWrite) {
        match change {
            Change::Vote(value) => batch.put(log_key::vote(group), value),
            Change::Committed(value) => batch.put(log_key::committed(group), value),
            Change::Entry { index, value } => {
                batch.put(log_key::entry(group, index), self.joined(&value));
            }
            Change::Truncate { range } => delete_range(batch, group, range),
            Change::Purge { range, mark } => {
                batch.put(log_key::purged(group), mark);
                delete_range(batch, group, range);
            }
        }
    }

    fn joined(&mut self, value: &EntryValue) -> &[u8] {
        self.value.clear();
        self.value.extend_from_slice(&value.head);
        self.value.extend_from_slice(&value.body);
        &self.value
    }
}

impl LogBackend for LogDb {
    fn reads(&self) -> Arc<dyn LogReads> {
        Arc::new(self.reads.clone())
    }

    fn commit(&mut self, batch: LogBatch) -> io::Result<()> {
        let mut out = WriteBatch::with_capacity_bytes(room_for(&batch));
        for write in batch.writes {
            self.add(&mut out, write);
        }
        let durable = batch.durable && !is(Mutant::NoFsync);
        let how = if durable { &self.synced } else { &self.lazy };
        self.reads.db.write_opt(out, how).map_err(io_error)
    }
}

/// As many bytes as a batch takes in RocksDB's form, or some more: one that grows is copied again and
/// again. Few sizes, of which the allocator has freed ones at hand.
fn room_for(batch: &LogBatch) -> usize {
    const CHANGE: usize = 64;
    const LEAST: usize = 32 << 10;
    let bytes = batch.writes.iter().map(|write| match &write.change {
        Change::Entry { value, .. } => CHANGE + value.bytes(),
        Change::Vote(_) | Change::Committed(_) | Change::Truncate { .. } | Change::Purge { .. } => {
            2 * CHANGE
        }
    });
    bytes.sum::<usize>().next_power_of_two().max(LEAST)
}

/// The reading half of the log database; also what an offline look gets.
#[derive(Clone)]
pub struct LogDbReads {
    db: Arc<DB>,
}

impl LogReads for LogDbReads {
    fn groups(&self) -> io::Result<Vec<GroupId>> {
        let mut groups = Vec::new();
        let mut entry_group = None;
        let mut rows = self.db.raw_iterator_opt(read_options());
        rows.seek_to_first();
        while let Some(key) = rows.key() {
            match LogKey::decode(key).map_err(key_error)? {
                LogKey::Format => rows.next(),
                LogKey::Vote(group) | LogKey::Committed(group) | LogKey::Purged(group) => {
                    groups.push(group);
                    rows.next();
                }
                // One row is enough: on to the next group's entries.
                LogKey::Entry(group, _) if entry_group == Some(group) => rows.next(),
                LogKey::Entry(group, _) => {
                    groups.push(group);
                    entry_group = Some(group);
                    rows.seek(log_key::entry(group, u64::MAX));
                }
            }
        }
        rows.status().map_err(io_error)?;
        groups.sort_unstable();
        groups.dedup();
        Ok(groups)
    }

    fn marks(&self, group: GroupId) -> io::Result<GroupMarks> {
        let get = |key: [u8; 5]| {
            let value = self.db.get_opt(key, &read_options()).map_err(io_error)?;
            Ok::<_, io::Error>(value.map(Bytes::from))
        };
        Ok(GroupMarks {
            vote: get(log_key::vote(group))?,
            committed: get(log_key::committed(group))?,
            purged: get(log_key::purged(group))?,
        })
    }

    fn entries(
        &self,
        group: GroupId,
        range: Range<u64>,
        bytes_max: usize,
    ) -> io::Result<Vec<(u64, Bytes)>> {
        let mut entries = Vec::new();
        if range.is_empty() {
            return Ok(entries);
        }
        let mut options = read_options();
        options.set_iterate_upper_bound(log_key::entry(group, range.end));
        let start = log_key::entry(group, range.start);
        let mode = IteratorMode::From(&start, rocksdb::Direction::Forward);
        let mut bytes = 0;
        for row in self.db.iterator_opt(mode, options) {
            let (key, value) = row.map_err(io_error)?;
            let LogKey::Entry(_, index) = LogKey::decode(&key).map_err(key_error)? else {
                unreachable!("both bounds of the iterator are entry keys of one group");
            };
            bytes += value.len();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push((index, Bytes::from(value)));
        }
        Ok(entries)
    }
}

/// Opens a log that was refused once more, if its end was only torn.
fn reopen(path: &Path, refusal: rocksdb::Error) -> Result<DB, rocksdb::Error> {
    match wal_tail::cut(path) {
        Ok(Some(cut)) => {
            tracing::warn!(?cut, "a power cut tore the end of the log, which was never synced");
            DB::open(&direct::where_possible(options(), path), path)
        }
        Ok(None) => Err(refusal),
        Err(error) => {
            tracing::error!(%error, "the damaged log cannot be examined");
            Err(refusal)
        }
    }
}

fn options() -> Options {
    let mut options = Options::default();
    // A record that the file's end cuts off was never acknowledged; damage is loss, unless
    // [`wal_tail`] finds a reason. The default mode (point in time) would silently forget
    // everything behind one flipped bit.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    // That mode and recycled WAL files exclude each other: old records would look like a tail.
    options.set_recycle_log_file_num(0);
    // A whole WAL file that is missing is noticed too.
    options.set_track_and_verify_wals_in_manifest(true);
    if is(Mutant::ForgetDamagedLog) {
        options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
        options.set_track_and_verify_wals_in_manifest(false);
    }
    options.set_paranoid_checks(true);
    // Entries are short-lived and already dense: compression would only cost.
    options.set_compression_type(DBCompressionType::None);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_write_buffer_number(WRITE_BUFFERS_MAX);
    options.set_level_zero_file_num_compaction_trigger(COMPACTION_FILES);
    options.set_keep_log_file_num(INFO_LOGS_MAX);
    options.set_max_log_file_size(INFO_LOG_BYTES_MAX);
    options
}

fn read_options() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_verify_checksums(true);
    // A scan at start must not push out what little is worth caching.
    options.fill_cache(false);
    options
}

fn delete_range(batch: &mut WriteBatch, group: GroupId, range: Range<u64>) {
    // RocksDB refuses a range whose ends are reversed, and an empty one still costs a tombstone.
    if !range.is_empty() {
        let from = log_key::entry(group, range.start);
        let to = log_key::entry(group, range.end);
        batch.delete_range(from, to);
    }
}

fn check_format(db: &DB, path: &Path) -> Result<(), LogDbError> {
    let found = db.get_opt(log_key::FORMAT, &read_options());
    let found = found.map_err(|source| rocks_error(path, source))?;
    let path = path.to_owned();
    let Some(found) = found else {
        return Err(LogDbError::NoFormat { path });
    };
    let bytes = found.len();
    match <[u8; 4]>::try_from(found).map(u32::from_be_bytes) {
        Ok(FORMAT_VERSION) => Ok(()),
        Ok(found) => Err(LogDbError::UnknownFormat { path, found }),
        Err(_) => Err(LogDbError::FormatLength { path, bytes }),
    }
}

fn rocks_error(path: &Path, source: rocksdb::Error) -> LogDbError {
    LogDbError::Rocks { path: path.to_owned(), source }
}

fn io_error(error: rocksdb::Error) -> io::Error {
    let kind = match error.kind() {
        ErrorKind::Corruption => io::ErrorKind::InvalidData,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

fn key_error(error: KeyError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn create(folder: &TempDir) -> PathBuf {
        let path = folder.path().join("log");
        drop(LogDb::create(&path).expect("a new log"));
        path
    }

    #[test]
    fn a_log_is_neither_created_where_one_was_nor_over_one() {
        let folder = TempDir::new().expect("a folder");
        let nothing = folder.path().join("nothing");
        assert!(matches!(LogDb::open(&nothing), Err(LogDbError::Rocks { .. })));
        let path = create(&folder);
        assert!(matches!(LogDb::create(&path), Err(LogDbError::Rocks { .. })));
    }

    #[test]
    fn another_format_refuses() {
        let folder = TempDir::new().expect("a folder");
        let path = create(&folder);
        let db = DB::open_default(&path).expect("a database");
        db.put([0x00], 9u32.to_be_bytes()).expect("writable");
        drop(db);
        let unknown = LogDb::open(&path).err();
        assert!(matches!(unknown, Some(LogDbError::UnknownFormat { found: 9, .. })));
        let db = DB::open_default(&path).expect("a database");
        db.put([0x00], [1]).expect("writable");
        drop(db);
        let short = LogDb::open(&path).err();
        assert!(matches!(short, Some(LogDbError::FormatLength { bytes: 1, .. })));
        let db = DB::open_default(&path).expect("a database");
        db.delete([0x00]).expect("writable");
        drop(db);
        assert!(matches!(LogDb::open(&path), Err(LogDbError::NoFormat { .. })));
    }

    #[test]
    fn an_empty_batch_is_no_error() {
        let folder = TempDir::new().expect("a folder");
        let mut db = LogDb::open(&create(&folder)).expect("an intact log");
        db.commit(LogBatch::default()).expect("nothing to do");
    }
}
