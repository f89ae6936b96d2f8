//! The relay (R4): ships a shard's outbox records to the shards they are for, in order, pipelined,
//! exactly once.
//!
//! ```text
//!   apply ── Effect::Outgoing ──► Wake ──► source task ── RelayIn ──► destination's leader
//!                                            │  ▲                        │
//!    outbox in the state ── records ─────────┘  └── in_seq, or Gap ──────┘
//!                        ◄── TrimOutbox ──
//! ```
//!
//! It reads what is applied, never the Raft log. It starts only after its leader applied an entry
//! of its own term, and stops on step-down; even a relay that runs too long does no harm, because
//! the destination's `in_seq` alone decides what is new. A destination that cannot be reached is
//! asked again with growing pauses while sends go on into the outbox, up to its budget (R7).
//!
//! One task per shard, asleep unless there is something to ship; no task per pair of shards.

mod source;
mod stream;
mod wake;

use std::sync::Arc;

use tidemark_env::{Clock, Rng};
use tidemark_store_client::Client;
use tidemark_types::ShardId;
use tokio::sync::watch;

use crate::config::RelayConfig;
use crate::shard::Hosted;

pub use wake::Wake;

/// What every source shares.
#[derive(Clone)]
pub struct Relay {
    /// The shards of this node, where a destination needs no network.
    pub hosted: Arc<Hosted>,
    /// The way to the others.
    pub client: Client,
    /// Bounds.
    pub config: RelayConfig,
    /// For pauses.
    pub clock: Arc<dyn Clock>,
    /// For their jitter.
    pub rng: Arc<dyn Rng>,
    /// Where it says that the process must stop.
    pub fatal: watch::Sender<Option<String>>,
}

impl Relay {
    /// Ships what `source`, which is there, has for others, whenever this node leads it; ends when
    /// the group stops.
    pub async fn run(self, source: ShardId, wake: Arc<Wake>) {
        source::run(self, source, wake).await;
    }
}
