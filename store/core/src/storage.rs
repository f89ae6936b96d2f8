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
