//! Applying batches over a state that is only read, collecting what they write.
//!
//! ```text
//!   Step (one command)  ──changes──►  Writes (all batches so far)  ──finish──►  the owner of the state
//!     reads them, then the base state      ◄──undo── of a command that is rejected
//! ```
//!
//! A command that is rejected takes back what it changed, so it leaves no trace but its reply and its
//! alarms (R5). A [`Fatal`] drops the transaction.

use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::ops::ControlFlow;

use bytes::Bytes;
use tidemark_types::UnixMs;
use xxhash_rust::xxh3::Xxh3;

use crate::apply;
use crate::command::{Batch, Command};
use crate::feed;
use crate::key::{ChainKey, Key, KeyBytes, ShardKey};
use crate::reply::{Applied, Effect, Reject, Reply};
use crate::storage::{Change, Fatal, Layered, Read, Writes};
use crate::value::{Chain, Shard, Value};
use crate::value_bytes::ValueBytes;

/// What a send changes: two heads, two entries, a session, its acknowledgement, and one that is dropped.
const CHANGES_PER_COMMAND: usize = 7;

/// Batches applied one after the other, in log order.
pub struct Transaction<'a> {
    base: &'a dyn Read,
    writes: Writes,
    /// What the command that is being applied replaced, in order.
    undo: Vec<Undo>,
}

/// A change that can be taken back.
struct Undo {
    place: usize,
    before: Option<Option<ValueBytes>>,
}

impl<'a> Transaction<'a> {
    /// Nothing applied yet; `base` must not change until [`Self::finish`]'s writes are written.
    pub fn new(base: &'a dyn Read) -> Self {
        Transaction { base, writes: Writes::default(), undo: Vec::new() }
    }

    /// Applies one log entry's payload, an encoded [`Batch`]; one outcome per command.
    pub fn apply(&mut self, payload: &Bytes) -> Result<Vec<Applied>, Fatal> {
        let batch = Batch::decode(payload)?;
        let start = self.step(batch.time);
        let chain = start.get(&ChainKey {})?.unwrap_or_default();
        let stored = start.get(&ShardKey {})?;
        let mut shard =
            stored.clone().map(|shard| Shard { time: shard.time.max(batch.time), ..shard });

        self.writes.reserve(batch.commands.len() * CHANGES_PER_COMMAND);
        let mut hash = StateHash::new(chain, payload);
        let mut outcomes = Vec::with_capacity(batch.commands.len());
        for command in &batch.commands {
            let applied = self.command(command, batch.time, &mut shard)?;
            hash.framed(&applied.reply.encode());
            self.settle(&mut hash);
            outcomes.push(applied);
        }

        if let Some(shard) = shard.filter(|shard| stored.as_ref() != Some(shard)) {
            self.step(batch.time).put(&ShardKey {}, &shard);
        }
        self.settle(&mut hash);
        self.step(batch.time).put(&ChainKey {}, &hash.finish());
        self.undo.clear();
        Ok(outcomes)
    }

    /// What all batches wrote together.
    pub fn finish(self) -> Writes {
        self.writes
    }

    /// Applies one command; one that is rejected leaves no trace.
    fn command(
        &mut self,
        command: &Command,
        time: UnixMs,
        shard: &mut Option<Shard>,
    ) -> Result<Applied, Fatal> {
        let mut step = self.step(time);
        let mut changed = shard.clone();
        let done = apply::command(&mut step, command, &mut changed);
        let mut effects = step.effects;
        match done {
            Ok(reply) => {
                *shard = changed;
                self.tell(time, shard.as_ref())?;
                Ok(Applied { reply, effects })
            }
            Err(Stop::Reject(reject)) => {
                for Undo { place, before } in self.undo.drain(..).rev() {
                    self.writes.take_back(place, before);
                }
                effects.retain(|effect| matches!(effect, Effect::Alarm(_)));
                Ok(Applied { reply: Reply::Rejected(reject), effects })
            }
            Err(Stop::Fatal(fatal)) => Err(fatal),
        }
    }

    /// Writes the command's record into the feed, where there is one (R20).
    fn tell(&mut self, time: UnixMs, shard: Option<&Shard>) -> Result<(), Fatal> {
        let Some(shard) = shard else { return Ok(()) };
        let Some(records_max) = NonZeroU32::new(shard.settings.feed_records_max) else {
            return Ok(());
        };
        let changed = self.undo.iter().map(|undo| self.writes.at(undo.place));
        match feed::record(changed, shard.time, records_max)? {
            Some(recorded) => recorded.write(&mut self.step(time)),
            None => Ok(()),
        }
    }

    /// What was changed since the last time stays, and goes into the hash.
    fn settle(&mut self, hash: &mut StateHash) {
        hash.changes(self.undo.drain(..).map(|undo| self.writes.at(undo.place)));
    }

    fn step(&mut self, time: UnixMs) -> Step<'_> {
        let Transaction { base, writes, undo } = self;
        Step { base: *base, writes, undo, effects: Vec::new(), time }
    }
}

/// Why a command ends early.
pub(crate) enum Stop {
    /// It is refused.
    Reject(Reject),
    /// The node must stop.
    Fatal(Fatal),
}

impl From<Reject> for Stop {
    fn from(reject: Reject) -> Self {
        Stop::Reject(reject)
    }
}

impl<E: Into<Fatal>> From<E> for Stop {
    fn from(error: E) -> Self {
        Stop::Fatal(error.into())
    }
}

