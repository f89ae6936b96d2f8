//! The state machine against a naive model, in every order of lost answers, retries and relays.
//!
//! The model knows nothing of sessions' windows, streams or stored acks: it only writes down what
//! a correct system would end with. A run sends, retries, replaces sessions, blocks, confirms, trims,
//! forgets devices, and ships records late, twice and out of order; then everything is delivered, and
//! what is there must be what the model says.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;
use tidemark_store_core::command::{Command, Draft, Judged, Send, Start};
use tidemark_store_core::key::DeviceKey;
use tidemark_store_core::read::{PageAnswer, PageLimits, page};
use tidemark_store_core::value::{Content, Entry, Origin, Settings, Verdict};
use tidemark_store_core::{Reject, Reply};
use tidemark_types::{
    ClientMsgId, ContentHash, DeviceId, Epoch, ErrorCode, OpenId, Recipient, Seq, SessionId,
    ShardId, UnixMs, UserId,
};

use crate::cluster::Cluster;

const USERS: usize = 6;
const SHARDS: u16 = 3;

/// What a run does next. Numbers are reduced to what exists.
#[derive(Clone, Debug)]
enum Action {
    /// The user's device numbers its next message, and sends it.
    Send { user: usize, to: Vec<usize>, attempt: Attempt },
    /// It sends one again that it has no answer for, or had one.
    Retry { user: usize, which: usize },
    /// It replaces its session; what the old one did not take is sent in the new one.
    Reopen { user: usize },
    /// Some records are shipped: any slice of what waits, trimmed or not.
    Relay { from: u16, to: u16, skip: usize, take: usize, trim: bool },
    /// A user blocks or unblocks another.
    Block { user: usize, sender: usize, blocked: bool },
    /// The user's device confirms up to some entry, maybe less than before.
    Confirm { user: usize, upto: usize },
    /// Some of the mailbox's oldest entries are removed.
    Trim { user: usize, count: usize },
    /// The user's device is forgotten, and comes back as a new one.
    Forget { user: usize },
}

/// What becomes of the first attempt at a send.
#[derive(Clone, Copy, Debug)]
enum Attempt {
    Answered,
    AnswerLost,
    NeverArrives,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let user = 0..USERS;
    let to = proptest::collection::vec(0..USERS, 1..4);
    let attempt = prop_oneof![
        3 => Just(Attempt::Answered),
        3 => Just(Attempt::AnswerLost),
        2 => Just(Attempt::NeverArrives),
    ];
    let action = prop_oneof![
        6 => (user.clone(), to, attempt)
            .prop_map(|(user, to, attempt)| Action::Send { user, to, attempt }),
        3 => (user.clone(), 0usize..100).prop_map(|(user, which)| Action::Retry { user, which }),
        1 => user.clone().prop_map(|user| Action::Reopen { user }),
        4 => (0..SHARDS, 0..SHARDS, 0usize..3, 1usize..5, any::<bool>()).prop_map(
            |(from, to, skip, take, trim)| Action::Relay { from, to, skip, take, trim }
        ),
        1 => (user.clone(), user.clone(), any::<bool>())
            .prop_map(|(user, sender, blocked)| Action::Block { user, sender, blocked }),
        1 => (user.clone(), 0usize..100).prop_map(|(user, upto)| Action::Confirm { user, upto }),
        1 => (user.clone(), 0usize..5).prop_map(|(user, count)| Action::Trim { user, count }),
        1 => user.prop_map(|user| Action::Forget { user }),
    ];
    proptest::collection::vec(action, 1..120)
}

/// A user's only device, as its SDK would keep it.
struct Device {
    session: SessionId,
    next_n: u64,
    base: u64,
    /// The last send of the live session that reached the store in its turn.
    taken: u64,
    /// Every send of the live session, by n.
    sends: BTreeMap<u64, Draft>,
    /// The answers had, by session and n.
    answers: BTreeMap<(SessionId, u64), Verdict>,
    /// Where its cursor must be.
    cursor: u32,
}

struct Run {
    cluster: Cluster,
    devices: Vec<Device>,
    opens: u8,
    /// Accepted sends in the order of acceptance, with their recipients.
    accepted: Vec<(Origin, BTreeSet<UserId>)>,
    /// What was trimmed from each user's mailbox.
    trimmed: [Vec<Entry>; USERS],
}

