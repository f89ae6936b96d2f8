//! Acts under faults (R19): devices that write to each other, mark, recall and edit, and in the end the
//! judgement of what their users' mailboxes hold.
//!
//! They say that they type before each message. What passes by is stored nowhere, so a mailbox that had
//! any of it would hold what nobody has sent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use parking_lot::Mutex;
use tidemark_checker::acts::{Answer, Id, Kept, Run, Said, Send, What, check};
use tidemark_client::{
    Act, ActKind, AppError, Config, Content, Device, Entry, Event, Handler, MemoryStore, Outcome,
    Parts, Place, Sending,
};
use tidemark_proto::Origin;
use tidemark_store_core::value::Settings;
use tidemark_types::{ClientMsgId, DeviceId, Epoch, Recipient, Seq, UserId};

pub use tidemark_checker::acts::User;

use crate::cluster::Cluster;
use crate::login::Login;
use crate::wire::Wire;

/// How long a send may wait for its outcome.
const SETTLED_WITHIN: Duration = Duration::from_secs(180);

/// A device whose application remembers what it took.
pub struct Talker {
    /// Whose, in the checker's words.
    pub me: User,
    /// And by name.
    pub user: UserId,
    /// The device.
    pub device: Device,
    taken: Arc<Mutex<Vec<Entry>>>,
    /// How often it was told that somebody types.
    typing: Arc<AtomicU64>,
}

struct Notes(Arc<Mutex<Vec<Entry>>>);

impl Handler for Notes {
    async fn entry(&self, entry: &Entry) -> Result<(), AppError> {
        self.0.lock().push(entry.clone());
        Ok(())
    }
}

/// What was asked of a device, and what came of it.
#[derive(Clone, Debug)]
pub struct Asked {
    by: User,
    to: Vec<User>,
    said: Said,
    id: Id,
    outcome: Outcome,
}

impl Talker {
    /// Opens the user's device `phone`.
    pub async fn open(cluster: &Cluster, me: User, user: &UserId) -> Result<Self> {
        let device = DeviceId::new("phone")?;
        let login = Login::new(&cluster.key(), user, &device)?;
        let config = Config::new(user.clone(), device, cluster.gateways()?);
        let (taken, typing) = (Arc::<Mutex<Vec<Entry>>>::default(), Arc::<AtomicU64>::default());
        let parts = Parts::new(MemoryStore::default(), Notes(taken.clone()), login);
        let (device, mut events) = Device::open(config, parts).await?;
        let heard = typing.clone();
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                let typing = matches!(event, Event::Typing { typing: true, .. });
                heard.fetch_add(u64::from(typing), Ordering::Relaxed);
            }
        });
        Ok(Talker { me, user: user.clone(), device, taken, typing })
    }

    /// How often it was told that somebody types.
    pub fn heard_typing(&self) -> u64 {
        self.typing.load(Ordering::Relaxed)
    }

    /// Sends to the other one while `goes_on` says so of the message's number; after each message marks
    /// what came, and changes one of its own.
    pub async fn talk(
        &self,
        other: &Talker,
        goes_on: impl Fn(u32) -> bool,
        pause: Duration,
    ) -> Result<Vec<Asked>> {
        let to = [Recipient::User(other.user.clone())];
        let (mut asked, mut number) = (Vec::new(), 0);
        while goes_on(number) {
            self.device.typing(&other.user, true).await;
            let sending = self.device.send(&to, 1, format!("message {number}")).await?;
            asked.push(self.settled(sending, vec![other.me], Said::Message).await?);
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
            number += 1;
            tokio::time::sleep(pause).await;
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
        let outcome = tokio::time::timeout(SETTLED_WITHIN, sending.outcome()).await;
        let outcome = outcome.context("a send without an outcome")??;
        Ok(Asked { by: self.me, to, said, id, outcome })
    }
}

/// What was found of the acts.
#[derive(Clone, Debug)]
pub struct Judged {
    /// What is wrong.
    pub wrong: Vec<String>,
    /// Acts that were accepted and said something.
    pub acts: usize,
}

/// Says what is wrong with what was asked, by what a gateway shows of the users' mailboxes.
pub async fn judge(wire: &Wire, talkers: &[Talker], asked: Vec<Asked>) -> Result<Judged> {
    let mut mailboxes = BTreeMap::new();
    for talker in talkers {
        mailboxes.insert(talker.me, mailbox(wire, &talker.user).await?);
    }
    let sends: BTreeMap<Id, Send> = asked.into_iter().map(sent).collect();
    let is_act = |send: &&Send| {
        send.answer == Answer::Accepted && send.said != Said::Message && !send.silent
    };
    let acts = sends.values().filter(is_act).count();
    let Settings { recall_within, edit_within, .. } = Settings::default();
    let wrong = check(&Run { recall_within, edit_within, sends, mailboxes });
    Ok(Judged { wrong: wrong.iter().map(ToString::to_string).collect(), acts })
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
        let epoch = Epoch::new(page.epoch);
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
