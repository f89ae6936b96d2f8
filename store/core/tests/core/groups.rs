//! Groups against what their logs say: one order for all, membership at the time, one copy each.
//!
//! A run makes groups that are given an entry at once and one that takes several portions, lets
//! members come, go, rise and post with every answer lost at times, ships records late and twice,
//! and leaves the fan-out wherever it stands. The model is the log alone, read again from its
//! beginning: it says who was a member at which seq, and so who must have which entries.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;
use tidemark_store_core::Reply;
use tidemark_store_core::command::{BackendSend, Command, Draft};
use tidemark_store_core::group::{
    GroupAction, GroupCommand, GroupEvent, NewGroup, Policy, Role, Who,
};
use tidemark_store_core::key::MailboxKey;
use tidemark_store_core::read::{PageAnswer, PageLimits, page};
use tidemark_store_core::value::{Content, Entry, Mailbox, Origin, Settings, Verdict};
use tidemark_types::{
    ClientMsgId, ContentHash, Epoch, ErrorCode, GroupId, Recipient, Seq, ShardId, UnixMs, UserId,
};

use crate::cluster::Cluster;

const SHARDS: u16 = 3;

/// Users who act. The first one owns both groups and never leaves; the last one never joins.
const USERS: usize = 7;

/// Members of the large group who do nothing: with them an entry takes several portions.
const CROWD: usize = 700;

/// One in so many of these is looked at, and the one after it may lose what it was given.
const STEP: usize = 97;

/// What a run does next.
#[derive(Clone, Debug)]
enum Action {
    Post { group: usize, user: usize, lost: bool },
    Add { group: usize, by: usize, user: usize },
    Remove { group: usize, by: usize, user: usize },
    SetRole { group: usize, user: usize, role: Role },
    SetPolicy { group: usize, admins: bool },
    FanOut { group: usize },
    Trim { bystander: usize },
    Relay { from: u16, to: u16, skip: usize, take: usize },
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let group = 0..2usize;
    let user = 0..USERS;
    let joiner = 1..USERS - 1;
    let role = prop_oneof![Just(Role::Member), Just(Role::Admin)];
    let action = prop_oneof![
        6 => (group.clone(), user.clone(), any::<bool>())
            .prop_map(|(group, user, lost)| Action::Post { group, user, lost }),
        3 => (group.clone(), user.clone(), joiner.clone())
            .prop_map(|(group, by, user)| Action::Add { group, by, user }),
        3 => (group.clone(), user, joiner.clone())
            .prop_map(|(group, by, user)| Action::Remove { group, by, user }),
        1 => (group.clone(), joiner, role)
            .prop_map(|(group, user, role)| Action::SetRole { group, user, role }),
        1 => (group.clone(), any::<bool>())
            .prop_map(|(group, admins)| Action::SetPolicy { group, admins }),
        3 => group.prop_map(|group| Action::FanOut { group }),
        2 => (0..CROWD / STEP).prop_map(|bystander| Action::Trim { bystander }),
        4 => (0..SHARDS, 0..SHARDS, 0usize..2, 1usize..5)
            .prop_map(|(from, to, skip, take)| Action::Relay { from, to, skip, take }),
    ];
    proptest::collection::vec(action, 1..50)
}

fn user(number: usize) -> UserId {
    UserId::new(format!("user-{number}")).unwrap()
}

fn bystander(number: usize) -> UserId {
    UserId::new(format!("crowd-{number}")).unwrap()
}

fn group(number: usize) -> GroupId {
    GroupId::new(["small", "large"][number]).unwrap()
}

struct Run {
    cluster: Cluster,
    /// Every accepted post, with its group.
    posts: Vec<(Origin, usize)>,
}

impl Run {
    fn new() -> Run {
        let mut run = Run { cluster: Cluster::new(SHARDS, Settings::default()), posts: Vec::new() };
        for number in 0..2 {
            let new = NewGroup {
                owner: user(0),
                members: vec![user(1)],
                members_max: 1_000,
                policy: Policy::default(),
            };
            run.change(number, Some(user(0)), GroupAction::Create(new));
        }
        let crowd: Vec<UserId> = (0..CROWD).map(bystander).collect();
        for users in crowd.chunks(256) {
            run.change(1, None, GroupAction::Add { users: users.to_vec() });
        }
        run
    }

