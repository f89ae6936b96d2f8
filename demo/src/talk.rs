//! The talk itself: four devices send in turn, and a leader is killed in the middle.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use tidemark_chaos::cluster::PATIENCE;
use tidemark_chaos::login::Login;
use tidemark_chaos::stores;
use tidemark_client::{Config, Device, DiskStore, Outcome, Parts, Sending};
use tidemark_types::{ClientMsgId, DeviceId, Id, Recipient, Seq, ShardId, UserId};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::cluster::Cluster;
use crate::notebook::Notebook;

/// A line of progress is printed for every so many messages.
const PROGRESS: usize = 200;

/// Sends whose outcome is not known yet; the outbox is smaller.
const OPEN_SENDS: usize = 8_192;

/// What was said.
pub(crate) struct Talk {
    /// The two users.
    pub(crate) users: [UserId; 2],
    /// Every message.
    pub(crate) messages: Vec<Message>,
    /// Each device's notebook, in the order of the devices; two are the first user's.
    pub(crate) notebooks: Vec<PathBuf>,
    /// How often the shard whose leader was killed found another one.
    pub(crate) failovers: usize,
    /// The longest time between two acknowledgements.
    pub(crate) max_pause: Duration,
}

/// A message that was put into an outbox.
pub(crate) struct Message {
    /// Its name.
    pub(crate) id: ClientMsgId,
    /// What it says.
    pub(crate) body: String,
    /// Which device sent it.
    pub(crate) device: usize,
    /// It was accepted.
    pub(crate) acked: bool,
}

impl Talk {
    /// Lets them talk: each line is one message, from the four devices in turn.
    pub(crate) async fn run(cluster: &Cluster, lines: &[&str], rate: u32) -> Result<Talk> {
        let client = cluster.stores().await?;
        let users = users(|user| client.shard_of(&Id::User(user.clone())))?;
        let shard = client.shard_of(&Id::User(users[1].clone()));
        let folder = cluster.home().join("demo").join(users[0].as_str());
        std::fs::create_dir_all(&folder)?;
        let mut devices = Vec::new();
        let mut notebooks = Vec::new();
        for (user, name) in users.iter().flat_map(|user| [(user, "phone"), (user, "laptop")]) {
            let path = folder.join(format!("{user}-{name}.txt"));
            devices.push(open(cluster, user, name, &path).await?);
            notebooks.push(path);
        }
        println!("{} and {} talk, shard {shard} will lose its leader", users[0], users[1]);
        let (sending, outcomes) = mpsc::channel(OPEN_SENDS);
        let acks = tokio::spawn(collect(outcomes, lines.len()));
        let mut killed = None;
        let mut turn = tokio::time::interval(Duration::from_secs(1) / rate);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for (at, line) in lines.iter().enumerate() {
            turn.tick().await;
            let from = at % devices.len();
            let to = Recipient::User(users[1 - from / 2].clone());
            let sent = devices[from].send(&[to], 1, (*line).to_owned()).await?;
            sending.send((sent, from, (*line).to_owned())).await.context("nobody collects")?;
            if at + 1 == lines.len() * 3 / 10 {
                let leader = stores::leader(&client, shard).await?;
                println!("{}", cluster.script(&["kill-leader", "--shard", &shard.to_string()])?);
                killed = Some(leader);
            }
        }
        drop(sending);
        let killed = killed.context("too few messages for a kill")?;
        let (messages, max_pause) = acks.await??;
        let failovers = usize::from(stores::leader(&client, shard).await? != killed);
        println!("{}", cluster.script(&["restart", &killed.to_string()])?);
        for device in devices {
            caught_up(&device, lines.len()).await?;
            device.close().await;
        }
        stores::settled(&client).await?;
        Ok(Talk { users, messages, notebooks, failovers, max_pause })
    }
}

/// Two users on different shards whom nobody has met before.
fn users(shard_of: impl Fn(&UserId) -> ShardId) -> Result<[UserId; 2]> {
    let now = UNIX_EPOCH.elapsed()?.as_millis();
    let alice = UserId::new(format!("alice-{now}"))?;
    for number in 0..1_000 {
        let bob = UserId::new(format!("bob-{now}-{number}"))?;
        if shard_of(&bob) != shard_of(&alice) {
            return Ok([alice, bob]);
        }
    }
    bail!("the cluster has one shard only: start it with more")
}

async fn open(cluster: &Cluster, user: &UserId, name: &str, notebook: &Path) -> Result<Device> {
    let device = DeviceId::new(name)?;
    let store = DiskStore::open(notebook.with_extension("redb"))?;
    let login = Login::new(&cluster.key(), user, &device)?;
    let parts = Parts::new(store, Notebook::create(notebook)?, login);
    let config = Config::new(user.clone(), device, cluster.gateways());
    let (device, mut events) = Device::open(config, parts).await?;
    // What happens to the connection is the SDK's business; the outcomes are waited for.
    tokio::spawn(async move { while events.next().await.is_some() {} });
    Ok(device)
}

/// Waits for the outcome of every send; the messages, and the longest time between two outcomes.
async fn collect(
    mut sent: mpsc::Receiver<(Sending, usize, String)>,
    count: usize,
) -> Result<(Vec<Message>, Duration)> {
    let mut messages = Vec::with_capacity(count);
    let mut pause = Duration::ZERO;
    let mut last = Instant::now();
    while let Some((mut sending, device, body)) = sent.recv().await {
        let id = sending.client_msg_id();
        let outcome = tokio::time::timeout(PATIENCE, sending.outcome()).await;
        let outcome = outcome.context("a send has no outcome")??;
        let acked = matches!(outcome, Outcome::Accepted(_));
        pause = pause.max(last.elapsed());
        last = Instant::now();
        messages.push(Message { id, body, device, acked });
        if messages.len().is_multiple_of(PROGRESS) {
            println!("acknowledged {} of {count}", messages.len());
        }
    }
    Ok((messages, pause))
}

/// Waits until the device's application has taken everything: each mailbox has every message.
async fn caught_up(device: &Device, count: usize) -> Result<()> {
    let head = Seq::new(u32::try_from(count)?);
    let mut status = device.watch();
    let all = status.wait_for(|status| status.cursor >= head);
    match tokio::time::timeout(PATIENCE, all).await {
        Ok(waited) => waited.map(drop).context("a device stopped"),
        Err(_) => bail!("a device lacks entries: {:?}", device.status()),
    }
}
