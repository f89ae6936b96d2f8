//! What a device keeps across restarts, and the seam behind which it is kept.
//!
//! A store does what it is told and judges nothing: the engine decides what is written, and in
//! which order. It has two implementations, [`DiskStore`] and [`MemoryStore`].
//!
//! ```text
//!   outbox:   id 7   id 8   id 9   id 10  id 11
//!             n = 3  n = 4  n = 5    │      └── not numbered yet
//!               └── session, first = 5      numbered = 10
//! ```
//!
//! Ids count up in the order in which the application sent, without a hole. So a send's number
//! needs no place of its own: `n = id - session.first + 1` for every id below `numbered`, and the
//! same content has the same n in a session whatever happens in between.
//!
//! Invariant: [`Store::commit`] is all or nothing, and durable when it returns.

mod disk;
mod memory;

use std::collections::BTreeMap;
use std::future::Future;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tidemark_proto::v1;
use tidemark_types::{ClusterId, DeviceId, Epoch, OpenId, Seq, SessionId, UserId};

pub use disk::DiskStore;
pub use memory::MemoryStore;

use crate::outcome::Settled;

/// A place where one device keeps what must survive.
pub trait Store: Send + 'static {
    /// Everything that it holds.
    fn load(&mut self) -> impl Future<Output = Result<Saved, StoreError>> + Send;

    /// Makes these changes, all or none; they are durable when it returns. After an error nobody
    /// knows what is held, so nothing more may be written.
    fn commit(
        &mut self,
        changes: Vec<Change>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// A store that does not work.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoreError {
    /// The file cannot be opened, read or written; another process that has it open is the usual
    /// reason for the first.
    #[error("the device's store: {0}")]
    Io(String),
    /// It was read, and is not what was written.
    #[error("the device's store is damaged or of another version: {0}")]
    Corrupt(String),
}

/// The place of a send in the outbox; counts up without a hole, and is never used again.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct OutboxId(u64);

impl OutboxId {
    /// The one with this number.
    pub const fn new(number: u64) -> Self {
        OutboxId(number)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The one `n` places later.
    #[must_use]
    pub const fn plus(self, n: u64) -> Self {
        OutboxId(self.0.saturating_add(n))
    }

    /// How many places it lies after `earlier`; 0 when it does not.
    pub const fn since(self, earlier: OutboxId) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The send session, as the device stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its number.
    pub id: SessionId,
    /// The send that is its n = 1.
    pub first: OutboxId,
}

impl Session {
    /// The number of a send in this session.
    pub const fn n(&self, id: OutboxId) -> u64 {
        id.since(self.first) + 1
    }

    /// The send with this number, which counts from 1.
    pub const fn id_of(&self, n: u64) -> OutboxId {
        self.first.plus(n.saturating_sub(1))
    }
}

/// What a device keeps beside its sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Whose store it is.
    pub user: UserId,
    /// Which device's.
    pub device: DeviceId,
    /// The cluster in which the cursor counts.
    pub cluster: Option<ClusterId>,
    /// The epoch in which the cursor counts; [`Epoch::NONE`] before there is one.
    pub epoch: Epoch,
    /// The last seq that the application has taken.
    pub cursor: Seq,
    /// The `Open` that has no answer yet.
    pub open_id: Option<OpenId>,
    /// The send session.
    pub session: Option<Session>,
    /// The first send without a number.
    pub numbered: OutboxId,
}

impl Meta {
    /// What a new device keeps.
    pub fn new(user: UserId, device: DeviceId) -> Self {
        Meta {
            user,
            device,
            cluster: None,
            epoch: Epoch::NONE,
            cursor: Seq::NONE,
            open_id: None,
            session: None,
            numbered: OutboxId::default(),
        }
    }
}

/// Everything that a store holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Saved {
    /// What is kept beside the sends; none in a new store.
    pub meta: Option<Meta>,
    /// Sends without an outcome. Their session, n and base are 0: those are not content.
    pub outbox: BTreeMap<OutboxId, v1::Send>,
    /// Outcomes that the application has not taken.
    pub outcomes: BTreeMap<OutboxId, Settled>,
}

/// One change of what is held.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Replaces the meta data.
    Meta(Box<Meta>),
    /// Adds a send.
    Put(OutboxId, v1::Send),
    /// Replaces a send by its outcome.
    Settle(OutboxId, Settled),
    /// Removes an outcome.
    Forget(OutboxId),
}
