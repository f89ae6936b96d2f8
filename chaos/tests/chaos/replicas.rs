//! A replica that falls behind the log, loses its state, or stops in order, while users send.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tidemark_chaos::build::Build;
use tidemark_chaos::cluster::{Cluster, LOOK, PATIENCE, Spec};
use tidemark_chaos::ledger::Ledger;
use tidemark_chaos::senders::{Acked, Senders, readers};
use tidemark_chaos::stores;
use tidemark_store::node::{log_dir, state_dir};
use tidemark_store_client::Client;
use tidemark_store_core::{Command, Reply};
use tidemark_types::{NodeId, Seq, ShardId};

use crate::CALL_DEADLINE;

/// A log so short that a node which is away for a second needs a snapshot.
const SHORT_LOG: &str = "[raft]\nsnapshot_entries = 50\nkeep_entries = 20\n";

const SPEC: Spec =
    Spec { nodes: 3, shards: 4, gateways: 0, stores: SHORT_LOG, build: Build::Release };

const RECEIVING: &str = "receiving a snapshot";
const RECEIVED: &str = "received a snapshot";

/// Everything under load: a cluster, its senders, and the node that something happens to.
struct Run {
    cluster: Cluster,
    client: Client,
    senders: Senders,
    victim: NodeId,
}

impl Run {
    async fn start() -> Result<Self> {
        let cluster = Cluster::start(SPEC).await?;
        let client = cluster.client(CALL_DEADLINE).await?;
        let readers = readers(&client, 4)?;
        let senders = Senders::start(&client, &readers)?;
        let victim = stores::leader(&client, ShardId::new(0)).await?;
        Ok(Run { cluster, client, senders, victim })
    }

