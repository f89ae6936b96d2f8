//! New entries, from the store's watch to the devices that are up to date.
//!
//! ```text
//!   store's watch ──► listen ──► session::Registry ──► Mailbox ◄── Delivery, one per connection
//! ```
//!
//! It is fed by the watch alone, never by sends, and stores nothing: what it drops, a device gets
//! by `Sync`.

mod delivery;

use std::sync::Arc;

use tidemark_store_client::WatchEvent;
use tokio::sync::mpsc;

pub(crate) use delivery::{Delivery, Push};

use crate::limits::{SETTLE_EVERY, SWEEP_EVERY};
use crate::metrics;
use crate::session::Registry;

/// Tells the mailboxes what the watch hears, until the watch or the gateway ends.
pub(crate) async fn listen(registry: Arc<Registry>, mut events: mpsc::Receiver<WatchEvent>) {
    let mut sweeps = tokio::time::interval(SWEEP_EVERY);
    let mut settles = tokio::time::interval(SETTLE_EVERY);
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => registry.hear(event),
                None => break,
            },
            _ = sweeps.tick() => registry.sweep(),
            _ = settles.tick() => {
                registry.settle();
                metrics::tails_hold(registry.tails_bytes());
            }
        }
    }
    // Devices still get everything: each Ping asks the store once nothing is live.
    tracing::error!("the store's watch ended: devices hear of new entries by their pings only");
}
