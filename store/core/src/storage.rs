//! What the state machine needs of the place where its state lies: to read it, in key order.
//!
//! Writing is not here. A [`crate::Transaction`] collects [`Writes`] as a value, and the owner of
//! the storage writes them in one atomic batch together with the applied index.

use std::ops::ControlFlow;

use hashbrown::HashTable;
use thiserror::Error;

use crate::codec::DecodeError;
use crate::key::KeyBytes;
use crate::value_bytes::ValueBytes;

/// What became of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: KeyBytes,
    /// Its new value; none where it was deleted.
    pub value: Option<ValueBytes>,
}

/// What a transaction changed: the newest change of each key, in the order in which keys were first
/// changed.
#[derive(Clone, Debug, Default)]
pub struct Writes {
    changes: Vec<Change>,
    /// Where in `changes` each key is, by the key's hash.
    places: HashTable<usize>,
}

impl Writes {
    /// What became of `key`, if it was changed.
    pub fn get(&self, key: &KeyBytes) -> Option<&Option<ValueBytes>> {
        self.place(key).map(|place| &self.changes[place].value)
    }

    /// Changes `key`.
    pub fn insert(&mut self, key: KeyBytes, value: Option<ValueBytes>) {
        self.replace(key, value);
    }

    /// How many keys were changed.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Was none?
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Makes room for as many more changes, which would else be made little by little.
    pub(crate) fn reserve(&mut self, more: usize) {
        self.changes.reserve(more);
        let changes = &self.changes;
        self.places.reserve(more, |place| changes[*place].key.hash());
    }

    /// The change at a place that [`Writes::replace`] gave.
    pub(crate) fn at(&self, place: usize) -> &Change {
        &self.changes[place]
    }

    /// Changes `key`: its place, and the change that was there before.
    pub(crate) fn replace(
        &mut self,
        key: KeyBytes,
        value: Option<ValueBytes>,
    ) -> (usize, Option<Option<ValueBytes>>) {
        if let Some(place) = self.place(&key) {
            let before = std::mem::replace(&mut self.changes[place].value, value);
            return (place, Some(before));
        }
        let place = self.changes.len();
        let hash = key.hash();
        self.changes.push(Change { key, value });
        let changes = &self.changes;
        self.places.insert_unique(hash, place, |place| changes[*place].key.hash());
        (place, None)
    }

    /// Takes back the newest [`Writes::replace`] that was not taken back yet.
    pub(crate) fn take_back(&mut self, place: usize, before: Option<Option<ValueBytes>>) {
        match before {
            Some(before) => self.changes[place].value = before,
            None => {
                let Change { key, .. } = &self.changes[place];
                if let Ok(found) = self.places.find_entry(key.hash(), |other| *other == place) {
                    found.remove();
                }
                self.changes.truncate(place);
            }
        }
    }

    fn place(&self, key: &KeyBytes) -> Option<usize> {
        let is_it = |place: &usize| self.changes[*place].key == *key;
        self.places.find(key.hash(), is_it).copied()
    }

    /// The changes of keys from `from` to before `to`, in key order.
    fn range(&self, from: &[u8], to: &[u8]) -> Vec<&Change> {
        let within = |change: &&Change| from <= &*change.key && &*change.key < to;
        let mut range: Vec<_> = self.changes.iter().filter(within).collect();
        range.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        range
    }
}

impl IntoIterator for Writes {
    type Item = Change;
    type IntoIter = std::vec::IntoIter<Change>;

    fn into_iter(self) -> Self::IntoIter {
        self.changes.into_iter()
    }
}

impl FromIterator<(KeyBytes, Option<ValueBytes>)> for Writes {
    fn from_iter<I: IntoIterator<Item = (KeyBytes, Option<ValueBytes>)>>(changes: I) -> Self {
        let mut writes = Writes::default();
        for (key, value) in changes {
            writes.insert(key, value);
        }
        writes
    }
}

/// Called for each pair of a scan; `Break` ends it.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// A shard's state at one moment: a snapshot, or a state that nobody else changes meanwhile.
pub trait Read {
    /// The value of `key`.
    fn get(&self, key: &KeyBytes) -> Result<Option<ValueBytes>, StorageError>;

    /// Visits the pairs with `from <= key < to`, in key order.
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StorageError>;
}

