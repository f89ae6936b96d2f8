//! Which shard an id lives on.
//!
//! Invariant: the answer never changes in a cluster's life. The number of shards and the hash
//! version are fixed when the cluster is created; store, gateway and checker all call
//! [`ShardCount::shard_of`], and the vectors below hold it still.

use std::fmt;
use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::ids::{Id, ShardId};
use crate::limits::SHARDS_MAX;

/// The version of the hash below, which also places the members of a group; a cluster created with another one is
/// refused at start.
pub const HASH_VERSION: u8 = 1;

/// How many shards a cluster has: 1 to [`SHARDS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct ShardCount(NonZeroU16);

/// A number of shards that no cluster can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a cluster has 1 to {SHARDS_MAX} shards, not {0}")]
pub struct BadShardCount(pub u16);

impl ShardCount {
    /// This many shards.
    pub fn new(count: u16) -> Result<Self, BadShardCount> {
        match NonZeroU16::new(count) {
            Some(nonzero) if count <= SHARDS_MAX => Ok(ShardCount(nonzero)),
            _ => Err(BadShardCount(count)),
        }
    }

    /// How many.
    pub const fn get(self) -> u16 {
        self.0.get()
    }

    /// Every shard, lowest first.
    pub fn shards(self) -> impl Iterator<Item = ShardId> {
        (0..self.get()).map(ShardId::new)
    }

    /// The shard on which `id` lives.
    pub fn shard_of(self, id: &Id) -> ShardId {
        let part = part_of(id, self.get().into());
        ShardId::new(u16::try_from(part).expect("below the number of shards"))
    }
}

/// Which of so many equal parts of all hashes `id` is in: XXH3 of its name with its kind as the
/// seed, scaled to the number of parts by multiplication (Lemire, "Fast Random Integer Generation
/// in an Interval", 2019), which spreads evenly for any number of them.
///
/// Parts are in the order of the hashes, whatever their number: who are near each other by one
/// number are near each other by any.
pub fn part_of(id: &Id, parts: u32) -> u32 {
    let hash = xxh3_64_with_seed(id.name().as_bytes(), id.kind() as u64);
    let scaled = (u128::from(hash) * u128::from(parts)) >> 64;
    u32::try_from(scaled).expect("a product below the number of parts")
}

impl TryFrom<u16> for ShardCount {
    type Error = BadShardCount;
    fn try_from(count: u16) -> Result<Self, BadShardCount> {
        Self::new(count)
    }
}

impl From<ShardCount> for u16 {
    fn from(count: ShardCount) -> u16 {
        count.get()
    }
}

impl fmt::Display for ShardCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::UserId;

    fn shard(shards: u16, kind: u32, name: &str) -> u16 {
        let id = Id::from_parts(kind, name).expect("a test's own constant");
        ShardCount::new(shards).expect("a test's own constant").shard_of(&id).get()
    }

    #[test]
    fn vectors_hold_routing_still() {
        let found: Vec<u16> = [
            (8, 1, "alice"),
            (8, 1, "bob"),
            (8, 2, "alice"),
            (8, 3, "alice"),
            (1, 1, "alice"),
            (1000, 1, "alice"),
            (1000, 1, "a"),
            (1024, 2, "日本"),
        ]
        .map(|(shards, kind, name)| shard(shards, kind, name))
        .to_vec();
        assert_eq!(found, VECTORS);
    }

    const VECTORS: [u16; 8] = [3, 4, 7, 7, 0, 412, 824, 808];

    #[test]
    fn every_shard_gets_its_share() {
        for shards in [1, 3, 8, 64, 1024] {
            let count = ShardCount::new(shards).expect("legal");
            let mut users = vec![0u32; usize::from(shards)];
            let per_shard = 200;
            for number in 0..per_shard * u32::from(shards) {
                let user = UserId::new(format!("user-{number}")).expect("legal");
                users[usize::from(count.shard_of(&Id::User(user)).get())] += 1;
            }
            let least = users.iter().min().expect("at least one shard");
            assert!(*least > per_shard / 2, "{shards} shards: one has {least} of {per_shard}");
        }
    }

    #[test]
    fn the_number_of_shards_has_bounds() {
        assert!(ShardCount::new(0).is_err());
        assert!(ShardCount::new(SHARDS_MAX).is_ok());
        assert!(ShardCount::new(SHARDS_MAX + 1).is_err());
    }
}
