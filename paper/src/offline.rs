//! Many devices that are away, each with a token, and a burst of messages to all of them while a leader
//! and a gateway are killed: each is told of its newest message, once or more, and never by two pushes
//! at a time.
//!
//! ```text
//!   senders ──► gateways ──► stores ──► leases ──► gateways ──► receiver, which counts
//!                  ✗ gateway-1   ✗ who leads shard 0
//! ```

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use tidemark_client::{
    AppError, Config, Device, Entry, Events, Handler, MemoryStore, Outcome, Parts, Sending,
};
use tidemark_types::limits::RECIPIENTS_MAX;
use tidemark_types::{DeviceId, Recipient, UserId};
use tokio::sync::Notify;

use crate::cluster::Cluster;
use crate::receiver::{Book, Receiver};
use crate::register;

/// Users who send the burst.
const SENDERS: usize = 8;

/// How long the killed processes are away.
const AWAY: Duration = Duration::from_secs(5);

/// How long is waited for the last push: for a lease that died with its gateway, and for each so many
/// devices a second.
const PATIENCE: Duration = Duration::from_secs(180);
const DEVICES_PER_SECOND: u64 = 100;

/// How long is watched for what should not come.
const QUIET: Duration = Duration::from_secs(3);

/// A secret that everybody may know: what is counted here is not guarded.
const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// What is to be done.
pub(crate) struct Load {
    /// Devices that are away, each of a user of its own.
    pub(crate) devices: usize,
    /// Messages to each.
    pub(crate) messages: u32,
}

/// The devices on a cluster.
struct Crowd<'a> {
    cluster: &'a Cluster,
    book: &'a Book,
    load: &'a Load,
    /// Whose they are, by their numbers.
    users: Vec<UserId>,
}

/// Memory that a process held at most, in MiB, by its name.
type Peaks = Vec<(String, u64)>;

impl Load {
    /// Does it, on a cluster of its own.
    pub(crate) async fn run(&self, root: &Path) -> Result<()> {
        let folder = tempfile::tempdir()?;
        let book = Arc::new(Book::new(self.devices));
        let receiver = Receiver::start(book.clone()).await?;
        let secrets = folder.path().join("webhook.secrets");
        std::fs::write(&secrets, SECRET)?;
        let push = format!(
            "[providers.webhook]\nkind = \"webhook\"\nendpoint = \"http://{}/\"\nsecrets = {:?}\n\
             lane = {{ concurrency = 128, per_second = 0, queue = 1024 }}\n",
            receiver.address(),
            secrets.display().to_string(),
        );
        let cluster = Cluster::up(root, &push, "")?;
        let users = (0..self.devices).map(|number| UserId::new(format!("away-{number}")));
        let users = users.collect::<Result<_, _>>()?;
        let crowd = Crowd { cluster: &cluster, book: &book, load: self, users };
        let line = crowd.run().await?;
        cluster.down()?;
        println!("{line}");
        Ok(())
    }

    /// The seq of each device's newest message.
    fn head(&self) -> u32 {
        self.messages
    }
}

