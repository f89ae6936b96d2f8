//! Everything that goes wrong, at random, against a server that keeps the rules of R1: runs that
//! are lost, doubled or overtaken, frames without an answer, cut connections, crashes before and
//! after a commit, sessions that another process replaces or that expire, resets and retention.
//!
//! What must hold: the application gets every entry once, in order (after a crash: again from the
//! stored cursor, in order); every send that was stored gets one outcome, and that is the truth;
//! no send is taken twice or out of order; the server never sees a number that breaks a rule.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tidemark_client::engine::{Action, Engine, Input, Link};
use tidemark_client::store::{Change, OutboxId};
use tidemark_client::{Config, Content, Event, Item, MemoryStore, Outcome, Unknown};
use tidemark_env::SeededRng;
use tidemark_proto::v1;
use tidemark_proto::v1::client_frame::Frame;
use tidemark_proto::v1::server_frame;
use tidemark_types::{ClientMsgId, ErrorCode, UnixMs};

use crate::server::{Mood, Server};
use crate::stored;

/// What may happen.
#[derive(Clone, Copy, Debug)]
enum Op {
    /// The application sends.
    Send,
    /// Somebody sends to this user.
    Mail,
    /// The server takes the device's next frame, and does this with it.
    Serve(Mood),
    /// A frame of the server arrives: which one, if it may overtake; and then it is lost, or comes
    /// again.
    Arrive { at: usize, lost: bool, again: bool },
    /// The application is done with what it was given.
    Handled(bool),
    /// The application takes an outcome.
    Take,
    /// Time passes, in milliseconds.
    Tick(u64),
    /// The connection is cut.
    Cut,
    /// The gateway drains.
    GoAway,
    /// The process dies, before or after its changes were durable.
    Crash { committed: bool },
    /// Another process replaces the session.
    Steal,
    /// The server forgets ended sessions, or all of them.
    Expire { live: bool },
    /// The mailbox gets a new epoch.
    Reset,
    /// Retention removes some of the oldest entries.
    Trim,
}

fn op() -> impl Strategy<Value = Op> {
    let mood = prop_oneof![
        12 => Just(Mood::Answer),
        1 => Just(Mood::Lose),
        1 => Just(Mood::Forget),
        1 => Just(Mood::Refuse(ErrorCode::Overloaded)),
        1 => Just(Mood::Refuse(ErrorCode::Unavailable)),
        1 => Just(Mood::Refuse(ErrorCode::GoingAway)),
        1 => Just(Mood::Refuse(ErrorCode::NoDevice)),
        1 => Just(Mood::Refuse(ErrorCode::TokenExpired)),
    ];
    let arrive = (0_usize..4, prop::bool::weighted(0.1), prop::bool::weighted(0.1));
    prop_oneof![
        20 => Just(Op::Send),
        10 => Just(Op::Mail),
        40 => mood.prop_map(Op::Serve),
        40 => arrive.prop_map(|(at, lost, again)| Op::Arrive { at, lost, again }),
        20 => prop::bool::weighted(0.9).prop_map(Op::Handled),
        10 => Just(Op::Take),
        10 => (1_u64..3_000).prop_map(Op::Tick),
        3 => Just(Op::Cut),
        1 => Just(Op::GoAway),
        3 => any::<bool>().prop_map(|committed| Op::Crash { committed }),
        1 => Just(Op::Steal),
        1 => any::<bool>().prop_map(|live| Op::Expire { live }),
        1 => Just(Op::Reset),
        1 => Just(Op::Trim),
    ]
}

/// The device, its network, and what its application saw.
struct World {
    config: Arc<Config>,
    store: MemoryStore,
    engine: Engine,
    server: Server,
    now: Duration,
    lives: u64,
    crashed: bool,
    link: Option<Link>,
    to_server: VecDeque<Frame>,
    started: bool,
    handing: bool,
    /// The seq that the application took last, in this life.
    last: Option<u32>,
    /// And the one before.
    before: Option<u32>,
    /// The highest that it ever took.
    highest: u32,
    /// Where the last reset began.
    floor: u32,
    /// After a crash the memory of origins is gone, and a reset may bring everything again.
    forgetful: bool,
    sends: u32,
    /// Bodies of sends that are durable, by id.
    stored: BTreeMap<OutboxId, bytes::Bytes>,
    reported: HashMap<OutboxId, Outcome>,
    to_take: VecDeque<OutboxId>,
}

impl World {
    fn new(seed: u64) -> Self {
        let gateways = vec!["one:1".to_owned()];
        let user = "alice".parse().expect("legal");
        let config = Arc::new(Config::new(user, "phone".parse().expect("legal"), gateways));
        let store = MemoryStore::default();
        let rng = Arc::new(SeededRng::new(seed));
        let engine = Engine::new(config.clone(), store.saved(), rng);
        let mut world = World {
            config,
            store,
            engine,
            server: Server::new(4, 5),
            now: Duration::ZERO,
            lives: seed,
            crashed: false,
            link: None,
            to_server: VecDeque::new(),
            started: false,
            handing: false,
            last: None,
            before: None,
            highest: 0,
            floor: 0,
            forgetful: false,
            sends: 0,
            stored: BTreeMap::new(),
            reported: HashMap::new(),
            to_take: VecDeque::new(),
        };
        world.input(Input::Tick);
        world
    }

