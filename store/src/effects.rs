//! Where the effects of applied commands go: records wake the relay, entries wake watchers, large
//! groups wake their fan-out, and what must never happen, or will soon, is seen by a person.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tidemark_store_core::{Alarm, Effect};
use tidemark_types::{Recipient, Seq, ShardId};
use tokio::sync::Notify;

use crate::metrics;
use crate::raft::machine::Effects;
use crate::relay::Wake;
use crate::storage::GroupId;
use crate::watch::Hub;

/// Behind it a mailbox has used nine tenths of its seqs.
const NEARLY_FULL: Seq = Seq::new(u32::MAX / 10 * 9);

/// A shard of this node, and what its effects wake.
struct Woken {
    shard: ShardId,
    relay: Arc<Wake>,
    fan_out: Arc<Notify>,
}

/// Hands effects to whoever acts on them. Nothing of it blocks, and losing it is safe.
#[derive(Default)]
pub struct Dispatch {
    shards: BTreeMap<GroupId, Woken>,
    hub: Arc<Hub>,
    /// The highest seq that a mailbox got since the start.
    highest: AtomicU32,
}

impl Dispatch {
    /// For a node that hosts these shards.
    pub fn new(shards: impl Iterator<Item = ShardId>, hub: Arc<Hub>) -> Self {
        let woken = |shard| Woken { shard, relay: Arc::default(), fan_out: Arc::default() };
        let shards = shards.map(|shard| (GroupId::shard(shard), woken(shard)));
        Dispatch { shards: shards.collect(), hub, highest: AtomicU32::new(0) }
    }

    /// What wakes the relay of a shard.
    pub fn wake(&self, shard: ShardId) -> Arc<Wake> {
        self.shards[&GroupId::shard(shard)].relay.clone()
    }

    /// What wakes the fan-out of a shard's large groups.
    pub fn fan_out(&self, shard: ShardId) -> Arc<Notify> {
        self.shards[&GroupId::shard(shard)].fan_out.clone()
    }
}

impl Effects for Dispatch {
    fn applied(&self, group: GroupId, effects: Vec<Effect>) {
        let shard = self.shards.get(&group);
        let mut highest = Seq::NONE;
        for effect in effects {
            match (effect, shard) {
                (Effect::Alarm(alarm), _) => raise(group, &alarm),
                (Effect::Outgoing { shard: to }, Some(woken)) => woken.relay.outgoing(to),
                (
                    Effect::Appended { mailbox: Recipient::User(user), seq, entry },
                    Some(Woken { shard, .. }),
                ) => {
                    highest = highest.max(seq);
                    if seq > NEARLY_FULL {
                        metrics::nearly_full_append();
                    }
                    self.hub.appended(*shard, &user, seq, &entry);
                }
                (Effect::Unseated { user, device, below, code }, Some(woken)) => {
                    self.hub.unseated(woken.shard, &user, &device, below, code);
                }
                (Effect::FanOut { .. }, Some(woken)) => woken.fan_out.notify_one(),
                (
                    Effect::Outgoing { .. }
                    | Effect::Appended { .. }
                    | Effect::Unseated { .. }
                    | Effect::FanOut { .. }
                    | Effect::MapChanged,
                    _,
                ) => {}
            }
        }
        if self.highest.fetch_max(highest.get(), Ordering::Relaxed) < highest.get() {
            metrics::seq_highest(highest);
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use tidemark_types::UserId;

    use super::*;

    #[test]
    fn entries_of_a_mailbox_that_has_few_seqs_left_are_counted() {
        let shard = ShardId::new(0);
        let dispatch = Dispatch::new([shard].into_iter(), Arc::default());
        let recorder = PrometheusBuilder::new().build_recorder();
        ::metrics::with_local_recorder(&recorder, || {
            for seq in [Seq::new(1), NEARLY_FULL, Seq::new(NEARLY_FULL.get() + 1), Seq::MAX] {
                let mailbox = Recipient::User(UserId::new("alice").expect("legal"));
                let appended = Effect::Appended { mailbox, seq, entry: Bytes::new() };
                dispatch.applied(GroupId::shard(shard), vec![appended]);
            }
        });
        let told = recorder.handle().render();
        assert!(told.contains("store_nearly_full_appends_total 2\n"), "{told}");
        assert!(told.contains("store_mailbox_seqs_used_ratio 1\n"), "{told}");
    }
}
