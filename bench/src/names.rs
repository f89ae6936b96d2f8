//! Users that live on wanted shards.
//!
//! Names are drawn one after the other and kept by the shard that the cluster's own hash gives
//! them, so that a workload can say "in another shard" and be sure of it. A run has a prefix of its
//! own: it never meets the mailboxes of an earlier one, nor its counters.

use std::collections::{BTreeMap, VecDeque};

use tidemark_types::routing::ShardCount;
use tidemark_types::{Id, ShardId, UserId};

/// Draws users, each once.
pub(crate) struct Names {
    shards: ShardCount,
    prefix: String,
    drawn: u32,
    spare: BTreeMap<ShardId, VecDeque<UserId>>,
}

impl Names {
    /// Users of a cluster with this many shards, their names beginning with `prefix`.
    pub(crate) fn new(shards: ShardCount, prefix: impl Into<String>) -> Self {
        Names { shards, prefix: prefix.into(), drawn: 0, spare: BTreeMap::new() }
    }

    /// The next user, whatever shard it lives on.
    pub(crate) fn anywhere(&mut self) -> (UserId, ShardId) {
        let name = format!("{}-{}", self.prefix, self.drawn);
        self.drawn += 1;
        let user = UserId::new(name).expect("a prefix and a number are a short name");
        let shard = self.shards.shard_of(&Id::User(user.clone()));
        (user, shard)
    }

    /// The next user who lives on `shard`.
    pub(crate) fn on(&mut self, shard: ShardId) -> UserId {
        if let Some(user) = self.spare.get_mut(&shard).and_then(VecDeque::pop_front) {
            return user;
        }
        loop {
            let (user, at) = self.anywhere();
            if at == shard {
                return user;
            }
            self.spare.entry(at).or_default().push_back(user);
        }
    }

    /// The shard of pair `pair`'s sender and another one for its recipient; the pairs go over all
    /// shards and all distances between them. With a single shard there is no other one.
    pub(crate) fn apart(&self, pair: usize) -> Option<(ShardId, ShardId)> {
        let shards = usize::from(self.shards.get());
        let distance = 1 + pair / shards % shards.checked_sub(1).filter(|others| *others > 0)?;
        let shard = |at: usize| {
            ShardId::new(u16::try_from(at % shards).expect("below the number of shards"))
        };
        Some((shard(pair), shard(pair + distance)))
    }

    /// The shards, lowest first.
    pub(crate) fn shards(&self) -> Vec<ShardId> {
        self.shards.shards().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn names(shards: u16) -> Names {
        Names::new(ShardCount::new(shards).expect("a test's own constant"), "t")
    }

    #[test]
    fn a_user_lives_where_it_was_wanted_and_is_drawn_once() {
        let mut names = names(8);
        let mut seen = BTreeSet::new();
        for round in 0..50 {
            for shard in names.shards() {
                let user = names.on(shard);
                let found = names.shards.shard_of(&Id::User(user.clone()));
                assert_eq!(found, shard);
                assert!(seen.insert(user), "round {round}: drawn before");
            }
            assert!(seen.insert(names.anywhere().0));
        }
    }

    #[test]
    fn pairs_are_never_on_one_shard_and_use_all_ways_between_shards() {
        let four = names(4);
        let pairs: BTreeSet<_> = (0..64).map(|pair| four.apart(pair).expect("4")).collect();
        assert!(pairs.iter().all(|(from, to)| from != to));
        assert_eq!(pairs.len(), 4 * 3);
        assert_eq!(names(1).apart(0), None);
    }
}
