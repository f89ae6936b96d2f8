//! Which streams of a shard have new records.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use tidemark_types::ShardId;
use tokio::sync::Notify;

/// Which streams of a shard have new records. Losing it is safe: a new relay looks at all.
#[derive(Debug, Default)]
pub struct Wake {
    streams: Mutex<BTreeSet<ShardId>>,
    notify: Notify,
}

impl Wake {
    /// There is a new record for `shard`.
    pub fn outgoing(&self, shard: ShardId) {
        if self.streams.lock().insert(shard) {
            self.notify.notify_one();
        }
    }

    /// Waits until there is one; the streams that have some.
    pub(super) async fn taken(&self) -> BTreeSet<ShardId> {
        loop {
            let streams = std::mem::take(&mut *self.streams.lock());
            if !streams.is_empty() {
                return streams;
            }
            self.notify.notified().await;
        }
    }
}
