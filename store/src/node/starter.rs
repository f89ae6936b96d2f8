//! Starts a node's groups: from what its disk has or, where a state was lost, from another node.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tidemark_store_core::ValueBytes;
use tidemark_store_core::value::Placement;
use tidemark_types::{NodeId, ShardId};
use tokio::task::JoinSet;

use super::{NodeError, watchdog};
use crate::effects::Dispatch;
use crate::fan_out;
use crate::identity::Identity;
use crate::raft::group::Group;
use crate::raft::log::LogStore;
use crate::raft::machine::{Applied, Machine};
use crate::raft::network::{Acceptor, FetchError, Peers};
use crate::raft::snapshot::SnapshotError;
use crate::raft::types::{LogId, Replica, ReplicaId};
use crate::relay::Relay;
use crate::shard::{Shard, Surroundings};
use crate::storage::GroupId;

/// How long to wait before all others are asked for a lost state again.
const FETCH_AGAIN: Duration = Duration::from_secs(1);

/// What every group of a node is started with.
pub(super) struct Starter {
    pub(super) identity: Identity,
    pub(super) log: Arc<LogStore>,
    pub(super) peers: Peers,
    pub(super) acceptor: Acceptor,
    pub(super) effects: Arc<Dispatch>,
    pub(super) relay: Relay,
    pub(super) around: Surroundings,
}

/// A group of which this node has a replica.
struct Member {
    id: GroupId,
    /// The shard's number; none for the control group.
    shard: Option<ShardId>,
    replicas: BTreeMap<ReplicaId, NodeId>,
    /// Who makes it a group if it is none yet.
    creator: NodeId,
}

impl Starter {
    /// Starts every group, and in `tasks` what runs beside it. One whose state was lost comes later.
    pub(super) async fn start_all(
        self: &Arc<Self>,
        tasks: &mut JoinSet<()>,
    ) -> Result<(), NodeError> {
        for member in self.members() {
            if let Some(lost) = self.lost(&member)? {
                tasks.spawn(self.clone().rebuild(member, lost));
            } else {
                let group = self.start(&member).await?;
                tasks.spawn(self.clone().look_after(member, group));
            }
        }
        Ok(())
    }

    /// Every group of which this node has a replica.
    fn members(&self) -> Vec<Member> {
        let map = &self.identity.created;
        let first = *map.nodes.keys().next().expect("a cluster has a node");
        let replicas = map.control.clone();
        let control = Member { id: GroupId::CONTROL, shard: None, replicas, creator: first };
        let shards = self.identity.shards().shards().zip(&map.shards);
        let shards = shards.map(|(number, Placement { replicas, preferred })| Member {
            id: GroupId::shard(number),
            shard: Some(number),
            replicas: replicas.clone(),
            creator: *preferred,
        });
        [control].into_iter().chain(shards).collect()
    }

    /// The last entry that the state of a group must hold and does not: the state was lost, and the
    /// log, which is intact, no longer reaches back to the beginning.
    fn lost(&self, member: &Member) -> Result<Option<LogId>, NodeError> {
        let purged = self.log.group(member.id).purged();
        let applied = position(self.around.state.group(member.id).applied()?)?;
        let lost = purged.filter(|_| applied < purged);
        match lost {
            Some(purged) if self.identity.others().next().is_none() => {
                Err(NodeError::StateLost { group: member.id, purged: purged.index })
            }
            lost => Ok(lost),
        }
    }

    /// Starts a group whose state was lost, once another node has sent it; then looks after it.
    async fn rebuild(self: Arc<Self>, member: Member, lost: LogId) {
        let started = match self.fetch(&member, lost).await {
            Ok(()) => self.start(&member).await,
            Err(error) => Err(error),
        };
        match started {
            Ok(group) => self.look_after(member, group).await,
            Err(error) => {
                let reason = format!("{} does not start: {error}", member.id);
                tracing::error!(reason, "the node cannot go on");
                self.relay.fatal.send_replace(Some(reason));
            }
        }
    }

    /// Runs what a group needs beside it, until it stops.
    async fn look_after(self: Arc<Self>, member: Member, group: Group) {
        let watchdog = watchdog::run(group, self.relay.fatal.clone());
        match member.shard {
            None => watchdog.await,
            Some(shard) => {
                let relay = self.relay.clone().run(shard, self.effects.wake(shard));
                let (hosted, fatal) = (self.relay.hosted.clone(), self.relay.fatal.clone());
                let fan_out = fan_out::run(hosted, shard, self.effects.fan_out(shard), fatal);
                tokio::join!(watchdog, relay, fan_out);
            }
        }
    }

    /// Fetches the state of a group, up to `lost` at least, from another node. Whatever that has
    /// applied is committed. Asks until one has it, since without it the group cannot run.
    async fn fetch(&self, member: &Member, lost: LogId) -> Result<(), NodeError> {
        let group = member.id;
        loop {
            for (node, _) in self.identity.others() {
                match self.peers.fetch(node, group, &self.around.state).await {
                    // A replica that lags behind what was purged here is no help.
                    Ok(staged) if position(staged.applied()?)? < Some(lost) => {
                        tracing::warn!(%group, %node, "its state is too old to rebuild ours");
                    }
                    Ok(staged) => {
                        self.around.state.group(group).install(staged)?;
                        tracing::warn!(%group, %node, "rebuilt a lost state");
                        return Ok(());
                    }
                    Err(FetchError::Snapshot(SnapshotError::State(ours))) => {
                        return Err(ours.into());
                    }
                    Err(error) => {
                        tracing::warn!(%group, %node, %error, "no state to rebuild ours");
                    }
                }
            }
            tokio::time::sleep(FETCH_AGAIN).await;
        }
    }

    /// Starts this node's replica of a group, whose state is not lost. It has replayed what it knew
    /// as committed when this returns, and answers other nodes; it elects its leader on its own.
    async fn start(&self, member: &Member) -> Result<Group, NodeError> {
        let Member { id, shard, replicas, creator } = member;
        let me = self.identity.node;
        let mine = replicas.iter().find(|(_, node)| **node == me);
        let (replica, _) = mine.expect("every group has a replica on every node");
        let mut log = self.log.group(*id);
        log.catch_up(position(self.around.state.group(*id).applied()?)?).await?;
        let machine = Machine::open(self.around.state.clone(), *id, self.effects.clone())?;
        let network = self.peers.network(*id, *replica);
        let group =
            Group::start(*id, *replica, &self.around.config.raft, network, log, machine).await?;
        if *creator == me {
            let address = |node: &NodeId| self.identity.created.nodes[node].grpc.clone();
            let members = replicas
                .iter()
                .map(|(replica, node)| (*replica, Replica { node: *node, address: address(node) }));
            group.create(members.collect()).await?;
        }
        self.acceptor.add(group.clone());
        match shard {
            None => self.relay.hosted.add_control(group.clone()),
            Some(number) => {
                let started = Shard::start(*number, group.clone(), &self.around);
                self.relay.hosted.add_shard(*number, started);
            }
        }
        Ok(group)
    }
}

/// The last entry of an applied position.
fn position(applied: Option<ValueBytes>) -> Result<Option<LogId>, NodeError> {
    let applied = Applied::decode(applied.as_deref()).map_err(io::Error::other)?;
    Ok(applied.last)
}
