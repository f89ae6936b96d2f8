//! Who watches another user hears, through another gateway, when that one comes and goes: also after the
//! leader of that user's shard, or the watching device's gateway, was killed.

use anyhow::{Context, Result, bail};
use tidemark_chaos::build::Build;
use tidemark_chaos::cluster::{Cluster, Member, PATIENCE, Spec};
use tidemark_chaos::login::Login;
use tidemark_chaos::senders::users_on;
use tidemark_chaos::stores;
use tidemark_client::{
    AppError, Config, ConnectionState, Device, Entry, Event, Events, Handler, MemoryStore, Parts,
};
use tidemark_types::{DeviceId, ShardId, UserId};
use tokio::time::timeout;

const SPEC: Spec = Spec { nodes: 3, shards: 4, gateways: 2, stores: "", build: Build::Release };

/// Where the two live: not on one shard.
const SHARDS: [ShardId; 2] = [ShardId::new(0), ShardId::new(1)];

/// An application that takes everything.
struct Any;

impl Handler for Any {
    async fn entry(&self, _: &Entry) -> Result<(), AppError> {
        Ok(())
    }
}

/// A device that is connected to this gateway.
async fn online(cluster: &Cluster, user: &UserId, gateway: usize) -> Result<(Device, Events)> {
    let device = DeviceId::new("phone")?;
    let gateways = vec![cluster.gateway(gateway)?];
    let login = Login::new(&cluster.key(), user, &device)?;
    let config = Config::new(user.clone(), device, gateways);
    let (device, events) =
        Device::open(config, Parts::new(MemoryStore::default(), Any, login)).await?;
    let mut status = device.watch();
    let there =
        status.wait_for(|status| matches!(status.connection, ConnectionState::Online { .. }));
    drop(timeout(PATIENCE, there).await.context("it does not get through")??);
    Ok((device, events))
}

/// Waits until the one who is watched is said to be there, or to have gone.
async fn told(events: &mut Events, bob: &UserId, wanted: bool) -> Result<()> {
    let heard = async {
        while let Some(event) = events.next().await {
            match event {
                Event::Presence { user, online, .. } if user == *bob && online == wanted => {
                    return Ok(());
                }
                Event::PresenceRefused { message } => bail!(message),
                _ => {}
            }
        }
        bail!("the device has stopped")
    };
    timeout(PATIENCE, heard).await.with_context(|| format!("nobody says that it is {wanted}"))?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_watches_hears_who_comes_and_goes_whoever_is_killed() -> Result<()> {
    let mut cluster = Cluster::start(SPEC).await?;
    let client = cluster.client(PATIENCE).await?;
    let [alice, bob] = [
        users_on(&client, SHARDS[0], "alice", 1)?.remove(0),
        users_on(&client, SHARDS[1], "bob", 1)?.remove(0),
    ];
    let (hers, mut events) = online(&cluster, &alice, 0).await?;
    hers.watch_presence(std::slice::from_ref(&bob)).await;
    told(&mut events, &bob, false).await?;
    let (his, _) = online(&cluster, &bob, 1).await?;
    told(&mut events, &bob, true).await?;
    his.close().await;
    told(&mut events, &bob, false).await?;

    // The next leader knows whom to tell.
    let (his, _) = online(&cluster, &bob, 1).await?;
    told(&mut events, &bob, true).await?;
    let leader = stores::leader(&client, SHARDS[1]).await?;
    cluster.kill(leader)?;
    his.close().await;
    told(&mut events, &bob, false).await?;
    let (_his, _) = online(&cluster, &bob, 1).await?;
    told(&mut events, &bob, true).await?;
    cluster.start_members([Member::from(leader)]).await?;

    // A gateway that knows nothing is told by her device whom she watches.
    cluster.kill(Member::Gateway(0))?;
    cluster.start_members([Member::Gateway(0)]).await?;
    told(&mut events, &bob, true).await
}
