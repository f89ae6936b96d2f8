//! A device that is logged out again and again (R12): whoever was logged out stops, and its token does not
//! bring it back.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tidemark_chaos::words;
use tidemark_checker::history::User;
use tidemark_client::store::MemoryStore;
use tidemark_client::{
    AppError, Config, Device, Entry, Event, Fatal, FixedToken, GrpcConnector, Handler, Parts,
};
use tidemark_env::Clock;
use tidemark_store_client::Client;
use tidemark_store_core::Command;
use tidemark_token::{Claims, Role, SigningKey};
use tidemark_types::{DeviceId, UserId};

use crate::away;
use crate::net::Net;
use crate::plan::GATEWAYS;
use crate::world::{self, PROBER, World};

/// The token is older than the log-out by more than wrong clocks move the cluster's time.
const STAYS: Duration = Duration::from_secs(10);

/// How long it may go on after the log-out was acknowledged, and how long an old token may take to be
/// refused: faults and their end, and a device that tries again seldom by then.
const PATIENCE: Duration = Duration::from_secs(90);

const AGAIN: Duration = Duration::from_millis(500);

/// How long tokens are good.
const TOKEN_VALID: Duration = Duration::from_secs(3_600);

/// Comes and is sent away, while users write.
pub async fn run(world: Arc<World>, client: Client) {
    let guest = Guest {
        user: words::name(User(0)),
        name: DeviceId::new("guest").expect("a legal name"),
        world: world.clone(),
        client,
    };
    while world.is_writing() {
        if let Err(why) = guest.visit().await {
            return world
                .safety
                .violated(&world, format!("R12: a device that was logged out: {why:#}"));
        }
    }
}

struct Guest {
    user: UserId,
    name: DeviceId,
    world: Arc<World>,
    client: Client,
}

/// What a device's connection came to.
enum Came {
    Welcomed(Device, tidemark_client::Events),
    LoggedOut,
}

impl Guest {
    async fn visit(&self) -> Result<()> {
        let now = self.world.clock(PROBER).wall();
        let role = Role::Device { user: self.user.clone(), device: Some(self.name.clone()) };
        let key = SigningKey::read(&self.world.key)?;
        let token = key.sign(&Claims::new(role, now, TOKEN_VALID));
        let Came::Welcomed(device, mut events) = self.come(&token).await? else {
            // It was made in the moment in which the one before it was logged out.
            tokio::time::sleep(AGAIN).await;
            return Ok(());
        };
        tokio::time::sleep(STAYS).await;
        let out = Command::LogOut { user: self.user.clone(), device: self.name.clone() };
        away::done(&self.client, &out).await;
        let stopped = tokio::time::timeout(PATIENCE, async {
            loop {
                match events.next().await {
                    Some(Event::Stopped(Fatal::LoggedOut(_))) => return Ok(()),
                    Some(Event::Stopped(other)) => bail!("it stopped: {other}"),
                    Some(_) => {}
                    None => bail!("it stopped, and does not say why"),
                }
            }
        });
        stopped.await.context("it goes on")??;
        drop(device);
        match self.come(&token).await? {
            Came::LoggedOut => Ok(()),
            Came::Welcomed(..) => bail!("its token is good"),
        }
    }

    /// Connects, until it is welcomed or refused.
    async fn come(&self, token: &str) -> Result<Came> {
        let net = Arc::new(Net { world: self.world.clone(), from: PROBER.to_owned() });
        let parts = Parts {
            store: MemoryStore::default(),
            handler: Pass,
            tokens: FixedToken(token.to_owned()),
            connector: GrpcConnector::over(net),
            clock: self.world.clock(PROBER),
            rng: self.world.rng(),
        };
        let gateways = world::addresses((0..GATEWAYS).map(world::gateway));
        let config = Config::new(self.user.clone(), self.name.clone(), gateways);
        let (device, mut events) = Device::open(config, parts).await?;
        let came = tokio::time::timeout(PATIENCE, async {
            loop {
                match events.next().await {
                    Some(Event::Connected { .. }) => return Ok(true),
                    Some(Event::Stopped(Fatal::LoggedOut(_))) => return Ok(false),
                    Some(Event::Stopped(other)) => bail!("it stopped: {other}"),
                    Some(_) => {}
                    None => bail!("it stopped, and does not say why"),
                }
            }
        });
        Ok(match came.await.context("it is neither welcomed nor refused")?? {
            true => Came::Welcomed(device, events),
            false => Came::LoggedOut,
        })
    }
}

/// What it takes is of no interest.
struct Pass;

impl Handler for Pass {
    async fn entry(&self, _: &Entry) -> Result<(), AppError> {
        Ok(())
    }
}
