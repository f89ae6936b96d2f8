//! Users who write to each other without pause, each with two devices of the SDK.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::future::join_all;
use parking_lot::Mutex;
use tidemark_checker::Event;
use tidemark_checker::history::{Device as DeviceNumber, Outcome, User, Way};
use tidemark_client::store::MemoryStore;
use tidemark_client::{self as client, AppError, Config, Content, Device, Entry, Handler, Parts};
use tidemark_env::{Clock, Rng, SeededRng, SystemClock, SystemRng};
use tidemark_store_client::Client;
use tidemark_store_core::read::{Answer, Query};
use tidemark_types::{DeviceId, Recipient, Seq, SeqRange};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::checks::{self, Text};
use crate::air::Air;
use crate::cluster::Cluster;
use crate::login::Login;
use crate::notes::Notes;
use crate::words;

/// Devices of each user that write and take.
pub(super) const DEVICES: u8 = 2;

/// Sends of a user without an outcome, at most; a send that would be one more is left out.
const OPEN_MAX: usize = 1_024;

/// Of so many users one has a device whose application hesitates now and then. What the server takes
/// for confirmed must wait for it.
const HESITANT_USERS: u32 = 4;
const HESITATES_EVERY: Duration = Duration::from_secs(10);
const HESITATES_FOR: Duration = Duration::from_secs(2);

/// Bytes of a body, beside the id in it.
const BODY_BYTES: u64 = 400;

/// The same where slow devices are to be buried: small enough that gateways hear all of it from the
/// stores, and do not turn to notices, which cost nothing.
const HEAVY_BODY_BYTES: u64 = 4 << 10;

/// Every so many users has devices that may be slow.
const SLOW_EVERY: u32 = 8;

/// The one of these to whom everybody writes: what it does not read is to fill its window.
const BURIED: User = User(0);

/// How fast users write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// So many sends a second in all, whatever becomes of them.
    Open(u32),
    /// So many sends of each user without an outcome, at all times.
    Closed(usize),
}

impl Pace {
    /// The highest load that a few users make.
    pub(super) const PEAK: Pace = Pace::Closed(16);

    /// So many sends a second, or 0 for as fast as answers come.
    pub(super) fn at(rate: u32) -> Pace {
        if rate == 0 { Pace::PEAK } else { Pace::Open(rate) }
    }
}

/// What a load is like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// How many users there are.
    pub users: u32,
    /// How fast they write.
    pub pace: Pace,
    /// Everybody writes to one with slow devices as well, and much.
    pub heavy: bool,
    /// Gateways check sends, and some are made for that.
    pub checked: bool,
}

/// The load of a run.
pub(super) struct Load {
    people: Vec<Arc<Person>>,
    writing: JoinSet<Result<()>>,
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
}

/// What was counted so far.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Sends that were begun.
    pub begun: AtomicU64,
    /// Sends that were acknowledged.
    pub acked: AtomicU64,
    /// Entries that devices took.
    pub taken: AtomicU64,
    /// While slow devices are slow: how late the others took an entry, at most, in milliseconds.
    pub late_ms: AtomicU64,
    /// The kind of the last fault.
    pub fault: Mutex<Option<&'static str>>,
    /// How long devices were without a connection that they had, in milliseconds, by the kind of the
    /// fault that took it.
    pub away_ms: Mutex<BTreeMap<&'static str, Vec<u64>>>,
}

