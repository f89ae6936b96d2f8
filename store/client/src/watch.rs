//! Watching mailboxes (R15).

use tidemark_store_core::value::Entry;
use tidemark_types::{Epoch, Seq, UserId};

/// What a watcher learns.
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
