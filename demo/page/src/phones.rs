//! The page's people and their devices: new names for each run, tokens for them and for nobody else.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tidemark_env::{Clock as _, Rng as _, SystemClock, SystemRng};
use tidemark_proto::v1::devices_client::DevicesClient;
use tidemark_proto::{headers, v1};
use tidemark_token::{Claims, Role, SigningKey};
use tidemark_types::{DeviceId, Id, ShardCount, ShardId, UserId};
use tonic::Request;
use tonic::transport::Endpoint;

use crate::cluster::Cluster;
use crate::pushes::{PROVIDER, TARGET};

/// A token is good for so long, and the page gets another one then.
const VALID: Duration = Duration::from_secs(3_600);

/// Registering the phone takes no longer, or the gateway is not there.
const PATIENCE: Duration = Duration::from_secs(5);

/// One of the page's devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Which {
    /// A's phone.
    A,
    /// B's phone.
    B,
    /// B's second device.
    BLaptop,
}

/// The people and their devices.
pub(crate) struct Phones {
    key: SigningKey,
    a: UserId,
    b: UserId,
    shards: ShardCount,
}

/// Who they are, for the page.
#[derive(Serialize)]
pub(crate) struct People {
    a: String,
    b: String,
    shard_a: u16,
    shard_b: u16,
}

impl Phones {
    /// Two people whom nobody has heard of, on different shards if there are any.
    pub(crate) fn new(cluster: &Cluster) -> Result<Self> {
        let key = SigningKey::read(cluster.key()).context("the cluster's key")?;
        let run = SystemRng.number() & 0xff_ffff;
        let user = |name: &str, at: usize| UserId::new(format!("{name}-{run:06x}-{at}"));
        let (shards, a) = (cluster.shards(), user("alice", 0)?);
        let of = |user: &UserId| shards.shard_of(&Id::User(user.clone()));
        // With eight shards the first one will do seven times of eight.
        let mut b = user("bob", 0)?;
        for at in 1..64 {
            if of(&b) == of(&a) {
                b = user("bob", at)?;
            }
        }
        Ok(Phones { key, a, b, shards })
    }

    /// Who they are.
    pub(crate) fn people(&self) -> People {
        People {
            a: self.a.to_string(),
            b: self.b.to_string(),
            shard_a: self.shard(&self.a).get(),
            shard_b: self.shard_of_b().get(),
        }
    }

    /// Where B's mailbox is.
    pub(crate) fn shard_of_b(&self) -> ShardId {
        self.shard(&self.b)
    }

    /// A token for a device.
    pub(crate) fn token(&self, which: Which) -> Result<String> {
        let (user, device) = match which {
            Which::A => (&self.a, "phone"),
            Which::B => (&self.b, "phone"),
            Which::BLaptop => (&self.b, "laptop"),
        };
        let device = Some(DeviceId::new(device)?);
        Ok(self.sign(Role::Device { user: user.clone(), device }))
    }

    /// Registers B's phone, and says where hints for it go; the first gateway that answers is told. It
    /// must be before the phone connects: only of a device that has hints is the end of a connection
    /// told to the store, so that they come at once.
    pub(crate) async fn register_push(&self, gateways: impl Iterator<Item = &str>) -> Result<()> {
        let mut failed = anyhow::anyhow!("there is no gateway");
        for gateway in gateways {
            match self.register_at(gateway).await {
                Ok(()) => return Ok(()),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn register_at(&self, gateway: &str) -> Result<()> {
        let endpoint = Endpoint::from_shared(format!("http://{gateway}"))?;
        let channel = endpoint.connect_timeout(PATIENCE).timeout(PATIENCE).connect().await?;
        let mut devices = DevicesClient::new(channel);
        let (user, device) = (self.b.to_string(), "phone".to_owned());
        let start = Some(v1::Start { at: v1::StartAt::Floor.into(), last: 0 });
        let register = v1::RegisterRequest { user, device, start, label: None };
        let target = v1::PushTarget { provider: PROVIDER.to_owned(), target: TARGET.to_owned() };
        let (user, device) = (register.user.clone(), register.device.clone());
        let push = v1::SetPushRequest { user, device, target: Some(target) };
        devices.register(self.request(register)?).await?;
        devices.set_push(self.request(push)?).await?;
        Ok(())
    }

    /// A call in the name of a back end.
    fn request<T>(&self, message: T) -> Result<Request<T>> {
        let mut request = Request::new(message);
        let bearer = format!("{}{}", headers::BEARER, self.sign(Role::Service));
        request.metadata_mut().insert(headers::AUTHORIZATION, bearer.parse()?);
        Ok(request)
    }

    fn shard(&self, user: &UserId) -> ShardId {
        self.shards.shard_of(&Id::User(user.clone()))
    }

    fn sign(&self, role: Role) -> String {
        self.key.sign(&Claims::new(role, SystemClock::new().wall(), VALID))
    }
}
