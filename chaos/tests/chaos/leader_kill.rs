//! Leaders are killed with SIGKILL while users send.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tidemark_chaos::build::Build;
use tidemark_chaos::cluster::{Cluster, Spec};
use tidemark_chaos::ledger::Ledger;
use tidemark_chaos::senders::{Senders, readers};
use tidemark_chaos::stores;
use tidemark_chaos::watcher::Watcher;
use tidemark_types::ShardId;

use crate::CALL_DEADLINE;

const KILLS: u16 = 20;

/// What no outage takes, on a machine with two busy cores.
const OUTAGE_MAX: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_leader_kills_lose_nothing() -> Result<()> {
    let spec = Spec { nodes: 3, shards: 8, gateways: 0, stores: "", build: Build::Release };
    let mut cluster = Cluster::start(spec).await?;
    let client = cluster.client(CALL_DEADLINE).await?;
    let readers = readers(&client, 1)?;
    let watcher = Watcher::start(&client, &readers);
    let senders = Senders::start(&client, &readers)?;
    let mut outages = Vec::new();
    for kill in 0..KILLS {
        let shard = ShardId::new(kill % spec.shards);
        let leader = stores::leader(&client, shard).await?;
        // Somebody sends there before the leader dies, so that the outage is one.
        senders.next_ack(shard).await?;
        let killed = Instant::now();
        cluster.kill(leader)?;
        stores::leader(&client, shard).await?;
        senders.next_ack(shard).await?;
        let outage = senders.longest_gap(shard, killed);
        println!("kill {}: node {leader} led shard {shard}, {} ms", kill + 1, outage.as_millis());
        ensure!(outage < OUTAGE_MAX, "shard {shard} was away for {outage:?}");
        outages.push(outage);
        cluster.start_members([leader]).await?;
    }
    let acked = senders.finish().await?;
    stores::settled(&client).await?;
    watcher.knows_all().await?;
    cluster.kill_stores()?;
    let ledger = Ledger::of(&cluster, &acked, &[])?;
    outages.sort();
    let at = |percent: usize| outages[(outages.len() - 1) * percent / 100].as_millis();
    println!("outage of {KILLS} kills: p50={} ms p90={} ms max={} ms", at(50), at(90), at(100));
    println!("{ledger}");
    assert!(ledger.acked > usize::from(KILLS), "{ledger}");
    let copies: usize = acked.iter().map(|ack| 1 + ack.to.len()).sum();
    assert_eq!(ledger.found, copies * cluster.ids().len(), "{ledger}");
    assert!(ledger.is_clean(), "{ledger}");
    Ok(())
}
