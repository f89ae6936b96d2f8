//! Sends to a hundred people on all shards while the leaders at both ends are killed.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use tidemark_chaos::build::Build;
use tidemark_chaos::cluster::{Cluster, LOOK, PATIENCE, Spec};
use tidemark_chaos::ledger::Ledger;
use tidemark_chaos::senders::{Senders, TO_ALL_EVERY, readers};
use tidemark_chaos::stores;
use tidemark_store_client::Client;
use tidemark_store_core::{Command, Reply};
use tidemark_types::{NodeId, Seq, ShardId, UserId};

use crate::CALL_DEADLINE;

const ROUNDS: u16 = 6;

const SHARDS: u16 = 8;

/// Recipients on each shard: 104 in all.
const ON_EACH: usize = 13;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_at_both_ends_of_the_relay_lose_and_double_nothing() -> Result<()> {
    let spec = Spec { nodes: 3, shards: SHARDS, gateways: 0, stores: "", build: Build::Release };
    let mut cluster = Cluster::start(spec).await?;
    let client = cluster.client(CALL_DEADLINE).await?;
    let readers = readers(&client, ON_EACH)?;
    let refusing = refuse(&client, &readers).await?;
    let senders = Senders::start(&client, &readers)?;
    let mut pairs = 0;
    for round in 0..ROUNDS {
        let source = ShardId::new(round);
        let (destination, both) = other_end(&client, source).await?;
        senders.next_ack(source).await?;
        // One end, the other end, both.
        let killed: BTreeSet<NodeId> = match round % 3 {
            0 => [both[0]].into(),
            1 => [both[1]].into(),
            _ => both.into(),
        };
        pairs += u16::from(killed.len() == 2);
        for node in &killed {
            cluster.kill(*node)?;
        }
        if killed.len() == 1 {
            senders.next_ack(source).await?;
        }
        cluster.start_members(killed.iter().copied()).await?;
        senders.next_ack(destination).await?;
        println!("round {}: killed {killed:?}", round + 1);
    }
    ensure!(pairs == ROUNDS / 3, "both ends were killed in {pairs} rounds only");
    let acked = senders.finish().await?;
    stores::settled(&client).await?;
    cluster.kill_stores()?;
    let ledger = Ledger::of(&cluster, &acked, &refusing)?;
    println!("{ledger}");
    let to_all = acked.iter().filter(|ack| ack.to.len() == readers.len()).count();
    ensure!(to_all > usize::from(ROUNDS), "too few sends went to all: {to_all}");
    ensure!(acked.len() > to_all * usize::try_from(TO_ALL_EVERY / 2)?, "too few sends: {ledger}");
    let refused = acked.iter().flat_map(|ack| &ack.to).filter(|to| refusing.contains(to)).count();
    let copies: usize = acked.iter().map(|ack| 1 + ack.to.len()).sum();
    assert_eq!(ledger.refused, refused * cluster.ids().len(), "{ledger}");
    assert_eq!(ledger.found, (copies - refused) * cluster.ids().len(), "{ledger}");
    assert!(ledger.is_clean(), "{ledger}");
    Ok(())
}

/// The next shard after `source` that another node leads, and the leaders of both.
async fn other_end(client: &Client, source: ShardId) -> Result<(ShardId, [NodeId; 2])> {
    let from = Instant::now();
    while from.elapsed() < PATIENCE {
        let leader = stores::leader(client, source).await?;
        for step in 1..SHARDS {
            let shard = ShardId::new((source.get() + step) % SHARDS);
            let other = stores::leader(client, shard).await?;
            if other != leader {
                return Ok((shard, [leader, other]));
            }
        }
        tokio::time::sleep(LOOK).await;
    }
    bail!("one node leads all shards")
}

/// Makes the mailboxes of some readers full, so that they refuse everything.
async fn refuse(client: &Client, readers: &[UserId]) -> Result<Vec<UserId>> {
    let refusing: Vec<UserId> = readers.iter().step_by(ON_EACH * 2).cloned().collect();
    for user in &refusing {
        let reply = client.command(&Command::Adopt { user: user.clone(), seq: Seq::MAX }).await?;
        ensure!(!matches!(reply, Reply::Rejected(_)), "{reply:?}");
    }
    Ok(refusing)
}
