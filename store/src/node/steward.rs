//! What a node does for the groups it leads, unasked: it initialises new ones, gives leadership
//! back to the preferred node, lets things expire, and notices when a group or the log has stopped.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tidemark_env::Clock;
use tidemark_store_core::{Batch, Command, Reply, read};
use tidemark_types::{NodeId, ShardId};

use super::{HAND_OVER_WITHIN, Node};
use crate::raft::group::Group;
use crate::shard::Shard;
use crate::storage::GroupId;

/// Between two rounds.
const ROUND: Duration = Duration::from_millis(500);

/// The preferred node must have been up for this long before it gets its leadership back, so that
/// one that comes and goes does not take the shard with it.
const STEADY_FOR: Duration = Duration::from_secs(3);

/// Rounds until the node is dropped.
pub(super) async fn run(node: Weak<Node>, clock: Arc<dyn Clock>) {
    let mut steady = BTreeMap::new();
    let mut expired_at = clock.monotonic();
    loop {
        tokio::time::sleep(ROUND).await;
        let Some(node) = node.upgrade() else { return };
        if node.health().is_err() {
            return;
        }
        create_cluster(&node, clock.as_ref()).await;
        for (id, shard) in node.hosted.shards() {
            init(&node, id, shard).await;
        }
        let now = clock.monotonic();
        balance(&node, &mut steady, now).await;
        let expire_every = node.around.config.retention.expire_every_ms;
        if now - expired_at >= Duration::from_millis(expire_every) {
            expired_at = now;
            for (id, shard) in node.hosted.shards() {
                expire(&node, id, shard).await;
            }
        }
    }
}

/// Looks for failures until there is one, or the node is dropped; never waits for a group.
pub(super) async fn watch_failures(node: Weak<Node>) {
    loop {
        tokio::time::sleep(ROUND).await;
        let Some(node) = node.upgrade() else { return };
        notice_failures(&node);
        if node.health().is_err() {
            return;
        }
    }
}

/// A group or a log that has stopped does not come back: the process must stop, so that whoever
/// watches it starts it anew.
fn notice_failures(node: &Node) {
    let log = node.log.failed().borrow().as_ref().map(ToString::to_string);
    let stopped = node.hosted.groups().find_map(|(id, group)| {
        group.status().running.err().map(|reason| format!("{id} stopped: {reason}"))
    });
    let damaged =
        node.around.state.damaged().map(|reason| format!("the state is unusable: {reason}"));
    let stopping = node.stopping.load(std::sync::atomic::Ordering::Relaxed);
    if let Some(reason) = log.or(damaged).or(stopped.filter(|_| !stopping)) {
        tracing::error!(%reason, "the node cannot go on");
        node.fatal.send_replace(Some(reason));
    }
}

/// Puts the map into the control group, once.
async fn create_cluster(node: &Node, clock: &dyn Clock) {
    let Some(control) = node.hosted.control().filter(|group| group.is_leader()) else { return };
    let known = node.around.state.read(GroupId::CONTROL, |_, view| read::cluster_map(view));
    if matches!(known, Ok(Ok(None))) {
        let command = Command::CreateCluster { map: node.identity.created.clone() };
        let batch = Batch { time: clock.wall(), commands: vec![command] };
        if let Ok(submitted) = control.submit(batch.encode()).await {
            // Unknown or not, the next round looks whether it is there.
            let _ = submitted.replies().await;
        }
    }
}

/// Tells a new shard who it is, once there is a time: what it took before would be of no time, and so
/// older than whatever is kept.
async fn init(node: &Node, id: ShardId, shard: &Shard) {
    if !shard.group().is_leader() || node.around.time.now().is_none() {
        return;
    }
    let known = node.around.state.read(GroupId::shard(id), |_, view| read::shard(view));
    if !matches!(known, Ok(Ok(None))) {
        return;
    }
    let map = &node.identity.created;
    let init = Command::Init {
        cluster: map.cluster,
        shard: id,
        shards: node.identity.shards(),
        hash_version: map.hash_version,
        settings: map.settings.clone(),
    };
    match shard.propose(init).await {
        Ok(Reply::Done) => {}
        other => tracing::debug!(%id, ?other, "the shard is not initialised yet"),
    }
}

/// Lets things expire, by cluster time that a majority has just agreed on (R17).
async fn expire(node: &Node, id: ShardId, shard: &Shard) {
    while let Some(now) = node.around.time.fresh().filter(|_| shard.group().is_leader()) {
        match shard.propose(Command::Expire { now }).await {
            Ok(Reply::Expired { more: true }) => {}
            Ok(_) => return,
            Err(error) => {
                tracing::debug!(%id, %error, "nothing expired; the next round tries again");
                return;
            }
        }
    }
}

/// Gives leadership to the preferred node once that has been steady for a while.
async fn balance(node: &Node, steady: &mut BTreeMap<ShardId, Duration>, now: Duration) {
    for (id, shard) in node.hosted.shards() {
        let preferred = node.identity.created.shards[usize::from(id.get())].preferred;
        let group = shard.group();
        let may_move = preferred != node.identity.node && group.is_leader();
        if !may_move || !group.heirs().contains(&preferred) {
            steady.remove(&id);
            continue;
        }
        let since = *steady.entry(id).or_insert(now);
        if now - since >= STEADY_FOR {
            steady.remove(&id);
            transfer(id, group, preferred).await;
        }
    }
}

async fn transfer(id: ShardId, group: &Group, to: NodeId) {
    match group.transfer_to(to, HAND_OVER_WITHIN).await {
        Ok(term) => tracing::info!(%id, %to, term, "leadership moved"),
        Err(error) => tracing::warn!(%id, %to, %error, "leadership did not move"),
    }
}

/// Moves every leadership to some node that follows closely, before this one stops; all at once.
pub(super) async fn hand_over(node: &Node) {
    let led = node.hosted.groups().filter(|(_, group)| group.is_leader());
    let moves = led.map(|(id, group)| async move {
        for to in group.heirs() {
            match group.transfer_to(to, HAND_OVER_WITHIN).await {
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!(%id, %to, %error, "leadership did not move before the stop");
                }
            }
        }
    });
    futures::future::join_all(moves).await;
}
