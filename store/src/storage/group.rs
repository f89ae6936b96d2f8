//! The name of a Raft group within a cluster, as it stands in keys and frames.

use std::fmt;

use serde::{Deserialize, Serialize};
use tidemark_types::ShardId;

/// One Raft group: a shard's, or the control group.
///
/// Not to be confused with `tidemark_types::GroupId`, the name of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GroupId(u32);

impl GroupId {
    /// The group that keeps the cluster's own state. The highest number, so that shards keep
    /// theirs and the control group's keys sort behind all of them.
    pub const CONTROL: GroupId = GroupId(u32::MAX);

    /// The group of `shard`.
    pub const fn shard(shard: ShardId) -> Self {
        // `u32::from` is not const; a u16 always fits.
        Self(shard.get() as u32)
    }

    /// The group with this number, as read from a key or a frame.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::CONTROL => f.write_str("control"),
            Self(number) => write!(f, "shard-{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_says_whose_it_is() {
        assert_eq!(GroupId::shard(ShardId::new(7)).to_string(), "shard-7");
        assert_eq!(GroupId::CONTROL.to_string(), "control");
    }
}