    fn input(&mut self, input: Input) {
        self.engine.input(self.now, input);
        self.carry_out();
    }

    fn commit(&mut self, changes: Vec<Change>) {
        for change in &changes {
            match change {
                Change::Put(id, send) => drop(self.stored.insert(*id, send.body.clone())),
                // A device without a cursor starts at the floor.
                Change::Meta(meta) if meta.epoch.get() > 0 && !self.started => {
                    self.started = true;
                    self.highest = meta.cursor.get();
                }
                Change::Meta(_) | Change::Settle(..) | Change::Forget(_) => {}
            }
        }
        self.store.apply(changes);
    }

    fn carry_out(&mut self) {
        let output = self.engine.output();
        self.commit(output.changes);
        for action in output.actions {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Connect { link, .. } => {
                self.cut();
                self.link = Some(link);
                self.input(Input::Connected(link));
            }
            Action::Close(link) if self.link == Some(link) => self.cut(),
            Action::Send { link, frame } if self.link == Some(link) => {
                let frame = frame.frame.expect("a frame is known");
                stored::before(&frame, &self.store.saved());
                self.to_server.push_back(frame);
            }
            Action::FetchToken { .. } => self.input(Input::Token(Ok("jwt".to_owned()))),
            Action::Hand(item) => self.handed(&item),
            Action::Report { id, settled } => {
                let before = self.reported.insert(id, settled.outcome);
                assert!(before.is_none_or(|before| before == settled.outcome), "two outcomes");
                self.to_take.push_back(id);
            }
            Action::Stop => panic!("nothing fatal happens here"),
            Action::Event(Event::Reset { floor, .. }) => {
                // What lies below it cannot be had in the new epoch.
                self.floor = floor.get();
                self.highest = self.highest.max(floor.get());
                self.last = self.last.map(|last| last.max(floor.get()));
            }
            Action::Close(_)
            | Action::Send { .. }
            | Action::Answer(_)
            | Action::Unanswered { .. }
            | Action::Event(_) => {}
        }
    }

    fn cut(&mut self) {
        self.link = None;
        self.to_server.clear();
        self.server.cut();
    }

    fn handed(&mut self, item: &Item) {
        assert!(!self.handing, "one at a time");
        self.handing = true;
        let seq = item.last().get();
        let first = match item {
            Item::Entry(entry) => {
                let Content::Message(message) = &entry.content else { panic!("a message") };
                let v1::entry::Content::Message(truth) =
                    self.server.mailbox[seq as usize - 1].content.as_ref().expect("one")
                else {
                    panic!("a message")
                };
                assert_eq!(message.body, truth.body);
                seq
            }
            Item::Gap(gap) => {
                assert!(seq <= self.server.floor, "a gap of entries that are there");
                gap.first().get()
            }
        };
        assert!(first <= self.highest + 1, "{first} is handed over, {} was the last", self.highest);
        if let Some(last) = self.last
            && !self.forgetful
            && !matches!(item, Item::Gap(_))
        {
            assert_eq!(first, last + 1, "twice, or out of order");
        }
        self.before = self.last;
        // After a reset a gap may be of entries that were taken before it.
        self.last = Some(self.last.filter(|_| !self.forgetful).map_or(seq, |last| last.max(seq)));
    }

    fn handled(&mut self, taken: bool) {
        if !std::mem::take(&mut self.handing) {
            return;
        }
        match taken {
            true => self.highest = self.highest.max(self.last.unwrap_or(0)),
            false => self.last = self.before.map(|before| before.max(self.floor)),
        }
        self.input(Input::Handled(if taken { Ok(()) } else { Err("no".to_owned()) }));
    }

    fn arrive(&mut self, at: usize, lost: bool, again: bool) {
        let Some(link) = self.link else { return };
        let may_overtake = |frame: &v1::ServerFrame| {
            use server_frame::Frame;
            let frame = frame.frame.as_ref().expect("a frame is known");
            matches!(frame, Frame::Deliver(_) | Frame::SyncPage(_) | Frame::Notice(_))
        };
        let at = if self.server.out.iter().take(at + 1).all(may_overtake) { at } else { 0 };
        let Some(frame) = self.server.out.remove(at) else { return };
        let loose = may_overtake(&frame);
        if again && loose {
            self.server.out.push_back(frame.clone());
        }
        if !(lost && loose) {
            self.input(Input::Frame { link, frame: Box::new(frame) });
        }
    }

