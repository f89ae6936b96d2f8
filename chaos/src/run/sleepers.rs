//! Devices that are away most of the time and are woken (R18): a third one of each user of the load, with
//! push services that keep their vendors' rules (`tidemark-push-sim`), in turn.
//!
//! ```text
//!   load ──► store ── due ──► gateway ── APNs, FCM, Web Push, webhook ──► service ──► history: Hint
//!   one after the other comes for a moment, takes what there is, and goes again: Start … Stop
//! ```
//!
//! Whether each was told of what it lacks in the end is the checker's to say (C17).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use parking_lot::Mutex;
use tempfile::TempDir;
use tidemark_checker::Event;
use tidemark_checker::history::{Device as DeviceNumber, User};
use tidemark_client::{
    AppError, Config, Device, Devices, Entry, Handler, Label, MemoryStore, Parts, PushTarget,
};
use tidemark_env::{Rng, SeededRng};
use tidemark_push_sim::{Received, Service, Sim, SimConfig};
use tidemark_store_client::Client;
use tidemark_types::{DeviceId, Seq, SeqRange};
use tokio::task::JoinHandle;

use super::load::{self, device_name};
use crate::cluster::{Cluster, LOOK};
use crate::login::Login;
use crate::notes::Notes;
use crate::words;

/// The number of such a device among its user's.
const NUMBER: DeviceNumber = DeviceNumber(load::DEVICES);

/// Between two devices that come for a moment, at most, and how long a moment is.
const COMES_EVERY_MS: u64 = 2_000;
const STAYS: Duration = Duration::from_secs(3);

/// What the providers are called in the simulator's configuration, and whose they are: the operator's own …
const OWN: &[(&str, Service)] = &[("webhook", Service::Webhook)];

/// … and those of vendors as well.
const VENDORS: &[(&str, Service)] = &[
    ("webhook", Service::Webhook),
    ("apns", Service::Apns),
    ("fcm", Service::Fcm),
    ("webpush", Service::WebPush),
];

/// How long an election and its retries may take.
const CALL_WITHIN: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(500);

/// The push services of a run.
pub(super) struct Services {
    sim: Sim,
    used: &'static [(&'static str, Service)],
    gateways: String,
    /// Keys and secrets, which gateways read when they start.
    _folder: TempDir,
}

/// How a device is woken, and what its service calls it.
struct Target {
    target: PushTarget,
    known_as: (Service, String),
}

impl Services {
    /// Starts them, vendors' among them or not.
    pub(super) async fn start(vendors: bool) -> Result<Self> {
        let (sim, folder) = (Sim::start(SimConfig::default()).await?, tempfile::tempdir()?);
        sim.write(folder.path())?;
        let push = std::fs::read_to_string(folder.path().join("push.toml"))?;
        let gateways = push.replace("[providers.", "[push.providers.");
        let used = if vendors { VENDORS } else { OWN };
        Ok(Services { sim, used, gateways, _folder: folder })
    }

    /// Where they listen.
    pub(super) fn addresses(&self) -> [SocketAddr; 2] {
        [self.sim.http(), self.sim.apns()]
    }

    /// The gateways' configuration.
    pub(super) fn gateways(&self) -> &str {
        &self.gateways
    }

    /// A target as this user's device would get it.
    fn target(&self, user: User) -> Result<Target> {
        let (provider, service) = self.used[user.0 as usize % self.used.len()];
        let name = user.0.to_string();
        let (target, known_as) = match service {
            Service::Apns => (format!("{:064x}", user.0), format!("{:064x}", user.0)),
            Service::WebPush => {
                let server = self.sim.credentials().vapid_public();
                let subscription = self.sim.subscribe(Some(server));
                let id = subscription.endpoint.rsplit('/').next().context("an id")?.to_owned();
                (serde_json::to_string(&subscription)?, id)
            }
            Service::Fcm | Service::Wns | Service::Mpns | Service::BbPush | Service::Webhook => {
                (name.clone(), name)
            }
        };
        let target = PushTarget { provider: provider.to_owned(), target };
        Ok(Target { target, known_as: (service, known_as) })
    }
}

/// The devices of a run.
pub(super) struct Sleepers {
    crowd: Arc<Crowd>,
    coming: JoinHandle<Result<()>>,
    hearing: JoinHandle<()>,
    stop: Arc<AtomicBool>,
}

struct Crowd {
    all: Vec<Sleeper>,
    services: Services,
    notes: Notes,
    told: Mutex<Told>,
}

