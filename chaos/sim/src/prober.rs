//! Asks the store without pause, over a client of its own: every shard for a commit, and the leaders
//! for the heads of mailboxes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use tidemark_chaos::words;
use tidemark_checker::Event;
use tidemark_checker::history::{Group, User};
use tidemark_env::Connector;
use tidemark_store_client::Client;
use tidemark_store_core::Command;
use tidemark_store_core::read::{Answer, Query};
use tidemark_types::{CounterId, Id, Recipient, ShardId};
use tokio::sync::Semaphore;

use crate::net::Net;
use crate::plan::Dice;
use crate::world::{PROBER, Transfer, World};
use crate::{away, feed, groups, guest, talk};

/// Between two probes of a shard, and between two reads.
const EVERY: Duration = Duration::from_millis(250);

/// Questions that wait for an answer.
const OPEN_MAX: usize = 64;

/// How long one may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// Of so many users, one blocks the next one, at some time while users write.
const BLOCKING: u32 = 3;
const BLOCKS_WITHIN_MS: u64 = 20_000;

/// Probes until the host ends.
pub async fn run(world: Arc<World>) -> turmoil::Result {
    let (clock, rng) = (world.clock(PROBER), world.rng());
    let net: Arc<dyn Connector> = Arc::new(Net { world: world.clone(), from: PROBER.to_owned() });
    let map = world.map.clone();
    let client = Client::over(Some(net), map, DEADLINE, clock, rng);
    for shard in world.map.shard_count().into_iter().flat_map(|count| count.shards()) {
        let counter = counter_on(&client, shard)?;
        tokio::spawn(probe(world.clone(), client.clone(), shard, counter));
    }
    tokio::spawn(transfer(world.clone(), client.clone()));
    groups::start(&world, &client);
    talk::start(&world);
    feed::start(&world, &client);
    for user in (0..world.plan.users).map(User) {
        tokio::spawn(away::register(world.clone(), client.clone(), user));
        if user.0.is_multiple_of(BLOCKING) {
            tokio::spawn(block(world.clone(), client.clone(), user));
        }
    }
    tokio::spawn(guest::run(world.clone(), client.clone()));
    read(world, client).await;
    Ok(())
}

async fn probe(world: Arc<World>, client: Client, shard: ShardId, counter: CounterId) {
    let open = Arc::new(Semaphore::new(OPEN_MAX));
    let group = Group(u32::from(shard.get()));
    let one = Command::Allocate { counter: counter.clone(), count: 1, id: None };
    let many = Command::AllocateMany { allocations: vec![(counter.clone(), 1), (counter, 1)] };
    for command in [one, many].into_iter().cycle() {
        tokio::time::sleep(EVERY).await;
        let permit = open.clone().try_acquire_owned().ok().filter(|_| world.is_asking());
        let Some(permit) = permit else { continue };
        world.note(|at| Event::Probe { at, group });
        let (world, client) = (world.clone(), client.clone());
        tokio::spawn(async move {
            let attempt = async { client.submit(&command).await?.reply().await };
            if attempt.await.is_ok() {
                world.note(|at| Event::ProbeAck { at, group });
                world.serves(group);
            }
            drop(permit);
        });
    }
}

/// A user blocks another one; what that one sends from then on is refused (C16).
async fn block(world: Arc<World>, client: Client, user: User) {
    let dice = Dice::new(world.rng().number(), 22);
    tokio::time::sleep(dice.ms(0, BLOCKS_WITHIN_MS)).await;
    let (sender, asked) = (User((user.0 + 1) % world.plan.users), world.notes.now());
    let (owner, blocks) = (words::name(user), words::name(sender));
    away::done(&client, &Command::Block { user: owner, sender: blocks, blocked: true }).await;
    world.note(|at| Event::Decided { asked, at, user, sender, refused: true });
}

/// Moves leaderships, as an operator would.
async fn transfer(world: Arc<World>, client: Client) {
    loop {
        tokio::time::sleep(EVERY).await;
        if let Some(Transfer { group, from, to }) = world.take_wish() {
            // Whether it moved is looked at elsewhere.
            let moved = client.transfer_leader(group.get(), from, to).await;
            world.line(&format_args!("{group} from {from} to {to}: {moved:?}"));
        }
    }
}

/// Reads heads, linearizably.
async fn read(world: Arc<World>, client: Client) {
    let dice = Dice::new(world.rng().number(), 4);
    let open = Arc::new(Semaphore::new(OPEN_MAX));
    loop {
        tokio::time::sleep(EVERY / 4).await;
        let permit = open.clone().try_acquire_owned().ok().filter(|_| world.is_asking());
        let Some(permit) = permit else { continue };
        let number = dice.between(0, u64::from(world.plan.users) - 1);
        let user = User(u32::try_from(number).unwrap_or_default());
        let op = world.notes.op();
        world.note(|at| Event::Head { op, at, user });
        let (world, client) = (world.clone(), client.clone());
        tokio::spawn(async move {
            if let Ok(seq) = head(&client, user).await {
                world.note(|at| Event::HeadIs { op, at, seq });
            }
            drop(permit);
        });
    }
}

async fn head(client: &Client, user: User) -> Result<tidemark_types::Seq> {
    let query = Query::Mailbox { mailbox: Recipient::User(words::name(user)) };
    match client.query(&query).await? {
        Answer::Mailbox(mailbox) => Ok(mailbox.head),
        other => bail!("{other:?} to a question for a mailbox"),
    }
}

/// A counter that lives on this shard.
fn counter_on(client: &Client, shard: ShardId) -> Result<CounterId> {
    for number in 0.. {
        let counter = CounterId::new(format!("probe-{number}"))?;
        if client.shard_of(&Id::Counter(counter.clone())) == shard {
            return Ok(counter);
        }
    }
    unreachable!("some name lives there")
}
