//! What the store nodes say of their groups, put together.
//!
//! Each node says how its own replicas stand. They disagree while leaders change, and the highest
//! term is right. A node that does not answer is down, as far as this gateway can see.

use std::collections::BTreeMap;

use tidemark_proto::store::v1::{GroupStatus, StatusResponse};
use tidemark_proto::v1::{NodeStatus, ReplicaStatus, ShardStatus};
use tidemark_store_core::value::{ClusterMap, NodeAddress, Placement};
use tidemark_types::NodeId;

/// What the nodes that answered say.
pub(super) struct View {
    /// What each node that answered says of itself; its groups are below.
    nodes: BTreeMap<NodeId, Node>,
    groups: BTreeMap<u32, BTreeMap<NodeId, GroupStatus>>,
}

/// What a node says of itself.
#[derive(Clone, Default)]
struct Node {
    /// Is every group of it running, and has a leader?
    ready: bool,
    version: String,
    disk_free_bytes: u64,
}

impl View {
    /// The view from these answers.
    pub(super) fn new(answers: impl IntoIterator<Item = (NodeId, StatusResponse)>) -> Self {
        let mut view = View { nodes: BTreeMap::new(), groups: BTreeMap::new() };
        for (node, said) in answers {
            let StatusResponse { groups, version, disk_free_bytes, .. } = said;
            let runs = |group: &GroupStatus| group.stopped.is_empty() && group.leader != 0;
            let ready = !groups.is_empty() && groups.iter().all(runs);
            view.nodes.insert(node, Node { ready, version, disk_free_bytes });
            for group in groups {
                view.groups.entry(group.group).or_default().insert(node, group);
            }
        }
        view
    }

    /// Who leads a group in the highest term that any replica knows, and that term.
    pub(super) fn leader(&self, group: u32) -> Option<(NodeId, u64)> {
        let replicas = self.groups.get(&group)?.values();
        let (term, leader) = replicas.map(|replica| (replica.term, replica.leader)).max()?;
        (leader != 0).then_some((NodeId::new(leader), term))
    }

    /// The node, `from` apart, that has applied most of a group: it is the quickest to lead.
    pub(super) fn successor(&self, group: u32, from: NodeId) -> Option<NodeId> {
        let replicas = self.groups.get(&group)?.iter().filter(|(node, _)| **node != from);
        replicas.max_by_key(|(_, replica)| replica.applied).map(|(node, _)| *node)
    }

    /// Every node of the map.
    pub(super) fn nodes(&self, map: &ClusterMap) -> Vec<NodeStatus> {
        let mut leads = BTreeMap::<NodeId, u32>::new();
        for (shard, _) in (0..).zip(&map.shards) {
            if let Some((leader, _)) = self.leader(shard) {
                *leads.entry(leader).or_default() += 1;
            }
        }
        let status = |(node, at): (&NodeId, &NodeAddress)| {
            let said = self.nodes.get(node);
            let Node { ready, version, disk_free_bytes } = said.cloned().unwrap_or_default();
            NodeStatus {
                node: node.get(),
                address: at.grpc.clone(),
                up: said.is_some(),
                ready,
                version,
                leads: leads.get(node).copied().unwrap_or_default(),
                disk_free_bytes,
            }
        };
        map.nodes.iter().map(status).collect()
    }

    /// Every shard of the map.
    pub(super) fn shards(&self, map: &ClusterMap) -> Vec<ShardStatus> {
        (0..).zip(&map.shards).map(|(shard, placement)| self.shard(shard, placement)).collect()
    }

    fn shard(&self, shard: u32, placement: &Placement) -> ShardStatus {
        let replicas = self.groups.get(&shard);
        let (leader, term) = self.leader(shard).map_or((0, 0), |(node, term)| (node.get(), term));
        let applied = replicas.iter().flat_map(|replicas| replicas.values()).map(|r| r.applied);
        let replica = |(replica, node): (&u64, &NodeId)| {
            let status = replicas.and_then(|replicas| replicas.get(node));
            ReplicaStatus {
                node: node.get(),
                replica: *replica,
                // The map names voters only.
                voter: true,
                matched: status.map_or(0, |status| status.last_log),
                applied: status.map_or(0, |status| status.applied),
            }
        };
        ShardStatus {
            shard,
            leader,
            term,
            committed: applied.max().unwrap_or_default(),
            replicas: placement.replicas.iter().map(replica).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(term: u64, leader: u64, applied: u64) -> GroupStatus {
        GroupStatus { term, leader, applied, ..GroupStatus::default() }
    }

    fn view(replicas: [GroupStatus; 3]) -> View {
        let nodes = (1..).map(NodeId::new).zip(replicas);
        View::new(nodes.map(|(node, group)| {
            (node, StatusResponse { groups: vec![group], ..StatusResponse::default() })
        }))
    }

    #[test]
    fn the_highest_term_says_who_leads() {
        let leader = |replicas| view(replicas).leader(0).map(|(node, term)| (node.get(), term));
        let [old, new] = [replica(3, 1, 9), replica(4, 2, 9)];
        assert_eq!(leader([old.clone(), new.clone(), replica(4, 0, 9)]), Some((2, 4)));
        assert_eq!(leader([old.clone(), old, replica(5, 0, 9)]), None);
        assert_eq!(view([new.clone(), new.clone(), new]).leader(7), None);
    }

    #[test]
    fn the_successor_is_another_one_with_the_most() {
        let view = view([replica(1, 1, 9), replica(1, 1, 7), replica(1, 1, 8)]);
        assert_eq!(view.successor(0, NodeId::new(1)), Some(NodeId::new(3)));
        assert_eq!(view.successor(0, NodeId::new(3)), Some(NodeId::new(1)));
        assert_eq!(view.successor(1, NodeId::new(1)), None);
    }
}
