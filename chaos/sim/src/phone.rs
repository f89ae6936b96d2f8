//! Users and their devices: the real SDK, on hosts that crash; and what they wrote down.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use parking_lot::Mutex;
use tidemark_chaos::words;
use tidemark_checker::Event;
use tidemark_checker::history::{Device as DeviceNumber, Op, Outcome, User, Way};
use tidemark_client::store::MemoryStore;
use tidemark_client::{
    self as client, AppError, Config, Device, Entry, Events, GrpcConnector, Handler, Parts,
    SendError, TokenSource,
};
use tidemark_env::Clock;
use tidemark_token::{Claims, Role, SigningKey};
use tidemark_types::{ClientMsgId, DeviceId, Recipient, Seq, SeqRange, UserId};

use crate::net::Net;
use crate::plan::{DEVICES, Dice, GATEWAYS, PHONES, Plan};
use crate::world::{self, HostClock, World};

/// Bytes of a body, beside the id in it.
const BODY_BYTES: u64 = 400;

/// How long a token is good: some expire in a run, and are renewed.
const TOKEN_VALID: Duration = Duration::from_secs(120);

/// What a device keeps when its host crashes, and what is known of its sends.
pub struct Pocket {
    /// Whose device.
    pub user: User,
    /// Which one.
    pub device: DeviceNumber,
    /// Its own store.
    pub store: MemoryStore,
    /// Sends without an outcome, by the id in their bodies.
    open: Mutex<BTreeMap<u128, Op>>,
    /// And by the names that the SDK gave them.
    names: Mutex<BTreeMap<ClientMsgId, u128>>,
    /// The seq that its application took last in this life.
    last: Mutex<Seq>,
}

impl Pocket {
    /// Those of all devices of a run, before their first life.
    pub fn all(plan: &Plan) -> Vec<Arc<Pocket>> {
        let devices = (0..plan.users)
            .map(User)
            .flat_map(|user| (0..DEVICES).map(move |device| (user, DeviceNumber(device))));
        let pocket = |(user, device)| Pocket {
            user,
            device,
            store: MemoryStore::default(),
            open: Mutex::default(),
            names: Mutex::default(),
            last: Mutex::default(),
        };
        devices.map(pocket).map(Arc::new).collect()
    }

    /// The host on which it runs: a user's devices are on different ones.
    pub fn host(&self) -> usize {
        (self.user.0 as usize + usize::from(self.device.0)) % PHONES
    }

    /// Where its cursor is.
    pub fn cursor(&self) -> Seq {
        self.store.saved().meta.map_or(Seq::NONE, |meta| meta.cursor)
    }

    /// Has all it sent an outcome that its application knows?
    pub fn is_settled(&self) -> bool {
        let saved = self.store.saved();
        saved.outbox.is_empty() && saved.outcomes.is_empty()
    }

    /// How many sends have no outcome.
    pub fn open(&self) -> usize {
        self.open.lock().len()
    }

    fn begins(&self, id: u128, op: Op) {
        self.open.lock().insert(id, op);
    }

    fn is_named(&self, id: u128, name: ClientMsgId) {
        self.names.lock().insert(name, id);
    }

    /// The send with this name has its outcome.
    fn settles(&self, world: &World, name: ClientMsgId, outcome: client::Outcome) {
        let id = self.names.lock().remove(&name);
        let op = id.and_then(|id| self.open.lock().remove(&id));
        // An outcome may be told again after a crash.
        let Some(op) = op else { return };
        let outcome = match outcome {
            client::Outcome::Accepted(accepted) => {
                world.accepts();
                Outcome::Accepted { seq: accepted.seq.unwrap_or_default(), origin: None }
            }
            client::Outcome::Refused(code) => Outcome::Refused { code },
            client::Outcome::Unknown(_) => Outcome::Unknown,
        };
        world.note(|at| Event::Sent { op, at, outcome });
    }

