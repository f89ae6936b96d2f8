//! Who asks beside the devices: reads of heads, pages and cursors through every door, numbers of
//! counters, and back ends, whose sends are repeated under the same id whether they were answered or not.
//!
//! Devices alone would show neither a stale read nor what becomes of a retry: they ask for a head
//! only to catch up, and their library repeats unseen.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Result;
use tidemark_checker::Event;
use tidemark_checker::history::{Device as DeviceNumber, Op, Origin, Outcome, User, Way};
use tidemark_client::Entry;
use tidemark_env::{Clock, Rng, SeededRng, SystemClock};
use tidemark_proto::Failure;
use tidemark_store_client::Client;
use tidemark_types::{ClientMsgId, DeviceId, Epoch, ErrorCode, Recipient, Seq};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::checks::Text;
use super::load::{self, Shape};
use crate::cluster::Cluster;
use crate::counters::Counters;
use crate::login::Login;
use crate::notes::Notes;
use crate::wire::Wire;
use crate::words;

/// Between two questions through one door, of each kind.
const READ_EVERY: Duration = Duration::from_millis(25);

/// Between two new messages of back ends.
const SEND_EVERY: Duration = Duration::from_millis(50);

/// Questions, or sends, that wait for an answer at once.
const OPEN_MAX: usize = 256;

/// How long a send is repeated that has no answer.
const SEND_WITHIN: Duration = Duration::from_secs(60);

/// Between two attempts at it.
const AGAIN: Duration = Duration::from_millis(500);

/// How long after its answer a send may be repeated once more, as by a back end that lost it.
const REPEATED_WITHIN: Duration = Duration::from_secs(10);

/// Counters from which numbers are taken: few, so that calls meet.
const COUNTERS: usize = 16;

/// Of so many users, one blocks the next one.
const BLOCKING: u32 = 6;

/// Everybody who asks, until they are told to stop.
pub(super) struct BackEnds {
    asking: JoinSet<Result<()>>,
    stop: Arc<AtomicBool>,
}

/// What each of them needs.
#[derive(Clone)]
struct Desk {
    doors: Vec<Wire>,
    /// A client of the stores that only reads: it has no reason to look for a new leader while the
    /// old one answers.
    stores: Client,
    heads: Arc<Vec<AtomicU32>>,
    counters: Arc<Counters>,
    users: u32,
    /// Gateways check sends.
    checked: bool,
    notes: Notes,
    rng: Arc<SeededRng>,
    stop: Arc<AtomicBool>,
}

impl BackEnds {
    /// Lets some users block others, and starts asking. `stores` should be nobody else's.
    pub(super) async fn start(
        cluster: &Cluster,
        gateways: usize,
        stores: Client,
        shape: Shape,
        seed: u64,
        notes: &Notes,
    ) -> Result<Self> {
        let Shape { users, checked, .. } = shape;
        let token = Login::service(&cluster.key())?.sign();
        let door = |gateway| Wire::new(&cluster.gateway(gateway)?, &token);
        let stop = Arc::<AtomicBool>::default();
        let desk = Desk {
            doors: (0..gateways).map(door).collect::<Result<_>>()?,
            stores,
            heads: Arc::new((0..users).map(|_| AtomicU32::default()).collect()),
            counters: Arc::new(Counters::new(COUNTERS)),
            users,
            checked,
            notes: notes.clone(),
            rng: Arc::new(SeededRng::new(seed.rotate_left(17))),
            stop: stop.clone(),
        };
        for user in (0..users).step_by(BLOCKING as usize) {
            let (blocks, blocked) = (words::name(User(user)), words::name(User(user + 1)));
            let asked = notes.now();
            desk.doors[0].block(&blocks, &blocked).await?;
            let (user, sender, refused) = (User(user), User(user + 1), true);
            notes.note(|at| Event::Decided { asked, at, user, sender, refused });
        }
        let mut asking = JoinSet::new();
        asking.spawn(every(READ_EVERY, desk.clone(), Desk::read_at_store));
        asking.spawn(every(READ_EVERY, desk.clone(), Desk::read));
        asking.spawn(every(READ_EVERY, desk.clone(), Desk::page));
        asking.spawn(every(READ_EVERY, desk.clone(), Desk::cursor));
        asking.spawn(every(READ_EVERY, desk.clone(), Desk::number));
        asking.spawn(every(SEND_EVERY, desk.clone(), Desk::send));
        Ok(BackEnds { asking, stop })
    }