/// A key whose value was read to be changed.
pub(crate) struct Held<K> {
    bytes: KeyBytes,
    key: PhantomData<K>,
}

/// One command's view of the state: it reads its own writes.
pub(crate) struct Step<'a> {
    base: &'a dyn Read,
    writes: &'a mut Writes,
    undo: &'a mut Vec<Undo>,
    /// What the leader does if the command is not rejected.
    pub(crate) effects: Vec<Effect>,
    /// The batch's own time, before log time was made monotonic.
    time: UnixMs,
}

impl Step<'_> {
    /// The time to start a new shard's log time from.
    pub(crate) fn batch_time(&self) -> UnixMs {
        self.time
    }

    /// The state as this command has made it so far.
    pub(crate) fn layers(&self) -> Layered<'_> {
        Layered { base: self.base, writes: self.writes }
    }

    /// The value of `key`.
    pub(crate) fn get<K: Key>(&self, key: &K) -> Result<Option<K::Value>, Fatal> {
        let bytes = self.layers().get(&key.encode())?;
        Ok(bytes.map(|bytes| K::Value::decode(&bytes)).transpose()?)
    }

    /// The value of `key`, and where to put it back: encoding a key costs about what looking for it does.
    pub(crate) fn take<K: Key>(&self, key: &K) -> Result<(Option<K::Value>, Held<K>), Fatal> {
        let bytes = key.encode();
        let value = self.layers().get(&bytes)?;
        let value = value.map(|value| K::Value::decode(&value)).transpose()?;
        Ok((value, Held { bytes, key: PhantomData }))
    }

    /// Sets the value of a key that was taken.
    pub(crate) fn put_back<K: Key>(&mut self, held: Held<K>, value: &K::Value) {
        self.change_bytes(held.bytes, Some(value.stored()));
    }

    /// Sets the value of `key`.
    pub(crate) fn put<K: Key>(&mut self, key: &K, value: &K::Value) {
        self.change(key, Some(value.stored()));
    }

    /// Sets the value of `key`, encoded.
    pub(crate) fn put_encoded<K: Key>(&mut self, key: &K, value: Bytes) {
        self.change(key, Some(value.into()));
    }

    /// Removes `key`.
    pub(crate) fn delete<K: Key>(&mut self, key: &K) {
        self.change(key, None);
    }

    fn change<K: Key>(&mut self, key: &K, value: Option<ValueBytes>) {
        self.change_bytes(key.encode(), value);
    }

    fn change_bytes(&mut self, key: KeyBytes, value: Option<ValueBytes>) {
        let (place, before) = self.writes.replace(key, value);
        self.undo.push(Undo { place, before });
    }

    /// The first `limit` keys from `from` to before `to`.
    pub(crate) fn keys<K: Key>(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<K>, Fatal> {
        let mut keys = Vec::new();
        let mut visit = |key: &[u8], _: &[u8]| {
            keys.push(K::decode(key));
            match keys.len() < limit {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        };
        self.layers().scan(from, to, &mut visit)?;
        Ok(keys.into_iter().collect::<Result<_, _>>()?)
    }
}

/// Chains the state hash over one batch.
struct StateHash {
    hash: Xxh3,
    /// What goes into it next: much at once costs less than as much in small pieces.
    gathered: Vec<u8>,
}

/// Bytes that are gathered before they go into the hash.
const GATHERED: usize = 4 << 10;

impl StateHash {
    fn new(before: Chain, payload: &[u8]) -> Self {
        let mut hash = StateHash { hash: Xxh3::new(), gathered: Vec::with_capacity(2 * GATHERED) };
        hash.gathered.extend_from_slice(&before.hash.to_le_bytes());
        hash.framed(payload);
        hash
    }

    /// The changes of one command, in order; of a key that it changed twice the newest one, twice.
    fn changes<'c>(&mut self, changes: impl ExactSizeIterator<Item = &'c Change>) {
        self.gathered.extend_from_slice(&(changes.len() as u64).to_le_bytes());
        for Change { key, value } in changes {
            self.framed(key);
            self.gathered.push(u8::from(value.is_some()));
            self.framed(value.as_deref().unwrap_or_default());
        }
    }

    fn finish(mut self) -> Chain {
        self.hash.update(&self.gathered);
        Chain { hash: self.hash.digest128() }
    }

    fn framed(&mut self, bytes: &[u8]) {
        self.gathered.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        if bytes.len() > GATHERED || self.gathered.len() > GATHERED {
            self.hash.update(&self.gathered);
            self.gathered.clear();
        }
        match bytes.len() > GATHERED {
            true => self.hash.update(bytes),
            false => self.gathered.extend_from_slice(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::xxh3_128;

    use super::*;

    #[test]
    fn the_hash_is_that_of_all_pieces_in_their_order() {
        let lens =
            [0, 1, GATHERED - 9, GATHERED, GATHERED + 1, 5, 3 * GATHERED, 7, GATHERED - 8, 0];
        let mut hash = StateHash::new(Chain { hash: 7 }, b"payload");
        let mut whole = [&7u128.to_le_bytes()[..], &7u64.to_le_bytes(), b"payload"].concat();
        for (byte, len) in (1u8..).zip(lens) {
            let piece = vec![byte; len];
            hash.framed(&piece);
            whole.extend_from_slice(&(len as u64).to_le_bytes());
            whole.extend_from_slice(&piece);
        }
        assert_eq!(hash.finish(), Chain { hash: xxh3_128(&whole) });
    }
}
