//! Groups (R10): who is in one, what its log says, and how far the log was given to the members.
//!
//! ```text
//!   Group ──── Members (by bucket) ──── Member { role, spans }
//!     │                                            │ the seqs of the log that are the member's
//!     │   log: a mailbox, 1 ………… |=============| head
//!     │                      given to all      │
//!     └─ fan_out: the entry that is being given, and how many buckets had it
//! ```
//!
//! Members lie in buckets by the hash that chooses their shards: a member is found by one look, a portion
//! of the fan-out is some whole buckets, mostly of one shard where there are fewer shards than buckets, and its
//! position is a number.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use tidemark_types::limits::NAME_BYTES_MAX;
use tidemark_types::routing::part_of;
use tidemark_types::{GroupId, Id, Seq, ShardId, UserId};
use xxhash_rust::xxh3::xxh3_128;

use crate::codec;
use crate::value::Message;

/// Members of a bucket, about, in a group that is full: what a change of one member writes anew.
const BUCKET_MEMBERS: u32 = 128;

/// A group without its members and its log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Hash of what was asked for when it was made: the same again is no conflict.
    pub creation: u128,
    /// Its only owner, who is a member.
    pub owner: UserId,
    /// How many members it has.
    pub members: u32,
    /// How many it may have.
    pub members_max: u32,
    /// Who may do what.
    pub policy: Policy,
    /// It is gone, and its id is not used again: a late repetition must not bring it back.
    pub deleted: bool,
    /// What of its log the members still have to be given; none when they had all of it.
    pub fan_out: Option<FanOut>,
}

impl Group {
    /// How many buckets its members lie in.
    pub fn buckets(&self) -> u32 {
        self.members_max.div_ceil(BUCKET_MEMBERS).max(1)
    }

    /// The entry of its log that is being given to the members, if one is.
    pub fn giving(&self) -> Option<Seq> {
        match self.fan_out {
            Some(FanOut::Giving { seq, .. }) => Some(seq),
            Some(FanOut::Sweeping) | None => None,
        }
    }

    /// The bucket that is given an entry when so many had it. Each group begins elsewhere, or all would ask
    /// the same shard at the same time.
    pub(crate) fn bucket_at(&self, group: &GroupId, had: u32) -> u32 {
        (part_of(&Id::Group(group.clone()), self.buckets()) + had) % self.buckets()
    }

    /// The bucket in which this user is looked for.
    pub fn bucket_of(&self, user: &UserId) -> u32 {
        part_of(&Id::User(user.clone()), self.buckets())
    }
}

/// What a group lets its members do, and strangers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Who may send to it.
    pub post: Who,
    /// Who may add others.
    pub add: Who,
    /// Anybody may join.
    pub open: bool,
}

/// Some of a group's members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Who {
    /// All of them.
    #[default]
    Everybody,
    /// Its admins and its owner.
    Admins,
}

/// What a member is in a group; each may do what the ones before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// One of its members.
    Member,
    /// May remove members and change the policy.
    Admin,
    /// May do everything; there is exactly one.
    Owner,
}

impl Who {
    /// Is a member with this role one of them?
    pub fn includes(self, role: Role) -> bool {
        match self {
            Who::Everybody => true,
            Who::Admins => role >= Role::Admin,
        }
    }
}

/// How far a group's log was given to its members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FanOut {
    /// Everything before `seq` was given to all; `seq` to the members in the first buckets.
    Giving {
        /// The entry that is being given.
        seq: Seq,
        /// How many buckets had it.
        buckets: u32,
        /// The shards that have it, and keep it for more of their members.
        open: Vec<ShardId>,
    },
    /// The group is deleted, its members know, and what is left of its log is removed.
    Sweeping,
}

impl FanOut {
    /// Begins with an entry.
    pub(crate) fn giving(seq: Seq) -> Self {
        FanOut::Giving { seq, buckets: 0, open: Vec::new() }
    }
}

/// A mark has no fields: the group of its key has something left to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting;

/// One bucket of a group's members, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// Each user once; also those who left and are still to be given what was before.
    pub members: Vec<Member>,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Who.
    pub user: UserId,
    /// What the member may do; none for one who has left.
    pub role: Option<Role>,
    /// The parts of the log that are the member's, lowest first. Those that have ended are dropped
    /// once the fan-out has passed them.
    pub spans: Vec<Span>,
}

/// A part of a group's log, from a joining up to a leaving, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The entry by which the member joined.
    pub from: Seq,
    /// The entry by which the member left; none while it has not.
    pub to: Option<Seq>,
}

impl Span {
    fn range(self) -> RangeInclusive<Seq> {
        self.from..=self.to.unwrap_or(Seq::MAX)
    }
}

impl Member {
    /// Was the user a member at this seq of the log?
    pub fn was_in(&self, seq: Seq) -> bool {
        self.spans.iter().any(|span| span.range().contains(&seq))
    }
}

/// An entry of a group's log, as it stands in the log and in the mailboxes of those who were
/// members at its seq.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupEntry {
    /// Which group.
    pub group: GroupId,
    /// Its number in the group's log, the same for all.
    pub seq: Seq,
    /// What happened.
    pub event: GroupEvent,
}

