//! What a group has promised (R10): one order for all members, each entry once, to those who were
//! members at its place, and one outcome for each send.
//!
//! Everything is read when a run is over: what was asked and answered, the group's log, and what each
//! user's mailbox holds of it. The log is the order that the run claims to have had; who was a member
//! when is counted from it anew, so nothing is taken over from the system but what it stored.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

/// A user of a group, by number.
pub type User = u32;

/// An entry of a group's log, under its seq there.
pub type Logged = (u32, Said);

/// What an entry of the log says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// The message with this id.
    Message {
        /// Its sender.
        sender: User,
        /// Its id.
        id: u128,
    },
    /// They became members.
    Joined(Vec<User>),
    /// They are no longer members.
    Left(Vec<User>),
    /// Something else about the group.
    Other,
}

/// What became of a send, as its sender was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was accepted: it will be in the log, or refused.
    Accepted,
    /// It was certainly not taken.
    NotTaken,
    /// Nobody knows.
    Unknown,
}

/// A group when a run is over.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// Every send to it, by id.
    pub sends: BTreeMap<u128, (User, Answer)>,
    /// Refusals in the senders' mailboxes, by the sends' ids; one for each entry.
    pub refused: Vec<u128>,
    /// Changes that were acknowledged: who, and whether they became members; in the order of their
    /// acknowledgements by one who changes one thing after the other.
    pub changed: Vec<(User, bool)>,
    /// Its log, from the first entry on, with the seqs under which the entries stand.
    pub log: Vec<Logged>,
    /// What each user's mailbox holds of it, in the mailbox's order: the group's seq, and what is said.
    pub given: BTreeMap<User, Vec<Logged>>,
    /// What the devices of users who have one took, in their order: the same.
    pub taken: BTreeMap<User, Vec<Logged>>,
}

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Wrong {
    /// The log has a hole, or a seq twice.
    #[error("the log has {found} where {wanted} belongs")]
    Hole {
        /// The seq that comes next.
        wanted: u32,
        /// What stands there.
        found: u32,
    },
    /// A message is in the log more than once.
    #[error("the message {0:x} is in the log twice")]
    Twice(u128),
    /// A message is in the log that nobody sent, or another one than its sender.
    #[error("nobody has sent the message {0:x}")]
    Unsent(u128),
    /// A message whose sender was not a member is in the log.
    #[error("at {seq} is a message of {sender}, who is no member")]
    Stranger {
        /// Where.
        seq: u32,
        /// Its sender.
        sender: User,
    },
    /// An accepted message has no outcome, or more than one; or one that was not taken has one.
    #[error("the message {id:x} of {sender} has {outcomes} outcomes ({answer:?})")]
    Outcomes {
        /// Which one.
        id: u128,
        /// Its sender.
        sender: User,
        /// What its sender was told.
        answer: Answer,
        /// How many it has.
        outcomes: usize,
    },
    /// An acknowledged change is not in the log.
    #[error("the log knows nothing of a change of {0} that was acknowledged")]
    Unchanged(User),
    /// A user's mailbox does not hold what was the user's, in the log's order.
    #[error("{user} has {found:?} where {wanted:?} of the log belongs")]
    Given {
        /// Whose mailbox.
        user: User,
        /// The seq that comes next in it.
        wanted: Option<u32>,
        /// The seq that does.
        found: Option<u32>,
    },
    /// A device did not take what its user's mailbox holds, in the same order.
    #[error("the device of {user} has {found:?} where {wanted:?} belongs")]
    Taken {
        /// Whose device.
        user: User,
        /// What comes next in the mailbox.
        wanted: Option<Logged>,
        /// What the device took.
        found: Option<Logged>,
    },
    /// A copy says something else than the log.
    #[error("{user}'s copy of {seq} says something else than the log")]
    Differs {
        /// Whose copy.
        user: User,
        /// Of which entry.
        seq: u32,
    },
}

/// What was not kept; nothing, if all was.
pub fn check(group: &Group) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    let mut members = BTreeSet::new();
    // Whose each entry is.
    let mut owners = Vec::with_capacity(group.log.len());
    let mut taken = BTreeSet::new();
    for ((seq, said), wanted) in group.log.iter().zip(1..) {
        if *seq != wanted {
            wrong.push(Wrong::Hole { wanted, found: *seq });
        }
        let mut here = members.clone();
        match said {
            Said::Message { sender, id } => {
                if !members.contains(sender) {
                    wrong.push(Wrong::Stranger { seq: *seq, sender: *sender });
                }
                if !taken.insert(*id) {
                    wrong.push(Wrong::Twice(*id));
                }
                if group.sends.get(id).is_none_or(|(by, _)| by != sender) {
                    wrong.push(Wrong::Unsent(*id));
                }
            }
            Said::Joined(users) => members.extend(users),
            Said::Left(users) => members.retain(|user| !users.contains(user)),
            Said::Other => {}
        }
        here.extend(&members);
        owners.push(here);
    }
    outcomes(group, &taken, &mut wrong);
    changes(group, &mut wrong);
    let users: BTreeSet<User> =
        owners.iter().flatten().copied().chain(group.given.keys().copied()).collect();
    for user in users {
        let own = group.log.iter().zip(&owners).filter(|(_, owners)| owners.contains(&user));
        let own: Vec<&Logged> = own.map(|(entry, _)| entry).collect();
        let given = group.given.get(&user).map_or(&[][..], Vec::as_slice);
        wrong.extend(compare(user, &own, given));
    }
    wrong.extend(group.taken.iter().filter_map(|(user, taken)| {
        let given = group.given.get(user).map_or(&[][..], Vec::as_slice);
        let at = (0..given.len().max(taken.len())).find(|at| given.get(*at) != taken.get(*at))?;
        let (wanted, found) = (given.get(at).cloned(), taken.get(at).cloned());
        Some(Wrong::Taken { user: *user, wanted, found })
    }));
    wrong
}

