//! Groups of a run: changes and messages through the gateways, as of back ends, and members with
//! devices of the SDK.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::future::join_all;
use tidemark_checker::groups::User;
use tidemark_client::store::MemoryStore;
use tidemark_client::{AppError, Config, Device, Entry, Handler, Parts};
use tidemark_env::{Clock, Rng, SeededRng, SystemClock, SystemRng};
use tidemark_store::inspect::Inspector;
use tidemark_store_client::Client;
use tidemark_store_core::Reply;
use tidemark_store_core::command::{Command, Draft};
use tidemark_store_core::group::{GroupAction, GroupCommand};
use tidemark_store_core::read::{Answer as Read, Query};
use tidemark_types::{DeviceId, ErrorCode, GroupId, Recipient, SeqRange, UnixMs, UserId};
use tokio::task::JoinHandle;

use crate::air::Air;
use crate::cluster::{Cluster, LOOK};
use crate::groups::{self, ACTIVE, Answer, COUNT, Judged, LOG_MIN, Place, group};
use crate::login::Login;
use crate::notes::Notes;
use crate::wire::Wire;

/// Members of the second group who do nothing: an entry takes several portions, and processors for
/// as long as others notice.
const CROWD: User = 1_800;

/// Members of the crowd with a device, beside all who do something.
const WATCHING: User = 8;

/// How long a send is repeated that has no answer, and between two attempts.
const SEND_WITHIN: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(500);

/// The groups of a run, until they are judged.
pub(super) struct Groups {
    known: groups::Groups,
    living: JoinHandle<()>,
    members: Vec<(UserId, Device)>,
    stop: Arc<AtomicBool>,
}

impl Groups {
    /// Opens the members' devices, and lets the groups live.
    pub(super) async fn start(
        cluster: &Cluster,
        stores: Client,
        seed: u64,
        notes: &Notes,
    ) -> Result<Self> {
        let known = groups::Groups::default();
        let token = Login::service(&cluster.key())?.sign();
        let addresses = cluster.gateways()?;
        let mut members = Vec::new();
        for number in 0..COUNT {
            let watching = if number == 0 { ACTIVE } else { ACTIVE + WATCHING };
            for user in (0..watching).map(|user| groups::name(number, user)) {
                let device = open(cluster, &addresses, &user, &known).await?;
                members.push((user, device));
            }
        }
        let stop = Arc::<AtomicBool>::default();
        let asker = Asker {
            doors: addresses.iter().map(|to| Wire::new(to, &token)).collect::<Result<_>>()?,
            next: Arc::default(),
            stores,
            rng: Arc::new(SeededRng::new(seed.rotate_left(29))),
            notes: notes.clone(),
            stop: stop.clone(),
        };
        let living = known.clone();
        let living = tokio::spawn(async move { living.live(&asker, CROWD).await });
        Ok(Groups { known, living, members, stop })
    }

    /// Lets nobody ask for more, and waits until what was asked is answered and every entry is on its
    /// way to all, for so long at most.
    pub(super) async fn stop(&mut self, client: &Client, within: Duration) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        (&mut self.living).await?;
        let given = async {
            for number in 0..COUNT {
                given(client, &group(number)).await?;
            }
            Ok(())
        };
        rest("the groups did not come to rest", within, given).await;
        Ok(())
    }

    /// Waits until the members' devices have everything, for so long at most; what is known then.
    pub(super) async fn finish(self, client: &Client, within: Duration) -> groups::Groups {
        let Groups { known, members, .. } = self;
        rest("not every member's device has everything", within, caught_up(client, &members)).await;
        join_all(members.iter().map(|(_, device)| device.close())).await;
        known
    }
}

/// What does not come about is the judge's to say.
async fn rest(what: &str, within: Duration, done: impl Future<Output = Result<()>>) {
    match tokio::time::timeout(within, done).await {
        Ok(Ok(())) => {}
        Ok(Err(why)) => eprintln!("{what}: {why:#}"),
        Err(_) => eprintln!("{what} within {} s", within.as_secs()),
    }
}

/// Says what is wrong with the groups, by what the disk of a node holds that can be read.
pub(super) fn judge(cluster: &Cluster, known: &groups::Groups, notes: &Notes) -> Result<()> {
    let mut nodes = cluster.ids().into_iter();
    let readable = nodes.find_map(|node| Inspector::open(&cluster.data_dir(node)).ok());
    let inspector = readable.context("no node's files can be read")?;
    let shards = super::scenario::shards(super::SHARDS);
    let Judged { wrong, entries } = known.judge(&inspector, shards)?;
    println!("groups: logs of {entries:?} entries");
    for what in &wrong {
        eprintln!("{what}");
    }
    let count = u64::try_from(wrong.len())?;
    notes.amount(&"groups", "promises that were not kept", count, 0);
    let short = entries.iter().filter(|entries| **entries < LOG_MIN).count();
    notes.amount(&"groups", "logs too short to show anything", u64::try_from(short)?, 0);
    Ok(())
}

