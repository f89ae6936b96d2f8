//! Devices that are away most of the time and are woken (R18): a third one of each user of the load, with
//! a push service that keeps its vendor's rules (`tidemark-push-sim`).
//!
//! ```text
//!   load ──► store ── due ──► gateway ── signed webhook ──► service ──► history: Hint
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

/// How long an election and its retries may take.
const CALL_WITHIN: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(500);

/// The push services of a run.
pub(super) struct Services {
    sim: Sim,
    folder: TempDir,
}

impl Services {
    /// Starts them.
    pub(super) async fn start() -> Result<Self> {
        let (sim, folder) = (Sim::start(SimConfig::default()).await?, tempfile::tempdir()?);
        sim.write(folder.path())?;
        Ok(Services { sim, folder })
    }

    /// Where the one that is used listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.sim.http()
    }

    /// The gateways' configuration of the one that is used: those of vendors take few tokens, and a
    /// gateway that is started again makes a new one.
    pub(super) fn gateways(&self) -> String {
        let secrets = self.folder.path().join("webhook.secrets");
        format!(
            "[push.providers.webhook]\nkind = \"webhook\"\nendpoint = \"http://{}/webhook\"\n\
             secrets = {:?}\n",
            self.sim.http(),
            secrets.display().to_string(),
        )
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
    /// The highest head that each was told of, and how many hints there were.
    told: Mutex<(BTreeMap<User, Seq>, usize)>,
}

/// A device with all that outlives its application.
struct Sleeper {
    user: User,
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
        let hints = crowd.told.lock().1;
        println!("push: {hints} hints for {} devices that are away", crowd.all.len());
        let few = crowd.all.len().saturating_sub(hints);
        let few = u64::try_from(few)?;
        crowd.notes.amount(&"push", "hints too few to show anything", few, 0);
        told.unwrap_or(Ok(()))
    }
}

impl Crowd {
    async fn come_and_go(self: Arc<Self>, rng: SeededRng, stop: Arc<AtomicBool>) -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(rng.number() % COMES_EVERY_MS)).await;
            let some = rng.number() as usize % self.all.len();
            self.all[some].come(&self.notes).await?;
        }
        Ok(())
    }

    /// Writes down what the service takes, until it is aborted.
    async fn hear(self: Arc<Self>) {
        let mut seen = 0;
        loop {
            let received = self.services.sim.received(Service::Webhook);
            for hint in &received[seen..] {
                match told(hint) {
                    Some((user, head)) => {
                        self.notes.note(|at| Event::Hint { at, user, device: NUMBER, head });
                        let (told, count) = &mut *self.told.lock();
                        let told = told.entry(user).or_default();
                        (*told, *count) = ((*told).max(head), *count + 1);
                    }
                    None => self.notes.amount(&"push", "hints that say nothing", 1, 0),
                }
            }
            seen = received.len();
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn all_told(&self, client: &Client) -> Result<()> {
        for sleeper in &self.all {
            let head = load::head(client, sleeper.user).await?;
            let knows = || {
                let told = self.told.lock().0.get(&sleeper.user).copied();
                (*sleeper.cursor.lock()).max(told.unwrap_or_default()) >= head
            };
            while !knows() {
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    }
}

/// Who was told of which head.
fn told(hint: &Received) -> Option<(User, Seq)> {
    let body: serde_json::Value = serde_json::from_str(&hint.body).ok()?;
    let head = u32::try_from(body.pointer("/data/head")?.as_u64()?).ok()?;
    Some((User(hint.target.parse().ok()?), Seq::new(head)))
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
            let target =
                PushTarget { provider: "webhook".to_owned(), target: self.user.0.to_string() };
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