impl Crowd<'_> {
    /// What it came to, as one line.
    async fn run(&self) -> Result<String> {
        let (book, head, devices) = (self.book, self.load.head(), self.load.devices);
        let from = Instant::now();
        register::all(self.cluster, &self.users).await?;
        println!("hints: {devices} devices registered in {} s", from.elapsed().as_secs());
        ensure!(book.pushes() == 0, "somebody was pushed before there was a message");
        let from = Instant::now();
        let (mut peaks, told) = (Peaks::new(), self.told());
        tokio::pin!(told);
        let work = async {
            let struck = Notify::new();
            let (sent, killed) = futures::join!(self.burst(&struck), self.kills(&struck));
            (sent.context("the burst"), killed.context("the kills"))
        };
        tokio::pin!(work);
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        let (sent, killed) = loop {
            tokio::select! {
                done = &mut work => break done,
                _ = tick.tick() => self.measure(&mut peaks),
            }
        };
        sent.and(killed)?;
        println!("hints: everything sent after {} s", from.elapsed().as_secs());
        loop {
            tokio::select! {
                done = &mut told => break done?,
                _ = tick.tick() => self.measure(&mut peaks),
            }
        }
        let took = from.elapsed();
        tokio::time::sleep(QUIET).await;
        self.measure(&mut peaks);
        let (missing, beyond, strange) = (book.missing(head), book.beyond(head), book.strange());
        let outstanding = book.outstanding_max();
        let line = format!(
            "hints: devices={devices} messages={} pushes={} outstanding_max_per_device={outstanding} \
             missing={missing} pushes_max_per_device={} took_s={} {}",
            devices * self.load.messages as usize,
            book.pushes(),
            book.pushes_max(),
            took.as_secs(),
            memory(&peaks),
        );
        ensure!(
            (missing, beyond, strange) == (0, 0, 0),
            "{line}: {beyond} told too much, {strange} strange"
        );
        ensure!(outstanding == 1, "{line}: two pushes were under way to one device");
        Ok(line)
    }

    /// Sends every message to everybody; the newest once leader and gateway are gone.
    async fn burst(&self, struck: &Notify) -> Result<()> {
        let mut senders = Vec::new();
        for number in 0..SENDERS {
            senders.push(self.sender(number).await?);
        }
        let to: Vec<_> = self.users.iter().cloned().map(Recipient::User).collect();
        let parts: Vec<_> = to.chunks(RECIPIENTS_MAX).collect();
        for message in 1..self.load.messages {
            round(&senders, &parts, message).await?;
        }
        struck.notified().await;
        round(&senders, &parts, self.load.messages).await?;
        for (device, _) in senders {
            device.close().await;
        }
        Ok(())
    }

    async fn sender(&self, number: usize) -> Result<(Device, Events)> {
        let (user, device) = (UserId::new(format!("sender-{number}"))?, DeviceId::new("desk")?);
        let login = self.cluster.login_of(&user, &device)?;
        let config = Config::new(user, device, self.cluster.gateways());
        let parts = Parts::new(MemoryStore::default(), Pass, login);
        Ok(Device::open(config, parts).await?)
    }

    /// While hints are on their way: kills who leads shard 0, then a gateway with what it has leased,
    /// and starts both again.
    async fn kills(&self, struck: &Notify) -> Result<()> {
        let some = self.load.devices as u64 / 10;
        while self.book.pushes() < some {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let killed = self.cluster.script(&["kill-leader", "--shard", "0"])?;
        println!("hints: {killed}");
        let node = killed.split([' ', ',']).nth(1).context("who was killed?")?.to_owned();
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.cluster.script(&["kill", "gateway-1"])?;
        struck.notify_one();
        println!("hints: killed gateway-1; {} pushes so far", self.book.pushes());
        tokio::time::sleep(AWAY).await;
        for name in [node.as_str(), "gateway-1"] {
            println!("hints: {}", self.cluster.script(&["restart", name])?);
        }
        Ok(())
    }

    /// Waits until everybody is told of the newest message.
    async fn told(&self) -> Result<()> {
        let patience =
            PATIENCE + Duration::from_secs(self.load.devices as u64 / DEVICES_PER_SECOND);
        let (ends, head) = (Instant::now() + patience, self.load.head());
        loop {
            let missing = self.book.missing(head);
            if missing == 0 {
                return Ok(());
            }
            ensure!(
                Instant::now() < ends,
                "{missing} devices were not told of their newest message; {} pushes in all",
                self.book.pushes()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// A process that was killed holds nothing for the moment.
    fn measure(&self, peaks: &mut Peaks) {
        for name in self.cluster.processes() {
            let Ok(memory) = self.cluster.memory(&name) else { continue };
            match peaks.iter_mut().find(|(known, _)| *known == name) {
                Some((_, peak)) => *peak = memory.max(*peak),
                None => peaks.push((name, memory)),
            }
        }
    }
}

/// Sends one message to everybody, a part of them by each sender in turn.
async fn round(senders: &[(Device, Events)], parts: &[&[Recipient]], message: u32) -> Result<()> {
    let all = senders.iter().enumerate().map(async |(number, (device, _))| {
        let mut sendings: Vec<Sending> = Vec::new();
        for part in parts.iter().skip(number).step_by(SENDERS) {
            sendings.push(device.send(part, 1, format!("number {message}")).await?);
        }
        for sending in &mut sendings {
            let outcome = sending.outcome().await?;
            ensure!(matches!(outcome, Outcome::Accepted(_)), "a send ended with {outcome:?}");
        }
        Ok(())
    });
    join_all(all).await.into_iter().collect()
}

/// It is a sender's own copy, and of no interest.
struct Pass;

impl Handler for Pass {
    async fn entry(&self, _: &Entry) -> Result<(), AppError> {
        Ok(())
    }
}

/// The stores' and gateways' memory, the most that each held.
fn memory(peaks: &Peaks) -> String {
    let of = |kind: &str| {
        let some = peaks.iter().filter(|(name, _)| name.starts_with(kind));
        some.map(|(_, mib)| mib.to_string()).collect::<Vec<_>>().join("/")
    };
    format!("stores_rss_mib={} gateways_rss_mib={}", of("node-"), of("gateway-"))
}
