//! What must never happen, and did: to the log, where a person sees it, and into a metric.

use tidemark_store_core::{Alarm, Effect};

use crate::metrics;
use crate::raft::machine::Effects;
use crate::storage::GroupId;

/// Takes the alarms out of the effects.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alarms;

impl Effects for Alarms {
    fn applied(&self, group: GroupId, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Alarm(alarm) => raise(group, &alarm),
                // Nobody watches a mailbox or ships records on this node yet.
                Effect::Appended { .. } | Effect::Outgoing { .. } | Effect::MapChanged => {}
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
