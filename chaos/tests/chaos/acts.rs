//! Marks, recalls and edits of two devices through real gateways, while leaders and a gateway are
//! killed: exactly once, in order, in time (R19).

use std::time::Duration;

use anyhow::{Result, ensure};
use tidemark_chaos::acts::{self, Judged, Talker};
use tidemark_chaos::build::Build;
use tidemark_chaos::cluster::{Cluster, Member, PATIENCE, Spec};
use tidemark_chaos::login::Login;
use tidemark_chaos::senders::users_on;
use tidemark_chaos::stores;
use tidemark_chaos::wire::Wire;
use tidemark_types::ShardId;

const SPEC: Spec = Spec { nodes: 3, shards: 8, gateways: 2, stores: "", build: Build::Release };

/// What each of the two sends.
const MESSAGES: u32 = 400;

/// Where they live.
const SHARDS: [ShardId; 2] = [ShardId::new(0), ShardId::new(1)];

/// Kills these, one after the other, while the devices talk.
async fn faults(cluster: &mut Cluster) -> Result<()> {
    for shard in SHARDS {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let client = cluster.client(PATIENCE).await?;
        let leader = Member::from(stores::leader(&client, shard).await?);
        cluster.kill(leader)?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        cluster.start_members([leader]).await?;
    }
    cluster.kill(Member::Gateway(0))?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.start_members([Member::Gateway(0)]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acts_are_taken_once_in_order_and_in_time_whoever_is_killed() -> Result<()> {
    let mut cluster = Cluster::start(SPEC).await?;
    let client = cluster.client(PATIENCE).await?;
    let [alice, bob] = [
        users_on(&client, SHARDS[0], "alice", 1)?.remove(0),
        users_on(&client, SHARDS[1], "bob", 1)?.remove(0),
    ];
    let talkers =
        [Talker::open(&cluster, 1, &alice).await?, Talker::open(&cluster, 2, &bob).await?];
    let all = |number| number < MESSAGES;
    let (of_hers, of_his, ()) = tokio::try_join!(
        talkers[0].talk(&talkers, all, Duration::ZERO),
        talkers[1].talk(&talkers, all, Duration::ZERO),
        faults(&mut cluster)
    )?;
    for talker in &talkers {
        talker.device.close().await;
    }
    stores::settled(&cluster.client(PATIENCE).await?).await?;

    let wire = Wire::new(&cluster.gateway(1)?, &Login::service(&cluster.key())?.sign())?;
    let talked = vec![of_hers, of_his];
    let Judged { wrong, acts, counted } = acts::judge(&wire, &talkers, talked).await?;
    ensure!(acts > MESSAGES as usize / 2, "only {acts} acts were accepted: that proves nothing");
    ensure!(counted > 0, "nobody was told what is unread: that proves nothing");
    ensure!(wrong.is_empty(), "{wrong:?}");
    Ok(())
}
