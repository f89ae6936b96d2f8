//! A device with its application: the whole SDK, a store on disk that outlives it, and an inbox.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tidemark_client::{
    AppError, Config, ConnectionState, Content, Device, DeviceInfo, Devices, DiskStore, Entry,
    Event, Events, Fatal, Handler, Outcome, Parts,
};
use tidemark_types::{DeviceId, Recipient, Seq, UserId};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::cluster::{Cluster, Login};

/// How long anything may take: an election and its retries, on a machine that has other work.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How often is asked for what nobody tells.
const LOOK: Duration = Duration::from_millis(50);

/// A message that the application took.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    /// What it says.
    pub(crate) text: String,
    /// When it was taken.
    pub(crate) at: Instant,
}

/// What the application took, of all runs of the device.
#[derive(Clone)]
struct Inbox(watch::Sender<Vec<Taken>>);

impl Handler for Inbox {
    async fn entry(&self, entry: &Entry) -> Result<(), AppError> {
        if let Content::Message(message) = &entry.content {
            let text = String::from_utf8_lossy(&message.body).into_owned();
            self.0.send_modify(|taken| taken.push(Taken { text, at: Instant::now() }));
        }
        Ok(())
    }
}

/// A device that can be switched off and on.
pub(crate) struct Phone {
    config: Config,
    login: Login,
    file: PathBuf,
    inbox: Inbox,
    running: Option<(Device, Events)>,
    devices: Devices<Login>,
}

impl Phone {
    /// A device that is off, with its store in a folder.
    pub(crate) fn new(
        cluster: &Cluster,
        folder: &std::path::Path,
        user: &UserId,
        device: &str,
    ) -> Result<Self> {
        let device = DeviceId::new(device)?;
        let login = cluster.login_of(user, &device)?;
        let file = folder.join(format!("{user}-{device}.redb"));
        let config = Config::new(user.clone(), device, cluster.gateways());
        let devices = Devices::new(config.clone(), login.clone())?;
        let inbox = Inbox(watch::Sender::default());
        Ok(Phone { config, login, file, inbox, running: None, devices })
    }

    /// What it is called.
    pub(crate) fn name(&self) -> &DeviceId {
        &self.config.device
    }

    /// Switches it on, and waits until it is welcomed.
    pub(crate) async fn on(&mut self) -> Result<()> {
        let store = DiskStore::open(&self.file)?;
        let parts = Parts::new(store, self.inbox.clone(), self.login.clone());
        let (device, events) = Device::open(self.config.clone(), parts).await?;
        let mut status = device.watch();
        let online = status.wait_for(|it| matches!(it.connection, ConnectionState::Online { .. }));
        timeout(PATIENCE, online)
            .await
            .with_context(|| format!("{} is not online", self.name()))??;
        self.running = Some((device, events));
        Ok(())
    }

    /// Switches it off.
    pub(crate) async fn off(&mut self) {
        if let Some((device, _)) = self.running.take() {
            device.close().await;
        }
    }

    /// The user's devices, by this one's word.
    pub(crate) fn devices(&self) -> &Devices<Login> {
        &self.devices
    }

    /// Sends, and waits until it is accepted.
    pub(crate) async fn send(&self, to: &UserId, text: &str) -> Result<()> {
        let (device, _) = self.running.as_ref().context("it is off")?;
        let mut sending = device.send(&[Recipient::User(to.clone())], 1, text.to_owned()).await?;
        match timeout(PATIENCE, sending.outcome()).await.context("no outcome")?? {
            Outcome::Accepted(_) => Ok(()),
            other => bail!("{text:?} was not accepted: {other:?}"),
        }
    }

    /// Waits until the application has taken this message; when it did.
    pub(crate) async fn took(&self, text: &str) -> Result<Instant> {
        let mut inbox = self.inbox.0.subscribe();
        let there = inbox.wait_for(|taken| taken.iter().any(|it| it.text == text));
        let taken = timeout(PATIENCE, there).await;
        let taken = taken.with_context(|| format!("{} did not get {text:?}", self.name()))??;
        let first = taken.iter().find(|it| it.text == text).context("it was there")?;
        Ok(first.at)
    }

    /// Up to which seq it has everything that there is.
    pub(crate) fn cursor(&self) -> Seq {
        self.running.as_ref().map_or(Seq::NONE, |(device, _)| device.status().cursor)
    }

    /// Everything that the application took is this, in this order and once.
    pub(crate) fn has_exactly(&self, wanted: &[&str]) -> Result<()> {
        let taken = self.inbox.0.borrow();
        let texts: Vec<&str> = taken.iter().map(|it| it.text.as_str()).collect();
        ensure!(texts == wanted, "{} took {texts:?}, and should have {wanted:?}", self.name());
        Ok(())
    }

    /// Waits until the cluster says this of one of the user's devices; what it says then.
    pub(crate) async fn until(
        &self,
        device: &DeviceId,
        what: &str,
        is_so: impl Fn(&DeviceInfo) -> bool,
    ) -> Result<DeviceInfo> {
        let ends = Instant::now() + PATIENCE;
        loop {
            let listed = self.devices.list().await?;
            let known = listed.into_iter().find(|it| it.device == *device);
            match known.filter(&is_so) {
                Some(known) => return Ok(known),
                None => ensure!(Instant::now() < ends, "{device} is never {what}"),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until the device has stopped because it was logged out.
    pub(crate) async fn is_logged_out(&mut self) -> Result<()> {
        let (_, events) = self.running.as_mut().context("it is off")?;
        let stopped = async {
            loop {
                match events.next().await {
                    Some(Event::Stopped(Fatal::LoggedOut(_))) => return Ok(()),
                    Some(_) => {}
                    None => bail!("it stopped, and does not say why"),
                }
            }
        };
        timeout(PATIENCE, stopped).await.context("it goes on")?
    }
}
