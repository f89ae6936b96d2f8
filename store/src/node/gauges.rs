//! How the node stands, for whoever scrapes it: looked at then, and at no other time.

use tidemark_store_core::read;

use super::Node;
use crate::metrics::{self, GroupNow};
use crate::raft::group::{Group, GroupStatus};
use crate::shard::Shard;

impl Node {
    /// Sets the gauges that nobody sets as things happen.
    pub fn observe(&self) {
        if let Some(control) = self.hosted.control() {
            self.observe_group(control, None);
        }
        for (_, shard) in self.hosted.shards() {
            self.observe_group(shard.group(), Some(shard));
        }
        metrics::watched_now(self.hub.watched());
        metrics::state_now(&self.around.state.now());
    }

    fn observe_group(&self, group: &Group, shard: Option<&Shard>) {
        let name = group.id().to_string();
        let GroupStatus { term, last_log, applied, snapshot, purged, .. } = group.status();
        let leads = group.is_leader();
        metrics::group_now(
            &name,
            &GroupNow {
                leads,
                term,
                last: last_log,
                applied,
                snapshot,
                purged,
                outbox: shard.filter(|_| leads).map_or(0, outbox),
                outbox_max: self.around.config.relay.queue_bytes_max,
                proposals: shard.map(|shard| shard.held().to_vec()).unwrap_or_default(),
            },
        );
        for (node, entries) in group.lags() {
            metrics::lag_now(&name, node, entries);
        }
    }
}

/// What waits in the shard for the one that most waits for. A state that cannot be read ends the node
/// elsewhere.
fn outbox(shard: &Shard) -> u64 {
    let streams = shard.look(read::outbounds).ok().and_then(Result::ok).unwrap_or_default();
    streams.iter().map(|(_, stream)| stream.queued_bytes()).max().unwrap_or_default()
}