async fn caught_up(client: &Client, members: &[(UserId, Device)]) -> Result<()> {
    for (user, device) in members {
        let query = Query::Mailbox { mailbox: Recipient::User(user.clone()) };
        let Read::Mailbox(mailbox) = client.query(&query).await? else { bail!("{query:?}") };
        let mut status = device.watch();
        let all = status.wait_for(|status| status.cursor >= mailbox.head).await;
        all.with_context(|| format!("the device of {user} stopped"))?;
    }
    Ok(())
}

/// Waits until every entry of the group's log was given to all.
async fn given(client: &Client, group: &GroupId) -> Result<()> {
    loop {
        let query = Query::Group { group: group.clone(), by: None };
        match client.query(&query).await? {
            Read::Group(Ok(info)) if info.given == info.head => return Ok(()),
            Read::Group(Ok(_)) => tokio::time::sleep(LOOK).await,
            other => bail!("{other:?} to a question for {group}"),
        }
    }
}

async fn open(
    cluster: &Cluster,
    gateways: &[String],
    user: &UserId,
    known: &groups::Groups,
) -> Result<Device> {
    let device = DeviceId::new("device-0")?;
    let parts = Parts {
        store: MemoryStore::default(),
        handler: Member { user: user.clone(), known: known.clone() },
        tokens: Login::new(&cluster.key(), user, &device)?,
        connector: Air::new(0).connector(false),
        clock: Arc::new(SystemClock::new()),
        rng: Arc::new(SystemRng),
    };
    let config = Config::new(user.clone(), device, gateways.to_vec());
    let (device, mut events) = Device::open(config, parts).await?;
    tokio::spawn(async move { while events.next().await.is_some() {} });
    Ok(device)
}

/// Writes down what its device gives it.
struct Member {
    user: UserId,
    known: groups::Groups,
}

impl Handler for Member {
    async fn entry(&self, entry: &Entry) -> Result<(), AppError> {
        Ok(self.known.took(&self.user, entry)?)
    }

    async fn gap(&self, gap: SeqRange) -> Result<(), AppError> {
        Err(format!("{} is missing, and nothing was removed", gap.last()).into())
    }
}

/// Asks in the members' names.
#[derive(Clone)]
struct Asker {
    doors: Vec<Wire>,
    next: Arc<AtomicUsize>,
    stores: Client,
    rng: Arc<SeededRng>,
    notes: Notes,
    stop: Arc<AtomicBool>,
}

impl Place for Asker {
    fn is_writing(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn number(&self) -> u64 {
        self.rng.number()
    }

    fn now(&self) -> UnixMs {
        SystemClock::new().wall()
    }

    async fn change(&self, group: GroupId, action: GroupAction) -> Result<bool, String> {
        let command = Command::Group(GroupCommand { group, by: None, action });
        let attempt = async { anyhow::Ok(self.stores.submit(&command).await?.reply().await?) };
        match attempt.await {
            Ok(Reply::Done) => Ok(true),
            Ok(other) => Err(format!("{other:?}")),
            Err(_) => Ok(false),
        }
    }

    /// Sent until it is answered, each time through the next gateway.
    async fn send(&self, sender: UserId, draft: Draft) -> Answer {
        let began = Instant::now();
        while began.elapsed() < SEND_WITHIN {
            let door = self.next.fetch_add(1, Ordering::Relaxed) % self.doors.len();
            let Draft { to, kind, client_msg_id, body, .. } = draft.clone();
            match self.doors[door].send(&sender, client_msg_id, &to, kind, body).await {
                Ok(_) => return Answer::Accepted,
                Err(failure) if failure.code.is_final() => return Answer::NotTaken,
                Err(failure) => {
                    let code = failure.code;
                    let told = code.is_retryable() || code == ErrorCode::Unknown;
                    if !told {
                        self.wrong(format!("a send refused with {code}: {}", failure.message));
                    }
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
        Answer::Unknown
    }

    fn wrong(&self, what: String) {
        eprintln!("{what}");
        self.notes.amount(&"groups", &what, 1, 0);
    }
}