fn user(number: usize) -> UserId {
    UserId::new(format!("user-{number}")).unwrap()
}

fn device() -> DeviceId {
    DeviceId::new("phone").unwrap()
}

impl Run {
    fn new() -> Run {
        let cluster = Cluster::new(SHARDS, Settings::default());
        let (accepted, trimmed) = (Vec::new(), Default::default());
        let mut run = Run { cluster, devices: Vec::new(), opens: 0, accepted, trimmed };
        for number in 0..USERS {
            let device = run.register(number);
            run.devices.push(device);
        }
        run
    }

    /// A device that nobody knows, with its first session.
    fn register(&mut self, number: usize) -> Device {
        let (user, device) = (user(number), device());
        self.cluster.route(Command::RegisterDevice { user, device, start: Start::Floor });
        Device {
            session: self.open(number, None),
            next_n: 1,
            base: 1,
            taken: 0,
            sends: BTreeMap::new(),
            answers: BTreeMap::new(),
            cursor: self.floor(number),
        }
    }

    /// Where the floor of a user's mailbox must be.
    fn floor(&self, number: usize) -> u32 {
        u32::try_from(self.trimmed[number].len()).unwrap()
    }

    fn open(&mut self, number: usize, ends: Option<SessionId>) -> SessionId {
        self.opens += 1;
        let open_id = OpenId::from_bytes([self.opens; 16]).unwrap();
        let open = Command::Open { user: user(number), device: device(), open_id, ends };
        let reply = self.cluster.route(open.clone()).reply;
        // A lost answer: the same open again finds the same session.
        assert_eq!(self.cluster.route(open).reply, reply);
        match reply {
            Reply::Opened { session } => session,
            other => panic!("{other:?}"),
        }
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Send { user, to, attempt } => {
                let n = self.devices[*user].next_n;
                let to = to.iter().map(|to| Recipient::User(self::user(*to))).collect();
                let draft = Draft {
                    to,
                    kind: 1,
                    client_msg_id: ClientMsgId::new(UnixMs::new(n), [*user as u8; 10]),
                    body: Bytes::from(format!("{user} {n}")),
                };
                self.devices[*user].sends.insert(n, draft);
                self.devices[*user].next_n += 1;
                match attempt {
                    Attempt::Answered => self.send(*user, n, true),
                    Attempt::AnswerLost => self.send(*user, n, false),
                    Attempt::NeverArrives => {}
                }
            }
            Action::Retry { user, which } => {
                let device = &self.devices[*user];
                let waiting = device.next_n - device.base;
                if waiting > 0 {
                    self.send(*user, device.base + *which as u64 % waiting, true);
                }
            }
            Action::Reopen { user } => self.reopen(*user),
            Action::Relay { from, to, skip, take, trim } => {
                self.relay(ShardId::new(*from), ShardId::new(*to), *skip, *take, *trim);
            }
            Action::Block { user, sender, blocked } => {
                let (user, sender) = (self::user(*user), self::user(*sender));
                self.cluster.route(Command::Block { user, sender, blocked: *blocked });
            }
            Action::Confirm { user, upto } => self.confirm(*user, *upto),
            Action::Trim { user, count } => self.trim(*user, *count),
            Action::Forget { user } => self.forget(*user),
        }
    }

    /// One attempt at a send; `answered` says whether its answer arrives. When one before it never
    /// arrived, the device begins again with that one.
    fn send(&mut self, number: usize, n: u64, answered: bool) {
        let Device { session, taken, .. } = self.devices[number];
        let reply = self.attempt(number, session, n);
        if n > taken + 1 {
            assert_eq!(reply, Reply::Rejected(Reject::OutOfOrder { expected: taken + 1 }));
            if answered {
                (taken + 1..=n).for_each(|n| self.send(number, n, true));
            }
            return;
        }
        let Reply::Sent(verdict) = reply else { panic!("{reply:?}") };
        let origin = Origin::Session { sender: user(number), session, n };
        let to = self.devices[number].sends[&n].to.iter().map(|to| match to {
            Recipient::User(user) => user.clone(),
            Recipient::Group(_) => unreachable!("none is made here"),
        });
        if !self.accepted.iter().any(|(known, _)| *known == origin) {
            self.accepted.push((origin, to.collect()));
        }
        let device = &mut self.devices[number];
        device.taken = taken.max(n);
        let first = device.answers.entry((session, n)).or_insert(verdict);
        assert_eq!(*first, verdict, "every retry gets the identical ack");
        if answered && n == device.base {
            device.base += 1;
        }
    }

    /// Sends `n` in a session; what the store says.
    fn attempt(&mut self, number: usize, session: SessionId, n: u64) -> Reply {
        let device = &self.devices[number];
        let draft = device.sends[&n].clone();
        let send = Send {
            user: user(number),
            device: self::device(),
            session,
            n,
            base: device.base,
            content: ContentHash::of(&draft.to, draft.kind, &draft.body),
            judged: Judged::Allow(draft),
        };
        self.cluster.route(Command::Send(send)).reply
    }

    fn reopen(&mut self, number: usize) {
        let Device { session: old, taken, base, next_n, .. } = self.devices[number];
        let session = self.open(number, Some(old));
        assert!(session > old, "a session's number is never used again");
        // What the old session took is answered there; it refuses what it did not take.
        for n in base..next_n {
            let known = self.devices[number].answers.get(&(old, n)).copied();
            let expected = match known {
                Some(verdict) => Reply::Sent(verdict),
                None => Reply::Rejected(Reject::SessionEnded { last_n: taken }),
            };
            assert_eq!(self.attempt(number, old, n), expected);
        }
        let device = &mut self.devices[number];
        let untaken = device.sends.split_off(&(taken + 1));
        device.sends = (1..).zip(untaken.into_values()).collect();
        device.session = session;
        device.next_n = device.sends.len() as u64 + 1;
        device.base = 1;
        device.taken = 0;
        for n in 1..device.next_n {
            self.send(number, n, true);
        }
    }

    /// The device confirms up to one of the entries that are there, or none.
    fn confirm(&mut self, number: usize, upto: usize) {
        let (user, device, epoch) = (user(number), device(), Epoch::FIRST);
        let seq = self.floor(number) + (upto % (self.entries(number).len() + 1)) as u32;
        let cursor = self.devices[number].cursor.max(seq);
        let confirm = Command::Confirm { user, device, epoch, seq: Seq::new(seq) };
        let reply = self.cluster.route(confirm).reply;
        assert_eq!(reply, Reply::Confirmed { cursor: Seq::new(cursor) });
        self.devices[number].cursor = cursor;
    }

    fn trim(&mut self, number: usize, count: usize) {
        let oldest = self.entries(number).into_iter().take(count);
        self.trimmed[number].extend(oldest);
        let floor = Seq::new(self.floor(number));
        let trim = Command::TrimMailbox { user: user(number), upto: floor };
        let reply = self.cluster.route(trim).reply;
        assert_eq!(reply, Reply::MailboxTrimmed { floor, more: false });
    }

    /// What its session took stays; the store no longer says so, and takes nothing more in it.
    fn forget(&mut self, number: usize) {
        let Device { session, base, next_n, .. } = self.devices[number];
        let (user, device) = (user(number), device());
        let reply = self.cluster.route(Command::ForgetDevice { user, device }).reply;
        assert_eq!(reply, Reply::Done);
        for n in base..next_n {
            let reply = self.attempt(number, session, n);
            assert_eq!(reply, Reply::Rejected(Reject::SessionExpired));
        }
        self.devices[number] = self.register(number);
        assert!(self.devices[number].session > session, "a session's number is never used again");
    }

    fn relay(&mut self, from: ShardId, to: ShardId, skip: usize, take: usize, trim: bool) {
        if from == to {
            return;
        }
        let before = self.cluster.inbound(to, from).in_seq;
        let records = self.cluster.records(from, to);
        let records: Vec<_> = records.into_iter().skip(skip).take(take).collect();
        let relay = Command::RelayIn { source: from, records };
        let reply = self.cluster.apply(to, vec![relay]).remove(0).reply;
        let Reply::Relayed(relayed) = reply else { panic!("{reply:?}") };
        assert!(relayed.in_seq >= before);
        assert_eq!(relayed.in_seq, self.cluster.inbound(to, from).in_seq);
        if trim {
            let (upto, returns) = (relayed.in_seq, relayed.returns);
            self.cluster.apply(from, vec![Command::TrimOutbox { shard: to, upto, returns }]);
        }
    }

    /// The entries of a user's mailbox that were not trimmed.
    fn entries(&self, number: usize) -> Vec<Entry> {
        let user = user(number);
        let state = self.cluster.state(self.cluster.shard_of(&user));
        let limits = PageLimits { entries: usize::MAX, bytes: usize::MAX };
        match page(state, &Recipient::User(user), Epoch::FIRST, Seq::NONE, limits).unwrap() {
            PageAnswer::Page(page) => {
                assert_eq!(page.floor.get(), self.floor(number));
                let count = page.head.since(page.floor) as usize;
                assert_eq!(page.entries.len(), count, "seqs are floor+1..=head");
                page.entries.into_iter().map(|(_, entry)| entry).collect()
            }
            reset @ PageAnswer::Reset { .. } => panic!("{reset:?}"),
        }
    }

    /// Everything was delivered: exactly one outcome for each recipient of each accepted send.
    fn check(&self) {
        let all = |number: usize| [self.trimmed[number].clone(), self.entries(number)].concat();
        let mailboxes: BTreeMap<UserId, Vec<Entry>> =
            (0..USERS).map(|number| (user(number), all(number))).collect();
        let mut expected = 0;
        for (origin, to) in &self.accepted {
            let sender = origin.sender();
            for recipient in to.iter().chain([sender]).collect::<BTreeSet<_>>() {
                let appended = count(&mailboxes[recipient], |entry| {
                    entry.origin == *origin && matches!(entry.content, Content::Message { .. })
                });
                let refused = count(&mailboxes[sender], |entry| {
                    let code = ErrorCode::Blocked;
                    let recipient = Recipient::User(recipient.clone());
                    let content = Content::Refused { recipient, code };
                    entry.origin == *origin && entry.content == content
                });
                assert_eq!(appended + refused, 1, "{origin:?} to {recipient}");
                expected += 1;
            }
        }
        let found: usize = mailboxes.values().map(Vec::len).sum();
        assert_eq!(found, expected, "nothing else is there");
        for (recipient, entries) in &mailboxes {
            for sender in mailboxes.keys() {
                check_order(recipient, sender, entries);
            }
        }
        for (number, known) in self.devices.iter().enumerate() {
            let (user, device) = (user(number), device());
            let shard = self.cluster.shard_of(&user);
            let found = self.cluster.get(shard, &DeviceKey { user, device }).unwrap();
            assert_eq!(found.cursor, Seq::new(known.cursor));
        }
    }
}

