//! Where the effects of applied commands go: records wake the relay, entries wake watchers, and
//! what must never happen is seen by a person.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidemark_store_core::{Alarm, Effect};
use tidemark_types::{Recipient, ShardId};

use crate::metrics;
use crate::raft::machine::Effects;
use crate::relay::Wake;
use crate::storage::GroupId;
use crate::watch::Hub;

/// Hands effects to whoever acts on them. Nothing of it blocks, and losing it is safe.
#[derive(Default)]
pub struct Dispatch {
    shards: BTreeMap<GroupId, (ShardId, Arc<Wake>)>,
    hub: Arc<Hub>,
}

impl Dispatch {
    /// For a node that hosts these shards.
    pub fn new(shards: impl Iterator<Item = ShardId>, hub: Arc<Hub>) -> Self {
        let shards = shards.map(|shard| (GroupId::shard(shard), (shard, Arc::default())));
        Dispatch { shards: shards.collect(), hub }
    }

    /// What wakes the relay of a shard.
    pub fn wake(&self, shard: ShardId) -> Arc<Wake> {
        self.shards[&GroupId::shard(shard)].1.clone()
    }
}

impl Effects for Dispatch {
    fn applied(&self, group: GroupId, effects: Vec<Effect>) {
        let shard = self.shards.get(&group);
        for effect in effects {
            match (effect, shard) {
                (Effect::Alarm(alarm), _) => raise(group, &alarm),
                (Effect::Outgoing { shard: to }, Some((_, wake))) => wake.outgoing(to),
                (
                    Effect::Appended { mailbox: Recipient::User(user), seq, entry },
                    Some((shard, _)),
                ) => self.hub.appended(*shard, &user, seq, &entry),
                (Effect::Outgoing { .. } | Effect::Appended { .. } | Effect::MapChanged, _) => {}
            }
        }
    }
}

fn raise(group: GroupId, alarm: &Alarm) {
    let kind = match alarm {
        Alarm::WrongShard(_) => "wrong_shard",
        Alarm::CursorAboveHead { .. } => "cursor_above_head",
        Alarm::RelayAboveHead { .. } => "relay_above_head",
    };
    metrics::alarm(kind);
    tracing::error!(%group, ?alarm, "this must never happen: a client, a peer or a disk is broken");
}
