//! A disk of two halves: what a power cut keeps for certain, and what it may lose.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::storage::{Change, GroupId, GroupMarks, LogBackend, LogBatch, LogReads, LogWrite};

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
    commits: Vec<LogBatch>,
    fail_at: Option<usize>,
    during_read: Option<Box<dyn FnOnce() + Send>>,
}

/// Clones are the same disk.
#[derive(Clone, Default)]
pub(super) struct Disk(Arc<Mutex<State>>);

impl Disk {
    /// Makes the commit number `at`, from 0, and all later ones fail.
    pub(super) fn fail_at(&self, at: usize) {
        self.0.lock().fail_at = Some(at);
    }

    /// Lets something happen in the middle of the next read of entries, after they were read.
    pub(super) fn during_read(&self, what: impl FnOnce() + Send + 'static) {
        self.0.lock().during_read = Some(Box::new(what));
    }

    /// The batches committed so far.
    pub(super) fn commits(&self) -> Vec<LogBatch> {
        self.0.lock().commits.clone()
    }

    /// What a power cut leaves: everything durable, and the first `keep` batches of the rest.
    pub(super) fn after_power_cut(&self, keep: usize) -> Disk {
        let state = self.0.lock();
        let mut durable = state.durable.clone();
        for batch in state.pending.iter().take(keep) {
            write(&mut durable, batch);
        }
        Disk(Arc::new(Mutex::new(State { durable, ..State::default() })))
    }

    /// Takes an entry away, as a disk that lies would.
    pub(super) fn lose_entry(&self, group: GroupId, index: u64) {
        let mut state = self.0.lock();
        let group = state.durable.get_mut(&group).expect("a group of this disk");
        group.entries.remove(&index).expect("an entry of this disk");
    }

    /// Takes a vote away, as a disk that lies would.
    pub(super) fn lose_vote(&self, group: GroupId) {
        let mut state = self.0.lock();
        let group = state.durable.get_mut(&group).expect("a group of this disk");
        group.marks.vote = None;
    }

    fn now(&self) -> Contents {
        let state = self.0.lock();
        let mut contents = state.durable.clone();
        state.pending.iter().for_each(|batch| write(&mut contents, batch));
        contents
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
            Change::Truncate { range } => entries.retain(|index, _| !range.contains(index)),
            Change::Purge { range, mark } => {
                marks.purged = Some(mark);
                entries.retain(|index, _| !range.contains(index));
            }
        }
    }
}

impl LogReads for Disk {
    fn groups(&self) -> io::Result<Vec<GroupId>> {
        Ok(self.now().into_keys().collect())
    }

    fn marks(&self, group: GroupId) -> io::Result<GroupMarks> {
        Ok(self.now().remove(&group).unwrap_or_default().marks)
    }

    fn entries(
        &self,
        group: GroupId,
        range: Range<u64>,
        bytes_max: usize,
    ) -> io::Result<Vec<(u64, Bytes)>> {
        let group = self.now().remove(&group).unwrap_or_default();
        let mut entries = Vec::new();
        let mut bytes = 0;
        for (index, value) in group.entries.range(range) {
            bytes += value.len();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push((*index, value.clone()));
        }
        let during_read = self.0.lock().during_read.take();
        if let Some(what) = during_read {
            what();
        }
        Ok(entries)
    }
}

impl LogBackend for Disk {
    fn reads(&self) -> Arc<dyn LogReads> {
        Arc::new(self.clone())
    }

    fn commit(&mut self, batch: LogBatch) -> io::Result<()> {
        let mut state = self.0.lock();
        if state.fail_at.is_some_and(|at| state.commits.len() >= at) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "no space"));
        }
        state.commits.push(batch.clone());
        let durable = batch.durable;
        state.pending.push(batch);
        if durable {
            let pending = std::mem::take(&mut state.pending);
            pending.iter().for_each(|batch| write(&mut state.durable, batch));
        }
        Ok(())
    }
}
