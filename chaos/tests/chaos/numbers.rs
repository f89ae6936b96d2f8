//! Numbers of counters over a gateway's stream and by calls of their own, while leaders are killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use tidemark_chaos::build::Build;
use tidemark_chaos::cluster::{Cluster, Spec};
use tidemark_chaos::counters::Counters;
use tidemark_chaos::login::Login;
use tidemark_chaos::stores;
use tidemark_chaos::wire::Wire;
use tidemark_proto::Failure;
use tidemark_types::ShardId;
use tokio::task::JoinSet;

use crate::CALL_DEADLINE;

const KILLS: u16 = 4;

const SHARDS: u16 = 4;

/// Few, so that calls meet in one command.
const COUNTERS: usize = 40;

/// Calls in flight; every eighth is unary.
const CALLERS: u64 = 128;

/// What the callers have seen.
struct Office {
    wire: Wire,
    counters: Counters,
    /// Numbers over streams: the others alone must not let the test pass.
    given: AtomicU64,
    wrong: AtomicU64,
    over: AtomicBool,
}

impl Office {
    /// Calls until it is over; what was refused that had to be repeated.
    async fn call(self: Arc<Self>, caller: u64) -> Result<Vec<Failure>> {
        let mut failures = Vec::new();
        for turn in (caller..).step_by(7) {
            if self.over.load(Ordering::Relaxed) {
                break;
            }
            let (counter, began) = self.counters.begin(turn);
            let is_unary = caller.is_multiple_of(8);
            let answer = match is_unary {
                true => self.wire.number(counter).await,
                false => self.wire.number_on_stream(counter).await,
            };
            match answer {
                Ok(number) => {
                    let right = self.counters.given(began, number);
                    self.wrong.fetch_add(u64::from(!right), Ordering::Relaxed);
                    self.given.fetch_add(u64::from(!is_unary), Ordering::Relaxed);
                }
                Err(failure) if failure.code.is_retryable() => {
                    failures.push(failure);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(failure) => bail!("{counter}: {failure}"),
            }
        }
        Ok(failures)
    }

    /// Waits until so many more have been given.
    async fn gives(&self, more: u64) {
        let until = self.given.load(Ordering::Relaxed) + more;
        while self.given.load(Ordering::Relaxed) < until {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_number_is_given_twice_while_leaders_are_killed() -> Result<()> {
    let spec = Spec { nodes: 3, shards: SHARDS, gateways: 1, stores: "", build: Build::Release };
    let mut cluster = Cluster::start(spec).await?;
    let client = cluster.client(CALL_DEADLINE).await?;
    let token = Login::service(&cluster.key())?.sign();
    let office = Arc::new(Office {
        wire: Wire::new(&cluster.gateway(0)?, &token)?,
        counters: Counters::new(COUNTERS),
        given: AtomicU64::default(),
        wrong: AtomicU64::default(),
        over: AtomicBool::default(),
    });
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        callers.spawn(office.clone().call(caller));
    }
    for kill in 0..KILLS {
        office.gives(1_000).await;
        let leader = stores::leader(&client, ShardId::new(kill % SHARDS)).await?;
        cluster.kill(leader)?;
        office.gives(1_000).await;
        cluster.start_members([leader]).await?;
    }
    office.gives(1_000).await;
    office.over.store(true, Ordering::Relaxed);
    let mut failures = Vec::new();
    while let Some(called) = callers.join_next().await {
        failures.extend(called??);
    }
    let given = office.given.load(Ordering::Relaxed);
    let codes: std::collections::BTreeSet<_> =
        failures.iter().map(|failure| failure.code).collect();
    println!("{given} numbers given over streams, {} calls repeated: {codes:?}", failures.len());
    ensure!(office.wrong.load(Ordering::Relaxed) == 0, "numbers were given twice, or went back");
    for (counter, highest) in office.counters.highest() {
        let last = office.wire.last_number(&counter).await?;
        ensure!(last >= highest, "{counter} stands at {last}, and {highest} was given");
    }
    Ok(())
}
