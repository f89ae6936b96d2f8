//! Numbers of counters through the stores' client: one commit each, and as little of everything else as
//! our stores can be asked for. No gateway, no sessions, no bodies.

use anyhow::{Result, ensure};
use tidemark_store_client::Client;
use tidemark_store_core::{Command, Reply};
use tidemark_types::CounterId;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Shape, Tally};

/// Counters, over all shards.
const COUNTERS: usize = 10_000;

/// Takes numbers until the time is over.
pub(super) async fn allocate(stores: &Client, shape: &Shape, tally: Tally) -> Result<Tally> {
    let mut callers = JoinSet::new();
    for first in 0..shape.all_in_flight() {
        callers.spawn(call(stores.clone(), first, tally.clone()));
    }
    let mut all = tally;
    while let Some(called) = callers.join_next().await {
        all.add(&called??);
    }
    Ok(all)
}

async fn call(stores: Client, first: usize, mut tally: Tally) -> Result<Tally> {
    // A prime's distance away: over all counters in the end, and not the one that others ask for.
    let mut counters = (first..).step_by(7_919).map(|number| number % COUNTERS);
    while !tally.is_over() {
        let counter = counters.next().expect("endless");
        let counter = CounterId::new(format!("floor-{counter}"))?;
        let due = Instant::now();
        let reply = stores.command(&Command::Allocate { counter, count: 1, id: None }).await?;
        ensure!(matches!(reply, Reply::Allocated { .. }), "{reply:?} to an allocation");
        tally.done(due);
    }
    Ok(tally)
}