    /// A change whose answer is lost: the same again is done, or refused as before.
    fn change(&mut self, number: usize, by: Option<UserId>, action: GroupAction) {
        let command = Command::Group(GroupCommand { group: group(number), by, action });
        let reply = self.cluster.route(command.clone()).reply;
        let again = self.cluster.route(command);
        match reply {
            Reply::Done => {
                // Who has left asks as a stranger, and is told no more than that all is so already.
                assert_eq!(again.reply, Reply::Done);
                assert!(self.appends_to_log(&again.effects).is_empty());
            }
            Reply::Rejected(_) => assert_eq!(again.reply, reply),
            other => panic!("{other:?}"),
        }
    }

    fn appends_to_log(&self, effects: &[tidemark_store_core::Effect]) -> Vec<Seq> {
        let seqs = effects.iter().filter_map(|effect| match effect {
            tidemark_store_core::Effect::Appended { mailbox: Recipient::Group(_), seq, .. } => {
                Some(*seq)
            }
            _ => None,
        });
        seqs.collect()
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Post { group, user, lost } => self.post(*group, *user, *lost),
            Action::Add { group, by, user } => {
                let users = vec![self::user(*user)];
                self.change(*group, Some(self::user(*by)), GroupAction::Add { users });
            }
            Action::Remove { group, by, user } => {
                let users = vec![self::user(*user)];
                self.change(*group, Some(self::user(*by)), GroupAction::Remove { users });
            }
            Action::SetRole { group, user, role } => {
                let action = GroupAction::SetRole { user: self::user(*user), role: *role };
                self.change(*group, None, action);
            }
            Action::SetPolicy { group, admins } => {
                let post = if *admins { Who::Admins } else { Who::Everybody };
                let policy = Policy { post, open: *admins, ..Policy::default() };
                self.change(*group, Some(self::user(0)), GroupAction::SetPolicy { policy });
            }
            Action::FanOut { group } => {
                self.cluster.fan_out(&self::group(*group));
            }
            Action::Trim { bystander } => self.trim(self::bystander(bystander * STEP + 1)),
            Action::Relay { from, to, skip, take } => {
                let (from, to) = (ShardId::new(*from), ShardId::new(*to));
                if from != to {
                    let records = self.cluster.records(from, to);
                    let records = records.into_iter().skip(*skip).take(*take).collect();
                    self.cluster.apply(to, vec![Command::RelayIn { source: from, records }]);
                }
            }
        }
    }

    fn post(&mut self, number: usize, sender: usize, lost: bool) {
        let made = UnixMs::new(self.posts.len() as u64);
        let id = ClientMsgId::new(made, [number as u8; 10]);
        let to = vec![Recipient::Group(group(number))];
        let body = Bytes::from(format!("{sender} {}", self.posts.len()));
        let content = ContentHash::of(&to, 1, &body);
        let draft = Draft { to, kind: 1, client_msg_id: id, body, act: None };
        let send = BackendSend { sender: user(sender), content, draft };
        let reply = self.cluster.route(Command::BackendSend(send.clone())).reply;
        let accepted = Verdict::Accepted { seq: Seq::NONE, time: UnixMs::new(self.cluster.time) };
        assert_eq!(reply, Reply::Sent(accepted));
        if lost {
            let applied = self.cluster.route(Command::BackendSend(send));
            assert_eq!((applied.reply, applied.effects), (reply, Vec::new()));
        }
        self.posts.push((Origin::Backend { sender: user(sender), id }, number));
    }

    /// Removes all that a mailbox holds.
    fn trim(&mut self, user: UserId) {
        let key = MailboxKey { mailbox: Recipient::User(user.clone()) };
        let mailbox: Mailbox =
            self.cluster.get(self.cluster.shard_of(&user), &key).unwrap_or_default();
        let trimmed = self.cluster.route(Command::TrimMailbox { user, upto: mailbox.head }).reply;
        assert_eq!(trimmed, Reply::MailboxTrimmed { floor: mailbox.head, more: false });
    }

    fn entries(&self, mailbox: &Recipient) -> Vec<Entry> {
        let state = self.cluster.state(self.cluster.count.shard_of(&mailbox.id()));
        let limits = PageLimits { entries: usize::MAX, bytes: usize::MAX };
        match page(state, mailbox, Epoch::FIRST, Seq::NONE, limits).unwrap() {
            PageAnswer::Page(page) => page.entries.into_iter().map(|(_, entry)| entry).collect(),
            reset @ PageAnswer::Reset { .. } => panic!("{reset:?}"),
        }
    }

    /// What each user was given of a group, in the order of the mailbox.
    fn given(&self, user: &UserId, group: &GroupId) -> Vec<(Seq, Origin)> {
        let entries = self.entries(&Recipient::User(user.clone())).into_iter();
        let of_group = entries.filter_map(|entry| match entry.content {
            Content::Group(of) if of.group == *group => Some((of.seq, entry.origin)),
            _ => None,
        });
        of_group.collect()
    }

    fn check(&self) {
        let mut taken = BTreeSet::new();
        for number in 0..2 {
            let log = Log::read(&group(number), self.entries(&Recipient::Group(group(number))));
            let crowd = (0..CROWD).step_by(STEP).map(bystander);
            for user in (0..USERS).map(user).chain(crowd) {
                assert_eq!(self.given(&user, &group(number)), log.of(&user), "{user}");
            }
            taken.extend(log.posts);
        }
        for (origin, number) in &self.posts {
            let own = self.entries(&Recipient::User(origin.sender().clone()));
            let refused = own.iter().filter(|entry| {
                let recipient = Recipient::Group(group(*number));
                let content = Content::Refused { recipient, code: ErrorCode::NotMember };
                entry.origin == *origin && entry.content == content
            });
            let refused = refused.count();
            assert_eq!(refused + usize::from(taken.contains(origin)), 1, "{origin:?}");
            assert!(*origin.sender() != user(0) || refused == 0, "the owner may always post");
            assert!(*origin.sender() != user(USERS - 1) || refused == 1, "a stranger never");
        }
    }
}

