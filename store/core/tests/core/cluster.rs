//! A few shards in memory, and the relay between them, driven step by step.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use tidemark_store_core::command::{Batch, Command};
use tidemark_store_core::group_read::waiting;
use tidemark_store_core::key::{
    ChainKey, EntryKey, HoldersKey, InboundKey, Key, Kind, OutRecordKey, OutboundKey, SharedKey,
};
use tidemark_store_core::memory::MemoryState;
use tidemark_store_core::slot::{Reference, Slot};
use tidemark_store_core::value::{
    Chain, Inbound, OutRecord, OutSeq, Outbound, Payload, Settings, Value,
};
use tidemark_store_core::{Applied, Read, Reply, Transaction};
use tidemark_types::{ClusterId, GroupId, Id, ShardCount, ShardId, UnixMs, UserId};

/// The shards of one cluster.
pub(crate) struct Cluster {
    pub(crate) count: ShardCount,
    pub(crate) shards: Vec<MemoryState>,
    pub(crate) time: u64,
}

impl Cluster {
    pub(crate) fn new(shards: u16, settings: Settings) -> Cluster {
        let count = ShardCount::new(shards).unwrap();
        // One more than there are shards: the control group's.
        let states = vec![MemoryState::default(); usize::from(shards) + 1];
        let mut cluster = Cluster { count, shards: states, time: 1_000 };
        for shard in count.shards() {
            let init = Command::Init {
                cluster: ClusterId::from_bytes([7; 16]).unwrap(),
                shard,
                shards: count,
                hash_version: tidemark_types::routing::HASH_VERSION,
                settings: settings.clone(),
            };
            assert_eq!(cluster.apply(shard, vec![init])[0].reply, Reply::Done);
        }
        cluster
    }

    pub(crate) fn shard_of(&self, user: &UserId) -> ShardId {
        self.count.shard_of(&Id::User(user.clone()))
    }

    pub(crate) fn state(&self, shard: ShardId) -> &MemoryState {
        &self.shards[usize::from(shard.get())]
    }

    /// Applies one batch, as one log entry.
    pub(crate) fn apply(&mut self, shard: ShardId, commands: Vec<Command>) -> Vec<Applied> {
        let batch = Batch { time: UnixMs::new(self.time), commands };
        let state = &mut self.shards[usize::from(shard.get())];
        let mut transaction = Transaction::new(state);
        let applied = transaction.apply(&batch.encode()).expect("not fatal");
        let writes = transaction.finish();
        state.write(writes);
        applied
    }

    /// Applies one command where its id lives.
    pub(crate) fn route(&mut self, command: Command) -> Applied {
        let id = command.routed_by().expect("a command with an id");
        let shard = self.count.shard_of(&id);
        self.apply(shard, vec![command]).remove(0)
    }

    pub(crate) fn outbound(&self, from: ShardId, to: ShardId) -> Outbound {
        self.get(from, &OutboundKey { shard: to }).unwrap_or_default()
    }

    pub(crate) fn inbound(&self, at: ShardId, from: ShardId) -> Inbound {
        self.get(at, &InboundKey { shard: from }).unwrap_or_default()
    }

    pub(crate) fn chain(&self, shard: ShardId) -> Chain {
        self.get(shard, &ChainKey {}).expect("a batch was applied")
    }

    pub(crate) fn get<K: Key>(&self, shard: ShardId, key: &K) -> Option<K::Value> {
        let bytes = self.state(shard).get(&key.encode()).unwrap()?;
        Some(K::Value::decode(&bytes).unwrap())
    }

    /// The records waiting in one shard for another.
    pub(crate) fn records(&self, from: ShardId, to: ShardId) -> Vec<(OutSeq, Payload)> {
        let mut records = Vec::new();
        let (first, last) = Kind::OutRecord.range();
        let mut visit = |key: &[u8], value: &[u8]| {
            let key = OutRecordKey::decode(key).unwrap();
            if key.shard == to {
                records.push((key.out_seq, OutRecord::decode(value).unwrap().payload));
            }
            ControlFlow::Continue(())
        };
        self.state(from).scan(&first, &last, &mut visit).unwrap();
        records
    }

    /// How many entries members share. Each has as many references as are counted, and no more members
    /// to come.
    pub(crate) fn shared(&self) -> usize {
        let mut all = 0;
        for shard in self.count.shards() {
            let mut references = BTreeMap::new();
            for (_, slot) in self.all::<EntryKey>(shard) {
                if let Slot::Shared(Reference { group, seq, .. }) = slot {
                    *references.entry((group, seq)).or_insert(0) += 1;
                }
            }
            let holders = self.all::<HoldersKey>(shard).into_iter().map(|(key, holders)| {
                assert!(!holders.open, "{key:?}");
                ((key.group, key.seq), holders.references)
            });
            assert_eq!(holders.collect::<BTreeMap<_, _>>(), references);
            let shared = self.all::<SharedKey>(shard).into_iter();
            assert!(shared.map(|(key, _)| (key.group, key.seq)).eq(references.keys().cloned()));
            all += references.len();
        }
        all
    }

    fn all<K: Key>(&self, shard: ShardId) -> Vec<(K, K::Value)> {
        let (from, to) = K::KIND.range();
        let mut all = Vec::new();
        let mut visit = |key: &[u8], value: &[u8]| {
            all.push((K::decode(key).unwrap(), K::Value::decode(value).unwrap()));
            ControlFlow::Continue(())
        };
        self.state(shard).scan(&from, &to, &mut visit).unwrap();
        all
    }

    /// Ships what waits, and trims what the destination acknowledges; was there anything?
    pub(crate) fn relay(&mut self, from: ShardId, to: ShardId) -> bool {
        let records = self.records(from, to);
        if records.is_empty() {
            return false;
        }
        let applied = self.apply(to, vec![Command::RelayIn { source: from, records }]).remove(0);
        let Reply::Relayed(relayed) = applied.reply else { panic!("{applied:?}") };
        let (upto, returns) = (relayed.in_seq, relayed.returns);
        self.apply(from, vec![Command::TrimOutbox { shard: to, upto, returns }]);
        true
    }

    /// Gives the log of a group to its members as far as one command does; is there more?
    pub(crate) fn fan_out(&mut self, group: &GroupId) -> bool {
        match self.route(Command::FanOut { group: group.clone() }).reply {
            Reply::FannedOut { more, .. } => more,
            other => panic!("{other:?}"),
        }
    }

    /// Does what is left to do for every group, as leaders would.
    pub(crate) fn fan_out_all(&mut self) {
        for shard in self.count.shards() {
            for group in waiting(self.state(shard), None, usize::MAX).unwrap() {
                while self.fan_out(&group) {}
            }
            assert!(waiting(self.state(shard), None, 1).unwrap().is_empty());
        }
    }

    /// Ships everything there is, refusals of refusals' messages included.
    pub(crate) fn relay_all(&mut self) {
        let shards: Vec<_> = self.count.shards().collect();
        let mut moved = true;
        while moved {
            moved = false;
            for from in &shards {
                for to in shards.iter().filter(|to| *to != from) {
                    moved |= self.relay(*from, *to);
                }
            }
        }
    }
}
