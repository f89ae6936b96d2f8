//! Marks, recalls and edits of two devices through real gateways, while leaders and a gateway are
//! killed: exactly once, in order, in time (R19).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use parking_lot::Mutex;
use tidemark_chaos::build::Build;
use tidemark_chaos::cluster::{Cluster, Member, PATIENCE, Spec};
use tidemark_chaos::login::Login;
use tidemark_chaos::senders::users_on;
use tidemark_chaos::stores;
use tidemark_chaos::wire::Wire;
use tidemark_checker::acts::{self, Answer, Id, Kept, Run, Said, Send, User, What};
use tidemark_client::{
    Act, ActKind, AppError, Config, Content, Device, Entry, Handler, MemoryStore, Outcome, Parts,
    Place, Sending,
};
use tidemark_proto::Origin;
use tidemark_store_core::value::Settings;
use tidemark_types::{ClientMsgId, DeviceId, Recipient, Seq, ShardId, UserId};

const SPEC: Spec = Spec { nodes: 3, shards: 8, gateways: 2, stores: "", build: Build::Release };

/// What each of the two sends.
const MESSAGES: usize = 400;

/// Where they live.
const SHARDS: [ShardId; 2] = [ShardId::new(0), ShardId::new(1)];

/// A device, and what its application took.
struct Talker {
    me: User,
    user: UserId,
    device: Device,
    taken: Arc<Mutex<Vec<Entry>>>,
}

struct Notes(Arc<Mutex<Vec<Entry>>>);

impl Handler for Notes {
    async fn entry(&self, entry: &Entry) -> Result<(), AppError> {
        self.0.lock().push(entry.clone());
        Ok(())
    }
}

/// What was asked of a device, and what came of it.
struct Asked {
    by: User,
    to: Vec<User>,
    said: Said,
    id: Id,
    outcome: Outcome,
}

impl Talker {
    async fn open(cluster: &Cluster, me: User, user: &UserId) -> Result<Self> {
        let device = DeviceId::new("phone")?;
        let login = Login::new(&cluster.key(), user, &device)?;
        let gateways = vec![cluster.gateway(0)?, cluster.gateway(1)?];
        let config = Config::new(user.clone(), device, gateways);
        let taken = Arc::<Mutex<Vec<Entry>>>::default();
        let parts = Parts::new(MemoryStore::default(), Notes(taken.clone()), login);
        let (device, mut events) = Device::open(config, parts).await?;
        tokio::spawn(async move { while events.next().await.is_some() {} });
        Ok(Talker { me, user: user.clone(), device, taken })
    }

    /// Sends to the other one; after each message marks what came, and changes one of its own.
    async fn talk(&self, other: User, to: &UserId) -> Result<Vec<Asked>> {
        let to = [Recipient::User(to.clone())];
        let mut asked = Vec::new();
        for number in 0..MESSAGES {
            let sending = self.device.send(&to, 1, format!("message {number}")).await?;
            asked.push(self.settled(sending, vec![other], Said::Message).await?);
            if let Some((place, of)) = self.last(false) {
                let (what, marking) = match number % 2 {
                    0 => (What::Read, self.device.mark_read(place).await?),
                    _ => (What::Delivered, self.device.mark_delivered(place).await?),
                };
                asked.push(self.settled(marking, vec![], Said::Act { what, of }).await?);
            }
            if let Some((place, of)) = self.last(true).filter(|_| number % 3 == 0) {
                let (what, changing) = match number % 2 {
                    0 => (What::Recall, self.device.recall(place).await?),
                    _ => (What::Edit, self.device.edit(place, 1, "new").await?),
                };
                asked.push(self.settled(changing, vec![], Said::Act { what, of }).await?);
            }
        }
        Ok(asked)
    }

    /// The newest message that it sent, or received: where it lies, and its id.
    fn last(&self, own: bool) -> Option<(Place, Id)> {
        let taken = self.taken.lock();
        taken.iter().rev().find_map(|entry| {
            let Content::Message(message) = &entry.content else { return None };
            let is_own = entry.origin.as_ref()?.sender() == &self.user;
            (is_own == own).then(|| (Place::from(entry), number(message.client_msg_id)))
        })
    }

    async fn settled(&self, mut sending: Sending, to: Vec<User>, said: Said) -> Result<Asked> {
        let id = number(sending.client_msg_id());
        let outcome = tokio::time::timeout(PATIENCE, sending.outcome()).await??;
        Ok(Asked { by: self.me, to, said, id, outcome })
    }
}