/// When a device lost its connection, and by which kind of fault.
type Lost = (Instant, Option<&'static str>);

impl Counts {
    /// A device has a connection again, which it lost so.
    fn back(&self, lost: Option<Lost>) {
        let Some((at, Some(kind))) = lost else { return };
        let away = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.away_ms.lock().entry(kind).or_default().push(away);
    }
}

/// A user with devices.
pub(super) struct Person {
    user: User,
    devices: Vec<Device>,
    /// Room for sends without an outcome.
    open: Arc<Semaphore>,
    open_max: usize,
}

impl Person {
    /// May its devices be slow?
    pub(super) fn is_slow(&self) -> bool {
        is_slow(self.user)
    }

    /// How far the mailbox goes, as its leader says.
    pub(super) async fn head(&self, client: &Client) -> Result<Seq> {
        head(client, self.user).await
    }

    /// How many entries its devices have not taken yet.
    pub(super) async fn behind(&self, client: &Client) -> Result<u64> {
        let head = self.head(client).await?;
        let behind = |device: &Device| u64::from(head.since(device.status().cursor));
        Ok(self.devices.iter().map(behind).sum())
    }
}

fn is_slow(user: User) -> bool {
    user.0.is_multiple_of(SLOW_EVERY)
}

impl Load {
    /// Opens all devices, and starts writing.
    pub(super) async fn start(
        cluster: &Cluster,
        gateways: usize,
        shape: Shape,
        seed: u64,
        air: &Air,
        notes: &Notes,
    ) -> Result<Self> {
        let (counts, air) = (Arc::<Counts>::default(), air.clone());
        let gateways = (0..gateways).map(|gateway| cluster.gateway(gateway));
        let gateways = gateways.collect::<Result<Vec<_>>>()?;
        let checked = shape.checked;
        let place = Opening { cluster, gateways, checked, air, notes: notes.clone(), counts };
        let mut people = Vec::new();
        for user in (0..shape.users).map(User) {
            let mut devices = Vec::new();
            for number in 0..DEVICES {
                devices.push(place.device(user, DeviceNumber(number)).await?);
            }
            let open_max = match shape.pace {
                Pace::Open(_) => OPEN_MAX,
                Pace::Closed(open) => open,
            };
            let open = Arc::new(Semaphore::new(open_max));
            people.push(Arc::new(Person { user, devices, open, open_max }));
        }
        let (stop, mut writing) = (Arc::<AtomicBool>::default(), JoinSet::new());
        for person in &people {
            let writer = Writer {
                person: person.clone(),
                shape,
                notes: notes.clone(),
                counts: place.counts.clone(),
                rng: SeededRng::new(seed ^ u64::from(person.user.0).rotate_left(32)),
                stop: stop.clone(),
            };
            let every = match shape.pace {
                Pace::Open(rate) => Some(Duration::from_secs(1) * shape.users / rate.max(1)),
                Pace::Closed(_) => None,
            };
            writing.spawn(writer.write(every));
        }
        Ok(Load { people, writing, stop, counts: place.counts })
    }

    /// Who writes.
    pub(super) fn people(&self) -> Vec<Arc<Person>> {
        self.people.clone()
    }

    /// What was counted so far.
    pub(super) fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }

    /// Stops writing, and waits until every send has its outcome and every device everything, for
    /// so long at most; whether all of it came about.
    pub(super) async fn finish(
        mut self,
        client: &Client,
        notes: &Notes,
        within: Duration,
    ) -> Result<bool> {
        self.stop.store(true, Ordering::Relaxed);
        // What is missing is the checker's to say.
        let settled = in_time(within, async {
            while let Some(wrote) = self.writing.join_next().await {
                wrote??;
            }
            self.settled(client).await
        });
        let settled = settled.await;
        // Who still waits for an outcome to make room for the next send waits in vain.
        self.writing.shutdown().await;
        let mut rests = settled.is_ok();
        if let Err(why) = settled {
            eprintln!("the run did not come to rest: {why:#}");
        } else {
            if let Err(why) = in_time(within, self.caught_up(client)).await {
                eprintln!("not every device has everything: {why:#}");
                rests = false;
            }
            notes.note(|at| Event::Quiet { at });
        }
        join_all(self.people.iter().flat_map(|person| &person.devices).map(Device::close)).await;
        Ok(rests)
    }

    /// Waits until every send has its outcome, and every replica the same.
    async fn settled(&self, client: &Client) -> Result<()> {
        for person in &self.people {
            let all = u32::try_from(person.open_max)?;
            drop(person.open.acquire_many(all).await?);
        }
        crate::stores::settled(client).await.map(drop)
    }

    /// Waits until every device has everything.
    async fn caught_up(&self, client: &Client) -> Result<()> {
        for person in &self.people {
            let head = head(client, person.user).await?;
            for device in &person.devices {
                let mut status = device.watch();
                let all = status.wait_for(|status| status.cursor >= head).await;
                all.context("a device stopped")?;
            }
        }
        Ok(())
    }
}

async fn in_time(within: Duration, done: impl Future<Output = Result<()>>) -> Result<()> {
    let late = || format!("not within {} s", within.as_secs());
    tokio::time::timeout(within, done).await.with_context(late)?
}