    /// A life begins: sends that were not stored are forgotten, and nobody knows of them.
    fn recall(&self) {
        let saved = self.store.saved();
        let mut names = self.names.lock();
        let mut known = std::collections::BTreeSet::new();
        for send in saved.outbox.values() {
            let name = ClientMsgId::try_from(send.client_msg_id.as_ref());
            let id = send.body.first_chunk::<16>().map(|id| u128::from_be_bytes(*id));
            if let (Ok(name), Some(id)) = (name, id) {
                names.insert(name, id);
                known.insert(id);
            }
        }
        known.extend(
            saved.outcomes.values().filter_map(|settled| names.get(&settled.client_msg_id)),
        );
        self.open.lock().retain(|id, _| known.contains(id));
        *self.last.lock() = self.cursor();
    }
}

/// A host of devices, until it is crashed.
pub async fn run(world: Arc<World>, host: usize) -> turmoil::Result {
    let ended = run_devices(&world, host).await;
    let reason = ended.err().map_or_else(|| "it ended".to_owned(), |error| format!("{error:#}"));
    world.safety.violated(&world, format!("phone-{host}: {reason}"));
    std::future::pending().await
}

async fn run_devices(world: &Arc<World>, host: usize) -> Result<()> {
    let mut running = tokio::task::JoinSet::new();
    for pocket in world.pockets.iter().filter(|pocket| pocket.host() == host) {
        let (device, events) = open(world, host, pocket).await?;
        running.spawn(listen(world.clone(), pocket.clone(), events));
        let dice = Dice::new(world.rng().number(), 3);
        let writer = Writer { world: world.clone(), pocket: pocket.clone(), device, dice };
        running.spawn(writer.run());
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    bail!("all devices have ended")
}

async fn open(world: &Arc<World>, host: usize, pocket: &Arc<Pocket>) -> Result<(Device, Events)> {
    pocket.recall();
    let (user, device, cursor) = (pocket.user, pocket.device, pocket.cursor());
    world.note(|at| Event::Start { at, user, device, cursor });
    let (owner, name) = (words::name(user), DeviceId::new(format!("device-{}", device.0))?);
    let gateways = world::addresses((0..GATEWAYS).map(world::gateway));
    let host = world::phone(host);
    let clock = world.clock(&host);
    let tokens = Login::new(world, &owner, &name, clock.clone())?;
    let net = Arc::new(Net { world: world.clone(), from: host });
    let parts = Parts {
        store: pocket.store.clone(),
        handler: Application { world: world.clone(), pocket: pocket.clone() },
        tokens,
        connector: GrpcConnector::over(net),
        clock,
        rng: world.rng(),
    };
    Ok(Device::open(Config::new(owner, name, gateways), parts).await?)
}

/// Hears what the device tells beside entries.
async fn listen(world: Arc<World>, pocket: Arc<Pocket>, mut events: Events) -> Result<()> {
    while let Some(event) = events.next().await {
        match event {
            client::Event::Outcome(settled) => {
                pocket.settles(&world, settled.client_msg_id, settled.outcome);
            }
            client::Event::Stopped(reason) => bail!("{:?} stopped: {reason}", pocket.user),
            client::Event::SendingStopped { code, message } => {
                bail!("{:?} may not send any more: {code:?} {message}", pocket.user)
            }
            client::Event::SessionReplaced => {
                bail!("{:?}'s session was replaced, and nobody did it", pocket.user)
            }
            _ => {}
        }
    }
    bail!("{:?} has stopped", pocket.user)
}

/// Signs a device's tokens, as a login service would.
pub struct Login {
    key: SigningKey,
    role: Role,
    clock: Arc<HostClock>,
}

impl Login {
    /// For one device of a user, by the clock of its host.
    pub fn new(
        world: &World,
        user: &UserId,
        device: &DeviceId,
        clock: Arc<HostClock>,
    ) -> Result<Self> {
        let role = Role::Device { user: user.clone(), device: Some(device.clone()) };
        Ok(Login { key: SigningKey::read(&world.key)?, role, clock })
    }
}

impl TokenSource for Login {
    async fn token(&self, _: bool) -> Result<String, AppError> {
        Ok(self.key.sign(&Claims::new(self.role.clone(), self.clock.wall(), TOKEN_VALID)))
    }
}

/// Writes down what its device gives it.
struct Application {
    world: Arc<World>,
    pocket: Arc<Pocket>,
}

impl Handler for Application {
    async fn entry(&self, entry: &Entry) -> Result<(), AppError> {
        let Pocket { user, device, last, .. } = &*self.pocket;
        let (user, device, seq) = (*user, *device, entry.seq);
        let copy = words::taken(entry)?;
        let before = std::mem::replace(&mut *last.lock(), seq);
        if before.next() != Some(seq) {
            let what = format!("{user}'s {device} takes {seq} after {before}");
            self.world.safety.violated(&self.world, what);
        }
        self.world.note(|at| Event::Taken { at, user, device, seq, copy });
        Ok(())
    }

    async fn gap(&self, gap: SeqRange) -> Result<(), AppError> {
        let (user, device, to) = (self.pocket.user, self.pocket.device, gap.last());
        *self.pocket.last.lock() = to;
        self.world.note(|at| Event::Gap { at, user, device, to });
        Ok(())
    }
}

/// Writes in a user's name, while users write.
struct Writer {
    world: Arc<World>,
    pocket: Arc<Pocket>,
    device: Device,
    dice: Dice,
}

impl Writer {
    async fn run(self) -> Result<()> {
        let Plan { send_every, open_max, quiet, .. } = self.world.plan;
        let pause = send_every * u32::from(DEVICES);
        while self.world.is_writing() {
            let ms = u64::try_from(pause.as_millis())?;
            tokio::time::sleep(self.dice.ms(0, 2 * ms)).await;
            if self.dice.chance(quiet / 20.0) {
                tokio::time::sleep(self.dice.ms(500, 4_000)).await;
            }
            if self.pocket.open() < open_max && self.world.is_writing() {
                self.send().await?;
            }
        }
        // The device goes on for as long as somebody holds it.
        std::future::pending().await
    }

    async fn send(&self) -> Result<()> {
        let Writer { world, pocket, device, dice } = self;
        // Mostly one recipient, now and then several, perhaps the sender among them.
        let count = if dice.chance(0.12) { dice.between(2, 4) } else { 1 };
        let users = u64::from(world.plan.users);
        let user = |_| User(u32::try_from(dice.between(0, users - 1)).unwrap_or(0));
        let mut to: Vec<User> = (0..count).map(user).collect();
        to.sort_unstable();
        to.dedup();
        let id = u128::from(dice.number()) << 64 | u128::from(dice.number());
        let body = words::body(id, usize::try_from(dice.between(0, BODY_BYTES))?);
        let content = words::content(words::KIND, &body);
        let recipients: Vec<_> = to.iter().map(|to| Recipient::User(words::name(*to))).collect();
        let op = world.notes.op();
        pocket.begins(id, op);
        let (sender, number, way) = (pocket.user, pocket.device, Way::Session);
        world.note(|at| Event::Send { op, at, sender, device: number, way, id, to, content });
        let mut sending = match device.send(&recipients, words::KIND, body).await {
            Ok(sending) => sending,
            Err(error @ SendError::Invalid(_)) => return Err(error.into()),
            Err(error) => bail!("{sender}'s {number} cannot send: {error}"),
        };
        let name = sending.client_msg_id();
        pocket.is_named(id, name);
        let (world, pocket) = (world.clone(), pocket.clone());
        tokio::spawn(async move {
            // With the device's end it becomes an event of its next life.
            if let Ok(outcome) = sending.outcome().await {
                pocket.settles(&world, name, outcome);
            }
        });
        Ok(())
    }
}
