//! A system that keeps its promises, as simple as can be: it makes the histories of valid runs.
//!
//! Mailboxes are vectors and a commit is one step, but what is around them is as untidy as the
//! real thing: sends wait, are lost before or after they are taken, and are repeated; relays lag;
//! reads take effect anywhere between their two events; devices die and start again from an older
//! cursor; retention removes what some have not seen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::rngs::ChaCha8Rng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use tidemark_checker::history::{
    Copy, Device, Digest, Event, Group, Judgement, Nanos, Node, Op, Origin, Outcome, User, Way,
};
use tidemark_types::{ErrorCode, Seq};

use crate::run_facts::Cluster;

/// Groups are shards here: a user lives on the one of its number modulo this.
pub(crate) const GROUPS: u32 = 2;

struct Phone {
    running: bool,
    last: u32,
    /// The server's cursor; the device's own store is between it and `last`.
    cursor: u32,
    session: u64,
    n: u64,
}

#[derive(Default)]
struct Account {
    log: Vec<Copy>,
    /// Where its own messages are that were dropped.
    dropped: Vec<Seq>,
    floor: u32,
    phones: Vec<Phone>,
    blocks: BTreeSet<u32>,
    silent: bool,
    sessions: u64,
}

#[derive(Clone)]
struct Draft {
    sender: u32,
    device: u8,
    way: Way,
    id: u128,
    to: Vec<User>,
    content: u64,
    /// Somebody judges each attempt, and may change their mind.
    judged: bool,
}

/// A send under way.
struct Flight {
    op: Op,
    draft: Draft,
}

/// An answer under way; a read takes effect when it is resolved.
enum Reply {
    Sent(Op, Outcome),
    Head(Op, u32),
    HeadIs(Op, u32),
    Page(Op, u32, u32),
    Cursor(Nanos, u32, u8),
}

/// A message or a refusal on its way to another shard.
enum Record {
    Message(u32, Copy),
    Refusal(Copy),
}

pub(crate) struct Model {
    rng: ChaCha8Rng,
    now: u64,
    events: Vec<Event>,
    accounts: Vec<Account>,
    flights: Vec<Flight>,
    replies: VecDeque<Reply>,
    relays: BTreeMap<(u32, u32), VecDeque<Record>>,
    /// What back ends sent, and the verdict once there is one.
    backend: Vec<(Draft, Option<Outcome>)>,
    ops: u64,
    cluster: Cluster,
}