/// What one session sends to one user arrives in the order sent (G4).
fn check_order(recipient: &UserId, from: &UserId, entries: &[Entry]) {
    let numbers = entries.iter().filter_map(|entry| match (&entry.origin, &entry.content) {
        (Origin::Session { sender, session, n }, Content::Message { .. }) if sender == from => {
            Some((*session, *n))
        }
        _ => None,
    });
    let numbers: Vec<_> = numbers.collect();
    assert!(numbers.is_sorted(), "{recipient} has {numbers:?} of {from}");
}

fn count(entries: &[Entry], wanted: impl Fn(&Entry) -> bool) -> usize {
    entries.iter().filter(|entry| wanted(entry)).count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_accepted_send_has_one_outcome_per_recipient(actions in actions()) {
        let mut run = Run::new();
        for action in &actions {
            run.act(action);
        }
        run.cluster.relay_all();
        run.check();
    }

    #[test]
    fn the_same_batches_give_the_same_state(actions in actions()) {
        let run = || {
            let mut run = Run::new();
            for action in &actions {
                run.act(action);
            }
            run.cluster
        };
        let (one, two) = (run(), run());
        for shard in one.count.shards() {
            prop_assert_eq!(one.chain(shard), two.chain(shard));
            prop_assert_eq!(one.state(shard), two.state(shard));
        }
    }
}
