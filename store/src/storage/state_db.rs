//! The state of all groups on disk: one RocksDB, without a write-ahead log.
//!
//! The Raft log is the write-ahead log. A batch of applied entries is one atomic write together
//! with the applied position; after a crash the state is an older, consistent prefix, and the log
//! replays the rest. Hence the log may only be purged up to what [`StateDb::flush`] has written
//! out (`docs/adr/0002`).
//!
//! ```text
//!   00                              → format version
//!   01 group:u32                    → the group's generation (absent: 0)
//!   02 group:u32 generation:u32 key → value; key `01` is the applied position
//! ```
//!
//! A snapshot is installed as a new generation beside the live one ([`Staging`]), its applied
//! position among its pairs, flushed, and made the live one by a single write; a crash before that
//! write leaves the old state, a crash after it the new one. No two stagings share a generation;
//! one that is given up removes its own, and opening removes what a crash left.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use rocksdb::{
    BlockBasedOptions, DB, DBCompressionType, ErrorKind, Options, ReadOptions, WriteBatch,
    WriteOptions,
};
use thiserror::Error;
use tidemark_mutants::{Mutant, is};
use tidemark_store_core::key::Kind;
use tidemark_store_core::storage::{Visit, Writes};
use tidemark_store_core::{Read, StorageError};

use super::GroupId;
use super::damage::{self, Damage};
use super::direct;
use super::recent::{Recent, Remembered};
use super::steps::{Step, Steps};

/// The version of the keys above, and of what is under them, that this build reads and writes.
const FORMAT_VERSION: u32 = 2;

/// Small: inserting into a memtable costs more the larger it is.
const WRITE_BUFFER_BYTES: usize = 16 << 20;

/// Memtables that are written out as one file: by then most records of the outbox, heads and
/// sessions in them have been trimmed or overwritten, and never reach the disk.
const WRITE_BUFFERS_MERGED: i32 = 4;

/// Writes stall when all are full: room for bursts while some are written out.
const WRITE_BUFFERS_MAX: i32 = 2 * WRITE_BUFFERS_MERGED;

/// Bits per key of the Bloom filters: most lookups of sessions' ids and blocks find nothing.
const BLOOM_BITS: f64 = 10.0;

/// Flushed files that are merged into the next level together: twice RocksDB's, since each merge
/// rewrites that level, and a read of a missing key costs a Bloom filter for each.
const COMPACTION_FILES: i32 = 8;

/// By level; the last one counts for all below.
const COMPRESSION: [DBCompressionType; 3] =
    [DBCompressionType::None, DBCompressionType::None, DBCompressionType::Lz4];

/// Info log files to keep.
const INFO_LOGS_MAX: usize = 10;

const FORMAT_KEY: &[u8] = &[0];
const GENERATION: u8 = 1;
const DATA: u8 = 2;

/// Why the state cannot be opened, read or written.
#[derive(Debug, Error)]
pub enum StateDbError {
    /// RocksDB refuses or fails.
    #[error("the state database {path}: {source}")]
    Rocks {
        /// Where it is, or should be.
        path: PathBuf,
        /// What RocksDB says.
        source: rocksdb::Error,
    },
    /// It has no format version, or one that this build does not know.
    #[error("the state database {path} has format {found:?}, this build knows {FORMAT_VERSION}")]
    Format {
        /// Where it is.
        path: PathBuf,
        /// The bytes of its version.
        found: Option<Vec<u8>>,
    },
    /// A file beside it cannot be read or written.
    #[error("the folder of the state database {path}: {source}")]
    Folder {
        /// Where the database is.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A simulation has ended the node here.
    #[error("the disk of the state: {0}")]
    Ended(std::io::Error),
    /// A key or a generation that this build did not write.
    #[error("the state database {path}: {what} has {bytes} bytes")]
    Malformed {
        /// Where it is.
        path: PathBuf,
        /// What is broken.
        what: &'static str,
        /// How long it is.
        bytes: usize,
    },
}

/// The state of all groups; a cheap handle.
#[derive(Clone)]
pub struct StateDb {
    inner: Arc<Inner>,
}

struct Inner {
    db: DB,
    path: PathBuf,
    no_wal: WriteOptions,
    /// Of each group that ever had another one than the first. Kept here as well, since every
    /// read asks.
    generations: RwLock<HashMap<GroupId, Generations>>,
    damage: Damage,
    /// Who looks on, in a simulation.
    steps: Option<Arc<dyn Steps>>,
}

/// A group's generations.
#[derive(Clone, Copy, Default)]
struct Generations {
    /// The one that is read.
    live: u32,
    /// The newest one given out since the database was opened.
    staged: u32,
}

impl Inner {
    /// What RocksDB says; damage is written down.
    fn failed(&self, source: rocksdb::Error) -> StateDbError {
        self.look(&source);
        StateDbError::Rocks { path: self.path.clone(), source }
    }