impl<R: Read + ?Sized> Read for &R {
    fn get(&self, key: &KeyBytes) -> Result<Option<ValueBytes>, StorageError> {
        (**self).get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StorageError> {
        (**self).scan(from, to, visit)
    }
}

/// Visits the pairs of `base` with `from <= key < to` as changes over it make them: `changes` are of such
/// keys, in key order.
pub fn scan_over<'c, K: AsRef<[u8]>>(
    base: &dyn Read,
    changes: impl Iterator<Item = (K, Option<&'c ValueBytes>)>,
    (from, to): (&[u8], &[u8]),
    visit: &mut Visit<'_>,
) -> Result<(), StorageError> {
    let mut changes = changes.peekable();
    let mut ended = false;
    base.scan(from, to, &mut |key, value| {
        // First what was changed up to this key; one of the changes may hide it.
        let mut hidden = false;
        while let Some((over, change)) = changes.next_if(|(over, _)| over.as_ref() <= key) {
            hidden = over.as_ref() == key;
            ended |= change.is_some_and(|value| visit(over.as_ref(), value).is_break());
            if ended {
                return ControlFlow::Break(());
            }
        }
        if !hidden {
            ended = visit(key, value).is_break();
        }
        if ended { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    for (key, change) in changes {
        ended = ended || change.is_some_and(|value| visit(key.as_ref(), value).is_break());
        if ended {
            break;
        }
    }
    Ok(())
}

/// A state with writes over it that are not written yet.
pub struct Layered<'a> {
    /// The state below.
    pub base: &'a dyn Read,
    /// What hides it, key by key.
    pub writes: &'a Writes,
}

impl Read for Layered<'_> {
    fn get(&self, key: &KeyBytes) -> Result<Option<ValueBytes>, StorageError> {
        match self.writes.get(key) {
            Some(written) => Ok(written.clone()),
            None => self.base.get(key),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StorageError> {
        let changes = self.writes.range(from, to).into_iter();
        let changes = changes.map(|change| (&*change.key, change.value.as_ref()));
        scan_over(self.base, changes, (from, to), visit)
    }
}

/// The storage could not be read. There is no retry: the node stops.
#[derive(Debug, Error)]
#[error("state storage: {0}")]
pub struct StorageError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// The state or the log cannot be trusted; the node must stop without acknowledging anything.
#[derive(Debug, Error)]
pub enum Fatal {
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A key, value or command does not decode. A command of an unknown kind is one of these:
    /// new kinds are proposed only once every replica knows them (R5).
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The state contradicts itself.
    #[error("the state contradicts itself: {0}")]
    Corrupt(String),
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::memory::MemoryState;

    proptest! {
        /// A scan over base and writes sees what one map would hold.
        #[test]
        fn layers_read_as_one_map(
            base in proptest::collection::btree_map(0u8..40, any::<u8>(), 0..20),
            over in proptest::collection::btree_map(0u8..40, any::<Option<u8>>(), 0..20),
            from in 0u8..40, to in 0u8..40, limit in 1usize..30,
        ) {
            let write = |(key, value): (&u8, &Option<u8>)| {
                (KeyBytes::new(&[*key]), value.map(|value| ValueBytes::from(vec![value])))
            };
            let mut state = MemoryState::default();
            let pairs = base.iter().map(|(key, value)| (*key, Some(*value)));
            let pairs: BTreeMap<u8, Option<u8>> = pairs.collect();
            state.write(pairs.iter().map(write).collect());
            let writes: Writes = over.iter().map(write).collect();

            let mut found = Vec::new();
            let layered = Layered { base: &state, writes: &writes };
            layered.scan(&[from], &[to.max(from)], &mut |key, value| {
                found.push((key[0], value[0]));
                if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            }).expect("memory does not fail");

            let mut all = pairs;
            all.extend(over);
            let wanted = all.range(from..to.max(from)).filter_map(|(key, value)| Some((*key, (*value)?)));
            prop_assert_eq!(found, wanted.take(limit).collect::<Vec<_>>());
        }

        /// Changes that are taken back in reverse leave what was there before.
        #[test]
        fn what_is_taken_back_never_was(
            kept in proptest::collection::vec((0u8..20, any::<Option<u8>>()), 0..30),
            dropped in proptest::collection::vec((0u8..20, any::<Option<u8>>()), 0..30),
        ) {
            let change = |(key, value): &(u8, Option<u8>)| {
                (KeyBytes::new(&[*key]), value.map(|value| ValueBytes::from(vec![value])))
            };
            let mut writes: Writes = kept.iter().map(change).collect();
            let before = writes.changes.clone();
            let mut undo = Vec::new();
            for (key, value) in dropped.iter().map(change) {
                undo.push(writes.replace(key.clone(), value.clone()));
                prop_assert_eq!(writes.get(&key), Some(&value));
            }
            for (place, value) in undo.into_iter().rev() {
                writes.take_back(place, value);
            }
            prop_assert_eq!(&writes.changes, &before);
            for key in 0..20 {
                let key = KeyBytes::new(&[key]);
                let is = before.iter().find(|change| change.key == key).map(|it| &it.value);
                prop_assert_eq!(writes.get(&key), is);
            }
        }
    }
}
