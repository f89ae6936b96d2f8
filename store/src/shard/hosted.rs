//! The groups of which a node has replicas.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use tidemark_types::ShardId;

use super::Shard;
use crate::raft::group::Group;
use crate::storage::GroupId;

/// The control group and every shard; one that cannot run yet is not there yet.
pub struct Hosted {
    control: OnceLock<Group>,
    shards: BTreeMap<ShardId, OnceLock<Shard>>,
}

impl Hosted {
    /// None of these is there yet.
    pub fn new(shards: impl Iterator<Item = ShardId>) -> Self {
        let shards = shards.map(|shard| (shard, OnceLock::new())).collect();
        Hosted { control: OnceLock::new(), shards }
    }

    /// The control group is there from now on.
    pub(crate) fn add_control(&self, group: Group) {
        let added = self.control.set(group);
        assert!(added.is_ok(), "a node has one control group");
    }

    /// The shard is there from now on.
    pub(crate) fn add_shard(&self, number: ShardId, shard: Shard) {
        let added = self.shards[&number].set(shard);
        assert!(added.is_ok(), "a node has one replica of a shard");
    }

    /// The control group.
    pub fn control(&self) -> Option<&Group> {
        self.control.get()
    }

    /// A shard.
    pub fn shard(&self, shard: ShardId) -> Option<&Shard> {
        self.shards.get(&shard)?.get()
    }

    /// Every shard that is there.
    pub fn shards(&self) -> impl Iterator<Item = (ShardId, &Shard)> {
        self.shards.iter().filter_map(|(id, shard)| Some((*id, shard.get()?)))
    }

    /// Every group that is there.
    pub fn groups(&self) -> impl Iterator<Item = (GroupId, &Group)> {
        let control = self.control().map(|group| (GroupId::CONTROL, group));
        let shards = self.shards().map(|(id, shard)| (GroupId::shard(id), shard.group()));
        control.into_iter().chain(shards)
    }

    /// A group that is not there yet.
    pub fn missing(&self) -> Option<GroupId> {
        let control = self.control.get().is_none().then_some(GroupId::CONTROL);
        let shard = self.shards.iter().find(|(_, shard)| shard.get().is_none());
        control.or_else(|| shard.map(|(id, _)| GroupId::shard(*id)))
    }
}
