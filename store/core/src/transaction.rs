//! Applying batches over a state that is only read, collecting what they write.
//!
//! ```text
//!   Step (one command)   ──commit──►  Transaction (all batches so far)  ──finish──►  Writes
//!     reads its own writes, then          then the transaction's, then the base state
//! ```
//!
//! A command that is rejected drops its step, so it leaves no trace but its reply and its alarms
//! (R5). A [`Fatal`] drops the transaction.

use std::ops::ControlFlow;

use bytes::Bytes;
use tidemark_types::UnixMs;
use xxhash_rust::xxh3::Xxh3;

use crate::apply;
use crate::command::{Batch, Command};
use crate::key::{ChainKey, Key, ShardKey};
use crate::reply::{Applied, Effect, Reject, Reply};
use crate::storage::{Fatal, Layered, Read, Writes};
use crate::value::{Chain, Shard, Value};

/// Batches applied one after the other, in log order.
pub struct Transaction<'a> {
    base: &'a dyn Read,
    writes: Writes,
}

impl<'a> Transaction<'a> {
    /// Nothing applied yet; `base` must not change until [`Self::finish`]'s writes are written.
    pub fn new(base: &'a dyn Read) -> Self {
        Transaction { base, writes: Writes::new() }
    }

    /// Applies one log entry's payload, an encoded [`Batch`]; one outcome per command.
    pub fn apply(&mut self, payload: &[u8]) -> Result<Vec<Applied>, Fatal> {
        let batch = Batch::decode(payload)?;
        let start = self.step(batch.time);
        let chain = start.get(&ChainKey {})?.unwrap_or_default();
        let stored = start.get(&ShardKey {})?;
        let mut shard =
            stored.clone().map(|shard| Shard { time: shard.time.max(batch.time), ..shard });

        let mut hash = StateHash::new(chain, payload);
        let mut outcomes = Vec::with_capacity(batch.commands.len());
        for command in &batch.commands {
            let (applied, writes) = self.command(command, batch.time, &mut shard)?;
            hash.add(&applied.reply, &writes);
            self.writes.extend(writes);
            outcomes.push(applied);
        }

        let mut end = self.step(batch.time);
        if let Some(shard) = shard.filter(|shard| stored.as_ref() != Some(shard)) {
            end.put(&ShardKey {}, &shard);
        }
        end.put(&ChainKey {}, &hash.finish(&end.writes));
        let writes = end.writes;
        self.writes.extend(writes);
        Ok(outcomes)
    }

    /// What all batches wrote together.
    pub fn finish(self) -> Writes {
        self.writes
    }

    fn command(
        &self,
        command: &Command,
        time: UnixMs,
        shard: &mut Option<Shard>,
    ) -> Result<(Applied, Writes), Fatal> {
        let mut step = self.step(time);
        let mut changed = shard.clone();
        match apply::command(&mut step, command, &mut changed) {
            Ok(reply) => {
                *shard = changed;
                Ok((Applied { reply, effects: step.effects }, step.writes))
            }
            Err(Stop::Reject(reject)) => {
                step.effects.retain(|effect| matches!(effect, Effect::Alarm(_)));
                let reply = Reply::Rejected(reject);
                Ok((Applied { reply, effects: step.effects }, Writes::new()))
            }
            Err(Stop::Fatal(fatal)) => Err(fatal),
        }
    }

    fn step(&self, time: UnixMs) -> Step<'_> {
        let layers = Layered { base: self.base, writes: &self.writes };
        Step { layers, writes: Writes::new(), effects: Vec::new(), time }
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

/// One command's view of the state: it reads its own writes.
pub(crate) struct Step<'a> {
    layers: Layered<'a>,
    writes: Writes,
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

    /// The value of `key`.
    pub(crate) fn get<K: Key>(&self, key: &K) -> Result<Option<K::Value>, Fatal> {
        let key = key.encode();
        let bytes = match self.writes.get(&key) {
            Some(written) => written.clone(),
            None => self.layers.get(&key)?,
        };
        Ok(bytes.map(|bytes| K::Value::decode(&bytes)).transpose()?)
    }

    /// Sets the value of `key`.
    pub(crate) fn put<K: Key>(&mut self, key: &K, value: &K::Value) {
        self.put_encoded(key, value.encode());
    }

    /// Sets the value of `key`, encoded.
    pub(crate) fn put_encoded<K: Key>(&mut self, key: &K, value: Bytes) {
        self.writes.insert(key.encode(), Some(value));
    }

    /// Removes `key`.
    pub(crate) fn delete<K: Key>(&mut self, key: &K) {
        self.writes.insert(key.encode(), None);
    }

    /// The first `limit` keys from `from` to before `to`, as this step's command found them:
    /// its own writes are not seen.
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
        self.layers.scan(from, to, &mut visit)?;
        Ok(keys.into_iter().collect::<Result<_, _>>()?)
    }
}

/// Chains the state hash over one batch.
struct StateHash(Xxh3);

impl StateHash {
    fn new(before: Chain, payload: &[u8]) -> Self {
        let mut hash = StateHash(Xxh3::new());
        hash.0.update(&before.hash.to_le_bytes());
        hash.framed(payload);
        hash
    }

    fn add(&mut self, reply: &Reply, writes: &Writes) {
        self.framed(&reply.encode());
        self.writes(writes);
    }

    fn finish(mut self, writes: &Writes) -> Chain {
        self.writes(writes);
        Chain { hash: self.0.digest128() }
    }

    fn writes(&mut self, writes: &Writes) {
        self.0.update(&(writes.len() as u64).to_le_bytes());
        for (key, change) in writes {
            self.framed(key);
            self.0.update(&[u8::from(change.is_some())]);
            self.framed(change.as_deref().unwrap_or_default());
        }
    }

    fn framed(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }
}
