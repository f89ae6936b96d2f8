//! The groups of this node that other nodes can reach.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::raft::group::Group;
use crate::storage::GroupId;

/// The groups by their ids; groups are added while it is in use.
#[derive(Clone, Default)]
pub struct Registry {
    groups: Arc<RwLock<BTreeMap<GroupId, Group>>>,
}

impl Registry {
    /// No groups yet.
    pub fn new() -> Self {
        Registry::default()
    }

    /// Makes a group reachable.
    pub fn add(&self, group: Group) {
        self.groups.write().insert(group.id(), group);
    }

    pub(super) fn get(&self, id: GroupId) -> Option<Group> {
        self.groups.read().get(&id).cloned()
    }
}
