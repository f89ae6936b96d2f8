//! The transport between the replicas of all groups.
//!
//! ```text
//!   group A ─┐                                                   ┌─ group A
//!   group B ─┼─► Peer ══ one stream, frames coalesced ══► accept ┼─ group B
//!   group C ─┘   (dial)                                          └─ group C
//! ```
//!
//! One connection per ordered pair of nodes, whatever the number of groups: a node's requests go
//! out on the connection it opened, the answers come back on the same. Whatever is ready goes into
//! one message, so that heartbeats of idle groups cost next to nothing.
//!
//! Invariants: a call fails at once while there is no connection, and at once when it breaks; it
//! never waits for a reconnection. A frame that does not decode ends its connection, it is never
//! skipped. Every queue is bounded.

mod accept;
mod dial;
mod frame;
mod groups;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use openraft::network::RaftNetworkFactory;
use parking_lot::Mutex;
use tidemark_env::Rng;
use tidemark_types::{ClusterId, NodeId};

pub use accept::Acceptor;
use dial::Peer;
pub(super) use frame::{Call, Called};
pub use groups::Registry;

use super::types::{Replica, ReplicaId, TypeConfig};
use crate::storage::GroupId;

/// The version of the frames; nodes of different versions do not talk.
const VERSION: u32 = 1;

/// A node's connections to all others; a cheap handle.
#[derive(Clone)]
pub struct Network {
    shared: Arc<Shared>,
}

struct Shared {
    cluster: ClusterId,
    me: NodeId,
    rng: Arc<dyn Rng>,
    peers: Mutex<BTreeMap<NodeId, Arc<Peer>>>,
}

impl Network {
    /// The connections of node `me`; each is opened when it is dialled, or a group first needs it.
    pub fn new(cluster: ClusterId, me: NodeId, rng: Arc<dyn Rng>) -> Self {
        Network { shared: Arc::new(Shared { cluster, me, rng, peers: Mutex::default() }) }
    }

    /// Opens the connection to another node, and keeps it: a follower has none of its own otherwise
    /// when it suddenly has to ask for votes.
    pub fn dial(&self, replica: &Replica) {
        self.peer(replica);
    }

    /// The service that answers other nodes, for the groups in `registry`.
    pub fn acceptor(&self, registry: Registry) -> Acceptor {
        Acceptor::new(self.shared.cluster, self.shared.me, registry)
    }

    /// The connections as one group uses them.
    pub(crate) fn for_group(&self, group: GroupId) -> GroupNetwork {
        GroupNetwork { network: self.clone(), group }
    }

    fn peer(&self, replica: &Replica) -> Arc<Peer> {
        let Shared { cluster, me, rng, peers } = &*self.shared;
        let mut peers = peers.lock();
        let peer = peers
            .entry(replica.node)
            .or_insert_with(|| Peer::start(*cluster, *me, replica.clone(), rng.clone()));
        peer.clone()
    }
}

/// The network of one group.
pub(crate) struct GroupNetwork {
    network: Network,
    group: GroupId,
}

impl RaftNetworkFactory<TypeConfig> for GroupNetwork {
    type Network = dial::Target;

    async fn new_client(&mut self, target: ReplicaId, replica: &Replica) -> dial::Target {
        dial::Target::new(self.group, target, self.network.peer(replica))
    }
}
