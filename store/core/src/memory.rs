//! A shard's state in memory: the storage of tests, of the model and of simulations.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::key::KeyBytes;
use crate::storage::{Change, Read, StorageError, Visit, Writes};
use crate::value_bytes::ValueBytes;

/// Keys and values, in key order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryState {
    pairs: BTreeMap<Vec<u8>, ValueBytes>,
}

impl MemoryState {
    /// Writes what a transaction changed.
    pub fn write(&mut self, writes: Writes) {
        for Change { key, value } in writes {
            match value {
                Some(value) => self.pairs.insert(key.to_vec(), value),
                None => self.pairs.remove(&*key),
            };
        }
    }
}

impl Read for MemoryState {
    fn get(&self, key: &KeyBytes) -> Result<Option<ValueBytes>, StorageError> {
        Ok(self.pairs.get(&**key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StorageError> {
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        for (key, value) in self.pairs.range::<[u8], _>(bounds) {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}
