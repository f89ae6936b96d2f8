//! What stands under a number of a mailbox (R10): an entry, or a reference to an entry of a group
//! that this shard keeps once for all members who live on it.
//!
//! ```text
//!   alice  7 ── Reference ──┐
//!   bob    3 ── Reference ──┴─► Shared { entry, holders: 2, open }
//!   carol  9 ── Entry
//! ```
//!
//! Invariant: `holders` references name a shared entry, and it is there as long as there is one, or
//! as more are to come.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};
use tidemark_types::{GroupId, Recipient, Seq, SeqRange, UnixMs};

use crate::codec::DecodeError;
use crate::key::{EntryKey, Key, SharedKey, after};
use crate::storage::{Fatal, Read};
use crate::value::{Entry, Value};
use crate::value_bytes::ValueBytes;

/// What stands under a number of a mailbox. Its bytes are those of what it is: their version tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "nearly all are entries, and none is kept")]
pub enum Slot {
    /// The entry itself.
    Own(Entry),
    /// An entry that others have too.
    Shared(Reference),
}

/// Names a shared entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// Log time of the append to this mailbox.
    pub time: UnixMs,
    /// The group.
    pub group: GroupId,
    /// The entry's number in the group's log.
    pub seq: Seq,
}

/// An entry of a group that mailboxes of this shard name instead of having it each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// The entry; its time is that of the first append.
    pub entry: Entry,
}

/// Who holds a shared entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holders {
    /// Mailboxes that have a reference to it.
    pub references: u32,
    /// More members may be given it: it stays, whoever holds it.
    pub open: bool,
}

impl Value for Slot {
    const NAME: &'static str = "Slot";
    const VERSION: u8 = Entry::VERSION;

    fn encode(&self) -> bytes::Bytes {
        match self {
            Slot::Own(entry) => entry.encode(),
            Slot::Shared(reference) => reference.encode(),
        }
    }

    fn encode_chunked(&self) -> bytes::Bytes {
        match self {
            Slot::Own(entry) => entry.encode_chunked(),
            Slot::Shared(reference) => reference.encode_chunked(),
        }
    }

    fn stored(&self) -> ValueBytes {
        self.encode_chunked().into()
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match bytes.first() {
            Some(&Reference::VERSION) => Reference::decode(bytes).map(Slot::Shared),
            _ => Entry::decode(bytes).map(Slot::Own),
        }
    }
}

impl Slot {
    /// Log time of the append.
    pub fn time(&self) -> UnixMs {
        match self {
            Slot::Own(entry) => entry.time,
            Slot::Shared(reference) => reference.time,
        }
    }

    /// The entry.
    pub fn entry(self, state: &dyn Read) -> Result<Entry, Fatal> {
        match self {
            Slot::Own(entry) => Ok(entry),
            Slot::Shared(reference) => reference.entry(state).map(|(entry, _)| entry),
        }
    }
}

impl Reference {
    fn key(&self) -> SharedKey {
        SharedKey { group: self.group.clone(), seq: self.seq }
    }

    /// The entry, as its mailbox has it, and how many bytes it has.
    fn entry(self, state: &dyn Read) -> Result<(Entry, usize), Fatal> {
        let bytes = state.get(&self.key().encode())?.ok_or_else(|| {
            let Reference { group, seq, .. } = &self;
            Fatal::Corrupt(format!("group {group}: the shared entry {seq} is missing"))
        })?;
        let Shared { entry } = Shared::decode(&bytes)?;
        Ok((Entry { time: self.time, ..entry }, bytes.len()))
    }
}

/// The entry under a number of a mailbox, and how many bytes it has; none if there is none.
pub(crate) fn entry(
    state: &dyn Read,
    mailbox: &Recipient,
    seq: Seq,
) -> Result<Option<(Entry, usize)>, Fatal> {
    let key = EntryKey { mailbox: mailbox.clone(), seq }.encode();
    let Some(bytes) = state.get(&key)? else { return Ok(None) };
    sized(state, Slot::decode(&bytes)?, bytes.len()).map(Some)
}

/// The entry of a slot of so many bytes, and how many it has itself.
pub(crate) fn sized(state: &dyn Read, slot: Slot, bytes: usize) -> Result<(Entry, usize), Fatal> {
    match slot {
        Slot::Own(entry) => Ok((entry, bytes)),
        Slot::Shared(reference) => reference.entry(state),
    }
}

/// The references among some numbers of a mailbox.
pub(crate) fn references(
    state: &dyn Read,
    mailbox: &Recipient,
    range: SeqRange,
) -> Result<Vec<Reference>, Fatal> {
    let key = |seq| EntryKey { mailbox: mailbox.clone(), seq }.encode();
    let mut found = Vec::new();
    state.scan(&key(range.first()), &after(&key(range.last())), &mut |_, value| {
        if value.first() == Some(&Reference::VERSION) {
            found.push(Reference::decode(value));
        }
        ControlFlow::Continue(())
    })?;
    Ok(found.into_iter().collect::<Result<_, _>>()?)
}
