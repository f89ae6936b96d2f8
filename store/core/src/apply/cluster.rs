//! The control group: the cluster's map.

use crate::key::ClusterMapKey;
use crate::reply::{Effect, Reject, Reply};
use crate::transaction::{Step, Stop};
use crate::value::ClusterMap;

/// `CreateCluster`; the same map again changes nothing.
pub(super) fn create(step: &mut Step<'_>, map: &ClusterMap) -> Result<Reply, Stop> {
    let invalid = |text: &str| Stop::from(Reject::Invalid(text.to_owned()));
    if map.shard_count().is_none() {
        return Err(invalid("map.shards: 1 to 1024"));
    }
    if map.nodes.is_empty() {
        return Err(invalid("map.nodes: at least one"));
    }
    match step.get(&ClusterMapKey {})? {
        Some(known) if known.cluster == map.cluster => Ok(Reply::Done),
        Some(_) => Err(invalid("the cluster is another one already")),
        None => {
            step.put(&ClusterMapKey {}, map);
            step.effects.push(Effect::MapChanged);
            Ok(Reply::Done)
        }
    }
}
