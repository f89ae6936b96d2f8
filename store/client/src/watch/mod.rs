//! Watching mailboxes at the leaders of their shards (R15): one stream per store node, whoever leads
//! what.
//!
//! ```text
//!   Watch::register ──► Director ──► NodeStream (one per node) ──► that node's leaders
//!                          │  ▲                                        │
//!   WatchEvent ◄───────────┘  └── registered, entries, heads, beats ───┘
//! ```
//!
//! The director keeps for each shard the users who are watched and the *holder*: the node, stream
//! and term in which they are registered. They are registered anew only on a new term, a new
//! stream, or where another leader answers. While beats are missing it asks who leads, with no
//! users in the question, so that an overload does not become a storm.

mod director;
mod stream;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidemark_env::Clock;
use tidemark_store_core::devices::Seat;
use tidemark_store_core::value::Entry;
use tidemark_types::{Epoch, ErrorCode, Id, Seq, ShardCount, ShardId, UserId};
use tokio::sync::{Notify, mpsc};

use crate::client::{Client, Present};
use director::Director;

/// Events that wait for the watcher; when it is full the stores tell heads instead of entries.
const EVENTS: usize = 1_024;

/// Beats come every 500 ms; after two missed ones what was heard may be stale.
const LIVE_FOR: Duration = Duration::from_millis(1_250);

/// Which users' mailboxes are watched; a cheap handle.
#[derive(Clone)]
pub struct Watch {
    shared: Arc<Shared>,
}

/// What the handles and the director share.
struct Shared {
    clock: Arc<dyn Clock>,
    shards: ShardCount,
    /// What was asked for since the director looked; a few for each connection that comes or goes.
    changes: Mutex<Vec<Change>>,
    changed: Notify,
    live: Mutex<HashMap<ShardId, Live>>,
}

enum Change {
    Register(UserId),
    Unregister(UserId),
    /// About whom, and for whom.
    Follow(UserId, UserId),
    Unfollow(UserId, UserId),
}

/// What is known of a shard under its holder.
#[derive(Default)]
struct Live {
    /// The last beat.
    beat_at: Duration,
    /// Whose registrations were answered.
    registered: HashSet<UserId>,
}

impl Watch {
    pub(crate) fn start(
        client: Client,
        clock: Arc<dyn Clock>,
        shards: ShardCount,
    ) -> (Self, mpsc::Receiver<WatchEvent>) {
        let (changes, changed, live) = (Mutex::default(), Notify::new(), Mutex::default());
        let shared = Arc::new(Shared { clock, shards, changes, changed, live });
        let (events, watched) = mpsc::channel(EVENTS);
        tokio::spawn(Director::new(client, shared.clone(), events).run());
        (Watch { shared }, watched)
    }

    /// Watches a user's mailbox from now on: a [`WatchEvent::Registered`] follows, and then every
    /// append. Nothing happens if it is watched already.
    pub fn register(&self, user: UserId) {
        self.shared.change(Change::Register(user));
    }

    /// Watches it no longer.
    pub fn unregister(&self, user: &UserId) {
        self.shared.change(Change::Unregister(user.clone()));
    }

    /// Hears from now on, for `by`, whether a user is there: a [`WatchEvent::Presence`] follows, and then
    /// one whenever it may have changed. Nothing happens if it is heard already.
    pub fn follow(&self, user: UserId, by: UserId) {
        self.shared.change(Change::Follow(user, by));
    }

    /// Hears of it no longer.
    pub fn unfollow(&self, user: &UserId, by: &UserId) {
        self.shared.change(Change::Unfollow(user.clone(), by.clone()));
    }

    /// May what was heard of the user's head be used? The leader beats, and the registration was
    /// answered.
    pub fn is_live(&self, user: &UserId) -> bool {
        let now = self.shared.clock.monotonic();
        let live = self.shared.live.lock();
        let shard = live.get(&self.shared.shard_of(user));
        shard.is_some_and(|shard| {
            now.saturating_sub(shard.beat_at) < LIVE_FOR && shard.registered.contains(user)
        })
    }
}

impl Shared {
    fn change(&self, change: Change) {
        self.changes.lock().push(change);
        self.changed.notify_one();
    }

    fn shard_of(&self, user: &UserId) -> ShardId {
        self.shards.shard_of(&Id::User(user.clone()))
    }
}

/// What a watcher learns.
#[expect(clippy::large_enum_variant, reason = "nearly all of them are entries")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// The mailbox is watched, for the first time or anew after a failover, and stands so; every
    /// later append follows as an event of its own. An append may be told before this and again
    /// after it.
    Registered {
        /// Its owner.
        user: UserId,
        /// Its epoch.
        epoch: Epoch,
        /// Its floor.
        floor: Seq,
        /// Its head.
        head: Seq,
    },
    /// Follows a `Registered`: which connections of the owner's devices have ended.
    Seats {
        /// The mailbox's owner.
        user: UserId,
        /// Each of the devices.
        seats: Vec<Seat>,
        /// The last number given to a connection of any of them: a device that is not there and has a
        /// connection with a lower one was forgotten.
        last_number: u64,
    },
    /// Connections of a device have ended.
    Unseated {
        /// Its owner.
        user: UserId,
        /// Which ones.
        seat: Seat,
    },
    /// Somebody types to the user, or has stopped. It may be left out.
    Typing {
        /// To whom.
        user: UserId,
        /// Who.
        by: UserId,
        /// Or has stopped.
        typing: bool,
    },
    /// Whether a user is there, for one who follows. It may be the same as before.
    Presence {
        /// About whom.
        user: UserId,
        /// For whom.
        by: UserId,
        /// How it is, or why that is not told: too many follow.
        present: Result<Present, ErrorCode>,
    },
    /// A new entry.
    Appended {
        /// The mailbox's owner.
        user: UserId,
        /// The entry's seq.
        seq: Seq,
        /// The entry.
        entry: Entry,
    },
    /// There are entries up to here which are not told one by one: they are large, or the watcher
    /// is slow.
    Head {
        /// The mailbox's owner.
        user: UserId,
        /// The last one.
        head: Seq,
    },
}