/// Each accepted send has one outcome, an unknown one at most one, one that was not taken none.
fn outcomes(group: &Group, taken: &BTreeSet<u128>, wrong: &mut Vec<Wrong>) {
    for (id, (sender, answer)) in &group.sends {
        let refused = group.refused.iter().filter(|refused| *refused == id).count();
        let outcomes = refused + usize::from(taken.contains(id));
        let may = match answer {
            Answer::Accepted => outcomes == 1,
            Answer::NotTaken => outcomes == 0,
            Answer::Unknown => outcomes <= 1,
        };
        if !may {
            let (id, sender, answer) = (*id, *sender, *answer);
            wrong.push(Wrong::Outcomes { id, sender, answer, outcomes });
        }
    }
    let unsent = group.refused.iter().filter(|id| !group.sends.contains_key(id));
    wrong.extend(unsent.map(|id| Wrong::Unsent(*id)));
}

/// Acknowledged changes are in the log, in their order.
fn changes(group: &Group, wrong: &mut Vec<Wrong>) {
    let mut log = group.log.iter();
    for (user, joined) in &group.changed {
        let is_it = |(_, said): &Logged| match said {
            Said::Joined(users) => *joined && users.contains(user),
            Said::Left(users) => !*joined && users.contains(user),
            Said::Message { .. } | Said::Other => false,
        };
        if !log.any(is_it) {
            wrong.push(Wrong::Unchanged(*user));
            return;
        }
    }
}