/// A group's log, and what it says of its members.
struct Log {
    /// Who was a member at each seq, the changes of that seq included on both sides.
    members: Vec<(Seq, Origin, BTreeSet<UserId>)>,
    posts: Vec<Origin>,
}

impl Log {
    fn read(group: &GroupId, entries: Vec<Entry>) -> Log {
        let mut now = BTreeMap::<UserId, Role>::new();
        let mut post = Who::Everybody;
        let mut log = Log { members: Vec::new(), posts: Vec::new() };
        for (entry, seq) in entries.into_iter().zip(1..) {
            let Content::Group(said) = entry.content else { panic!("{entry:?}") };
            assert_eq!((&said.group, said.seq), (group, Seq::new(seq)));
            let mut here: BTreeSet<UserId> = now.keys().cloned().collect();
            match said.event {
                GroupEvent::Message(_) => {
                    let role = now.get(entry.origin.sender()).copied();
                    assert!(role.is_some_and(|role| post.includes(role)), "{:?}", entry.origin);
                    log.posts.push(entry.origin.clone());
                }
                GroupEvent::Created { members } => {
                    now.insert(entry.origin.sender().clone(), Role::Owner);
                    now.extend(members.into_iter().map(|user| (user, Role::Member)));
                }
                GroupEvent::Joined { users } => {
                    for user in users {
                        assert_eq!(now.insert(user, Role::Member), None);
                    }
                }
                GroupEvent::Left { users } => {
                    assert!(users.iter().all(|user| now.remove(user).is_some()));
                }
                GroupEvent::RoleSet { user, role } => {
                    assert_ne!(now.insert(user, role), Some(role));
                }
                GroupEvent::PolicySet { policy } => post = policy.post,
                GroupEvent::Deleted => panic!("nobody deletes it"),
            }
            here.extend(now.keys().cloned());
            log.members.push((said.seq, entry.origin, here));
        }
        log
    }

    fn of(&self, user: &UserId) -> Vec<(Seq, Origin)> {
        let own = self.members.iter().filter(|(_, _, members)| members.contains(user));
        own.map(|(seq, origin, _)| (*seq, origin.clone())).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]

    #[test]
    fn each_member_is_given_the_log_as_it_was_a_member(actions in actions()) {
        let mut run = Run::new();
        for action in &actions {
            run.act(action);
        }
        run.cluster.fan_out_all();
        run.cluster.relay_all();
        run.cluster.fan_out_all();
        run.cluster.relay_all();
        run.check();
        let shared = run.cluster.shared();
        assert!(shared >= 3 * usize::from(SHARDS), "{shared} shared entries");
        for user in (0..USERS).map(user).chain((0..CROWD).map(bystander)) {
            run.trim(user);
        }
        assert_eq!(run.cluster.shared(), 0, "nobody holds one");
    }
}
