//! What a device's handles and its task have in common: the room in the outbox, the outcomes that
//! were taken, the status.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tidemark_env::{Clock, Rng};
use tidemark_types::{ClientMsgId, UnixMs};
use tokio::sync::{Notify, Semaphore, watch};

use crate::config::Config;
use crate::engine::Status;
use crate::outcome::Settled;
use crate::store::OutboxId;

/// What handles and task have in common.
pub(crate) struct Shared {
    pub(crate) room: Room,
    /// Outcomes that the application has taken; no more than the outbox has room for.
    pub(crate) taken: Mutex<Vec<OutboxId>>,
    pub(crate) taken_some: Notify,
    pub(crate) status: watch::Sender<Status>,
    /// The server's clock, and when it was read.
    pub(crate) server_time: Mutex<Option<(UnixMs, Duration)>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rng: Arc<dyn Rng>,
}

impl Shared {
    /// A new name for a message, made by the server's clock where that is known: a device whose
    /// own clock is wrong makes good ids as well.
    pub(crate) fn new_id(&self) -> ClientMsgId {
        let now = match *self.server_time.lock() {
            Some((time, at)) => time.plus(self.clock.monotonic().saturating_sub(at)),
            None => self.clock.wall(),
        };
        let mut random = [0; 10];
        self.rng.fill(&mut random);
        ClientMsgId::new(now, random)
    }
}

/// The room in the outbox. An outcome holds its send's place until the application has taken it,
/// so that outcomes are bounded as well.
pub(crate) struct Room {
    pub(crate) entries: Semaphore,
    pub(crate) bytes: Semaphore,
    excess_entries: AtomicUsize,
    excess_bytes: AtomicUsize,
}

impl Room {
    /// Room for what the configuration says, of which some is used. What a store holds beyond it
    /// was let in under another configuration, stays, and leaves no room behind.
    pub(crate) fn new(config: &Config, entries: usize, bytes: usize) -> Self {
        let (entries_max, bytes_max) = (config.outbox_entries_max, config.outbox_bytes_max);
        Room {
            entries: Semaphore::new(entries_max.saturating_sub(entries)),
            bytes: Semaphore::new(bytes_max.saturating_sub(bytes)),
            excess_entries: AtomicUsize::new(entries.saturating_sub(entries_max)),
            excess_bytes: AtomicUsize::new(bytes.saturating_sub(bytes_max)),
        }
    }

    /// An entry with a body of so many bytes is gone.
    fn give_back(&self, bytes: usize) {
        let free = |room: &Semaphore, excess: &AtomicUsize, used: usize| {
            let before = excess.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |excess| {
                Some(excess.saturating_sub(used))
            });
            room.add_permits(used.saturating_sub(before.unwrap_or_default()));
        };
        free(&self.entries, &self.excess_entries, 1);
        free(&self.bytes, &self.excess_bytes, bytes);
    }

    /// Nobody gets in any more.
    pub(crate) fn close(&self) {
        self.entries.close();
        self.bytes.close();
    }
}

/// An outcome on its way to the application, which has taken it when this is dropped.
pub(crate) struct Reported {
    pub(crate) id: OutboxId,
    pub(crate) settled: Settled,
    /// Bytes of the body, whose room is free then.
    pub(crate) bytes: usize,
    /// None as long as nobody has it, and the store must keep it.
    pub(crate) shared: Option<Arc<Shared>>,
}

impl Drop for Reported {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.taken.lock().push(self.id);
            shared.taken_some.notify_one();
            shared.room.give_back(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use tidemark_types::{DeviceId, UserId};

    use super::*;

    #[test]
    fn what_a_store_holds_beyond_the_limit_leaves_no_room_behind() {
        let user = UserId::new("alice").expect("legal");
        let device = DeviceId::new("phone").expect("legal");
        let mut config = Config::new(user, device, Vec::new());
        config.outbox_entries_max = 2;
        let max = config.outbox_bytes_max;
        let room = Room::new(&config, 3, max + 10);
        let free = || (room.entries.available_permits(), room.bytes.available_permits());
        let mut seen = vec![free()];
        for bytes in [4, 8, max - 2] {
            room.give_back(bytes);
            seen.push(free());
        }
        assert_eq!(seen, [(0, 0), (0, 0), (1, 2), (2, max)]);
    }
}
