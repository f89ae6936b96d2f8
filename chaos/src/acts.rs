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
use futures::FutureExt;
use parking_lot::Mutex;
use tidemark_checker::acts::{Answer, Counted, Id, Kept, Run, Said, Send, Stand, What, check};
use tidemark_client::{
    Act, ActKind, AppError, Config, Connector, Content, Device, Entry, Event, GrpcConnector,
    Handler, MemoryStore, Outcome, Parts, Place, SendError, Sending, TokenSource,
};
use tidemark_env::{SystemClock, SystemRng};
use tidemark_proto::{Origin, v1};
use tidemark_store_core::value::Settings;
use tidemark_types::{ClientMsgId, DeviceId, Epoch, Recipient, Seq, UserId};
use tokio::time::timeout;

pub use tidemark_checker::acts::User;

use crate::cluster::Cluster;
use crate::login::Login;
use crate::wire::Wire;

/// How long a send may wait for its outcome.
const SETTLED_WITHIN: Duration = Duration::from_secs(180);

/// What passes by comes at last, when it is said again and again.
const PASSES_WITHIN: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(250);

/// Between two questions for what is unread there are so many messages.
const UNREAD_EVERY: u32 = 4;

/// A message of so many messages ago may be too old to be changed.
const LONG_AGO: usize = 10;

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
struct Asked {
    by: User,
    to: Vec<User>,
    said: Said,
    id: Id,
    outcome: Outcome,
}

/// What a device has said, and what it was told to be unread.
#[derive(Clone, Debug, Default)]
pub struct Talked {
    asked: Vec<Asked>,
    counted: Vec<Counted>,
}

const PREFIX: &str = "talker-";

/// The name of a user who talks.
pub fn name(me: User) -> UserId {
    UserId::new(format!("{PREFIX}{me}")).expect("a legal name")
}

/// Is it one of these, and none of the history's users?
pub fn is_talker(name: &UserId) -> bool {
    name.as_str().starts_with(PREFIX)
}

impl Talker {
    /// Opens the user's device `phone`.
    pub async fn open(cluster: &Cluster, me: User, user: &UserId) -> Result<Self> {
        let device = DeviceId::new("phone")?;
        let login = Login::new(&cluster.key(), user, &device)?;
        let config = Config::new(user.clone(), device, cluster.gateways()?);
        let parts = Parts {
            store: MemoryStore::default(),
            handler: (),
            tokens: login,
            connector: GrpcConnector::default(),
            clock: Arc::new(SystemClock::new()),
            rng: Arc::new(SystemRng),
        };
        Self::over(me, config, parts).await
    }