/// Where a user's copies first differ from what was the user's.
fn compare(user: User, own: &[&Logged], given: &[Logged]) -> Option<Wrong> {
    for at in 0..own.len().max(given.len()) {
        let (wanted, found) = (own.get(at).map(|it| it.0), given.get(at).map(|it| it.0));
        if wanted != found {
            return Some(Wrong::Given { user, wanted, found });
        }
        if own[at].1 != given[at].1 {
            return Some(Wrong::Differs { user, seq: own[at].0 });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1 makes the group with 2, and 3 comes and goes; each sends when it may, and 3 when it may not.
    fn good() -> Group {
        let message = |sender, id| Said::Message { sender, id };
        let log = [
            Said::Joined(vec![1, 2]),
            message(1, 10),
            Said::Joined(vec![3]),
            message(3, 11),
            Said::Other,
            message(2, 12),
            Said::Left(vec![3]),
            message(1, 13),
        ];
        let log: Vec<Logged> = (1..).zip(log).collect();
        let sends = [
            (10, (1, Answer::Accepted)),
            (11, (3, Answer::Accepted)),
            (12, (2, Answer::Unknown)),
            (13, (1, Answer::Accepted)),
            (14, (3, Answer::Accepted)),
            (15, (3, Answer::Unknown)),
            (16, (2, Answer::NotTaken)),
        ];
        let log_of_3 = log[2..7].to_vec();
        let given = [(1, log.clone()), (2, log.clone()), (3, log_of_3.clone())];
        Group {
            sends: sends.into(),
            refused: vec![14],
            changed: vec![(3, true), (3, false)],
            log,
            given: given.into(),
            taken: [(3, log_of_3)].into(),
        }
    }

    fn caught(spoil: impl FnOnce(&mut Group)) -> Vec<Wrong> {
        let mut group = good();
        spoil(&mut group);
        check(&group)
    }

    fn given(group: &mut Group, user: User) -> &mut Vec<Logged> {
        group.given.get_mut(&user).expect("a user of the test")
    }

    #[test]
    fn a_group_that_kept_everything_is_found_so() {
        assert_eq!(check(&good()), []);
        assert_eq!(check(&Group::default()), []);
        // What is unknown may have been taken or refused.
        assert_eq!(caught(|group| group.refused.push(15)), []);
    }

    #[test]
    fn two_orders_are_caught() {
        let swapped = caught(|group| given(group, 2).swap(1, 2));
        assert_eq!(swapped, [Wrong::Given { user: 2, wanted: Some(2), found: Some(3) }]);
    }

    #[test]
    fn a_copy_that_is_missing_or_too_many_is_caught() {
        let lost = caught(|group| drop(given(group, 2).remove(3)));
        assert_eq!(lost, [Wrong::Given { user: 2, wanted: Some(4), found: Some(5) }]);
        let last = caught(|group| drop(given(group, 1).pop()));
        assert_eq!(last, [Wrong::Given { user: 1, wanted: Some(8), found: None }]);
        let twice = caught(|group| {
            let copy = given(group, 2)[3].clone();
            given(group, 2).insert(3, copy);
        });
        assert_eq!(twice, [Wrong::Given { user: 2, wanted: Some(5), found: Some(4) }]);
        let nothing = caught(|group| drop(group.given.remove(&2)));
        assert_eq!(nothing, [Wrong::Given { user: 2, wanted: Some(1), found: None }]);
    }

    #[test]
    fn a_device_that_took_something_else_is_caught() {
        let took = |spoil: fn(&mut Vec<Logged>)| {
            caught(|group| spoil(group.taken.get_mut(&3).expect("a user of the test")))
        };
        let wrong = |wanted: Option<usize>, found: Option<usize>| {
            let entry = |at: usize| good().log[at].clone();
            vec![Wrong::Taken { user: 3, wanted: wanted.map(entry), found: found.map(entry) }]
        };
        assert_eq!(took(|entries| drop(entries.pop())), wrong(Some(6), None));
        assert_eq!(took(|entries| entries.swap(0, 1)), wrong(Some(2), Some(3)));
        assert_eq!(took(|entries| entries.push(entries[0].clone())), wrong(None, Some(2)));
    }

    #[test]
    fn membership_is_that_of_the_time() {
        let before = caught(|group| {
            let entry = group.log[1].clone();
            given(group, 3).insert(0, entry.clone());
            group.taken.get_mut(&3).expect("a user of the test").insert(0, entry);
        });
        assert_eq!(before, [Wrong::Given { user: 3, wanted: Some(3), found: Some(2) }]);
        let after = caught(|group| {
            let entry = group.log[7].clone();
            given(group, 3).push(entry);
            group.taken.clear();
        });
        assert_eq!(after, [Wrong::Given { user: 3, wanted: None, found: Some(8) }]);
        let never = caught(|group| {
            let entry = group.log[7].clone();
            group.given.insert(9, vec![entry]);
        });
        assert_eq!(never, [Wrong::Given { user: 9, wanted: None, found: Some(8) }]);
        let posted = caught(|group| {
            let stranger = (9, Said::Message { sender: 3, id: 15 });
            group.log.push(stranger.clone());
            given(group, 1).push(stranger.clone());
            given(group, 2).push(stranger);
        });
        assert_eq!(posted, [Wrong::Stranger { seq: 9, sender: 3 }]);
    }

    #[test]
    fn what_was_sent_has_one_outcome() {
        let outcomes =
            |id, sender, answer, outcomes| vec![Wrong::Outcomes { id, sender, answer, outcomes }];
        let lost = caught(|group| group.refused.clear());
        assert_eq!(lost, outcomes(14, 3, Answer::Accepted, 0));
        let both = caught(|group| group.refused.push(11));
        assert_eq!(both, outcomes(11, 3, Answer::Accepted, 2));
        let told_twice = caught(|group| group.refused.push(14));
        assert_eq!(told_twice, outcomes(14, 3, Answer::Accepted, 2));
        let untaken = caught(|group| group.refused.push(16));
        assert_eq!(untaken, outcomes(16, 2, Answer::NotTaken, 1));
        let nobodys = caught(|group| group.refused.push(99));
        assert_eq!(nobodys, [Wrong::Unsent(99)]);
    }

    #[test]
    fn a_log_that_contradicts_itself_is_caught() {
        let same = |group: &mut Group, spoil: &dyn Fn(&mut Vec<Logged>)| {
            spoil(&mut group.log);
            spoil(given(group, 1));
            spoil(given(group, 2));
        };
        let twice = caught(|group| {
            same(group, &|log| log.push((9, Said::Message { sender: 1, id: 13 })));
        });
        assert_eq!(twice, [Wrong::Twice(13)]);
        let unsent = caught(|group| {
            same(group, &|log| log.push((9, Said::Message { sender: 1, id: 99 })));
        });
        assert_eq!(unsent, [Wrong::Unsent(99)]);
        let others = caught(|group| {
            group.sends.insert(12, (1, Answer::Unknown));
        });
        assert_eq!(others, [Wrong::Unsent(12)]);
        let hole = caught(|group| same(group, &|log| log[7].0 = 9));
        assert_eq!(hole, [Wrong::Hole { wanted: 8, found: 9 }]);
        let changed = caught(|group| given(group, 2)[1].1 = Said::Message { sender: 1, id: 11 });
        assert_eq!(changed, [Wrong::Differs { user: 2, seq: 2 }]);
    }

    #[test]
    fn a_change_that_was_acknowledged_and_lost_is_caught() {
        assert_eq!(caught(|group| group.changed.push((2, false))), [Wrong::Unchanged(2)]);
        assert_eq!(caught(|group| group.changed.swap(0, 1)), [Wrong::Unchanged(3)]);
    }
}
