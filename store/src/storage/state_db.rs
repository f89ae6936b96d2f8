//! The state of all groups on disk: one RocksDB, without a write-ahead log.
//!
//! The Raft log is the write-ahead log. A batch of applied entries is one atomic change together
//! with the applied position, first in memory ([`Pending`]); many such changes of a group are one
//! atomic write to the database. After a crash the state is an older, consistent prefix, and the log
//! replays the rest. Hence the log may only be purged up to what [`StateDb::flush`] has written
//! out (`docs/adr/0002`, `docs/adr/0016`).
//!
//!
//! A snapshot is installed as a new generation beside the live one ([`Staging`]), its applied
//! position among its pairs, flushed, and made the live one by a single write; a crash before that
//! write leaves the old state, a crash after it the new one. No two stagings share a generation;
//! one that is given up removes its own, and opening removes what a crash left.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use rocksdb::{
    DB, ErrorKind, IngestExternalFileOptions, Options, ReadOptions, Snapshot, WriteBatch,
    WriteOptions, properties,
};
use thiserror::Error;
use tidemark_mutants::{Mutant, is};
use tidemark_store_core::key::KeyBytes;
use tidemark_store_core::storage::Visit;
use tidemark_store_core::{Change, Read, StorageError, ValueBytes, Writes};

use super::GroupId;
use super::damage::{self, Damage};
use super::direct;
use super::layer::Layer;
use super::merge::Young;
use super::options::{COMPRESSION, options};
use super::pending::{Over, Pending};
use super::recent::{Recent, Remembered};
use super::spill::{self, PENDING_BYTES_MAX, SPILL_BYTES, Signal};
use super::spill_file;
use super::state_key::{
    APPLIED, DATA, FORMAT_KEY, GENERATION, Prefix, applied_key, data_key, end, generation_key,
    parse_generation, parse_prefix, prefix,
};
use super::steps::{Step, Steps};
use crate::metrics::StateNow;

