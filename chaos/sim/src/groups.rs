//! Groups in the simulation: who asks goes to the stores, through their client.

use std::sync::Arc;

use anyhow::Result;
use tidemark_chaos::groups::{Answer, Judged, LOG_MIN, Place, group};
use tidemark_env::Clock;
use tidemark_store::inspect::Inspector;
use tidemark_store_client::Client;
use tidemark_store_core::Reply;
use tidemark_store_core::command::{BackendSend, Command, Draft};
use tidemark_store_core::group::{GroupAction, GroupCommand};
use tidemark_store_core::value::Verdict;
use tidemark_types::{ContentHash, GroupId, UnixMs, UserId};

use crate::plan::Dice;
use crate::world::{PROBER, World};

/// Members of the second group who do nothing: an entry takes several portions.
const CROWD: u32 = 900;

/// Lets the groups live while users write. Where mailboxes keep few entries, the logs could not be
/// read in the end, and there are no groups.
pub fn start(world: &Arc<World>, client: &Client) {
    if world.plan.keeps_all() {
        let dice = Arc::new(Dice::new(world.rng().number(), 20));
        let place = Asker { world: world.clone(), client: client.clone(), dice };
        tokio::spawn(async move { place.world.groups.live(&place, CROWD).await });
    }
}

/// What is wrong with the groups, by what a replica's disk holds in the end.
pub fn judge(world: &World, inspector: &Inspector) -> Result<Vec<String>> {
    if !world.plan.keeps_all() {
        return Ok(Vec::new());
    }
    let shards = world.map.shard_count().into_iter().flat_map(|count| count.shards());
    let Judged { mut wrong, entries } = world.groups.judge(inspector, shards)?;
    world.line(&format_args!("entries of the groups: {entries:?}"));
    if entries[0] < LOG_MIN {
        wrong.push(format!("{} has too few entries to show anything", group(0)));
    }
    Ok(wrong)
}

#[derive(Clone)]
struct Asker {
    world: Arc<World>,
    client: Client,
    dice: Arc<Dice>,
}

impl Place for Asker {
    fn is_writing(&self) -> bool {
        self.world.is_writing()
    }

    fn number(&self) -> u64 {
        self.dice.number()
    }

    fn now(&self) -> UnixMs {
        self.world.clock(PROBER).wall()
    }

    async fn change(&self, group: GroupId, action: GroupAction) -> Result<bool, String> {
        let command = Command::Group(GroupCommand { group, by: None, action });
        match self.submit(&command).await {
            Ok(Reply::Done) => Ok(true),
            Ok(other) => Err(format!("{other:?}")),
            Err(_) => Ok(false),
        }
    }

    async fn send(&self, sender: UserId, draft: Draft) -> Answer {
        let content = ContentHash::of(&draft.to, draft.kind, &draft.body);
        match self.submit(&Command::BackendSend(BackendSend { sender, content, draft })).await {
            Ok(Reply::Sent(Verdict::Accepted { .. })) => Answer::Accepted,
            Ok(_) => Answer::NotTaken,
            Err(_) => Answer::Unknown,
        }
    }

    fn wrong(&self, what: String) {
        self.world.safety.violated(&self.world, what);
    }
}

impl Asker {
    async fn submit(&self, command: &Command) -> Result<Reply> {
        Ok(self.client.submit(command).await?.reply().await?)
    }
}