    fn look(&self, error: &rocksdb::Error) {
        if error.kind() == ErrorKind::Corruption {
            self.damage.note(error.as_ref());
        }
    }
}

impl StateDb {
    /// Creates an empty state at `path`; refuses if one is there.
    pub fn create(path: &Path) -> Result<Self, StateDbError> {
        let mut options = direct::where_possible(options(), path);
        options.create_if_missing(true);
        options.set_error_if_exists(true);
        let state = Self::new(DB::open(&options, path).map_err(rocks(path))?, path, None);
        let mut batch = WriteBatch::default();
        batch.put(FORMAT_KEY, FORMAT_VERSION.to_be_bytes());
        state.write(Step::Stage, batch)?;
        state.flush()?;
        Ok(state)
    }

    /// As [`StateDb::open`], in a simulation: `steps` looks on, nothing happens in threads of its
    /// own, and nothing reaches the disk but by [`StateDb::flush`].
    pub fn open_simulated(path: &Path, steps: Arc<dyn Steps>) -> Result<Self, StateDbError> {
        let mut options = options();
        options.set_disable_auto_compactions(true);
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        Self::prepared(Self::new(DB::open(&options, path).map_err(rocks(path))?, path, Some(steps)))
    }

    /// Opens the state at `path`, and removes what an interrupted install left behind.
    pub fn open(path: &Path) -> Result<Self, StateDbError> {
        let options = direct::where_possible(options(), path);
        Self::prepared(Self::new(DB::open(&options, path).map_err(rocks(path))?, path, None))
    }

    fn prepared(state: Self) -> Result<Self, StateDbError> {
        state.check_format()?;
        state.load_generations()?;
        state.remove_dead_generations()?;
        Ok(state)
    }

    /// As [`StateDb::open`]; but where the state is damaged, now or by an earlier run's finding, it
    /// is set aside and an empty one takes its place, to be filled by the log or by other replicas.
    pub fn open_or_replace(path: &Path) -> Result<Self, StateDbError> {
        let folder = |source| StateDbError::Folder { path: path.to_owned(), source };
        let marked = damage::marked(path).map_err(folder)?;
        let reason = match marked {
            Some(reason) => reason,
            None => match Self::open(path) {
                Err(StateDbError::Rocks { source, .. })
                    if source.kind() == ErrorKind::Corruption =>
                {
                    // Before anything is moved: a start that is cut off here begins again.
                    Damage::of(path).note(source.as_ref());
                    source.to_string()
                }
                opened => return opened,
            },
        };
        tracing::error!(state = %path.display(), reason, "the damaged state is set aside");
        damage::set_aside(path).map_err(folder)?;
        let state = Self::create(path)?;
        damage::unmark(path).map_err(folder)?;
        Ok(state)
    }

    /// Opens the state of a node that is down, to look at it: nothing is written.
    pub fn open_read_only(path: &Path) -> Result<Self, StateDbError> {
        let db = DB::open_for_read_only(&options(), path, false).map_err(rocks(path))?;
        let state = Self::new(db, path, None);
        state.check_format()?;
        state.load_generations()?;
        Ok(state)
    }

    /// Writes all state out to disk; the log up to what is applied now may be purged afterwards.
    pub fn flush(&self) -> Result<(), StateDbError> {
        self.step(Step::Flush, || self.inner.db.flush())
    }