    /// Waits until the others have purged everything that a node had which is down now.
    async fn outrun(&self, had: u64) -> Result<()> {
        let from = Instant::now();
        loop {
            let mut purged = Vec::new();
            for node in self.cluster.ids().into_iter().filter(|node| *node != self.victim) {
                let groups = self.client.status(node).await?.groups;
                purged.extend(groups.iter().filter(is_shard).map(|group| group.purged));
            }
            if purged.iter().all(|purged| *purged > had) {
                return Ok(());
            }
            ensure!(from.elapsed() < PATIENCE, "the logs are not purged: {purged:?}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The last entry that the victim has of any shard.
    async fn last_log(&self) -> Result<u64> {
        let groups = self.client.status(self.victim).await?.groups;
        let last = groups.iter().filter(is_shard).map(|group| group.last_log).max();
        last.context("it has shards")
    }

    /// Stops everything and accounts for it.
    async fn finish(mut self) -> Result<(Cluster, Vec<Acked>)> {
        for shard in 0..SPEC.shards {
            self.senders.next_ack(ShardId::new(shard)).await?;
        }
        let acked = self.senders.finish().await?;
        stores::settled(&self.client).await?;
        self.cluster.kill_stores()?;
        let ledger = Ledger::of(&self.cluster, &acked, &[])?;
        println!("{ledger}");
        let copies: usize = acked.iter().map(|ack| 1 + ack.to.len()).sum();
        assert_eq!(ledger.found, copies * self.cluster.ids().len(), "{ledger}");
        assert!(ledger.is_clean(), "{ledger}");
        Ok((self.cluster, acked))
    }
}

fn is_shard(group: &&tidemark_proto::store::v1::GroupStatus) -> bool {
    group.group != u32::MAX
}

/// How many snapshots a node has begun to take, and has taken.
fn snapshots(cluster: &Cluster, node: NodeId) -> Result<(usize, usize)> {
    Ok((said(cluster, node, RECEIVING)?, said(cluster, node, RECEIVED)?))
}

async fn until(holds: impl Fn() -> Result<bool>) -> Result<()> {
    let from = Instant::now();
    while !holds()? {
        ensure!(from.elapsed() < PATIENCE, "the node takes no snapshot");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// How often a node's log says something.
fn said(cluster: &Cluster, node: NodeId, what: &str) -> Result<usize> {
    Ok(cluster.log_text(node)?.matches(what).count())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_behind_the_log_returns_by_snapshot_though_it_is_killed_while_it_takes_it()
-> Result<()> {
    let mut run = Run::start().await?;
    let victim = run.victim;
    let mut half_way = 0;
    for round in 0..4 {
        let had = run.last_log().await?;
        run.cluster.kill(victim)?;
        run.outrun(had).await?;
        let (began, done) = snapshots(&run.cluster, victim)?;
        run.cluster.start_member(victim)?;
        // Killed while it takes the first, the second, the third; in the last round not at all.
        if round < 3 {
            until(|| Ok(snapshots(&run.cluster, victim)?.0 > began + round)).await?;
            run.cluster.kill(victim)?;
            let (begins, ends) = snapshots(&run.cluster, victim)?;
            half_way += (begins - began) - (ends - done);
            run.cluster.start_member(victim)?;
        }
        run.cluster.ready(victim).await?;
        until(|| Ok(snapshots(&run.cluster, victim)?.1 > done)).await?;
        println!("round {}: killed in the middle of {half_way} snapshots so far", round + 1);
    }
    ensure!(half_way > 0, "no kill came in the middle of a snapshot");
    run.finish().await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_state_is_rebuilt_and_a_damaged_log_refuses() -> Result<()> {
    let mut run = Run::start().await?;
    let victim = run.victim;
    let data = run.cluster.data_dir(victim);
    run.outrun(run.last_log().await?).await?;
    run.cluster.terminate(victim).await?;

    // Every block of the state is hit: whichever is read first, it must be noticed.
    damage(&state_dir(&data), "sst", 64)?;
    run.cluster.start_member(victim)?;
    // It may find out only while it runs: then it stops, and whoever watches it starts it again.
    if run.cluster.ready(victim).await.is_err() {
        run.cluster.kill(victim)?;
        run.cluster.start_members([victim]).await?;
    }
    ensure!(said(&run.cluster, victim, "rebuilt a lost state")? > 0, "it was not rebuilt");
    ensure!(state_dir(&data).with_extension("set-aside").exists(), "the damaged one is kept");
    let (mut cluster, acked) = run.finish().await?;
    ensure!(acked.len() > 100, "too few sends: {}", acked.len());

    // Without the others it waits, and says for what.
    let mark = state_dir(&data).with_extension("damaged");
    fs::write(&mark, "the test wants it rebuilt")?;
    cluster.start_member(victim)?;
    let waits = "waits for its state from another node";
    let started = Instant::now();
    while !cluster.get(victim, "/readyz").await.is_ok_and(|said| said.contains(waits)) {
        ensure!(started.elapsed() < PATIENCE, "it does not say that it waits");
        tokio::time::sleep(LOOK).await;
    }
    ensure!(
        cluster.get(victim, "/healthz").await?.starts_with("HTTP/1.1 200"),
        "waiting is healthy"
    );
    let others = cluster.ids().into_iter().filter(|node| *node != victim);
    cluster.start_members(others.collect::<Vec<_>>()).await?;
    cluster.ready(victim).await?;

    // The log is another matter: what is acknowledged is there, or nowhere.
    cluster.terminate(victim).await?;
    damage(&log_dir(&data), "log", 512)?;
    cluster.start_member(victim)?;
    let refused = cluster.exited(victim).await?;
    ensure!(!refused.status.success(), "it started on a damaged log");
    ensure!(refused.log.contains("is damaged"), "it does not say why: {}", refused.log);
    // The others serve.
    let client = cluster.client(PATIENCE).await?;
    for user in readers(&client, 1)? {
        let reply = client.command(&Command::Adopt { user, seq: Seq::MAX }).await?;
        ensure!(matches!(reply, Reply::Rejected(_)), "it had messages: {reply:?}");
    }
    Ok(())
}

/// Flips a bit every so many bytes of the files of a kind in a folder, but for their last 512 bytes.
fn damage(folder: &Path, kind: &str, every: usize) -> Result<()> {
    let mut files = 0;
    for file in fs::read_dir(folder)? {
        let path = file?.path();
        if path.extension().is_none_or(|extension| extension != kind) {
            continue;
        }
        let mut bytes = fs::read(&path)?;
        let end = bytes.len().saturating_sub(512);
        for at in (0..end).step_by(every) {
            bytes[at] ^= 1;
        }
        fs::write(&path, bytes)?;
        files += 1;
    }
    ensure!(files > 0, "there is nothing to damage in {}", folder.display());
    Ok(())
}

/// SIGTERM to one node after the other: each hands its leaderships over before it goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_stop_in_order_hand_their_shards_over() -> Result<()> {
    let mut run = Run::start().await?;
    for node in run.cluster.ids() {
        let led = led_by(&run, node).await?;
        let stopped = Instant::now();
        run.cluster.terminate(node).await?;
        for shard in &led {
            ensure!(leader_told(&run, node, *shard).await? != node, "{shard} was not handed over");
        }
        for shard in &led {
            run.senders.next_ack(*shard).await?;
        }
        let gaps = led.iter().map(|shard| run.senders.longest_gap(*shard, stopped));
        let gap = gaps.max().unwrap_or_default();
        println!("node {node} led {} shards: longest gap {} ms", led.len(), gap.as_millis());
        run.cluster.start_members([node]).await?;
    }
    run.finish().await.map(drop)
}

/// The shards that a node says it leads.
async fn led_by(run: &Run, node: NodeId) -> Result<Vec<ShardId>> {
    let groups = run.client.status(node).await?.groups;
    let led = groups.iter().filter(is_shard).filter(|group| group.leader == node.get());
    Ok(led.filter_map(|group| u16::try_from(group.group).ok()).map(ShardId::new).collect())
}

/// Who leads a shard, as another node than `gone` remembers.
async fn leader_told(run: &Run, gone: NodeId, shard: ShardId) -> Result<NodeId> {
    let other = run.cluster.ids().into_iter().find(|node| *node != gone).context("three nodes")?;
    let groups = run.client.status(other).await?.groups;
    let found = groups.iter().find(|group| group.group == u32::from(shard.get()));
    match found.map(|group| group.leader) {
        Some(leader) => Ok(NodeId::new(leader)),
        None => bail!("node {other} has no replica of shard {shard}"),
    }
}
