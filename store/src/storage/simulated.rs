//! A disk for the log of two halves, in memory: what a power cut keeps for certain, and what it may
//! lose. For tests and simulations.
//!
//! It keeps what every [`LogBackend`] promises: batches are whole, and survive in order. In a segment
//! a batch is one record with a checksum: torn, it is dropped as a whole, with all behind it. So
//! what a power cut leaves of the pending batches is a first part of them, and never half a batch.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Change, GroupId, GroupMarks, LogBackend, LogBatch, LogReads, LogWrite};

#[derive(Clone, Default)]
struct Group {
    marks: GroupMarks,
    entries: BTreeMap<u64, Bytes>,
}

type Contents = BTreeMap<GroupId, Group>;

#[derive(Default)]
struct State {
    durable: Contents,
    pending: Vec<LogBatch>,
    /// With what is pending.
    now: Contents,
    commits: usize,
    fail_at: Option<usize>,
    during_read: Option<Box<dyn FnOnce() + Send>>,
    noted: Option<Vec<LogBatch>>,
}

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Default)]
pub struct SimulatedDisk(Arc<Mutex<State>>);

impl SimulatedDisk {
    /// Makes the commit number `at`, from 0, and all later ones fail.
    pub fn fail_at(&self, at: usize) {
        self.0.lock().fail_at = Some(at);
    }

    /// Lets something happen in the middle of the next read of entries, after they were read.
    pub fn during_read(&self, what: impl FnOnce() + Send + 'static) {
        self.0.lock().during_read = Some(Box::new(what));
    }

    /// Notes the batches that are committed from now on.
    pub fn note_commits(&self) {
        self.0.lock().noted.get_or_insert_default();
    }

    /// The batches that were noted.
    pub fn commits(&self) -> Vec<LogBatch> {
        self.0.lock().noted.clone().unwrap_or_default()
    }

    /// Batches that a power cut may lose.
    pub fn pending(&self) -> usize {
        self.0.lock().pending.len()
    }

    /// What a power cut leaves: everything durable, and the first `keep` batches of the rest. Whether
    /// the next one was torn or never written makes no difference.
    pub fn after_power_cut(&self, keep: usize) -> SimulatedDisk {
        let state = self.0.lock();
        let mut durable = state.durable.clone();
        for batch in state.pending.iter().take(keep) {
            write(&mut durable, batch);
        }
        let now = durable.clone();
        SimulatedDisk(Arc::new(Mutex::new(State { durable, now, ..State::default() })))
    }

    /// Takes an entry away, as a disk that lies would.
    pub fn lose_entry(&self, group: GroupId, index: u64) {
        self.lie(group, |group| {
            group.entries.remove(&index);
        });
    }

    /// Takes a vote away, as a disk that lies would.
    pub fn lose_vote(&self, group: GroupId) {
        self.lie(group, |group| group.marks.vote = None);
    }

    fn lie(&self, group: GroupId, lie: impl Fn(&mut Group)) {
        let mut state = self.0.lock();
        let State { durable, now, .. } = &mut *state;
        [durable, now].into_iter().filter_map(|contents| contents.get_mut(&group)).for_each(lie);
    }
}

fn write(contents: &mut Contents, batch: &LogBatch) {
    for LogWrite { group, change } in &batch.writes {
        let Group { marks, entries } = contents.entry(*group).or_default();
        match change.clone() {
            Change::Vote(vote) => marks.vote = Some(vote),
            Change::Committed(committed) => marks.committed = Some(committed),
            Change::Entry { index, value } => {
                entries.insert(index, [&value.head[..], &value.body].concat().into());
            }
            Change::Truncate { range } => remove(entries, range),
            Change::Purge { range, mark } => {
                marks.purged = Some(mark);
                remove(entries, range);
            }
        }
    }
}

fn remove(entries: &mut BTreeMap<u64, Bytes>, range: Range<u64>) {
    let mut behind = entries.split_off(&range.start);
    if range.start < range.end {
        behind = behind.split_off(&range.end);
    }
    entries.append(&mut behind);
}

impl LogReads for SimulatedDisk {
    fn groups(&self) -> io::Result<Vec<GroupId>> {
        Ok(self.0.lock().now.keys().copied().collect())
    }

    fn marks(&self, group: GroupId) -> io::Result<GroupMarks> {
        Ok(self.0.lock().now.get(&group).map(|group| group.marks.clone()).unwrap_or_default())
    }

    fn entries(
        &self,
        group: GroupId,
        range: Range<u64>,
        bytes_max: usize,
    ) -> io::Result<Vec<(u64, Bytes)>> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut state = self.0.lock();
        let none = BTreeMap::new();
        let stored = state.now.get(&group).map_or(&none, |group| &group.entries);
        for (index, value) in stored.range(range) {
            bytes += value.len();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push((*index, value.clone()));
        }
        let during_read = state.during_read.take();
        drop(state);
        if let Some(what) = during_read {
            what();
        }
        Ok(entries)
    }
}

impl LogBackend for SimulatedDisk {
    fn reads(&self) -> Arc<dyn LogReads> {
        Arc::new(self.clone())
    }

    fn commit(&mut self, batch: LogBatch) -> io::Result<()> {
        let mut state = self.0.lock();
        let State { durable, pending, now, commits, fail_at, noted, .. } = &mut *state;
        if fail_at.is_some_and(|at| *commits >= at) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "no space"));
        }
        *commits += 1;
        if let Some(noted) = noted {
            noted.push(batch.clone());
        }
        write(now, &batch);
        let is_durable = batch.durable;
        pending.push(batch);
        if is_durable {
            pending.drain(..).for_each(|batch| write(durable, &batch));
        }
        Ok(())
    }
}
