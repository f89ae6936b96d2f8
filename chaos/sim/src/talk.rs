//! Users beside the others who mark, recall, edit and type (R19), and ask what is unread: the real SDK,
//! through the gateways, on a host that is not crashed. Time for recalls and edits is short, so that some
//! come too late.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::future::try_join_all;
use parking_lot::Mutex;
use tidemark_chaos::acts::{self, Judged, Talked, Talker, User};
use tidemark_checker::acts::{Id, Kept, Said, What};
use tidemark_client::{Config, GrpcConnector, MemoryStore, Parts};
use tidemark_store::inspect::Inspector;
use tidemark_store_core::act::{Act, ActKind};
use tidemark_store_core::value::{Content, Entry, Origin};
use tidemark_types::{DeviceId, Recipient, Seq};

use crate::net::Net;
use crate::phone::Login;
use crate::plan::GATEWAYS;
use crate::world::{self, PROBER, World};

/// How many there are.
const TALKERS: User = 3;

/// Between two messages of one of them.
const PAUSE: Duration = Duration::from_millis(200);

/// Fewer acts, or answers to questions for what is unread, show too little.
const ACTS_MIN: usize = 20;
const COUNTED_MIN: usize = 5;

/// What they have said, once they say no more.
#[derive(Default)]
pub struct Talk(Mutex<Option<Vec<Talked>>>);

impl Talk {
    /// Has all that was said its outcome?
    pub fn is_over(&self) -> bool {
        self.0.lock().is_some()
    }
}

/// Lets them talk while users write. Where mailboxes keep few entries, theirs could not be judged in the
/// end, and there is nobody.
pub fn start(world: &Arc<World>) {
    let world = world.clone();
    if !world.plan.keeps_all() {
        *world.talk.0.lock() = Some(Vec::new());
        return;
    }
    tokio::spawn(async move {
        match talk(&world).await {
            Ok(said) => *world.talk.0.lock() = Some(said),
            Err(why) => world.safety.violated(&world, format!("R19: {why:#}")),
        }
    });
}

async fn talk(world: &Arc<World>) -> Result<Vec<Talked>> {
    let talkers = try_join_all((0..TALKERS).map(|me| open(world, me))).await?;
    let goes_on = |_| world.is_writing();
    let talks = talkers.iter().map(|talker| talker.talk(&talkers, goes_on, PAUSE));
    let said = try_join_all(talks).await?;
    acts::pass_by(&talkers[0], &talkers[1]).await?;
    Ok(said)
}

async fn open(world: &Arc<World>, me: User) -> Result<Talker> {
    let (user, device) = (acts::name(me), DeviceId::new("phone")?);
    let clock = world.clock(PROBER);
    let net = Arc::new(Net { world: world.clone(), from: PROBER.to_owned() });
    let parts = Parts {
        store: MemoryStore::default(),
        handler: (),
        tokens: Login::new(world, &user, &device, clock.clone())?,
        connector: GrpcConnector::over(net),
        clock,
        rng: world.rng(),
    };
    let gateways = world::addresses((0..GATEWAYS).map(world::gateway));
    Talker::over(me, Config::new(user, device, gateways), parts).await
}

/// What is wrong with what they said, by what a replica's disk holds in the end.
pub fn judge(world: &World, inspector: &Inspector) -> Result<Vec<String>> {
    if !world.plan.keeps_all() {
        return Ok(Vec::new());
    }
    let mut mailboxes = BTreeMap::new();
    for me in 0..TALKERS {
        let mailbox = Recipient::User(acts::name(me));
        mailboxes.insert(me, kept(&inspector.entries(&mailbox, None)?)?);
    }
    let talked = world.talk.0.lock().take().unwrap_or_default();
    let Judged { wrong, acts, counted } = acts::judge_by(mailboxes, talked, &world.map.settings);
    world.line(&format_args!("{acts} acts, {counted} answers of what is unread"));
    let mut wrong: Vec<String> = wrong.iter().map(|what| format!("R19: {what}")).collect();
    if acts < ACTS_MIN || counted < COUNTED_MIN {
        wrong.push(format!("{acts} acts and {counted} counts are too few to show anything"));
    }
    Ok(wrong)
}

/// A mailbox in the checker's words.
fn kept(entries: &[(Seq, Entry)]) -> Result<Vec<Kept>> {
    // A message's id, by its origin: acts name it so.
    let mut ids = BTreeMap::<&Origin, Id>::new();
    let mut mailbox = Vec::new();
    for (seq, entry) in entries {
        let Content::Message { message, .. } = &entry.content else {
            bail!("nobody refuses a talker: {entry:?}")
        };
        let said = match &message.act {
            None => Said::Message,
            Some(Act { kind, of }) => {
                let what = match kind {
                    ActKind::Delivered => What::Delivered,
                    ActKind::Read => What::Read,
                    ActKind::Recall => What::Recall,
                    ActKind::Edit => What::Edit,
                };
                let of = ids.get(of).context("an act about what is not there before it")?;
                Said::Act { what, of: *of }
            }
        };
        let id = acts::number(message.client_msg_id);
        ids.insert(&entry.origin, id);
        mailbox.push(Kept { seq: seq.get(), time_ms: entry.time.get(), id, said });
    }
    Ok(mailbox)
}