    /// Waits until all of it is answered, or no longer asked.
    pub(super) async fn finish(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(asked) = self.asking.join_next().await {
            asked??;
        }
        Ok(())
    }
}

/// Asks again and again, without waiting for answers; at the end it waits for all of them.
async fn every<F>(period: Duration, desk: Desk, ask: fn(Desk) -> F) -> Result<()>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(OPEN_MAX));
    let mut open = JoinSet::new();
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !desk.stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        while let Some(asked) = open.try_join_next() {
            asked??;
        }
        let Ok(place) = room.clone().try_acquire_owned() else { continue };
        let asked = ask(desk.clone());
        open.spawn(async move {
            let asked = asked.await;
            drop(place);
            asked
        });
    }
    while let Some(asked) = open.join_next().await {
        asked??;
    }
    Ok(())
}

impl Desk {
    fn user(&self) -> User {
        User(u32::try_from(self.rng.number() % u64::from(self.users)).expect("users are u32"))
    }

    fn door(&self) -> &Wire {
        &self.doors[self.rng.number() as usize % self.doors.len()]
    }

    /// The head as the leader of the mailbox's shard says it.
    async fn read_at_store(self) -> Result<()> {
        let (op, user) = (self.notes.op(), self.user());
        self.notes.note(|at| Event::Head { op, at, user });
        if let Ok(seq) = load::head(&self.stores, user).await {
            self.head_is(op, user, seq);
        }
        Ok(())
    }

    /// The head as a gateway says it.
    async fn read(self) -> Result<()> {
        let (op, user) = (self.notes.op(), self.user());
        self.notes.note(|at| Event::Head { op, at, user });
        if let Ok(seq) = self.door().head(&words::name(user)).await {
            self.head_is(op, user, seq);
        }
        Ok(())
    }

    fn head_is(&self, op: Op, user: User, seq: Seq) {
        self.notes.note(|at| Event::HeadIs { op, at, seq });
        self.heads[user.0 as usize].fetch_max(seq.get(), Ordering::Relaxed);
    }

    /// A page from anywhere, but mostly one near the end, where something happens.
    async fn page(self) -> Result<()> {
        let (op, user) = (self.notes.op(), self.user());
        let head = self.heads[user.0 as usize].load(Ordering::Relaxed);
        let back = match self.rng.number().is_multiple_of(8) {
            true => head,
            false => 32.min(head),
        };
        let back = u32::try_from(self.rng.number() % (u64::from(back) + 1))?;
        let after = Seq::new(head - back);
        self.notes.note(|at| Event::Range { op, at, user, after });
        let Ok(page) = self.door().page(&words::name(user), after).await else { return Ok(()) };
        let (epoch, floor) = (Epoch::new(page.epoch), Seq::new(page.floor));
        let entries = page.entries.into_iter().map(|raw| {
            let entry = Entry::read(epoch, raw);
            Ok((entry.seq, words::taken(&entry)?))
        });
        let Ok(entries) = entries.collect::<Result<Vec<_>>>() else {
            self.notes.amount(&"back ends", "pages with an entry that nobody sent", 1, 0);
            return Ok(());
        };
        self.notes.note(|at| Event::RangeIs { op, at, floor, entries });
        Ok(())
    }

