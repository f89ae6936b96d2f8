//! Registers many devices at once, as a back end would that takes over another system's.

use std::time::Duration;

use anyhow::{Context, Result};
use futures::stream::{self, StreamExt, TryStreamExt};
use tidemark_proto::v1::devices_client::DevicesClient;
use tidemark_proto::v1::{PushTarget, RegisterRequest, SetPushRequest, Start, StartAt};
use tidemark_proto::{Failure, headers};
use tidemark_token::Role;
use tidemark_types::UserId;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::cluster::Cluster;

/// Devices that are registered at a time.
const AT_A_TIME: usize = 256;

/// Attempts at one registration: an election's time and more.
const ATTEMPTS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(100);

type Bearer = MetadataValue<Ascii>;

/// Registers a device for each of these users, whose token is the user's number.
pub(crate) async fn all(cluster: &Cluster, users: &[UserId]) -> Result<()> {
    let login = cluster.login(Role::Service)?;
    let bearer: Bearer = format!("{}{}", headers::BEARER, login.sign()).parse()?;
    let mut channels = Vec::new();
    for gateway in cluster.gateways() {
        channels.push(Endpoint::from_shared(format!("http://{gateway}"))?.connect().await?);
    }
    let (bearer, channels) = (&bearer, &channels);
    let calls = stream::iter(users.iter().enumerate()).map(async |(number, user)| {
        let client = DevicesClient::new(channels[number % channels.len()].clone());
        one(client, bearer, number, user).await.with_context(|| user.to_string())
    });
    calls.buffer_unordered(AT_A_TIME).try_collect().await
}

/// Both calls may be repeated: what they set is a value.
async fn one(
    mut client: DevicesClient<Channel>,
    bearer: &Bearer,
    number: usize,
    user: &UserId,
) -> Result<(), Failure> {
    let (user, device) = (user.to_string(), "phone".to_owned());
    let start = Some(Start { at: StartAt::Floor.into(), last: 0 });
    let register =
        RegisterRequest { user: user.clone(), device: device.clone(), start, label: None };
    let target = PushTarget { provider: "webhook".to_owned(), target: number.to_string() };
    let set = SetPushRequest { user, device, target: Some(target) };
    let mut attempt = 1;
    loop {
        let called = async {
            client.register(with(bearer, register.clone())).await?;
            client.set_push(with(bearer, set.clone())).await?;
            Ok::<_, Status>(())
        };
        match called.await.map_err(|status| Failure::from(&status)) {
            Ok(()) => return Ok(()),
            Err(failure) if failure.code.is_retryable() && attempt < ATTEMPTS => {
                attempt += 1;
                tokio::time::sleep(failure.retry_after.unwrap_or(PAUSE)).await;
            }
            Err(failure) => return Err(failure),
        }
    }
}

fn with<Q>(bearer: &Bearer, message: Q) -> Request<Q> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(headers::AUTHORIZATION, bearer.clone());
    request
}