    /// Does work that waits for the disk where it holds nobody up. A simulated disk holds nobody
    /// up, and a thread would do it at no certain time.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::io::Result<T> {
        match self.is_simulated() {
            true => Ok(work()),
            false => tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other),
        }
    }

    /// Does a simulation look on?
    pub fn is_simulated(&self) -> bool {
        self.inner.steps.is_some()
    }

    /// The live state of `group`, for the one task that applies its log.
    pub fn group(&self, group: GroupId) -> GroupState {
        let (generation, recent) = (self.generation(group), Mutex::default());
        GroupState { db: self.clone(), group, generation, recent }
    }

    /// Lets `look` read `group` as it is at this moment, with its applied position.
    pub fn read<T>(
        &self,
        group: GroupId,
        look: impl FnOnce(Option<Bytes>, &dyn Read) -> T,
    ) -> Result<T, StateDbError> {
        let (generation, snapshot) = loop {
            let live = self.generation(group);
            let snapshot = self.inner.db.snapshot();
            // Replaced in between, neither may be whole in the snapshot.
            if self.generation(group) == live {
                break (live, snapshot);
            }
        };
        let prefix = prefix(group, generation);
        let view = View {
            inner: &self.inner,
            prefix,
            get: |key: &[u8]| snapshot.get(key),
            iterate: |options: ReadOptions| snapshot.raw_iterator_opt(options),
        };
        let applied =
            snapshot.get(applied_key(prefix)).map_err(|error| self.inner.failed(error))?;
        Ok(look(applied.map(Bytes::from), &view))
    }

    /// Lets `look` read single values of `group` as they are, each of its own moment: cheaper than
    /// [`StateDb::read`], which fixes one moment for all.
    pub fn peek<T>(&self, group: GroupId, look: impl FnOnce(&dyn Read) -> T) -> T {
        look(&self.live(prefix(group, self.generation(group))))
    }

    /// A new generation for `group`, to be filled beside the live one.
    pub fn stage(&self, group: GroupId) -> Staging {
        let mut generations = self.inner.generations.write();
        let Generations { live, staged } = generations.entry(group).or_default();
        if is(Mutant::InstallInPlace) {
            return Staging { db: self.clone(), group, generation: *live, installed: true };
        }
        *staged = (*live).max(*staged) + 1;
        Staging { db: self.clone(), group, generation: *staged, installed: false }
    }

    /// What was found damaged or unreadable since it was opened: the node must stop.
    pub fn damaged(&self) -> Option<String> {
        self.inner.damage.found().map(str::to_owned)
    }

    /// How many handles there are, this one included.
    #[cfg(test)]
    pub(crate) fn handles(&self) -> usize {
        Arc::strong_count(&self.inner)
    }

    fn new(db: DB, path: &Path, steps: Option<Arc<dyn Steps>>) -> Self {
        let mut no_wal = WriteOptions::default();
        no_wal.disable_wal(true);
        no_wal.set_memtable_insert_hint_per_batch(true);
        let (path, damage) = (path.to_owned(), Damage::of(path));
        let generations = RwLock::default();
        let inner = Inner { db, path, no_wal, generations, damage, steps };
        StateDb { inner: Arc::new(inner) }
    }

    fn write(&self, step: Step, batch: WriteBatch) -> Result<(), StateDbError> {
        self.step(step, || self.inner.db.write_opt(batch, &self.inner.no_wal))
    }

    fn step(
        &self,
        step: Step,
        work: impl FnOnce() -> Result<(), rocksdb::Error>,
    ) -> Result<(), StateDbError> {
        let Inner { steps, .. } = &*self.inner;
        if let Some(steps) = steps {
            steps.before(step).map_err(StateDbError::Ended)?;
        }
        work().map_err(|error| self.inner.failed(error))?;
        steps.as_ref().map_or(Ok(()), |steps| steps.after(step)).map_err(StateDbError::Ended)
    }

    fn check_format(&self) -> Result<(), StateDbError> {
        let found = self.inner.db.get(FORMAT_KEY).map_err(|error| self.inner.failed(error))?;
        match found.as_deref() == Some(&FORMAT_VERSION.to_be_bytes()) {
            true => Ok(()),
            false => Err(StateDbError::Format { path: self.inner.path.clone(), found }),
        }
    }

    fn applied(&self, prefix: Prefix) -> Result<Option<Bytes>, StateDbError> {
        let value = self.inner.db.get(applied_key(prefix));
        Ok(value.map_err(|error| self.inner.failed(error))?.map(Bytes::from))
    }

    /// What is there, each value as it is when it is read.
    fn live(&self, prefix: Prefix) -> impl Read + '_ {
        let db = &self.inner.db;
        View {
            inner: &self.inner,
            prefix,
            get: |key: &[u8]| db.get(key),
            iterate: |options: ReadOptions| db.raw_iterator_opt(options),
        }
    }

    fn generation(&self, group: GroupId) -> u32 {
        self.inner.generations.read().get(&group).map_or(0, |known| known.live)
    }

    fn load_generations(&self) -> Result<(), StateDbError> {
        let mut generations = self.inner.generations.write();
        let mut rows = self.inner.db.raw_iterator();
        rows.seek([GENERATION]);
        while let Some((key, value)) = rows.item().filter(|(key, _)| key[0] == GENERATION) {
            let (group, live) = parse_generation(key, value)
                .ok_or_else(|| self.malformed("a generation", value))?;
            generations.insert(group, Generations { live, staged: live });
            rows.next();
        }
        rows.status().map_err(|error| self.inner.failed(error))
    }

    fn malformed(&self, what: &'static str, bytes: &[u8]) -> StateDbError {
        StateDbError::Malformed { path: self.inner.path.clone(), what, bytes: bytes.len() }
    }

    fn remove_generation(&self, group: GroupId, generation: u32) -> Result<(), StateDbError> {
        let prefix = prefix(group, generation);
        let mut batch = WriteBatch::default();
        batch.delete_range(prefix.as_slice(), end(prefix).as_slice());
        self.write(Step::Stage, batch)
    }

    /// Visits the first key of every generation, by jumping from one to the next.
    fn remove_dead_generations(&self) -> Result<(), StateDbError> {
        let mut rows = self.inner.db.raw_iterator();
        rows.seek([DATA]);
        while let Some(key) = rows.key() {
            let (group, generation) =
                parse_prefix(key).ok_or_else(|| self.malformed("a key", key))?;
            if generation != self.generation(group) {
                self.remove_generation(group, generation)?;
            }
            rows.seek(end(prefix(group, generation)));
        }
        rows.status().map_err(|error| self.inner.failed(error))
    }
}