/// What an entry of a group's log says. Who did it stands in the entry's origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupEvent {
    /// Somebody sent a message.
    Message(Message),
    /// The group was made by its owner, who is a member.
    Created {
        /// The other members.
        members: Vec<UserId>,
    },
    /// They became members: added by a member, or by themselves.
    Joined {
        /// Who.
        users: Vec<UserId>,
    },
    /// They are no longer members: removed by an admin, or by themselves.
    Left {
        /// Who.
        users: Vec<UserId>,
    },
    /// A member has another role; where it is the owner's, the former owner is an admin.
    RoleSet {
        /// Who.
        user: UserId,
        /// The new role.
        role: Role,
    },
    /// Others may do what they may.
    PolicySet {
        /// The new policy.
        policy: Policy,
    },
    /// The group is gone. It is the last entry.
    Deleted,
}

impl GroupEvent {
    /// What it costs in bytes beside numbers: what budgets count (R7).
    pub(crate) fn cost(&self) -> usize {
        match self {
            GroupEvent::Message(message) => message.body.len(),
            GroupEvent::Created { members: users }
            | GroupEvent::Joined { users }
            | GroupEvent::Left { users } => users.len() * NAME_BYTES_MAX,
            GroupEvent::RoleSet { .. } => NAME_BYTES_MAX,
            GroupEvent::PolicySet { .. } | GroupEvent::Deleted => 0,
        }
    }
}

/// A change of a group that somebody asks for. Asked again it is done already, so an unknown
/// outcome may be repeated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupCommand {
    /// Which group.
    pub group: GroupId,
    /// Who asks, and is judged by the role at that moment. None for a back end, which does
    /// everything that the owner may, in the owner's name.
    pub by: Option<UserId>,
    /// For what.
    pub action: GroupAction,
}

/// What can be asked of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupAction {
    /// To exist.
    Create(NewGroup),
    /// To have these members too.
    Add {
        /// Who; the one who asks, alone, to join.
        users: Vec<UserId>,
    },
    /// Not to have these members any more.
    Remove {
        /// Who; the one who asks, alone, to leave.
        users: Vec<UserId>,
    },
    /// To give a member a role.
    SetRole {
        /// Who.
        user: UserId,
        /// Which one; the owner's hands the group over.
        role: Role,
    },
    /// To let others do what they may.
    SetPolicy {
        /// The new policy.
        policy: Policy,
    },
    /// To be gone.
    Delete,
}

/// What a group is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewGroup {
    /// Its owner.
    pub owner: UserId,
    /// Its first members beside the owner.
    pub members: Vec<UserId>,
    /// How many members it may have, the owner included.
    pub members_max: u32,
    /// Who may do what.
    pub policy: Policy,
}

impl NewGroup {
    /// By which it is recognised when it is asked for again.
    pub(crate) fn hash(&self) -> u128 {
        xxh3_128(&codec::encode(1, self))
    }
}

impl GroupAction {
    /// The users it names beside the one who asks.
    pub fn users(&self) -> &[UserId] {
        match self {
            GroupAction::Create(new) => &new.members,
            GroupAction::Add { users } | GroupAction::Remove { users } => users,
            GroupAction::SetRole { .. } | GroupAction::SetPolicy { .. } | GroupAction::Delete => {
                &[]
            }
        }
    }
}

/// Each user once, in the order of their names.
pub(crate) fn each_once(users: &[UserId]) -> Vec<UserId> {
    let mut users = users.to_vec();
    users.sort_unstable();
    users.dedup();
    users
}

#[cfg(test)]
mod tests {
    use tidemark_types::ShardCount;

    use super::*;

    fn user(number: u32) -> UserId {
        UserId::new(format!("user-{number}")).expect("legal")
    }

    fn group(members_max: u32) -> Group {
        Group {
            creation: 0,
            owner: user(0),
            members: 1,
            members_max,
            policy: Policy::default(),
            deleted: false,
            fan_out: None,
        }
    }

    #[test]
    fn vectors_hold_buckets_still() {
        let group = group(10_000);
        let found: Vec<u32> = (0..4).map(|number| group.bucket_of(&user(number))).collect();
        assert_eq!((group.buckets(), found), (79, vec![6, 33, 37, 5]));
    }

    #[test]
    fn buckets_are_in_the_order_of_their_members_shards() {
        let group = group(10_000);
        for shards in [1, 3, 8, 200] {
            let shards = ShardCount::new(shards).expect("legal");
            let place = |user| (group.bucket_of(&user), shards.shard_of(&Id::User(user)));
            let mut places: Vec<_> = (0..10_000).map(|number| place(user(number))).collect();
            places.sort_unstable();
            assert!(places.is_sorted_by_key(|(_, shard)| *shard), "{shards} shards");
        }
    }

    #[test]
    fn members_spread_over_the_buckets() {
        for members_max in [1, 128, 129, 500, 10_000] {
            let group = group(members_max);
            let mut sizes = vec![0; group.buckets() as usize];
            (0..members_max).for_each(|n| sizes[group.bucket_of(&user(n)) as usize] += 1);
            let largest = sizes.iter().max().expect("one at least");
            assert!(*largest <= 2 * BUCKET_MEMBERS, "{members_max}: {sizes:?}");
        }
    }

    #[test]
    fn a_member_is_given_what_lies_between_joining_and_leaving() {
        let span = |from, to: Option<u32>| Span { from: Seq::new(from), to: to.map(Seq::new) };
        let spans = vec![span(3, Some(5)), span(8, None)];
        let member = Member { user: user(1), role: Some(Role::Member), spans };
        let given: Vec<u32> = (1..=9).filter(|seq| member.was_in(Seq::new(*seq))).collect();
        assert_eq!(given, [3, 4, 5, 8, 9]);
    }
}
