//! What a group's apply has read from the database lately, so that it need not be searched for again.
//!
//! Two halves, young and old. What is used moves to the young one; when that is full it becomes the
//! old one, and what was in the old one is forgotten. A key may be in both: the young one knows. When
//! layers have gone to the database, what they said of it is remembered instead.

use std::collections::HashMap;

use parking_lot::Mutex;
use tidemark_store_core::key::{self, KeyBytes};
use tidemark_store_core::storage::Visit;
use tidemark_store_core::{Change, Read, StorageError, ValueBytes};

/// Values in each half, a megabyte or so. A node may have a thousand groups.
const HALF: usize = 4_096;

/// The newest values of a group, by key; `None` where there is none.
#[derive(Default)]
pub(super) struct Recent {
    spills: u64,
    young: HashMap<KeyBytes, Option<ValueBytes>>,
    old: HashMap<KeyBytes, Option<ValueBytes>>,
}

impl Recent {
    fn get(&mut self, key: &KeyBytes) -> Option<Option<ValueBytes>> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.put(key, value.clone());
        Some(value)
    }

    fn put(&mut self, key: KeyBytes, value: Option<ValueBytes>) {
        if self.young.len() >= HALF {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    /// Catches up with layers that have gone to the database: `spills` is how often they have, and
    /// `last` what those said that went last.
    pub(super) fn as_of(&mut self, spills: u64, last: &[Change]) {
        if self.spills + 1 == spills {
            for Change { key, value } in last {
                self.put(key.clone(), value.clone());
            }
        } else if self.spills != spills {
            *self = Recent::default();
        }
        self.spills = spills;
    }
}

/// A state, and what is remembered of it.
pub(super) struct Remembered<'a, R> {
    pub(super) state: R,
    pub(super) recent: &'a Mutex<Recent>,
}

impl<R: Read> Read for Remembered<'_, R> {
    fn get(&self, key: &KeyBytes) -> Result<Option<ValueBytes>, StorageError> {
        if !key::is_read_often(key) {
            return self.state.get(key);
        }
        if let Some(value) = self.recent.lock().get(key) {
            return Ok(value);
        }
        let value = self.state.get(key)?;
        self.recent.lock().put(key.clone(), value.clone());
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
    use tidemark_store_core::storage::Writes;
    use tidemark_types::ShardId;

    use super::*;

    /// More keys than are remembered, read in an order that rotates both halves, over a database that
    /// changes now and then.
    #[test]
    fn what_is_remembered_is_what_is_there() {
        let mut state = MemoryState::default();
        let recent = Mutex::<Recent>::default();
        let mut spills = 0;
        for step in 0..60_000u32 {
            let shard = ShardId::new(u16::try_from(step * 7_919 % 9_001).expect("small"));
            let key = OutboundKey { shard }.encode();
            let known = Remembered { state: &state, recent: &recent }.get(&key);
            assert_eq!(known.expect("memory"), state.get(&key).expect("memory"), "step {step}");
            assert!(recent.lock().young.len() <= HALF);
            if step % 50 == 0 {
                let value = (step % 100 > 0).then(|| ValueBytes::copy_of(&step.to_be_bytes()));
                state.write(Writes::from_iter([(key.clone(), value.clone())]));
                // One change in three is missed, since another one has followed.
                spills += 1 + u64::from(step % 150 == 0);
                recent.lock().as_of(spills, &[Change { key, value }]);
            }
        }
    }
}
