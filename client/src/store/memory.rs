//! A store that lives as long as the process: for simulations and load generators.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{Change, Saved, Store, StoreError};

/// A store in memory. Clones share what it holds, so that a device can be opened again with it.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(Arc<Mutex<Saved>>);

impl MemoryStore {
    /// What it holds now.
    pub fn saved(&self) -> Saved {
        self.0.lock().clone()
    }

    /// Makes these changes.
    pub fn apply(&self, changes: Vec<Change>) {
        let mut saved = self.0.lock();
        for change in changes {
            match change {
                Change::Meta(meta) => saved.meta = Some(*meta),
                Change::Put(id, send) => drop(saved.outbox.insert(id, send)),
                Change::Settle(id, settled) => {
                    saved.outbox.remove(&id);
                    saved.outcomes.insert(id, settled);
                }
                Change::Forget(id) => drop(saved.outcomes.remove(&id)),
            }
        }
    }
}

impl Store for MemoryStore {
    async fn load(&mut self) -> Result<Saved, StoreError> {
        Ok(self.saved())
    }

    async fn commit(&mut self, changes: Vec<Change>) -> Result<(), StoreError> {
        self.apply(changes);
        Ok(())
    }
}