/// The version of the keys above, and of what is under them, that this build reads and writes.
const FORMAT_VERSION: u32 = 6;

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
    /// A value cannot be read.
    #[error(transparent)]
    Unreadable(StorageError),
    /// A file beside it cannot be read or written.
    #[error("the folder of the state database {path}: {source}")]
    Folder {
        /// Where the database is.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// There is no thread to write it out.
    #[error("a thread for the state database {path}: {source}")]
    Thread {
        /// Where the database is.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It could not be written out: the node must stop.
    #[error("the state database {path} cannot be written: {reason}")]
    Broken {
        /// Where it is.
        path: PathBuf,
        /// What happened.
        reason: String,
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

/// What all handles share.
pub(super) struct Inner {
    db: DB,
    /// With which it was opened.
    options: Options,
    path: PathBuf,
    no_wal: WriteOptions,
    /// What is not in the database yet, and the generations, which every read asks for.
    groups: RwLock<HashMap<GroupId, Arc<RwLock<Pending>>>>,
    /// Bytes of all of it.
    pending_bytes: AtomicUsize,
    /// How many files were written out since it was opened.
    spill_files: AtomicUsize,
    spills: Arc<Signal>,
    young: Arc<Young>,
    damage: Damage,
    /// Who looks on, in a simulation.
    steps: Option<Arc<dyn Steps>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.spills.end();
    }
}

impl Inner {
    /// Takes all layers to the database, and to the disk, and rests meanwhile. Where that fails the node
    /// must stop.
    pub(super) fn spill(&self) {
        let _alone = self.spills.alone();
        let resting = self.spills.resting(|| self.pending_bytes.load(Ordering::Relaxed));
        if let Err(error) = self.write_out(resting) {
            self.look(&error);
            self.damage.unreadable(error.as_ref());
        }
    }

    /// The same, for one who is alone: one sorted file, which becomes a part of the database as it is, at
    /// once and on the disk. Nothing goes through memory tables but what is staged and flipped.
    fn write_out(&self, mut rest: impl FnMut()) -> Result<(), rocksdb::Error> {
        self.db.flush()?;
        let mut groups: Vec<_> = self.groups.read().clone().into_iter().collect();
        groups.sort_unstable_by_key(|(id, _)| *id);
        let spilled: Vec<_> = groups
            .into_iter()
            .map(|(id, group)| {
                let (live, layers) = {
                    let pending = group.read();
                    (pending.live, pending.layers())
                };
                (group, prefix(id, live), layers)
            })
            .filter(|(_, _, layers)| !layers.is_empty())
            .collect();
        if spilled.is_empty() {
            return Ok(());
        }
        // A name of its own: under that of an earlier one a part of the database may lie, and would be
        // written over.
        let path = spill_file::path(&self.path, self.spill_files.fetch_add(1, Ordering::Relaxed));
        let mut options = self.options.clone();
        // It lies among the youngest; with levels given, a file of its own would be packed as the oldest.
        options.set_compression_per_level(&COMPRESSION[..1]);
        let parts = spilled.iter().map(|(_, prefix, layers)| (*prefix, &layers[..]));
        spill_file::write(&path, &options, parts, &mut rest)?;
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        self.db.ingest_external_file_opts(&options, vec![path])?;
        let young = self.db.property_value(properties::num_files_at_level(0))?;
        self.young.set(young.and_then(|files| files.parse().ok()).unwrap_or_default());
        for (group, _, layers) in spilled {
            // Held until they are gone: nothing is added to them meanwhile.
            self.change(&group, |pending| pending.spilled(layers.len()));
            drop(layers);
            rest();
        }
        Ok(())
    }

    /// Has layers spilled when there is much in them, and waits when there is too much.
    fn make_room(&self) -> Result<(), StateDbError> {
        let bytes = || self.pending_bytes.load(Ordering::Relaxed);
        if bytes() >= SPILL_BYTES {
            self.spills.spill();
            self.spills
                .wait_while(|| bytes() >= PENDING_BYTES_MAX && self.damage.found().is_none());
        }
        match self.damage.found() {
            None => Ok(()),
            Some(reason) => {
                let (path, reason) = (self.path.clone(), reason.to_owned());
                Err(StateDbError::Broken { path, reason })
            }
        }
    }

    /// Changes a group's layers, and counts their bytes.
    fn change<T>(&self, group: &RwLock<Pending>, change: impl FnOnce(&mut Pending) -> T) -> T {
        let mut group = group.write();
        let before = group.bytes();
        let changed = change(&mut group);
        // Wraps around where it became less, and comes out right.
        self.pending_bytes.fetch_add(group.bytes().wrapping_sub(before), Ordering::Relaxed);
        changed
    }

    /// What RocksDB says; damage is written down.
    fn failed(&self, source: rocksdb::Error) -> StateDbError {
        self.look(&source);
        StateDbError::Rocks { path: self.path.clone(), source }
    }

    /// Notes what is damaged.
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
        let state = Self::new(options, path, None, |options| DB::open(options, path))?;
        state.start_spilling()?;
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
        Self::prepared(Self::new(options, path, Some(steps), |options| DB::open(options, path))?)
    }

    /// Opens the state at `path`, and removes what an interrupted install left behind.
    pub fn open(path: &Path) -> Result<Self, StateDbError> {
        let options = direct::where_possible(options(), path);
        let state =
            Self::prepared(Self::new(options, path, None, |options| DB::open(options, path))?)?;
        state.start_spilling()?;
        Ok(state)
    }

    fn start_spilling(&self) -> Result<(), StateDbError> {
        let started = spill::start(Arc::downgrade(&self.inner), self.inner.spills.clone());
        started.map_err(|source| StateDbError::Thread { path: self.inner.path.clone(), source })
    }

    fn prepared(state: Self) -> Result<Self, StateDbError> {
        state.check_format()?;
        state.load_generations()?;
        state.remove_dead_generations()?;
        let path = &state.inner.path;
        spill_file::remove_left(path)
            .map_err(|source| StateDbError::Folder { path: path.clone(), source })?;
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
        let open = |options: &Options| DB::open_for_read_only(options, path, false);
        let state = Self::new(options(), path, None, open)?;
        state.check_format()?;
        state.load_generations()?;
        Ok(state)
    }

    /// Writes all state out to disk; the log up to what is applied now may be purged afterwards.
    pub fn flush(&self) -> Result<(), StateDbError> {
        let _alone = self.inner.spills.alone();
        self.step(Step::Flush, || self.inner.write_out(spill::AT_ONCE))
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
        GroupState {
            db: self.clone(),
            group,
            pending: self.pending(group),
            recent: Mutex::default(),
        }
    }

    /// Lets `look` read `group` as it is at this moment, with its applied position.
    pub fn read<T>(
        &self,
        group: GroupId,
        look: impl FnOnce(Option<ValueBytes>, &dyn Read) -> T,
    ) -> Result<T, StateDbError> {
        let pending = self.pending(group);
        let (prefix, layers, snapshot) = {
            // Nothing leaves the layers meanwhile.
            let pending = pending.read();
            (prefix(group, pending.live), pending.layers(), self.inner.db.snapshot())
        };
        let view = Over { layers: &layers, below: self.at(prefix, &snapshot) };
        let applied = view.get(&KeyBytes::new(APPLIED)).map_err(StateDbError::Unreadable)?;
        Ok(look(applied, &view))
    }

    /// Lets `look` read `group` as it is on the disk once all that is applied now was written out;
    /// it may take long.
    pub fn read_flushed<T>(
        &self,
        group: GroupId,
        look: impl FnOnce(&dyn Read) -> T,
    ) -> Result<T, StateDbError> {
        self.flush()?;
        let pending = self.pending(group);
        let (prefix, snapshot) = {
            let pending = pending.read();
            (prefix(group, pending.live), self.inner.db.snapshot())
        };
        Ok(look(&self.at(prefix, &snapshot)))
    }

    /// Lets `look` read single values of `group` as they are, each of its own moment: cheaper than
    /// [`StateDb::read`], which fixes one moment for all.
    pub fn peek<T>(&self, group: GroupId, look: impl FnOnce(&dyn Read) -> T) -> T {
        let (prefix, layers) = self.top(group, &self.pending(group));
        look(&Over { layers: &layers, below: self.live(prefix) })
    }

    /// A new generation for `group`, to be filled beside the live one.
    pub fn stage(&self, group: GroupId) -> Staging {
        let pending = self.pending(group);
        let Pending { live, staged, .. } = &mut *pending.write();
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

    /// How it stands, for whoever watches the node.
    pub(crate) fn now(&self) -> StateNow {
        let property = |name| self.inner.db.property_int_value(name).ok().flatten();
        StateNow {
            bytes: property(properties::TOTAL_SST_FILES_SIZE).unwrap_or_default(),
            pending: self.inner.pending_bytes.load(Ordering::Relaxed),
            pending_max: PENDING_BYTES_MAX,
            compaction: property(properties::ESTIMATE_PENDING_COMPACTION_BYTES).unwrap_or_default(),
            compactions: property(properties::NUM_RUNNING_COMPACTIONS).unwrap_or_default(),
        }
    }

    /// How many handles there are, this one included.
    #[cfg(test)]
    pub(crate) fn handles(&self) -> usize {
        Arc::strong_count(&self.inner)
    }

    fn new(
        mut options: Options,
        path: &Path,
        steps: Option<Arc<dyn Steps>>,
        open: impl FnOnce(&Options) -> Result<DB, rocksdb::Error>,
    ) -> Result<Self, StateDbError> {
        let young = Arc::new(Young::default());
        young.pace_merges(&mut options);
        let db = open(&options).map_err(rocks(path))?;
        let mut no_wal = WriteOptions::default();
        no_wal.disable_wal(true);
        no_wal.set_memtable_insert_hint_per_batch(true);
        let inner = Inner {
            db,
            options,
            path: path.to_owned(),
            no_wal,
            groups: RwLock::default(),
            pending_bytes: AtomicUsize::new(0),
            spill_files: AtomicUsize::new(0),
            spills: Arc::default(),
            young,
            damage: Damage::of(path),
            steps,
        };
        Ok(StateDb { inner: Arc::new(inner) })
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

    fn applied(&self, prefix: Prefix) -> Result<Option<ValueBytes>, StateDbError> {
        let value = self.inner.db.get(applied_key(prefix));
        Ok(value.map_err(|error| self.inner.failed(error))?.map(ValueBytes::from))
    }

    /// The pending part of a group.
    fn pending(&self, group: GroupId) -> Arc<RwLock<Pending>> {
        if let Some(known) = self.inner.groups.read().get(&group) {
            return known.clone();
        }
        self.inner.groups.write().entry(group).or_default().clone()
    }

    /// Its layers now, and what they lie over.
    fn top(&self, group: GroupId, pending: &RwLock<Pending>) -> (Prefix, Vec<Arc<Layer>>) {
        let pending = pending.read();
        (prefix(group, pending.live), pending.layers())
    }

    /// What is there at one moment.
    fn at<'a>(&'a self, prefix: Prefix, snapshot: &'a Snapshot<'_>) -> impl Read + 'a {
        View {
            inner: &self.inner,
            prefix,
            get: |key: &[u8]| snapshot.get(key),
            iterate: |options: ReadOptions| snapshot.raw_iterator_opt(options),
        }
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
        self.pending(group).read().live
    }

    fn load_generations(&self) -> Result<(), StateDbError> {
        let mut groups = self.inner.groups.write();
        let mut rows = self.inner.db.raw_iterator();
        rows.seek([GENERATION]);
        while let Some((key, value)) = rows.item().filter(|(key, _)| key[0] == GENERATION) {
            let (group, live) = parse_generation(key, value)
                .ok_or_else(|| self.malformed("a generation", value))?;
            let pending = Pending::of(live);
            groups.insert(group, Arc::new(RwLock::new(pending)));
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
    pending: Arc<RwLock<Pending>>,
    recent: Mutex<Recent>,
}

impl GroupState {
    /// The applied position, as it was written with the state.
    pub fn applied(&self) -> Result<Option<ValueBytes>, StateDbError> {
        self.db
            .peek(self.group, |state| state.get(&KeyBytes::new(APPLIED)))
            .map_err(StateDbError::Unreadable)
    }

    /// The state; only its owner changes it meanwhile.
    pub fn reader(&self) -> impl Read + '_ {
        let pending = self.pending.read();
        self.recent.lock().as_of(pending.spills, &pending.last_spilled);
        let below = self.db.live(prefix(self.group, pending.live));
        Top { pending, below: Remembered { state: below, recent: &self.recent } }
    }

    /// Adds what applied entries changed, and the applied position, in one step.
    pub fn write(&mut self, mut writes: Writes, applied: &[u8]) -> Result<(), StateDbError> {
        let inner = &*self.db.inner;
        let noted = inner.steps.as_ref().map(|steps| (steps, writes.clone()));
        let value = Some(ValueBytes::copy_of(applied));
        let position = Change { key: KeyBytes::new(APPLIED), value };
        self.db.step(Step::Apply, || {
            if is(Mutant::ApplyInTwoWrites) {
                inner.change(&self.pending, |pending| pending.write(writes));
                // As long as a slow disk takes: the gap would be hit too, only more seldom.
                std::thread::sleep(Duration::from_millis(3));
                inner.change(&self.pending, |pending| pending.write([position]));
                return Ok(());
            }
            writes.insert(position.key, position.value);
            inner.change(&self.pending, |pending| pending.write(writes));
            Ok(())
        })?;
        match noted {
            Some((steps, writes)) => {
                steps.applied(self.group, &writes, applied);
                // A simulated disk takes nothing but by a flush.
                Ok(())
            }
            None => inner.make_room(),
        }
    }

    /// Makes a staged generation the live one, at its own position. Durable when it returns.
    pub fn install(&mut self, mut staged: Staging) -> Result<(), StateDbError> {
        assert_eq!(self.group, staged.group, "a generation belongs to one group");
        let inner = &*self.db.inner;
        let _alone = inner.spills.alone();
        if is(Mutant::InstallInPlace) {
            inner.change(&self.pending, Pending::clear);
            return self.db.step(Step::Flush, || inner.write_out(spill::AT_ONCE));
        }
        self.db.step(Step::Flush, || inner.write_out(spill::AT_ONCE))?;
        fail::fail_point!("store-install-staged");
        let mut batch = WriteBatch::default();
        batch.put(generation_key(self.group), staged.generation.to_be_bytes());
        staged.installed = true;
        self.db.write(Step::Flip, batch)?;
        fail::fail_point!("store-install-flipped");
        self.db.step(Step::Flush, || inner.write_out(spill::AT_ONCE))?;
        let old = inner.change(&self.pending, |pending| {
            pending.clear();
            std::mem::replace(&mut pending.live, staged.generation)
        });
        self.db.remove_generation(self.group, old)
    }
}

/// The state as its owner reads it: nobody else changes it, and its layers stay where they are.
struct Top<'a, R> {
    pending: RwLockReadGuard<'a, Pending>,
    below: R,
}

impl<R: Read> Read for Top<'_, R> {
    fn get(&self, key: &KeyBytes) -> Result<Option<ValueBytes>, StorageError> {
        self.over().get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StorageError> {
        self.over().scan(from, to, visit)
    }
}

impl<R: Read> Top<'_, R> {
    fn over(&self) -> Over<'_, &R> {
        Over { layers: self.pending.as_slice(), below: &self.below }
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
    pub fn applied(&self) -> Result<Option<ValueBytes>, StateDbError> {
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
    fn get(&self, key: &KeyBytes) -> Result<Option<ValueBytes>, StorageError> {
        let value = (self.get)(&data_key(self.prefix, key)).map_err(|error| self.failed(error))?;
        Ok(value.map(ValueBytes::from))
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

#[cfg(test)]
mod tests;