/// The history of a valid run of about so many steps.
pub(crate) fn history(seed: u64, steps: usize) -> Vec<Event> {
    let mut model = Model::new(seed);
    for _ in 0..steps {
        model.step();
    }
    model.end()
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let nodes = rng.random_range(2..=3);
        let mut model = Model {
            now: 1_000,
            events: Vec::new(),
            accounts: Vec::new(),
            flights: Vec::new(),
            replies: VecDeque::new(),
            relays: BTreeMap::new(),
            backend: Vec::new(),
            ops: 0,
            cluster: Cluster::new(nodes),
            rng,
        };
        for user in 0..model.rng.random_range(3..=6) {
            let silent = model.rng.random_bool(0.15);
            model.accounts.push(Account { silent, ..Account::default() });
            if silent {
                let at = model.tick();
                model.events.push(Event::Silent { at, user: User(user) });
            }
            for _ in 0..model.rng.random_range(1..=2) {
                model.new_phone(user);
            }
        }
        model
    }

    fn tick(&mut self) -> Nanos {
        self.now += self.rng.random_range(1..2_000);
        Nanos(self.now)
    }

    fn some_user(&mut self) -> u32 {
        self.rng.random_range(0..self.accounts.len() as u32)
    }

    fn some_phone(&mut self) -> (u32, u8) {
        let user = self.some_user();
        let phones = self.accounts[user as usize].phones.len() as u8;
        (user, self.rng.random_range(0..phones))
    }

    fn phone(&mut self, user: u32, device: u8) -> &mut Phone {
        &mut self.accounts[user as usize].phones[device as usize]
    }

    fn next_op(&mut self) -> Op {
        self.ops += 1;
        Op(self.ops)
    }

    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..20 => self.session_send(),
            20..28 => self.backend_send(),
            28..48 => self.decide(),
            48..58 => self.relay(),
            58..72 => self.answer(),
            72..84 => self.take(),
            84..86 => self.restart(),
            86..89 => self.read(),
            89..91 => self.confirm(),
            91 => self.trim(),
            92 => self.block(),
            93 => {
                let user = self.some_user();
                if self.accounts[user as usize].phones.len() < 3 {
                    self.new_phone(user);
                }
            }
            _ => {
                let at = self.tick();
                self.cluster.step(at, &mut self.rng, &mut self.events);
            }
        }
    }

    /// A device that begins at the floor, at the head, or anywhere between.
    fn new_phone(&mut self, user: u32) {
        let at = self.tick();
        let account = &mut self.accounts[user as usize];
        let cursor = self.rng.random_range(account.floor..=account.log.len() as u32);
        account.sessions += 1;
        let session = account.sessions;
        account.phones.push(Phone { running: true, last: cursor, cursor, session, n: 0 });
        let device = Device(account.phones.len() as u8 - 1);
        self.events.push(Event::Start { at, user: User(user), device, cursor: Seq::new(cursor) });
        if can_be_woken(user, device.0) {
            self.events.push(Event::Target { at: Nanos(self.now), user: User(user), device });
        }
    }

    /// Devices that are away are told of what they lack.
    fn hint(&mut self) {
        for (user, account) in self.accounts.iter().enumerate() {
            for (device, phone) in account.phones.iter().enumerate() {
                let (user, device, head) = (user as u32, device as u8, account.log.len() as u32);
                if can_be_woken(user, device) && !phone.running && phone.last < head {
                    let (at, user, device) = (Nanos(self.now), User(user), Device(device));
                    self.events.push(Event::Hint { at, user, device, head: Seq::new(head) });
                }
            }
        }
    }

    fn draft(&mut self, sender: u32, device: u8, way: Way) -> Draft {
        let to = (0..self.rng.random_range(1..=3)).map(|_| User(self.some_user())).collect();
        let (id, content, judged) =
            (self.rng.random(), self.rng.random(), self.rng.random_bool(0.25));
        Draft { sender, device, way, id, to, content, judged }
    }

    fn send(&mut self, draft: Draft) {
        let (op, at) = (self.next_op(), self.tick());
        let Draft { sender, device, way, id, to, content, judged } = draft.clone();
        let (sender, device) = (User(sender), Device(device));
        self.events.push(Event::Send { op, at, sender, device, way, id, to, content });
        if judged {
            // Where nobody can be asked it goes, or waits.
            let judgement = self.rng.random_bool(0.5).then_some(Judgement::Allow);
            self.events.push(Event::Judged { at, sender, id, judgement });
        }
        self.flights.push(Flight { op, draft });
    }

    fn session_send(&mut self) {
        let (user, device) = self.some_phone();
        let draft = self.draft(user, device, Way::Session);
        self.send(draft);
    }

    /// A new message, or another attempt at an earlier one.
    fn backend_send(&mut self) {
        let again = self.rng.random_bool(0.5);
        let known = self.backend.choose(&mut self.rng).filter(|_| again);
        let draft = match known {
            Some((draft, _)) => draft.clone(),
            None => {
                let sender = self.some_user();
                let draft = self.draft(sender, 0, Way::Backend);
                self.backend.push((draft.clone(), None));
                draft
            }
        };
        self.send(draft);
    }

    /// A send is taken, refused, or lost; of a device's, the oldest one.
    fn decide(&mut self) {
        if self.flights.is_empty() {
            return;
        }
        let some = self.rng.random_range(0..self.flights.len());
        let Draft { sender, device, way, .. } = self.flights[some].draft;
        let oldest = |flight: &Flight| {
            let draft = &flight.draft;
            (draft.sender, draft.device, draft.way) == (sender, device, way)
        };
        let oldest = self.flights.iter().position(oldest).expect("itself at least");
        let Flight { op, draft } = self.flights.remove(oldest);
        let judgement = self.judge(&draft);
        let outcome = match self.rng.random_range(0..20) {
            0 => Outcome::Unknown,
            1 => self.refuse(&draft),
            _ => self.commit(&draft, judgement),
        };
        match self.rng.random_range(0..20) {
            0 => {}
            1 => self.replies.push_back(Reply::Sent(op, Outcome::Unknown)),
            _ => self.replies.push_back(Reply::Sent(op, outcome)),
        }
    }

    /// Whoever judges an attempt says anything.
    fn judge(&mut self, draft: &Draft) -> Judgement {
        if !draft.judged {
            return Judgement::Allow;
        }
        let judgement = match self.rng.random_range(0..5) {
            0 | 1 => Judgement::Allow,
            2 => Judgement::Refuse { code: ErrorCode::HookRefused },
            3 => Judgement::Replace { content: self.rng.random() },
            _ => Judgement::Drop,
        };
        let (at, sender, id) = (Nanos(self.now), User(draft.sender), draft.id);
        self.events.push(Event::Judged { at, sender, id, judgement: Some(judgement) });
        judgement
    }

    /// For a back end only this attempt; for a device, the message.
    fn refuse(&mut self, draft: &Draft) -> Outcome {
        match draft.way {
            Way::Backend => Outcome::Refused { code: ErrorCode::Overloaded },
            Way::Session => {
                self.phone(draft.sender, draft.device).n += 1;
                Outcome::Refused { code: ErrorCode::BadRecipient }
            }
        }
    }

    /// The first judgement that comes so far counts.
    fn commit(&mut self, draft: &Draft, judgement: Judgement) -> Outcome {
        let known = self.backend.iter().position(|(known, _)| known.id == draft.id);
        if let Some(outcome) = known.and_then(|known| self.backend[known].1) {
            return outcome;
        }
        let outcome = self.verdict(draft, judgement);
        if let Some(known) = known {
            self.backend[known].1 = Some(outcome);
        }
        outcome
    }

    fn verdict(&mut self, draft: &Draft, judgement: Judgement) -> Outcome {
        let origin = match draft.way {
            Way::Backend => Origin::Backend,
            Way::Session => {
                let phone = self.phone(draft.sender, draft.device);
                phone.n += 1;
                Origin::Session { session: phone.session, n: phone.n }
            }
        };
        let Draft { sender, id, .. } = *draft;
        let content = match judgement {
            Judgement::Refuse { code } => return Outcome::Refused { code },
            Judgement::Replace { content } => content,
            Judgement::Allow | Judgement::Drop => draft.content,
        };
        let copy = Copy::Message { sender: User(sender), origin, id, content };
        let seq = self.append(sender, copy);
        if judgement == Judgement::Drop {
            self.accounts[sender as usize].dropped.push(seq);
        }
        let to: BTreeSet<u32> = draft.to.iter().map(|user| user.0).collect();
        let goes = judgement != Judgement::Drop;
        for user in to.into_iter().filter(|user| goes && *user != sender) {
            let stream = self.relays.entry((sender % GROUPS, user % GROUPS)).or_default();
            stream.push_back(Record::Message(user, copy));
        }
        // Not every answer says which send it is of; a back end's is known by its id.
        let told = draft.way == Way::Backend || self.rng.random_bool(0.5);
        Outcome::Accepted { seq, origin: told.then_some(origin) }
    }

    fn append(&mut self, user: u32, copy: Copy) -> Seq {
        let log = &mut self.accounts[user as usize].log;
        log.push(copy);
        Seq::new(log.len() as u32)
    }

    /// The first record of a stream arrives.
    fn relay(&mut self) {
        let waiting = |(_, stream): &(&(u32, u32), &VecDeque<Record>)| !stream.is_empty();
        let streams: Vec<_> = self.relays.iter().filter(waiting).map(|(ends, _)| *ends).collect();
        let Some(ends) = streams.choose(&mut self.rng).copied() else { return };
        let record = self.relays.get_mut(&ends).and_then(VecDeque::pop_front);
        match record.expect("it is not empty") {
            Record::Message(user, copy) => self.arrive(ends, user, copy),
            Record::Refusal(copy) => {
                let Copy::Refusal { sender, .. } = copy else { unreachable!("no message") };
                self.append(sender.0, copy);
            }
        }
    }

    fn arrive(&mut self, ends: (u32, u32), user: u32, copy: Copy) {
        let Copy::Message { sender, origin, id, .. } = copy else { unreachable!("a message") };
        let account = &self.accounts[user as usize];
        if !account.blocks.contains(&sender.0) {
            self.append(user, copy);
        } else if !account.silent {
            let (recipient, code) = (User(user), ErrorCode::Blocked);
            let id = (origin == Origin::Backend).then_some(id);
            let refusal = Copy::Refusal { sender, origin, id, recipient, code };
            let back = self.relays.entry((ends.1, ends.0)).or_default();
            back.push_back(Record::Refusal(refusal));
        }
    }

    /// The oldest answer arrives, or any other.
    fn answer(&mut self) {
        if self.replies.is_empty() {
            return;
        }
        let some = self.rng.random_range(0..self.replies.len());
        let reply = self.replies.remove(some).expect("it is there");
        let at = self.tick();
        let event = match reply {
            Reply::Sent(op, outcome) => Event::Sent { op, at, outcome },
            Reply::HeadIs(op, head) => Event::HeadIs { op, at, seq: Seq::new(head) },
            Reply::Head(op, user) => {
                let head = self.accounts[user as usize].log.len() as u32;
                Event::HeadIs { op, at, seq: Seq::new(head) }
            }
            Reply::Page(op, user, after) => self.page(op, at, user, after),
            Reply::Cursor(asked, user, device) => {
                let seq = Seq::new(self.phone(user, device).cursor);
                Event::CursorIs { asked, at, user: User(user), device: Device(device), seq }
            }
        };
        self.events.push(event);
    }

    fn page(&mut self, op: Op, at: Nanos, user: u32, after: u32) -> Event {
        let limit = self.rng.random_range(1..6);
        let account = &self.accounts[user as usize];
        let begin = after.max(account.floor);
        let all = account.log.iter().enumerate().skip(begin as usize).take(limit);
        let entries = all.map(|(at, copy)| (Seq::new(at as u32 + 1), *copy)).collect();
        Event::RangeIs { op, at, floor: Seq::new(account.floor), entries }
    }

    fn take(&mut self) {
        let (user, device) = self.some_phone();
        for _ in 0..self.rng.random_range(1..8) {
            self.take_one(user, device);
        }
    }

    fn take_one(&mut self, user: u32, device: u8) -> bool {
        let account = &self.accounts[user as usize];
        let (floor, Phone { running, last, .. }) =
            (account.floor, &account.phones[device as usize]);
        let (running, last) = (*running, *last);
        if !running || last as usize >= account.log.len() {
            return false;
        }
        let copy = account.log[last as usize];
        let at = self.tick();
        let (to, who) = (last.max(floor), (User(user), Device(device)));
        self.events.push(match to > last {
            true => Event::Gap { at, user: who.0, device: who.1, to: Seq::new(to) },
            false => Event::Taken { at, user: who.0, device: who.1, seq: Seq::new(last + 1), copy },
        });
        self.phone(user, device).last = to.max(last + u32::from(to == last));
        true
    }

    /// A device dies, or one that is dead comes back; with a new session or the old one.
    fn restart(&mut self) {
        let (who, at) = (self.some_phone(), self.tick());
        let (user, device) = (User(who.0), Device(who.1));
        let told = self.rng.random_bool(0.5);
        let waits = |flight: &Flight| {
            (flight.draft.sender, flight.draft.device, flight.draft.way)
                == (who.0, who.1, Way::Session)
        };
        let idle = !self.flights.iter().any(waits);
        let phone = self.phone(who.0, who.1);
        if phone.running && told {
            phone.running = false;
            self.events.push(Event::Stop { at, user, device });
            return self.hint();
        }
        phone.running = true;
        let (low, high) = (phone.cursor, phone.last);
        let last = self.rng.random_range(low..=high);
        self.phone(who.0, who.1).last = last;
        self.events.push(Event::Start { at, user, device, cursor: Seq::new(last) });
        if idle && self.rng.random_bool(0.5) {
            let account = &mut self.accounts[who.0 as usize];
            account.sessions += 1;
            let phone = &mut account.phones[who.1 as usize];
            (phone.session, phone.n) = (account.sessions, 0);
        }
    }

    fn read(&mut self) {
        let ((user, device), at) = (self.some_phone(), self.tick());
        let head = self.accounts[user as usize].log.len() as u32;
        let kind = self.rng.random_range(0..4);
        let reply = match kind {
            0 | 1 => {
                let op = self.next_op();
                self.events.push(Event::Head { op, at, user: User(user) });
                if kind == 0 { Reply::Head(op, user) } else { Reply::HeadIs(op, head) }
            }
            2 => {
                let (op, after) = (self.next_op(), self.rng.random_range(0..=head));
                let after_seq = Seq::new(after);
                self.events.push(Event::Range { op, at, user: User(user), after: after_seq });
                Reply::Page(op, user, after)
            }
            _ => Reply::Cursor(at, user, device),
        };
        self.replies.push_back(reply);
    }

    fn confirm(&mut self) {
        let (user, device) = self.some_phone();
        let phone = self.phone(user, device);
        if phone.running {
            phone.cursor = phone.cursor.max(phone.last);
        }
    }

    fn trim(&mut self) {
        let user = self.some_user() as usize;
        let account = &mut self.accounts[user];
        let head = account.log.len() as u32;
        let taken = account.phones.iter().map(|phone| phone.last).min().unwrap_or(head);
        // Most of the time what all have taken; now and then more.
        let most = if self.rng.random_bool(0.8) { taken } else { head };
        if most > account.floor {
            account.floor = self.rng.random_range(account.floor..=most);
        }
    }

    fn block(&mut self) {
        let (user, other) = (self.some_user(), self.some_user());
        if user == other {
            return;
        }
        let blocks = &mut self.accounts[user as usize].blocks;
        let refused = !blocks.remove(&other);
        if refused {
            blocks.insert(other);
        }
        let (at, user, sender) = (Nanos(self.now), User(user), User(other));
        self.events.push(Event::Decided { asked: at, at, user, sender, refused });
    }

    /// Faults end, all comes to rest, and what there is is written down.
    fn end(mut self) -> Vec<Event> {
        let at = self.tick();
        self.now = self.cluster.heal(at, &mut self.events).0;
        while !self.flights.is_empty() {
            self.decide();
        }
        while self.relays.values().any(|stream| !stream.is_empty()) {
            self.relay();
        }
        while !self.replies.is_empty() {
            self.answer();
        }
        for user in 0..self.accounts.len() as u32 {
            for device in 0..self.accounts[user as usize].phones.len() as u8 {
                while self.take_one(user, device) {}
            }
        }
        self.last_looks();
        self.hint();
        let at = self.tick();
        self.events.push(Event::Quiet { at });
        self.truth();
        self.events
    }

    /// Cursors that have come to the head, and new devices that begin there.
    fn last_looks(&mut self) {
        for user in 0..self.accounts.len() as u32 {
            if self.rng.random_bool(0.5) {
                self.new_phone(user);
            }
            for device in 0..self.accounts[user as usize].phones.len() as u8 {
                let phone = self.phone(user, device);
                phone.cursor = if phone.running { phone.last } else { phone.cursor };
                let asked = self.tick();
                self.replies.push_back(Reply::Cursor(asked, user, device));
                while self.take_one(user, device) {}
            }
        }
        while !self.replies.is_empty() {
            self.answer();
        }
    }

    fn truth(&mut self) {
        for (user, Account { log, dropped, floor, .. }) in self.accounts.iter().enumerate() {
            let user = User(user as u32);
            let all = log.iter().enumerate().map(|(at, copy)| (Seq::new(at as u32 + 1), copy));
            let entries: Vec<_> = all.skip(*floor as usize).collect();
            let digest = Digest::of(entries.iter().copied()).value();
            let (floor, head) = (Seq::new(*floor), Seq::new(log.len() as u32));
            for node in 0..self.cluster.nodes() {
                self.events.push(Event::Mailbox { node: Node(node), user, floor, head, digest });
            }
            let entry = |(seq, copy): (Seq, &Copy)| Event::Entry { user, seq, copy: *copy };
            self.events.extend(entries.into_iter().map(entry));
            let dropped = dropped.iter().filter(|seq| **seq > floor);
            self.events.extend(dropped.map(|seq| Event::Dropped { user, seq: *seq }));
        }
    }
}

/// Every other device has a push service.
fn can_be_woken(user: u32, device: u8) -> bool {
    (user + u32::from(device)).is_multiple_of(2)
}

/// Every group there is.
pub(crate) fn groups() -> impl Iterator<Item = Group> {
    (0..GROUPS).map(Group)
}