/// A device's name.
pub(super) fn device_name(device: DeviceNumber) -> String {
    format!("device-{}", device.0)
}

/// One of the devices whose application hesitates, by a number drawn by chance.
pub(super) fn hesitant_device(number: u64, users: u32) -> (User, DeviceNumber) {
    let hesitant = u64::from(users.div_ceil(HESITANT_USERS));
    let user = u32::try_from(number % hesitant).unwrap_or_default() * HESITANT_USERS;
    (User(user), DeviceNumber(DEVICES - 1))
}

/// Is it one of those?
fn hesitates(user: User, device: DeviceNumber) -> bool {
    user.0.is_multiple_of(HESITANT_USERS) && device.0 == DEVICES - 1
}

/// The head of a user's mailbox, read from the leader.
pub(super) async fn head(client: &Client, user: User) -> Result<Seq> {
    let query = Query::Mailbox { mailbox: Recipient::User(words::name(user)) };
    match client.query(&query).await? {
        Answer::Mailbox(mailbox) => Ok(mailbox.head),
        other => bail!("{other:?} to a question for a mailbox"),
    }
}

/// What devices are opened with.
struct Opening<'a> {
    cluster: &'a Cluster,
    gateways: Vec<String>,
    /// They check sends.
    checked: bool,
    air: Air,
    notes: Notes,
    counts: Arc<Counts>,
}

impl Opening<'_> {
    /// Opens one. Of a user with slow devices the first may stop reading, and the second's
    /// application may take its time.
    async fn device(&self, user: User, number: DeviceNumber) -> Result<Device> {
        let (owner, device) = (words::name(user), DeviceId::new(device_name(number))?);
        let Opening { air, notes, counts, .. } = self;
        let application = Application {
            user,
            device: number,
            tired: is_slow(user) && number != DeviceNumber(0),
            hesitated: Mutex::new(Instant::now()),
            air: air.clone(),
            notes: notes.clone(),
            counts: counts.clone(),
        };
        let parts = Parts {
            store: MemoryStore::default(),
            handler: application,
            tokens: Login::new(&self.cluster.key(), &owner, &device)?,
            connector: air.connector(is_slow(user) && number == DeviceNumber(0)),
            clock: Arc::new(SystemClock::new()),
            rng: Arc::new(SystemRng),
        };
        notes.note(|at| Event::Start { at, user, device: number, cursor: Seq::NONE });
        let gateways = match self.checked {
            true => checks::gateways_of(user, &self.gateways),
            false => self.gateways.clone(),
        };
        let config = Config::new(owner, device, gateways);
        let (device, mut events) = Device::open(config, parts).await?;
        let counts = counts.clone();
        tokio::spawn(async move {
            let mut lost: Option<Lost> = None;
            while let Some(event) = events.next().await {
                match event {
                    client::Event::Connected { .. } => counts.back(lost.take()),
                    client::Event::Disconnected { .. } => {
                        lost.get_or_insert_with(|| (Instant::now(), *counts.fault.lock()));
                    }
                    client::Event::Stopped(reason) => {
                        eprintln!("user {}, device {} stopped: {reason}", user.0, number.0);
                    }
                    _ => {}
                }
            }
        });
        Ok(device)
    }
}

/// Writes down what its device gives it.
struct Application {
    user: User,
    device: DeviceNumber,
    /// It takes its time when the air is heavy.
    tired: bool,
    /// When it last hesitated.
    hesitated: Mutex<Instant>,
    air: Air,
    notes: Notes,
    counts: Arc<Counts>,
}

impl Application {
    /// Has it not hesitated for long enough?
    fn is_due(&self) -> bool {
        let (mut hesitated, now) = (self.hesitated.lock(), Instant::now());
        let due = now - *hesitated >= HESITATES_EVERY;
        if due {
            *hesitated = now;
        }
        due
    }

    /// How late an entry is, where others are slow.
    fn look_at_the_clock(&self, entry: &Entry) {
        let Content::Message(message) = &entry.content else { return };
        if self.air.is_heavy() && !is_slow(self.user) && !hesitates(self.user, self.device) {
            let late = SystemClock::new().wall().get().saturating_sub(message.sent.get());
            self.counts.late_ms.fetch_max(late, Ordering::Relaxed);
        }
    }
}

