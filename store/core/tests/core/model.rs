//! The state machine against a naive model, in every order of lost answers, retries and relays.
//!
//! The model knows nothing of sessions' windows, streams or stored acks: it only writes down what
//! a correct system would end with. A run sends, marks, recalls, edits, retries, replaces sessions,
//! blocks, chooses contacts, confirms, trims, forgets devices, and ships records late, twice and out of order, while gateways
//! disagree about what to drop; then everything is delivered, and what is there must be what the model
//! says.

mod acts;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;
use tidemark_store_core::act::ActKind;
use tidemark_store_core::command::{Arrival, Command, Confirmation, Draft, Judged, Send, Start};
use tidemark_store_core::feed::{self, FeedChange};
use tidemark_store_core::hints::{self, Hint};
use tidemark_store_core::key::{DeviceKey, ShardKey};
use tidemark_store_core::read::{PageAnswer, PageLimits, mailbox, page};
use tidemark_store_core::value::{
    self, AcceptFrom, Content, Entry, Origin, PushTarget, Settings, Verdict,
};
use tidemark_store_core::{Reject, Reply};
use tidemark_types::{
    ClientMsgId, ContentHash, DeviceId, Epoch, ErrorCode, OpenId, Recipient, Seq, SessionId,
    ShardId, UnixMs, UserId,
};

use self::acts::{Expected, Marked};
use crate::cluster::Cluster;

const USERS: usize = 6;
const SHARDS: u16 = 3;

/// What a run does next. Numbers are reduced to what exists.
#[derive(Clone, Debug)]
enum Action {
    /// The user's device numbers its next message, and sends it.
    Send { user: usize, to: Vec<usize>, attempt: Attempt, dropped: bool },
    /// It numbers an act about some entry of its mailbox, or about none that is there.
    Act { user: usize, kind: ActKind, which: usize, attempt: Attempt, dropped: bool },
    /// It sends one again that it has no answer for, or had one, through a gateway that may judge
    /// it differently.
    Retry { user: usize, which: usize, dropped: bool },
    /// It replaces its session; what the old one did not take is sent in the new one.
    Reopen { user: usize },
    /// Some records are shipped: any slice of what waits, trimmed or not.
    Relay { from: u16, to: u16, skip: usize, take: usize, trim: bool },
    /// A user blocks or unblocks another.
    Block { user: usize, sender: usize, blocked: bool },
    /// A user allows another, or no longer.
    Allow { user: usize, sender: usize, allowed: bool },
    /// A user takes messages of contacts only, or of everybody.
    AcceptFrom { user: usize, contacts: bool },
    /// The user's device confirms up to some entry, maybe less than before.
    Confirm { user: usize, upto: usize, among_many: bool },
    /// Some of the mailbox's oldest entries are removed.
    Trim { user: usize, count: usize },
    /// The user's device is forgotten, and comes back as a new one.
    Forget { user: usize },
    /// The user's device gets a push token, or loses it.
    SetPush { user: usize, has: bool },
    /// The user's device connects, or its connection ends.
    Connect { user: usize, connected: bool },
    /// A leader looks for hints after a while, and all that it finds are sent.
    Wake { shard: u16, after_ms: u64 },
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
    let kind = prop_oneof![
        Just(ActKind::Delivered),
        Just(ActKind::Read),
        Just(ActKind::Recall),
        Just(ActKind::Edit),
    ];
    let dropped = proptest::bool::weighted(0.1);
    let action = prop_oneof![
        6 => (user.clone(), to, attempt.clone(), dropped).prop_map(
            |(user, to, attempt, dropped)| Action::Send { user, to, attempt, dropped }
        ),
        4 => (user.clone(), kind, 0usize..100, attempt, dropped).prop_map(
            |(user, kind, which, attempt, dropped)| {
                Action::Act { user, kind, which, attempt, dropped }
            }
        ),
        3 => (user.clone(), 0usize..100, proptest::bool::weighted(0.3))
            .prop_map(|(user, which, dropped)| Action::Retry { user, which, dropped }),
        1 => user.clone().prop_map(|user| Action::Reopen { user }),
        4 => (0..SHARDS, 0..SHARDS, 0usize..3, 1usize..5, any::<bool>()).prop_map(
            |(from, to, skip, take, trim)| Action::Relay { from, to, skip, take, trim }
        ),
        1 => (user.clone(), user.clone(), any::<bool>())
            .prop_map(|(user, sender, blocked)| Action::Block { user, sender, blocked }),
        1 => (user.clone(), user.clone(), any::<bool>())
            .prop_map(|(user, sender, allowed)| Action::Allow { user, sender, allowed }),
        1 => (user.clone(), any::<bool>())
            .prop_map(|(user, contacts)| Action::AcceptFrom { user, contacts }),
        1 => (user.clone(), 0usize..100, any::<bool>())
            .prop_map(|(user, upto, among_many)| Action::Confirm { user, upto, among_many }),
        1 => (user.clone(), 0usize..5).prop_map(|(user, count)| Action::Trim { user, count }),
        1 => user.clone().prop_map(|user| Action::Forget { user }),
        1 => (user.clone(), any::<bool>()).prop_map(|(user, has)| Action::SetPush { user, has }),
        1 => (user, any::<bool>())
            .prop_map(|(user, connected)| Action::Connect { user, connected }),
        1 => (0..SHARDS, 0u64..20_000)
            .prop_map(|(shard, after_ms)| Action::Wake { shard, after_ms }),
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
    /// Accepted sends in the order of acceptance.
    accepted: Vec<Accepted>,
    /// How far each user has come with each other one.
    marked: Marked,
    /// What was trimmed from each user's mailbox.
    trimmed: [Vec<Entry>; USERS],
}

struct Accepted {
    origin: Origin,
    /// Who is to have one outcome each, beside the sender's own copy.
    to: BTreeSet<UserId>,
    /// By the first judgement that was committed.
    dropped: bool,
    /// When.
    sent: u64,
    /// Of an act: what it does, and about which message.
    act: Option<(ActKind, Origin)>,
}

fn user(number: usize) -> UserId {
    UserId::new(format!("user-{number}")).unwrap()
}

fn register(user: UserId, device: DeviceId) -> Command {
    Command::RegisterDevice { user, device, start: Start::Floor, arrival: None, label: None }
}

fn device() -> DeviceId {
    DeviceId::new("phone").unwrap()
}

impl Run {
    fn new() -> Run {
        let settings = Settings { feed_records_max: u32::MAX, ..acts::settings() };
        let cluster = Cluster::new(SHARDS, settings);
        let (accepted, trimmed) = (Vec::new(), Default::default());
        let marked = Marked::new();
        let mut run = Run { cluster, devices: Vec::new(), opens: 0, accepted, marked, trimmed };
        for number in 0..USERS {
            let device = run.register(number);
            run.devices.push(device);
        }
        run
    }