    /// Half of the time of a device that is slow, where a cursor that runs ahead shows.
    async fn cursor(self) -> Result<()> {
        let (user, device) = match self.rng.number().is_multiple_of(2) {
            true => load::hesitant_device(self.rng.number(), self.users),
            false => (self.user(), DeviceNumber(0)),
        };
        let name = DeviceId::new(load::device_name(device))?;
        let asked = self.notes.now();
        if let Ok(seq) = self.door().cursor(&words::name(user), &name).await {
            self.notes.note(|at| Event::CursorIs { asked, at, user, device, seq });
        }
        Ok(())
    }

    /// A number of a counter, half of them over the door's stream. One that got no answer may have been
    /// taken for nobody.
    async fn number(self) -> Result<()> {
        let (counter, began) = self.counters.begin(self.rng.number());
        let answer = match self.rng.number().is_multiple_of(2) {
            true => self.door().number(counter).await,
            false => self.door().number_on_stream(counter).await,
        };
        if let Ok(number) = answer
            && !self.counters.given(began, number)
        {
            let what = format!("numbers given twice or going back: {counter} {number}");
            self.notes.amount(&"back ends", &what, 1, 0);
        }
        Ok(())
    }

    /// A message, sent until it is answered, and then perhaps once more.
    async fn send(self) -> Result<()> {
        let sender = self.user();
        let mut to: Vec<User> = (0..1 + self.rng.number() % 3).map(|_| self.user()).collect();
        to.sort_unstable();
        to.dedup();
        let mut random = [0; 10];
        self.rng.fill(&mut random);
        let id = ClientMsgId::new(SystemClock::new().wall(), random);
        let number = u128::from_be_bytes(*id.as_bytes());
        let text = Text::drawn(self.checked, number, 64, &self.rng, None);
        let message = Message { sender, to, id, text };
        let began = self.notes.now();
        let mut door = self.rng.number() as usize;
        while !self.attempt(&message, door).await {
            let waited = self.notes.now().0 - began.0;
            if u128::from(waited) > SEND_WITHIN.as_nanos() {
                return Ok(());
            }
            door += 1;
            tokio::time::sleep(AGAIN).await;
        }
        if self.rng.number().is_multiple_of(2) {
            tokio::time::sleep(REPEATED_WITHIN.mul_f64(self.rng.unit())).await;
            self.attempt(&message, door + 1).await;
        }
        Ok(())
    }

    /// One attempt; is that the end of it?
    async fn attempt(&self, message: &Message, door: usize) -> bool {
        let Message { sender, to, id, text } = message;
        let number = u128::from_be_bytes(*id.as_bytes());
        let content = text.content();
        let recipients: Vec<_> = to.iter().map(|to| Recipient::User(words::name(*to))).collect();
        let (op, sender, to, way) = (self.notes.op(), *sender, to.clone(), Way::Backend);
        let device = DeviceNumber(0);
        self.notes.note(|at| Event::Send { op, at, sender, device, way, id: number, to, content });
        text.note(sender, number, &self.notes);
        let door = &self.doors[door % self.doors.len()];
        let Text { kind, body, .. } = text.clone();
        let sent = door.send(&words::name(sender), *id, &recipients, kind, body).await;
        let (outcome, done) = match sent {
            Ok(seq) => (Outcome::Accepted { seq, origin: Some(Origin::Backend) }, true),
            Err(Failure { code: ErrorCode::Unknown, .. }) => (Outcome::Unknown, false),
            // A gateway whose clock is ahead takes no token that is good.
            Err(Failure { code: code @ ErrorCode::TokenExpired, .. }) => {
                (Outcome::Refused { code }, false)
            }
            Err(Failure { code, .. }) if code.is_retryable() || code.is_final() => {
                (Outcome::Refused { code }, code.is_final())
            }
            // Nobody has sent what would deserve it.
            Err(Failure { code, message, .. }) => {
                let what = format!("sends refused with {code}: {message}");
                self.notes.amount(&"back ends", &what, 1, 0);
                (Outcome::Refused { code }, true)
            }
        };
        self.notes.note(|at| Event::Sent { op, at, outcome });
        done
    }
}

/// A back end's message.
struct Message {
    sender: User,
    to: Vec<User>,
    id: ClientMsgId,
    text: Text,
}
