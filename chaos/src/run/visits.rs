//! Devices that are logged out or displaced (R12): whoever was told to go goes, and an old token does not
//! bring it back.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tidemark_client::{
    AppError, Config, Device, Devices, Entry, Event, Fatal, FixedToken, Handler, MemoryStore,
    Parts, TokenSource,
};
use tidemark_types::{DeviceId, ErrorCode, UserId};
use tokio::sync::watch;

use crate::cluster::Cluster;
use crate::login::Login;

/// How long anything may take: faults, their end, and a device that was cut off for long.
const PATIENCE: Duration = Duration::from_secs(120);

const AGAIN: Duration = Duration::from_millis(500);

/// How long before a log-out a token is made that must not be good after it: the cluster's time and that
/// of whoever makes tokens differ by less.
const OLDER: Duration = Duration::from_secs(2);

/// A user whose devices come and are sent away.
#[derive(Clone)]
pub(super) struct Visits {
    gateways: Vec<String>,
    key: PathBuf,
    user: UserId,
    /// The device that logs others out.
    owner: DeviceId,
}

/// What a device was told.
#[derive(Clone, Debug, Default)]
struct Told {
    welcomed: bool,
    displaced: bool,
    stopped: Option<Fatal>,
}

/// A device that is open.
struct Guest {
    device: Device,
    told: watch::Receiver<Told>,
}

impl Visits {
    /// Of a user who has the device `phone`.
    pub(super) fn new(cluster: &Cluster, user: &UserId) -> Result<Self> {
        let (gateways, key) = (cluster.gateways()?, cluster.key());
        Ok(Visits { gateways, key, user: user.clone(), owner: DeviceId::new("phone")? })
    }

    /// A device is logged out by another one: it stops, says why, and its token is good for nothing.
    pub(super) async fn log_out(&self) -> Result<()> {
        let name = DeviceId::new("guest")?;
        let (token, mut guest) = self.log_in(&name).await?;
        let login = Login::new(&self.key, &self.user, &self.owner)?;
        let devices = Devices::new(self.config(&self.owner), login)?;
        tokio::time::sleep(OLDER).await;
        let began = Instant::now();
        while let Err(failure) = devices.log_out(&name).await {
            // A gateway whose clock is ahead takes no token that is good.
            let passes = failure.code.is_retryable() || failure.code == ErrorCode::TokenExpired;
            ensure!(passes && began.elapsed() < PATIENCE, "a log-out: {failure}");
            tokio::time::sleep(AGAIN).await;
        }
        guest.is_logged_out().await.context("a device that was logged out")?;
        let mut again = self.open(&name, FixedToken(token)).await?;
        again.is_logged_out().await.context("a token from before the log-out")
    }

    /// A device with a token that is good, and stays the same.
    async fn log_in(&self, name: &DeviceId) -> Result<(String, Guest)> {
        let began = Instant::now();
        loop {
            let token = Login::new(&self.key, &self.user, name)?.sign();
            let mut guest = self.open(name, FixedToken(token.clone())).await?;
            let came = guest.until(|told| told.welcomed || told.stopped.is_some()).await;
            match came.context("a device that logs in")?.stopped {
                None => return Ok((token, guest)),
                // It was made in the moment in which the one before it was logged out.
                Some(Fatal::LoggedOut(_)) if began.elapsed() < PATIENCE => {
                    tokio::time::sleep(AGAIN).await;
                }
                Some(reason) => bail!("a device with a new token stopped: {reason}"),
            }
        }
    }

    /// Two connections of one device: one of them is told that it was displaced, and the other one
    /// stays once it is gone.
    pub(super) async fn displace(&self) -> Result<()> {
        let name = DeviceId::new("desk")?;
        let login = || Login::new(&self.key, &self.user, &name);
        let (mut first, mut second) =
            (self.open(&name, login()?).await?, self.open(&name, login()?).await?);
        let displaced = tokio::select! {
            told = first.until(|told| told.displaced) => told,
            told = second.until(|told| told.displaced) => told,
        };
        displaced.context("nobody was displaced")?;
        first.device.close().await;
        let mut status = second.device.watch();
        let online = status.wait_for(|status| {
            matches!(status.connection, tidemark_client::ConnectionState::Online { .. })
        });
        let online = tokio::time::timeout(PATIENCE, online).await;
        online.context("the other one is not online")??;
        second.device.close().await;
        Ok(())
    }

    fn config(&self, device: &DeviceId) -> Config {
        Config::new(self.user.clone(), device.clone(), self.gateways.clone())
    }

    async fn open(&self, name: &DeviceId, tokens: impl TokenSource) -> Result<Guest> {
        let parts = Parts::new(MemoryStore::default(), Pass, tokens);
        let (device, mut events) = Device::open(self.config(name), parts).await?;
        let (tell, told) = watch::channel(Told::default());
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                tell.send_modify(|told| match event {
                    Event::Connected { .. } => told.welcomed = true,
                    Event::Disconnected { reason, .. } => {
                        told.displaced |= reason.contains(ErrorCode::Displaced.name());
                    }
                    Event::Stopped(reason) => told.stopped = Some(reason),
                    _ => {}
                });
            }
        });
        Ok(Guest { device, told })
    }
}

impl Guest {
    async fn until(&mut self, holds: impl Fn(&Told) -> bool) -> Result<Told> {
        let told = tokio::time::timeout(PATIENCE, self.told.wait_for(holds)).await;
        let told = told.with_context(|| format!("within {} s", PATIENCE.as_secs()))?;
        Ok(told.context("it stopped, and does not say why")?.clone())
    }

    async fn is_logged_out(&mut self) -> Result<()> {
        match self.until(|told| told.stopped.is_some()).await?.stopped {
            Some(Fatal::LoggedOut(_)) => Ok(()),
            other => bail!("it stopped with {other:?}"),
        }
    }
}

/// What it takes is of no interest.
struct Pass;

impl Handler for Pass {
    async fn entry(&self, _: &Entry) -> Result<(), AppError> {
        Ok(())
    }
}
