//! What a group's apply has read or written lately, so that it need not be searched for again: a
//! lookup costs a search of every memtable.
//!
//! Two halves, young and old. What is used moves to the young one; when that is full it becomes the
//! old one, and what was in the old one is forgotten. A key may be in both: the young one knows.

use std::collections::HashMap;

use bytes::Bytes;
use parking_lot::Mutex;
use tidemark_store_core::storage::{Visit, Writes};
use tidemark_store_core::{Read, StorageError, key};

/// Values in each half. A node may have a thousand groups.
const HALF: usize = 1_024;

/// The newest values of a group, by key; `None` where there is none.
#[derive(Default)]
pub(super) struct Recent {
    young: HashMap<Vec<u8>, Option<Bytes>>,
    old: HashMap<Vec<u8>, Option<Bytes>>,
}

impl Recent {
    fn get(&mut self, key: &[u8]) -> Option<Option<Bytes>> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.put(key, value.clone());
        Some(value)
    }

    fn put(&mut self, key: Vec<u8>, value: Option<Bytes>) {
        if self.young.len() >= HALF {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    /// `writes` are in the state now.
    pub(super) fn written(&mut self, writes: Writes) {
        for (key, value) in writes {
            if key::is_read_often(&key) {
                self.put(key, value);
            }
        }
    }
}

/// A state, and what is remembered of it.
pub(super) struct Remembered<'a, R> {
    pub(super) state: R,
    pub(super) recent: &'a Mutex<Recent>,
}

impl<R: Read> Read for Remembered<'_, R> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        if !key::is_read_often(key) {
            return self.state.get(key);
        }
        if let Some(value) = self.recent.lock().get(key) {
            return Ok(value);
        }
        let value = self.state.get(key)?;
        self.recent.lock().put(key.to_vec(), value.clone());
        Ok(value)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StorageError> {
        self.state.scan(from, to, visit)
    }
}

#[cfg(test)]
mod tests {
    use tidemark_store_core::key::{Key as _, OutboundKey};
    use tidemark_store_core::memory::MemoryState;
    use tidemark_types::ShardId;

    use super::*;

    /// More keys than are remembered, read and written in an order that rotates both halves.
    #[test]
    fn what_is_remembered_is_what_is_there() {
        let mut state = MemoryState::default();
        let recent = Mutex::<Recent>::default();
        for step in 0..20_000u32 {
            let shard = ShardId::new(u16::try_from(step * 7_919 % 3_001).expect("small"));
            let key = OutboundKey { shard }.encode();
            let known = Remembered { state: &state, recent: &recent }.get(&key);
            assert_eq!(known.expect("memory"), state.get(&key).expect("memory"), "step {step}");
            let value = (step % 5 > 0).then(|| Bytes::from(step.to_be_bytes().to_vec()));
            let writes = Writes::from([(key, value)]);
            state.write(writes.clone());
            recent.lock().written(writes);
            assert!(recent.lock().young.len() <= HALF);
        }
    }
}
