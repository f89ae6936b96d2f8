//! What the state machine needs of the place where its state lies: to read it, in key order.
//!
//! Writing is not here. A [`crate::Transaction`] collects [`Writes`] as a value, and the owner of
//! the storage writes them in one atomic batch together with the applied index.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use thiserror::Error;

use crate::codec::DecodeError;

/// What a transaction changed: a new value for each key, or `None` where it was deleted.
pub type Writes = BTreeMap<Vec<u8>, Option<Bytes>>;

/// Called for each pair of a scan; `Break` ends it.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// A shard's state at one moment: a snapshot, or a state that nobody else changes meanwhile.
pub trait Read {
    /// The value of `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError>;

    /// Visits the pairs with `from <= key < to`, in key order.
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StorageError>;
}

impl<R: Read + ?Sized> Read for &R {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        (**self).get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StorageError> {
        (**self).scan(from, to, visit)
    }
}

/// A state with writes over it that are not written yet.
pub struct Layered<'a> {
    /// The state below.
    pub base: &'a dyn Read,
    /// What hides it, key by key.
    pub writes: &'a Writes,
}

impl Read for Layered<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        match self.writes.get(key) {
            Some(written) => Ok(written.clone()),
            None => self.base.get(key),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StorageError> {
        let mut written = self.writes.range(from.to_vec()..to.to_vec()).peekable();
        let mut ended = false;
        self.base.scan(from, to, &mut |key, value| {
            // First the written pairs up to this key; one of them may hide it.
            let mut hidden = false;
            while let Some((over, change)) = written.next_if(|(over, _)| over.as_slice() <= key) {
                hidden = over == key;
                ended |= change.as_ref().is_some_and(|value| visit(over, value).is_break());
                if ended {
                    return ControlFlow::Break(());
                }
            }
            if !hidden {
                ended = visit(key, value).is_break();
            }
            if ended { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        for (key, change) in written {
            ended = ended || change.as_ref().is_some_and(|value| visit(key, value).is_break());
            if ended {
                break;
            }
        }
        Ok(())
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
                (vec![*key], value.map(|value| Bytes::from(vec![value])))
            };
            let mut state = MemoryState::default();
            let pairs = base.iter().map(|(key, value)| (*key, Some(*value)));
            let pairs: BTreeMap<u8, Option<u8>> = pairs.collect();
            state.write(pairs.iter().map(write).collect());
            let writes: Writes = over.iter().map(write).collect();
            let layered = Layered { base: &state, writes: &writes };

            let mut found = Vec::new();
            layered.scan(&[from], &[to.max(from)], &mut |key, value| {
                found.push((key[0], value[0]));
                if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            }).expect("memory does not fail");

            let mut all = pairs;
            all.extend(over);
            let wanted = all.range(from..to.max(from)).filter_map(|(key, value)| Some((*key, (*value)?)));
            prop_assert_eq!(found, wanted.take(limit).collect::<Vec<_>>());
        }
    }
}