/// What they were told.
#[derive(Default)]
struct Told {
    /// The highest head of each.
    heads: BTreeMap<User, Seq>,
    /// How many hints each service took.
    hints: BTreeMap<Service, u64>,
    /// By what Apple knows that a hint replaces the one before.
    collapse: BTreeMap<User, String>,
}

/// A device with all that outlives its application.
struct Sleeper {
    user: User,
    target: Target,
    config: Config,
    key: std::path::PathBuf,
    store: MemoryStore,
    /// What its application has taken.
    cursor: Mutex<Seq>,
}

impl Sleepers {
    /// Registers one for each of the load's users, and lets them come and go.
    pub(super) async fn start(
        cluster: &Cluster,
        services: Services,
        users: u32,
        seed: u64,
        notes: &Notes,
    ) -> Result<Self> {
        let mut all = Vec::new();
        for user in (0..users).map(User) {
            let sleeper = Sleeper {
                user,
                target: services.target(user)?,
                config: Config::new(
                    words::name(user),
                    DeviceId::new(device_name(NUMBER))?,
                    cluster.gateways()?,
                ),
                key: cluster.key(),
                store: MemoryStore::default(),
                cursor: Mutex::default(),
            };
            sleeper.register().await?;
            notes.note(|at| Event::Target { at, user, device: NUMBER });
            all.push(sleeper);
        }
        let told = Mutex::default();
        let crowd = Arc::new(Crowd { all, services, notes: notes.clone(), told });
        let stop = Arc::<AtomicBool>::default();
        let rng = SeededRng::new(seed.rotate_left(41));
        let coming = tokio::spawn(crowd.clone().come_and_go(rng, stop.clone()));
        let hearing = tokio::spawn(crowd.clone().hear());
        Ok(Sleepers { crowd, coming, hearing, stop })
    }

    /// From now on all are away.
    pub(super) async fn stop(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        (&mut self.coming).await?
    }

    /// Waits until each was told of what it lacks, for so long at most.
    pub(super) async fn finish(self, client: &Client, within: Duration) -> Result<()> {
        let Sleepers { crowd, hearing, .. } = self;
        let told = tokio::time::timeout(within, crowd.all_told(client)).await;
        hearing.abort();
        // One that was aborted has ended.
        drop(hearing.await);
        if told.is_err() {
            eprintln!("not everybody who is away was told within {} s", within.as_secs());
        }
        for (provider, service) in crowd.services.used {
            let devices = crowd.all.iter().filter(|it| it.target.known_as.0 == *service).count();
            let hints = crowd.told.lock().hints.get(service).copied().unwrap_or_default();
            println!("push: {hints} hints by {provider} for {devices} devices that are away");
            let few = u64::try_from(devices)?.saturating_sub(hints);
            crowd.notes.amount(provider, "hints too few to show anything", few, 0);
        }
        told.unwrap_or(Ok(()))
    }
}