/// The live state of one group, owned by the task that applies its log.
pub struct GroupState {
    db: StateDb,
    group: GroupId,
    generation: u32,
    recent: Mutex<Recent>,
}

impl GroupState {
    /// The applied position, as it was written with the state.
    pub fn applied(&self) -> Result<Option<Bytes>, StateDbError> {
        self.db.applied(self.prefix())
    }

    /// The state; only its owner changes it meanwhile.
    pub fn reader(&self) -> impl Read + '_ {
        Remembered { state: self.db.live(self.prefix()), recent: &self.recent }
    }

    /// Writes what applied entries changed, and the applied position, in one step.
    pub fn write(&mut self, writes: Writes, applied: &[u8]) -> Result<(), StateDbError> {
        let prefix = self.prefix();
        let mut batch = WriteBatch::default();
        let mut place = prefix.to_vec();
        for (key, value) in &writes {
            place.truncate(prefix.len());
            place.extend_from_slice(key);
            match value {
                Some(value) => batch.put(&place, value),
                None => batch.delete(&place),
            }
        }
        if is(Mutant::ApplyInTwoWrites) {
            self.db.write(Step::Apply, std::mem::take(&mut batch))?;
            // As long as a slow disk takes: the gap would be hit too, only more seldom.
            std::thread::sleep(Duration::from_millis(3));
        }
        batch.put(applied_key(prefix), applied);
        self.db.write(Step::Apply, batch)?;
        if let Some(steps) = &self.db.inner.steps {
            steps.applied(self.group, &writes, applied);
        }
        self.recent.get_mut().written(writes);
        Ok(())
    }

    /// Makes a staged generation the live one, at its own position. Durable when it returns.
    pub fn install(&mut self, mut staged: Staging) -> Result<(), StateDbError> {
        assert_eq!(self.group, staged.group, "a generation belongs to one group");
        self.db.flush()?;
        if is(Mutant::InstallInPlace) {
            *self.recent.get_mut() = Recent::default();
            return Ok(());
        }
        fail::fail_point!("store-install-staged");
        let mut batch = WriteBatch::default();
        batch.put(generation_key(self.group), staged.generation.to_be_bytes());
        staged.installed = true;
        self.db.write(Step::Flip, batch)?;
        fail::fail_point!("store-install-flipped");
        self.db.flush()?;
        *self.recent.get_mut() = Recent::default();
        self.db.inner.generations.write().entry(self.group).or_default().live = staged.generation;
        let old = std::mem::replace(&mut self.generation, staged.generation);
        self.db.remove_generation(self.group, old)
    }

    fn prefix(&self) -> Prefix {
        prefix(self.group, self.generation)
    }
}

/// A generation that is being filled; nobody reads it before it is installed.
pub struct Staging {
    db: StateDb,
    group: GroupId,
    generation: u32,
    installed: bool,
}