    /// A device that nobody knows, with its first session.
    fn register(&mut self, number: usize) -> Device {
        let (user, device) = (user(number), device());
        self.cluster.route(register(user, device));
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
            Action::Send { user, to, attempt, dropped } => {
                let to = to.iter().map(|to| Recipient::User(self::user(*to))).collect();
                let draft = self.draft(*user, to);
                self.send_new(*user, draft, *attempt, *dropped);
            }
            Action::Act { user, kind, which, attempt, dropped } => {
                let act = Some(self.meant(*user, *kind, *which));
                let draft = self.draft(*user, Vec::new());
                let draft = match kind {
                    ActKind::Edit => Draft { act, ..draft },
                    _ => Draft { act, kind: 0, body: Bytes::new(), ..draft },
                };
                self.send_new(*user, draft, *attempt, *dropped);
            }
            Action::Retry { user, which, dropped } => {
                let device = &self.devices[*user];
                let waiting = device.next_n - device.base;
                if waiting > 0 {
                    self.send(*user, device.base + *which as u64 % waiting, true, *dropped);
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
            Action::Allow { user, sender, allowed } => {
                let (user, sender) = (self::user(*user), self::user(*sender));
                self.cluster.route(Command::Allow { user, sender, allowed: *allowed });
            }
            Action::AcceptFrom { user, contacts } => {
                let from = if *contacts { AcceptFrom::Contacts } else { AcceptFrom::Everybody };
                self.cluster.route(Command::AcceptFrom { user: self::user(*user), from });
            }
            Action::Confirm { user, upto, among_many } => {
                self.confirm(*user, *upto, *among_many);
            }
            Action::Trim { user, count } => self.trim(*user, *count),
            Action::Forget { user } => self.forget(*user),
            Action::SetPush { user, has } => {
                let provider = "log".to_owned();
                let target = has.then(|| PushTarget { provider, target: "token".to_owned() });
                let (user, device) = (self::user(*user), device());
                self.cluster.route(Command::SetPush { user, device, target });
            }
            Action::Connect { user, connected } => self.connect(*user, *connected),
            Action::Wake { shard, after_ms } => {
                self.cluster.time += after_ms;
                self.wake(ShardId::new(*shard));
            }
        }
    }

    /// What the user's device would send next.
    fn draft(&self, number: usize, to: Vec<Recipient>) -> Draft {
        let n = self.devices[number].next_n;
        let client_msg_id = ClientMsgId::new(UnixMs::new(n), [number as u8; 10]);
        let body = Bytes::from(format!("{number} {n}"));
        Draft { to, kind: 1, client_msg_id, body, act: None }
    }

    fn send_new(&mut self, number: usize, draft: Draft, attempt: Attempt, dropped: bool) {
        let n = self.devices[number].next_n;
        self.devices[number].sends.insert(n, draft);
        self.devices[number].next_n += 1;
        match attempt {
            Attempt::Answered => self.send(number, n, true, dropped),
            Attempt::AnswerLost => self.send(number, n, false, dropped),
            Attempt::NeverArrives => {}
        }
    }

    fn connect(&mut self, number: usize, connected: bool) {
        let (user, device) = (user(number), device());
        let command = match connected {
            true => {
                let arrival = Some(Arrival { issued: UnixMs::new(1) });
                let start = Start::Floor;
                Command::RegisterDevice { user, device, start, arrival, label: None }
            }
            false => {
                let connection = self.device(number).connection;
                Command::Depart { user, device, connection }
            }
        };
        self.cluster.route(command);
    }

    /// A user's device, as the store knows it.
    fn device(&self, number: usize) -> value::Device {
        let (user, device) = (user(number), device());
        let shard = self.cluster.shard_of(&user);
        self.cluster.get(shard, &DeviceKey { user, device }).unwrap()
    }

    /// What a leader does for hints; how many were sent.
    fn wake(&mut self, shard: ShardId) -> usize {
        let now = UnixMs::new(self.cluster.time);
        let state = self.cluster.state(shard);
        let due = hints::due(state, None, now, USERS).unwrap();
        let hints = due.iter().flat_map(|key| hints::hints(state, &key.user, now).unwrap());
        let hints: Vec<_> = hints.collect();
        assert!(due.is_empty() || !hints.is_empty(), "who is due has somebody to wake: {due:?}");
        for Hint { user, device, epoch, head, .. } in hints.iter().cloned() {
            self.cluster.route(Command::PushSent { user, device, epoch, upto: head });
        }
        hints.len()
    }

    /// In the end every device with a token was told of everything, once it is looked for (R18).
    fn wake_all(&mut self) {
        for shard in self.cluster.count.shards() {
            self.cluster.time += 3_600_000;
            self.wake(shard);
            assert_eq!(self.wake(shard), 0, "each hint tells of everything");
        }
        for number in 0..USERS {
            let device = self.device(number);
            let user = user(number);
            let state = self.cluster.state(self.cluster.shard_of(&user));
            let mailbox = mailbox(state, &Recipient::User(user.clone())).unwrap();
            assert_eq!(mailbox.pushes, u32::from(device.push.is_some()));
            assert_eq!(mailbox.due, UnixMs::default());
            let told = device.cursor.max(device.pushed_upto);
            let untold = self.entries(number).into_iter().rev();
            let mut untold = untold.take(mailbox.head.since(told) as usize);
            let told = device.push.is_none() || untold.all(|entry| acts::is_mark(&entry));
            assert!(told, "{user} was not told");
        }
    }

    /// One attempt at a send; `answered` says whether its answer arrives. When one before it never
    /// arrived, the device begins again with that one.
    fn send(&mut self, number: usize, n: u64, answered: bool, dropped: bool) {
        let Device { session, taken, .. } = self.devices[number];
        let expected = (n == taken + 1).then(|| self.expected(number, n)).flatten();
        let reply = self.attempt(number, session, n, dropped);
        if n > taken + 1 {
            assert_eq!(reply, Reply::Rejected(Reject::OutOfOrder { expected: taken + 1 }));
            if answered {
                (taken + 1..=n).for_each(|n| self.send(number, n, true, dropped));
            }
            return;
        }
        let Reply::Sent(verdict) = reply else { panic!("{reply:?}") };
        let origin = Origin::Session { sender: user(number), session, n };
        if n == taken + 1 {
            self.taken(number, n, (origin, dropped), expected, verdict);
        }
        let device = &mut self.devices[number];
        device.taken = taken.max(n);
        let first = device.answers.entry((session, n)).or_insert(verdict);
        assert_eq!(*first, verdict, "every retry gets the identical ack");
        if answered && n == device.base {
            device.base += 1;
        }
    }

    /// What must come of an act that is next.
    fn expected(&mut self, number: usize, n: u64) -> Option<Expected> {
        let asked = self.devices[number].sends[&n].act?;
        Some(self.expect(number, asked))
    }

    /// Writes down a send that was taken just now.
    fn taken(
        &mut self,
        number: usize,
        n: u64,
        (origin, dropped): (Origin, bool),
        expected: Option<Expected>,
        verdict: Verdict,
    ) {
        let draft = &self.devices[number].sends[&n];
        let (to, act) = match expected {
            None => {
                let user = |to: &Recipient| match to {
                    Recipient::User(user) => user.clone(),
                    Recipient::Group(_) => unreachable!("none is made here"),
                };
                (draft.to.iter().map(user).collect(), None)
            }
            Some(Expected::Told { to, of }) => (to, draft.act.map(|asked| (asked.kind, of))),
            Some(Expected::Refused(code)) => return assert_eq!(verdict, Verdict::Refused(code)),
            Some(Expected::Nothing) => {
                let time = UnixMs::new(self.cluster.time);
                return assert_eq!(verdict, Verdict::Accepted { seq: Seq::NONE, time });
            }
        };
        let is_entry = matches!(verdict, Verdict::Accepted { seq, .. } if seq != Seq::NONE);
        assert!(is_entry, "{origin:?}: {verdict:?}");
        self.accepted.push(Accepted { origin, to, dropped, sent: self.cluster.time, act });
    }

    /// Sends `n` in a session; what the store says.
    fn attempt(&mut self, number: usize, session: SessionId, n: u64, dropped: bool) -> Reply {
        let device = &self.devices[number];
        let draft = device.sends[&n].clone();
        let send = Send {
            user: user(number),
            device: self::device(),
            session,
            n,
            base: device.base,
            content: ContentHash::of(&draft.to, draft.kind, &draft.body),
            judged: if dropped { Judged::Drop(draft) } else { Judged::Allow(draft) },
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
            assert_eq!(self.attempt(number, old, n, false), expected);
        }
        let device = &mut self.devices[number];
        let untaken = device.sends.split_off(&(taken + 1));
        device.sends = (1..).zip(untaken.into_values()).collect();
        device.session = session;
        device.next_n = device.sends.len() as u64 + 1;
        device.base = 1;
        device.taken = 0;
        for n in 1..device.next_n {
            self.send(number, n, true, false);
        }
    }

    /// The device confirms up to one of the entries that are there, or none.
    fn confirm(&mut self, number: usize, upto: usize, among_many: bool) {
        let (user, device, epoch) = (user(number), device(), Epoch::FIRST);
        let seq = self.floor(number) + (upto % (self.entries(number).len() + 1)) as u32;
        let cursor = self.devices[number].cursor.max(seq);
        let (seq, cursor) = (Seq::new(seq), Seq::new(cursor));
        match among_many {
            false => {
                let confirm = Command::Confirm { user, device, epoch, seq };
                assert_eq!(self.cluster.route(confirm).reply, Reply::Confirmed { cursor });
            }
            true => {
                let one = Confirmation { user, device, epoch, seq };
                let other = Confirmation { epoch: Epoch::new(7), ..one.clone() };
                let confirm = Command::ConfirmMany { confirmations: vec![other, one] };
                let reply = self.cluster.route(confirm).reply;
                let Reply::ConfirmedMany(outcomes) = reply else { panic!("{reply:?}") };
                assert!(matches!(outcomes[0], Err(Reject::Reset { .. })), "{outcomes:?}");
                assert_eq!(outcomes[1..], [Ok(cursor)]);
            }
        }
        let cursor = cursor.get();
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
            let reply = self.attempt(number, session, n, false);
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

    /// Everything was delivered: exactly one outcome for each recipient of each accepted send, and
    /// none but a count where it was dropped.
    fn check(&self) {
        let all = |number: usize| [self.trimmed[number].clone(), self.entries(number)].concat();
        let mailboxes: BTreeMap<UserId, Vec<Entry>> =
            (0..USERS).map(|number| (user(number), all(number))).collect();
        let (mut expected, mut dropped_copies) = (0, 0);
        for Accepted { origin, to, dropped, .. } in &self.accepted {
            let sender = origin.sender();
            for recipient in to.iter().chain([sender]).collect::<BTreeSet<_>>() {
                let appended = count(&mailboxes[recipient], |entry| {
                    entry.origin == *origin && matches!(entry.content, Content::Message { .. })
                });
                let refused = count(&mailboxes[sender], |entry| {
                    let by_recipient = |code| {
                        let recipient = Recipient::User(recipient.clone());
                        entry.content == Content::Refused { recipient, code }
                    };
                    let codes = [ErrorCode::Blocked, ErrorCode::Stranger];
                    entry.origin == *origin && codes.into_iter().any(by_recipient)
                });
                let dropped = *dropped && recipient != sender;
                assert_eq!(appended + refused, usize::from(!dropped), "{origin:?} to {recipient}");
                expected += appended + refused;
                dropped_copies += u64::from(dropped);
            }
        }
        let shards = self.cluster.count.shards();
        let counted = shards.map(|shard| self.cluster.get(shard, &ShardKey {}).unwrap().dropped);
        assert_eq!(counted.sum::<u64>(), dropped_copies);
        let found: usize = mailboxes.values().map(Vec::len).sum();
        assert_eq!(found, expected, "nothing else is there");
        for (recipient, entries) in &mailboxes {
            for sender in mailboxes.keys() {
                check_order(recipient, sender, entries);
            }
        }
        acts::check(&self.accepted, &mailboxes);
        (0..USERS).for_each(|number| acts::check_unread(self, number));
        for (number, known) in self.devices.iter().enumerate() {
            assert_eq!(self.device(number).cursor, Seq::new(known.cursor));
        }
        self.check_feeds();
    }

    /// Who has followed the feeds knows every entry, in its mailbox's order, and how devices stand (R20).
    fn check_feeds(&self) {
        let mut heads = BTreeMap::<Recipient, Seq>::new();
        let mut cursors = BTreeMap::<UserId, (Seq, bool)>::new();
        for shard in self.cluster.count.shards() {
            let all = PageLimits { entries: usize::MAX, bytes: usize::MAX };
            let page = feed::page(self.cluster.state(shard), 0, all).unwrap();
            assert_eq!((page.feed.floor, page.feed.head), (0, page.records.len() as u64));
            for change in page.records.into_iter().flat_map(|(_, record)| record.changes) {
                match change {
                    FeedChange::Entry { mailbox, seq } => {
                        let head = heads.entry(mailbox).or_insert(Seq::NONE);
                        assert_eq!(head.next(), Some(seq));
                        *head = seq;
                    }
                    FeedChange::Device { user, cursor, connected, .. } => {
                        cursors.insert(user, (cursor, connected));
                    }
                    FeedChange::Forgotten { user, .. } => drop(cursors.remove(&user)),
                }
            }
        }
        for number in 0..USERS {
            let (id, device) = (Recipient::User(user(number)), self.device(number));
            let state = self.cluster.state(self.cluster.shard_of(&user(number)));
            let head = mailbox(state, &id).unwrap().head;
            assert_eq!(heads.get(&id).copied().unwrap_or_default(), head);
            assert_eq!(cursors.get(&user(number)), Some(&(device.cursor, device.connected)));
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
        run.wake_all();
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