    /// Opens a device of other parts.
    pub async fn over<T: TokenSource, C: Connector>(
        me: User,
        config: Config,
        parts: Parts<MemoryStore, (), T, C>,
    ) -> Result<Self> {
        let user = config.user.clone();
        let (taken, typing) = (Arc::<Mutex<Vec<Entry>>>::default(), Arc::<AtomicU64>::default());
        let Parts { store, handler: (), tokens, connector, clock, rng } = parts;
        let handler = Notes(taken.clone());
        let parts = Parts { store, handler, tokens, connector, clock, rng };
        let (device, mut events) = Device::open(config, parts).await?;
        let heard = typing.clone();
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                let typing = matches!(event, Event::Typing { typing: true, .. });
                heard.fetch_add(u64::from(typing), Ordering::Relaxed);
            }
        });
        Ok(Talker { me, user, device, taken, typing })
    }

    /// Types until the other one hears of it.
    async fn types_to(&self, other: &Talker) {
        let heard = || other.typing.load(Ordering::Relaxed);
        let before = heard();
        while heard() == before {
            self.device.typing(&other.user, true).await;
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Asks until the other one is there, or is not.
    async fn sees(&self, other: &Talker, online: bool) {
        loop {
            let said = self.device.presence(&other.user).await;
            if said.is_ok_and(|status| status.online == online) {
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Sends to all others while `goes_on` says so of the message's number; after each message marks what
    /// came, changes one of its own, now and then one of long ago, tries what only another may, and asks
    /// what is unread.
    pub async fn talk(
        &self,
        all: &[Talker],
        goes_on: impl Fn(u32) -> bool,
        pause: Duration,
    ) -> Result<Talked> {
        let others: Vec<&Talker> = all.iter().filter(|other| other.me != self.me).collect();
        let to: Vec<Recipient> =
            others.iter().map(|other| Recipient::User(other.user.clone())).collect();
        let numbers: Vec<User> = others.iter().map(|other| other.me).collect();
        let (mut talked, mut number) = (Talked::default(), 0);
        while goes_on(number) {
            for other in &others {
                self.device.typing(&other.user, true).await;
            }
            let sending = self.device.send(&to, 1, format!("message {number}")).await?;
            let message = self.settled(sending, numbers.clone(), Said::Message).await?;
            talked.asked.push(message);
            for (what, own, back) in acts(number) {
                if let Some((place, of)) = self.message(own, back) {
                    let acting = self.act(what, place).await?;
                    talked.asked.push(self.settled(acting, vec![], Said::Act { what, of }).await?);
                }
            }
            if number.is_multiple_of(UNREAD_EVERY) {
                // Without an answer nothing is known.
                let counts = self.device.unread().await.ok();
                talked.counted.extend(counts.map(|counts| self.counted(all, counts)).transpose()?);
            }
            number += 1;
            tokio::time::sleep(pause).await;
        }
        Ok(talked)
    }

    async fn act(&self, what: What, message: Place) -> Result<Sending, SendError> {
        match what {
            What::Delivered => self.device.mark_delivered(message).await,
            What::Read => self.device.mark_read(message).await,
            What::Recall => self.device.recall(message).await,
            What::Edit => self.device.edit(message, 1, "new").await,
        }
    }

    /// A message that it sent, or received, `back` before the newest one: where it lies, and its id.
    fn message(&self, own: bool, back: usize) -> Option<(Place, Id)> {
        let taken = self.taken.lock();
        let mut messages = taken.iter().rev().filter_map(|entry| {
            let Content::Message(message) = &entry.content else { return None };
            let is_own = entry.origin.as_ref()?.sender() == &self.user;
            (is_own == own).then(|| (Place::from(entry), number(message.client_msg_id)))
        });
        messages.nth(back)
    }

    async fn settled(&self, mut sending: Sending, to: Vec<User>, said: Said) -> Result<Asked> {
        let id = number(sending.client_msg_id());
        let outcome = timeout(SETTLED_WITHIN, sending.outcome()).await;
        let outcome = outcome.context("a send without an outcome")??;
        Ok(Asked { by: self.me, to, said, id, outcome })
    }

    /// An answer, in the checker's words.
    fn counted(&self, all: &[Talker], counts: v1::UnreadCounts) -> Result<Counted> {
        let v1::UnreadCounts { from, head, conversations, .. } = counts;
        let stand = |told: v1::UnreadConversation| {
            let v1::UnreadConversation { unread, delivered_seq, read_seq, .. } = told;
            let with = told.conversation.context("a conversation with nobody")?;
            let with = Recipient::try_from(&with)?;
            let with = all.iter().find(|other| Recipient::User(other.user.clone()) == with);
            let with = with.context("a conversation with nobody of these")?.me;
            Ok((with, Stand { unread, delivered: delivered_seq, read: read_seq }))
        };
        let conversations = conversations.into_iter().map(stand).collect::<Result<_>>()?;
        Ok(Counted { user: self.me, from, head, conversations })
    }
}

/// Once all is healed: who types is seen to type, and who is there to be there, and no longer once gone;
/// `other` is closed then.
pub async fn pass_by(one: &Talker, other: &Talker) -> Result<()> {
    let within = |what| timeout(PASSES_WITHIN, what);
    within(one.types_to(other).boxed()).await.context("nobody hears who types")?;
    within(one.sees(other, true).boxed()).await.context("nobody sees who is there")?;
    other.device.close().await;
    within(one.sees(other, false).boxed()).await.context("who has gone is still there")
}

/// What is done after a message of this number: what, about an own message or a received one, and how
/// many messages back.
fn acts(number: u32) -> Vec<(What, bool, usize)> {
    let even = number.is_multiple_of(2);
    let mut acts = vec![(if even { What::Read } else { What::Delivered }, false, 0)];
    if number.is_multiple_of(3) {
        let back = if number % 9 == 6 { LONG_AGO } else { 0 };
        acts.push((if even { What::Recall } else { What::Edit }, true, back));
    }
    if number.is_multiple_of(5) {
        acts.push((if even { What::Edit } else { What::Recall }, false, 0));
    }
    acts
}

/// What was found of the acts.
#[derive(Clone, Debug)]
pub struct Judged {
    /// What is wrong.
    pub wrong: Vec<String>,
    /// Acts that were accepted and said something.
    pub acts: usize,
    /// Answers to who asked what is unread.
    pub counted: usize,
}

/// Says what is wrong with what was said, by what a gateway shows of the users' mailboxes.
pub async fn judge(wire: &Wire, talkers: &[Talker], talked: Vec<Talked>) -> Result<Judged> {
    let mut mailboxes = BTreeMap::new();
    for talker in talkers {
        mailboxes.insert(talker.me, mailbox(wire, &talker.user).await?);
    }
    Ok(judge_by(mailboxes, talked, &Settings::default()))
}

/// The same by the mailboxes themselves, where these settings hold.
pub fn judge_by(
    mailboxes: BTreeMap<User, Vec<Kept>>,
    talked: Vec<Talked>,
    settings: &Settings,
) -> Judged {
    let (mut sends, mut counted) = (BTreeMap::new(), Vec::new());
    for one in talked {
        sends.extend(one.asked.into_iter().map(sent));
        counted.extend(one.counted);
    }
    let is_act = |send: &&Send| {
        send.answer == Answer::Accepted && send.said != Said::Message && !send.silent
    };
    let (acts, answers) = (sends.values().filter(is_act).count(), counted.len());
    let Settings { recall_within, edit_within, .. } = *settings;
    let wrong = check(&Run { recall_within, edit_within, sends, mailboxes, counted });
    let wrong = wrong.iter().map(ToString::to_string).collect();
    Judged { wrong, acts, counted: answers }
}

/// A message's or an act's id, in the checker's words.
pub fn number(id: ClientMsgId) -> Id {
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