    fn send(&mut self) {
        self.sends += 1;
        let id = ClientMsgId::new(UnixMs::new(u64::from(self.sends)), [1; 10]);
        let send = v1::Send {
            to: vec![v1::Id { kind: 1, name: "bob".to_owned() }],
            body: format!("{:06}", self.sends).into(),
            client_msg_id: id.as_bytes().to_vec(),
            ..v1::Send::default()
        };
        self.engine.send(self.now, send);
    }

    fn mail(&mut self) {
        let n = u64::from(self.server.head()) + 1;
        let id = ClientMsgId::new(UnixMs::new(n), [2; 10]);
        let send = v1::Send {
            body: format!("mail {n}").into(),
            client_msg_id: id.as_bytes().to_vec(),
            ..v1::Send::default()
        };
        self.server.append("bob", 1, n, &send);
    }

    fn crash(&mut self, committed: bool) {
        // The last step was under way.
        self.send();
        self.engine.input(self.now, Input::Tick);
        let output = self.engine.output();
        if committed {
            self.commit(output.changes);
        }
        self.cut();
        self.lives += 1;
        self.crashed = true;
        self.handing = false;
        self.last = None;
        self.forgetful = false;
        self.to_take.clear();
        let rng = Arc::new(SeededRng::new(self.lives));
        self.engine = Engine::new(self.config.clone(), self.store.saved(), rng);
        self.input(Input::Tick);
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Send => {
                self.send();
                self.carry_out();
            }
            Op::Mail => self.mail(),
            Op::Serve(mood) => {
                if let Some(frame) = self.to_server.pop_front() {
                    self.server.serve(frame, mood);
                }
            }
            Op::Arrive { at, lost, again } => self.arrive(at, lost, again),
            Op::Handled(taken) => self.handled(taken),
            Op::Take => {
                if let Some(id) = self.to_take.pop_front() {
                    self.input(Input::Taken(id));
                }
            }
            Op::Tick(ms) => {
                self.now += Duration::from_millis(ms);
                self.input(Input::Tick);
            }
            Op::Cut => {
                if let Some(link) = self.link {
                    self.cut();
                    self.input(Input::Lost { link, reason: "cut".to_owned() });
                }
            }
            Op::GoAway if self.link.is_some() => {
                let away = v1::GoAway {
                    reconnect_after_ms: 50,
                    close_after_ms: 500,
                    ..v1::GoAway::default()
                };
                self.server.out.push_back(away.into());
            }
            Op::GoAway => {}
            Op::Crash { committed } => self.crash(committed),
            Op::Steal => self.server.replace(b"somebody else".to_vec()),
            Op::Expire { live } => {
                if live {
                    self.server.live = 0;
                }
                let live = self.server.live;
                self.server.sessions.retain(|session, _| *session == live);
            }
            Op::Reset => {
                self.server.epoch += 1;
                self.server.delivered = None;
                self.forgetful |= self.crashed;
            }
            Op::Trim => {
                let delivered = self.server.delivered.unwrap_or(0);
                self.server.floor = (self.server.floor + 3).min(delivered).max(self.server.floor);
            }
        }
    }

    /// Nothing goes wrong any more, until nothing happens any more.
    fn heal(&mut self) {
        for _ in 0..20_000 {
            if let Some(frame) = self.to_server.pop_front() {
                self.server.serve(frame, Mood::Answer);
            } else if !self.server.out.is_empty() {
                self.arrive(0, false, false);
            } else if self.handing {
                self.handled(true);
            } else if !self.to_take.is_empty() {
                self.run(Op::Take);
            } else {
                let status = self.engine.status();
                let received = status.cursor.get() == self.server.head();
                if status.outbox_len == 0 && received && self.server.epoch == status.epoch.get() {
                    return;
                }
                self.now = self.engine.deadline().expect("something is due").max(self.now);
                self.input(Input::Tick);
            }
        }
        panic!("it does not come to rest: {:?}", self.engine.status());
    }

    fn check(&self) {
        assert_eq!(self.highest.max(self.server.floor), self.server.head(), "not all was taken");
        let own = self.server.own();
        assert!(own.is_sorted(), "out of order");
        for (id, body) in &self.stored {
            let copies = own.iter().filter(|own| *own == body).count();
            match self.reported.get(id) {
                None => panic!("send {} has no outcome", id.get()),
                Some(Outcome::Accepted(_)) => assert_eq!(copies, 1),
                Some(Outcome::Refused(_)) => assert_eq!(copies, 0),
                Some(Outcome::Unknown(reason)) => {
                    assert_eq!(*reason, Unknown::Expired);
                    assert!(copies <= 1);
                }
            }
        }
    }
}

proptest! {
    // More with PROPTEST_CASES.
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(1_024)))]

    #[test]
    fn nothing_is_lost_doubled_or_reordered(
        seed in 0_u64..1_000,
        ops in prop::collection::vec(op(), 1..400),
    ) {
        let mut world = World::new(seed);
        for op in ops {
            world.run(op);
        }
        world.heal();
        world.check();
    }
}
