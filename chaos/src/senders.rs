//! Users who send without pause, to people in their own shard and in all others, and write down
//! every acknowledgement. One send at a time and session, repeated until its outcome is known.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytes::Bytes;
use parking_lot::Mutex;
use tidemark_store_client::{Client, Error};
use tidemark_store_core::command::{Draft, Judged, Send, Start};
use tidemark_store_core::value::Verdict;
use tidemark_store_core::{Command, Reply};
use tidemark_types::{
    ClientMsgId, ContentHash, DeviceId, Id, OpenId, Recipient, Seq, SessionId, ShardId, UnixMs,
    UserId,
};
use tokio::task::JoinSet;

use crate::cluster::PATIENCE;
use crate::stores;

/// Every so many messages one goes to all readers at once.
pub const TO_ALL_EVERY: u64 = 50;

/// A send that the store acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acked {
    /// Who sent it.
    pub sender: UserId,
    /// In which session.
    pub session: SessionId,
    /// As which one.
    pub n: u64,
    /// To whom.
    pub to: Vec<UserId>,
    /// Its seq in the sender's mailbox.
    pub seq: Seq,
    /// What it said.
    pub body: Bytes,
    /// When the acknowledgement came.
    pub at: Instant,
}

/// Users who send until they are told to stop.
pub struct Senders {
    client: Client,
    stop: Arc<AtomicBool>,
    acked: Arc<Mutex<Vec<Acked>>>,
    tasks: JoinSet<Result<()>>,
}

impl Senders {
    /// Starts a sender on each shard, who sends to `readers`: mostly to one of them, in turn, and
    /// every [`TO_ALL_EVERY`]th message to all.
    pub fn start(client: &Client, readers: &[UserId]) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let acked = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        for (at, shard) in stores::shards(client)?.enumerate() {
            let user = users_on(client, shard, "sender", 1)?.remove(0);
            let sender = Sender { client: client.clone(), user, at, readers: readers.to_vec() };
            tasks.spawn(sender.run(stop.clone(), acked.clone()));
        }
        Ok(Senders { client: client.clone(), stop, acked, tasks })
    }

    /// Waits until `shard` acknowledges something after this was called.
    pub async fn next_ack(&self, shard: ShardId) -> Result<()> {
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            if self.times(shard).last().is_some_and(|at| *at > since) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bail!("shard {shard} acknowledged nothing for {PATIENCE:?}")
    }

    /// The longest time between two acknowledgements of `shard`, the second one after `since`.
    pub fn longest_gap(&self, shard: ShardId, since: Instant) -> Duration {
        let times = self.times(shard);
        let gaps = times.windows(2).filter(|pair| pair[1] > since).map(|pair| pair[1] - pair[0]);
        gaps.max().unwrap_or_default()
    }

    /// When `shard` acknowledged something, in order.
    fn times(&self, shard: ShardId) -> Vec<Instant> {
        let acked = self.acked.lock();
        let here = |ack: &&Acked| self.client.shard_of(&Id::User(ack.sender.clone())) == shard;
        acked.iter().filter(here).map(|ack| ack.at).collect()
    }

    /// Lets everybody finish the send they are at; everything that was acknowledged.
    pub async fn finish(mut self) -> Result<Vec<Acked>> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(done) = self.tasks.join_next().await {
            done??;
        }
        Ok(std::mem::take(&mut *self.acked.lock()))
    }
}

/// Readers on every shard, so many on each.
pub fn readers(client: &Client, on_each: usize) -> Result<Vec<UserId>> {
    let on = |shard| users_on(client, shard, "reader", on_each);
    let readers = stores::shards(client)?.map(on).collect::<Result<Vec<_>>>()?;
    Ok(readers.into_iter().flatten().collect())
}

/// Users on `shard` whose names begin with `role`.
pub fn users_on(client: &Client, shard: ShardId, role: &str, count: usize) -> Result<Vec<UserId>> {
    let mut users = Vec::new();
    for number in 0..100_000 {
        let user = UserId::new(format!("{role}-{number}"))?;
        if client.shard_of(&Id::User(user.clone())) == shard {
            users.push(user);
        }
        if users.len() == count {
            return Ok(users);
        }
    }
    bail!("no {count} names were found for shard {shard}")
}

struct Sender {
    client: Client,
    user: UserId,
    /// Where in the list of readers it begins.
    at: usize,
    readers: Vec<UserId>,
}

impl Sender {
    async fn run(self, stop: Arc<AtomicBool>, acked: Arc<Mutex<Vec<Acked>>>) -> Result<()> {
        let device = DeviceId::new("phone")?;
        let user = self.user.clone();
        let register = Command::RegisterDevice {
            user: user.clone(),
            device: device.clone(),
            start: Start::Head,
            arrival: None,
            label: None,
        };
        self.definite(&register).await?;
        let open_id = OpenId::from_bytes([1; 16])?;
        let open =
            Command::Open { user: user.clone(), device: device.clone(), open_id, ends: None };
        let Reply::Opened { session } = self.definite(&open).await? else {
            bail!("{user} has no session");
        };
        for n in 1.. {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let body = Bytes::from(format!("{user} {n}"));
            let users = self.to(n);
            let to = users.iter().cloned().map(Recipient::User).collect::<Vec<_>>();
            let content = ContentHash::of(&to, 1, &body);
            let client_msg_id = ClientMsgId::new(UnixMs::new(n), [0; 10]);
            let judged =
                Judged::Allow(Draft { to, kind: 1, client_msg_id, body: body.clone(), act: None });
            let send = Command::Send(Send {
                user: user.clone(),
                device: device.clone(),
                session,
                n,
                base: n,
                content,
                judged,
            });
            match self.definite(&send).await? {
                Reply::Sent(Verdict::Accepted { seq, .. }) => acked.lock().push(Acked {
                    sender: user.clone(),
                    session,
                    n,
                    to: users,
                    seq,
                    body,
                    at: Instant::now(),
                }),
                other => bail!("{user} {n}: {other:?}"),
            }
        }
        Ok(())
    }

    /// To whom send number `n` goes.
    fn to(&self, n: u64) -> Vec<UserId> {
        if n.is_multiple_of(TO_ALL_EVERY) {
            return self.readers.clone();
        }
        let turn = usize::try_from(n).expect("a test sends less") + self.at;
        vec![self.readers[turn % self.readers.len()].clone()]
    }

    /// Repeats a command until its outcome is known.
    async fn definite(&self, command: &Command) -> Result<Reply> {
        loop {
            match self.client.command(command).await {
                Ok(reply) => return Ok(reply),
                Err(Error::Unknown(_) | Error::Unavailable(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