impl Handler for Application {
    async fn entry(&self, entry: &Entry) -> Result<(), AppError> {
        let (user, device, seq) = (self.user, self.device, entry.seq);
        self.look_at_the_clock(entry);
        if self.tired && !self.air.slowness().is_zero() {
            tokio::time::sleep(self.air.slowness()).await;
        }
        let copy = words::taken(entry)?;
        if hesitates(user, device) && self.is_due() {
            tokio::time::sleep(HESITATES_FOR).await;
        }
        self.notes.note(|at| Event::Taken { at, user, device, seq, copy });
        self.counts.taken.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn gap(&self, gap: SeqRange) -> Result<(), AppError> {
        let (user, device, to) = (self.user, self.device, gap.last());
        self.notes.note(|at| Event::Gap { at, user, device, to });
        Ok(())
    }
}

/// Writes in a user's name.
struct Writer {
    person: Arc<Person>,
    shape: Shape,
    notes: Notes,
    counts: Arc<Counts>,
    rng: SeededRng,
    stop: Arc<AtomicBool>,
}

impl Writer {
    async fn write(self, every: Option<Duration>) -> Result<()> {
        // Not all at once.
        let first = every.unwrap_or_default().mul_f64(self.rng.unit());
        let mut ticks = every.map(|every| {
            let mut ticks = tokio::time::interval_at(Instant::now() + first, every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            ticks
        });
        while !self.stop.load(Ordering::Relaxed) {
            let open = match &mut ticks {
                Some(ticks) => {
                    ticks.tick().await;
                    match self.person.open.clone().try_acquire_owned() {
                        Ok(open) => open,
                        Err(_) => continue,
                    }
                }
                None => self.person.open.clone().acquire_owned().await?,
            };
            let (op, mut sending) = self.send().await?;
            let (notes, counts) = (self.notes.clone(), self.counts.clone());
            counts.begun.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let outcome = match sending.outcome().await {
                    Ok(client::Outcome::Accepted(accepted)) => {
                        counts.acked.fetch_add(1, Ordering::Relaxed);
                        let seq = accepted.seq.unwrap_or_default();
                        Outcome::Accepted { seq, origin: None }
                    }
                    Ok(client::Outcome::Refused(code)) => Outcome::Refused { code },
                    Ok(client::Outcome::Unknown(_)) | Err(_) => Outcome::Unknown,
                };
                notes.note(|at| Event::Sent { op, at, outcome });
                drop(open);
            });
        }
        Ok(())
    }

    async fn send(&self) -> Result<(tidemark_checker::history::Op, client::Sending)> {
        let Person { user: sender, devices, .. } = &*self.person;
        let number = self.rng.number();
        let device = DeviceNumber(u8::try_from(number % u64::from(DEVICES))?);
        // Mostly one recipient, now and then several, perhaps the sender among them.
        let count = if number.is_multiple_of(8) { 2 + number / 8 % 3 } else { 1 };
        let anybody = |_| u32::try_from(self.rng.number() % u64::from(self.shape.users));
        let mut to = (0..count).map(|at| Ok(User(anybody(at)?))).collect::<Result<Vec<_>>>()?;
        if self.shape.heavy {
            to.push(BURIED);
        }
        to.sort_unstable();
        to.dedup();
        let id = u128::from(self.rng.number()) << 64 | u128::from(self.rng.number());
        let bytes_max = if self.shape.heavy { HEAVY_BODY_BYTES } else { BODY_BYTES };
        let bytes = usize::try_from(self.rng.number() % bytes_max)?;
        let text = Text::drawn(self.shape.checked, id, bytes, &self.rng, Some(*sender));
        let content = text.content();
        let recipients: Vec<_> = to.iter().map(|to| Recipient::User(words::name(*to))).collect();
        let (op, sender, way) = (self.notes.op(), *sender, Way::Session);
        self.notes.note(|at| Event::Send { op, at, sender, device, way, id, to, content });
        text.note(sender, id, &self.notes);
        let Text { kind, body, .. } = text;
        let sending = devices[usize::from(device.0)].send(&recipients, kind, body).await?;
        Ok((op, sending))
    }
}