impl Staging {
    /// The applied position among its pairs.
    pub fn applied(&self) -> Result<Option<Bytes>, StateDbError> {
        self.db.applied(prefix(self.group, self.generation))
    }

    /// Adds pairs.
    pub fn put<'a>(
        &self,
        pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<(), StateDbError> {
        let prefix = prefix(self.group, self.generation);
        let mut batch = WriteBatch::default();
        for (key, value) in pairs {
            batch.put(data_key(prefix, key), value);
        }
        self.db.write(Step::Stage, batch)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.installed {
            return;
        }
        if let Err(error) = self.db.remove_generation(self.group, self.generation) {
            tracing::warn!(group = %self.group, %error, "a half snapshot stays until the next start");
        }
    }
}

type Prefix = [u8; 9];

fn prefix(group: GroupId, generation: u32) -> Prefix {
    let mut prefix = [DATA; 9];
    prefix[1..5].copy_from_slice(&group.get().to_be_bytes());
    prefix[5..].copy_from_slice(&generation.to_be_bytes());
    prefix
}

fn parse_prefix(key: &[u8]) -> Option<(GroupId, u32)> {
    let fields = key.strip_prefix(&[DATA])?;
    let (group, rest) = fields.split_first_chunk()?;
    let (generation, _) = rest.split_first_chunk()?;
    Some((GroupId::new(u32::from_be_bytes(*group)), u32::from_be_bytes(*generation)))
}

/// The least key above all keys with this prefix.
fn end(prefix: Prefix) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

fn generation_key(group: GroupId) -> [u8; 5] {
    let mut key = [GENERATION; 5];
    key[1..].copy_from_slice(&group.get().to_be_bytes());
    key
}

fn parse_generation(key: &[u8], value: &[u8]) -> Option<(GroupId, u32)> {
    let group = u32::from_be_bytes(key.strip_prefix(&[GENERATION])?.try_into().ok()?);
    Some((GroupId::new(group), u32::from_be_bytes(value.try_into().ok()?)))
}

fn data_key(prefix: Prefix, key: &[u8]) -> Vec<u8> {
    [&prefix, key].concat()
}

fn applied_key(prefix: Prefix) -> Vec<u8> {
    data_key(prefix, &[Kind::Applied as u8])
}

/// A group's part of the database, read through a snapshot or as it is now.
struct View<'a, G, I> {
    inner: &'a Inner,
    prefix: Prefix,
    get: G,
    iterate: I,
}

impl<'a, G, I, D> Read for View<'_, G, I>
where
    G: Fn(&[u8]) -> Result<Option<Vec<u8>>, rocksdb::Error>,
    I: Fn(ReadOptions) -> rocksdb::DBRawIteratorWithThreadMode<'a, D>,
    D: rocksdb::DBAccess + 'a,
{
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let value = (self.get)(&data_key(self.prefix, key)).map_err(|error| self.failed(error))?;
        Ok(value.map(Bytes::from))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StorageError> {
        if from >= to {
            return Ok(());
        }
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(data_key(self.prefix, to));
        let mut rows = (self.iterate)(options);
        rows.seek(data_key(self.prefix, from));
        while let Some((key, value)) = rows.item() {
            if visit(&key[self.prefix.len()..], value).is_break() {
                return Ok(());
            }
            rows.next();
        }
        rows.status().map_err(|error| self.failed(error))
    }
}

impl<G, I> View<'_, G, I> {
    fn failed(&self, error: rocksdb::Error) -> StorageError {
        self.inner.look(&error);
        if error.kind() == ErrorKind::IOError {
            self.inner.damage.unreadable(error.as_ref());
        }
        StorageError(error.into())
    }
}

fn rocks(path: &Path) -> impl FnOnce(rocksdb::Error) -> StateDbError + '_ {
    move |source| StateDbError::Rocks { path: path.to_owned(), source }
}

fn options() -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_bloom_filter(BLOOM_BITS, false);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    // Much of what is young is overwritten or deleted before it gets old: heads, sessions, records.
    options.set_compression_per_level(&COMPRESSION);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_min_write_buffer_number_to_merge(WRITE_BUFFERS_MERGED);
    options.set_max_write_buffer_number(WRITE_BUFFERS_MAX);
    options.set_level_zero_file_num_compaction_trigger(COMPACTION_FILES);
    options.set_paranoid_checks(true);
    options.set_keep_log_file_num(INFO_LOGS_MAX);
    options
}

#[cfg(test)]
mod tests;