fn number(id: ClientMsgId) -> Id {
    Id::from_be_bytes(*id.as_bytes())
}

fn sent(Asked { by, to, said, id, outcome }: Asked) -> (Id, Send) {
    let (answer, silent) = match outcome {
        Outcome::Accepted(accepted) => (Answer::Accepted, accepted.seq.is_none()),
        Outcome::Refused(_) => (Answer::NotTaken, false),
        Outcome::Unknown(_) => (Answer::Unknown, false),
    };
    (id, Send { by, to, said, answer, silent })
}

/// A whole mailbox, as a back end reads it.
async fn mailbox(wire: &Wire, user: &UserId) -> Result<Vec<Kept>> {
    // A message's id, by its origin: acts name it so.
    let mut ids = BTreeMap::<Origin, Id>::new();
    let mut mailbox = Vec::new();
    let mut after = Seq::NONE;
    loop {
        let page = wire.page(user, after).await?;
        ensure!(page.gap.is_none(), "something was removed");
        let epoch = tidemark_types::Epoch::new(page.epoch);
        for raw in page.entries {
            let entry = Entry::read(epoch, raw);
            let origin = entry.origin.clone().context("an entry without an origin")?;
            let (id, said) = match &entry.content {
                Content::Message(message) => (number(message.client_msg_id), Said::Message),
                Content::Act(Act { kind, of, message }) => {
                    let what = match kind {
                        ActKind::Delivered => What::Delivered,
                        ActKind::Read => What::Read,
                        ActKind::Recall => What::Recall,
                        ActKind::Edit => What::Edit,
                        ActKind::Unspecified => bail!("an act of no kind"),
                    };
                    let of = *ids.get(of).context("an act about what is not there before it")?;
                    (number(message.client_msg_id), Said::Act { what, of })
                }
                other => bail!("nobody refuses here: {other:?}"),
            };
            ids.insert(origin, id);
            mailbox.push(Kept { seq: entry.seq.get(), time_ms: entry.time.get(), id, said });
            after = entry.seq;
        }
        if !page.more {
            return Ok(mailbox);
        }
    }
}

/// Kills these, one after the other, while the devices talk.
async fn faults(cluster: &mut Cluster) -> Result<()> {
    for shard in SHARDS {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let client = cluster.client(PATIENCE).await?;
        let leader = Member::from(stores::leader(&client, shard).await?);
        cluster.kill(leader)?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        cluster.start_members([leader]).await?;
    }
    cluster.kill(Member::Gateway(0))?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.start_members([Member::Gateway(0)]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acts_are_taken_once_in_order_and_in_time_whoever_is_killed() -> Result<()> {
    let mut cluster = Cluster::start(SPEC).await?;
    let client = cluster.client(PATIENCE).await?;
    let [alice, bob] = [
        users_on(&client, SHARDS[0], "alice", 1)?.remove(0),
        users_on(&client, SHARDS[1], "bob", 1)?.remove(0),
    ];
    let (hers, his) =
        (Talker::open(&cluster, 1, &alice).await?, Talker::open(&cluster, 2, &bob).await?);
    let (of_hers, of_his, ()) =
        tokio::try_join!(hers.talk(2, &bob), his.talk(1, &alice), faults(&mut cluster))?;
    hers.device.close().await;
    his.device.close().await;
    stores::settled(&cluster.client(PATIENCE).await?).await?;

    let sends: BTreeMap<Id, Send> = of_hers.into_iter().chain(of_his).map(sent).collect();
    let acts = sends.values().filter(|send| {
        send.answer == Answer::Accepted && send.said != Said::Message && !send.silent
    });
    let acts = acts.count();
    ensure!(acts > MESSAGES / 2, "only {acts} acts were accepted: that proves nothing");
    let wire = Wire::new(&cluster.gateway(1)?, &Login::service(&cluster.key())?.sign())?;
    let mailboxes = [(1, mailbox(&wire, &alice).await?), (2, mailbox(&wire, &bob).await?)].into();
    let Settings { recall_within, edit_within, .. } = Settings::default();
    let wrong = acts::check(&Run { recall_within, edit_within, sends, mailboxes });
    ensure!(wrong.is_empty(), "{wrong:?}");
    Ok(())
}