impl Crowd {
    async fn come_and_go(self: Arc<Self>, rng: SeededRng, stop: Arc<AtomicBool>) -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(rng.number() % COMES_EVERY_MS)).await;
            let some = rng.number() as usize % self.all.len();
            // Vendors' tokens end when they like.
            self.services.sim.revoke_bearers();
            self.all[some].come(&self.notes).await?;
        }
        Ok(())
    }

    /// Writes down what the services take, until it is aborted.
    async fn hear(self: Arc<Self>) {
        loop {
            for hint in self.services.sim.take_received() {
                if let Err(wrong) = self.take(&hint) {
                    self.notes.amount(&"push", wrong, 1, 0);
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Writes down one; what is wrong with it.
    fn take(&self, hint: &Received) -> Result<(), &'static str> {
        let of = |it: &&Sleeper| {
            (hint.service, &hint.target) == (it.target.known_as.0, &it.target.known_as.1)
        };
        let user = self.all.iter().find(of).ok_or("hints for nobody")?.user;
        let head = head(hint, words::name(user).as_str()).ok_or("hints that say nothing")?;
        self.notes.note(|at| Event::Hint { at, user, device: NUMBER, head });
        let mut told = self.told.lock();
        let highest = told.heads.entry(user).or_default();
        *highest = (*highest).max(head);
        *told.hints.entry(hint.service).or_default() += 1;
        if hint.service == Service::Apns {
            let id = hint.headers.get("apns-collapse-id").ok_or("hints without a collapse id")?;
            let before = told.collapse.insert(user, id.clone());
            if before.is_some_and(|before| before != *id) {
                return Err("hints that do not replace the one before");
            }
        }
        Ok(())
    }

    async fn all_told(&self, client: &Client) -> Result<()> {
        for sleeper in &self.all {
            let head = load::head(client, sleeper.user).await?;
            let knows = || {
                let told = self.told.lock().heads.get(&sleeper.user).copied();
                (*sleeper.cursor.lock()).max(told.unwrap_or_default()) >= head
            };
            while !knows() {
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    }
}

/// Of which head this user's device was told, in the form of its platform.
fn head(hint: &Received, user: &str) -> Option<Seq> {
    let body: serde_json::Value = serde_json::from_str(&hint.body).ok()?;
    let wake = match hint.service {
        Service::Webhook => &body["data"],
        Service::Apns => &body["tidemark"],
        Service::Fcm | Service::WebPush | Service::Wns | Service::Mpns | Service::BbPush => &body,
    };
    // Google carries texts only.
    let head = &wake["head"];
    let head = head.as_u64().or_else(|| head.as_str()?.parse().ok())?;
    (wake["user"] == user).then_some(Seq::new(u32::try_from(head).ok()?))
}

impl Sleeper {
    fn login(&self) -> Result<Login> {
        Login::new(&self.key, &self.config.user, &self.config.device)
    }

    /// Says that it is there, and where it is woken.
    async fn register(&self) -> Result<()> {
        let devices = Devices::new(self.config.clone(), self.login()?)?;
        let began = Instant::now();
        loop {
            let target = self.target.target.clone();
            let label = Label { name: "away".to_owned(), platform: "chaos".to_owned() };
            let set = async {
                devices.set_label(label).await?;
                devices.set_push(target).await
            };
            match set.await {
                Ok(()) => return Ok(()),
                Err(failure) if began.elapsed() < CALL_WITHIN => {
                    eprintln!("{} is not registered: {failure}", self.user);
                    tokio::time::sleep(AGAIN).await;
                }
                Err(failure) => return Err(failure).context("a device is not registered"),
            }
        }
    }

    /// Comes for a moment, takes what there is meanwhile, and goes.
    async fn come(&self, notes: &Notes) -> Result<()> {
        let (user, device, cursor) = (self.user, NUMBER, *self.cursor.lock());
        notes.note(|at| Event::Start { at, user, device, cursor });
        let handler = Awake { user, notes: notes.clone() };
        let parts = Parts::new(self.store.clone(), handler, self.login()?);
        let (woken, mut events) = Device::open(self.config.clone(), parts).await?;
        let events = tokio::spawn(async move { while events.next().await.is_some() {} });
        tokio::time::sleep(STAYS).await;
        woken.close().await;
        events.await?;
        *self.cursor.lock() = woken.status().cursor;
        notes.note(|at| Event::Stop { at, user, device });
        Ok(())
    }
}

/// Writes down what its device gives it.
struct Awake {
    user: User,
    notes: Notes,
}

impl Handler for Awake {
    async fn entry(&self, entry: &Entry) -> Result<(), AppError> {
        let (user, seq, copy) = (self.user, entry.seq, words::taken(entry)?);
        self.notes.note(|at| Event::Taken { at, user, device: NUMBER, seq, copy });
        Ok(())
    }

    async fn gap(&self, gap: SeqRange) -> Result<(), AppError> {
        let (user, to) = (self.user, gap.last());
        self.notes.note(|at| Event::Gap { at, user, device: NUMBER, to });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_found_in_the_form_of_each_service_and_is_the_users_own() {
        let told = |service, body: &str| {
            let (target, headers, body) = (String::new(), BTreeMap::new(), body.to_owned());
            head(&Received { service, target, headers, body }, "u7")
        };
        let webhook = r#"{"type":"push.wake","data":{"user":"u7","epoch":1,"head":9}}"#;
        let apns = r#"{"aps":{"content-available":1},"tidemark":{"user":"u7","epoch":1,"head":9}}"#;
        let (fcm, web) = (r#"{"user":"u7","head":"9"}"#, r#"{"user":"u7","head":9}"#);
        for (service, body) in [
            (Service::Webhook, webhook),
            (Service::Apns, apns),
            (Service::Fcm, fcm),
            (Service::WebPush, web),
        ] {
            assert_eq!(told(service, body), Some(Seq::new(9)), "{body}");
            assert_eq!(told(service, &body.replace("u7", "u8")), None, "another's");
            assert_eq!(told(service, &body.replace("head", "tail")), None);
        }
        assert_eq!(told(Service::Apns, webhook), None);
    }
}
