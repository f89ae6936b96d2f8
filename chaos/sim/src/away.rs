//! Devices that are away, and who wakes them (R18): each user has one that never connects. On every
//! gateway's host a dispatcher leases what is due and hands it to a push service that takes its time; it
//! dies with its host, and what it had leased comes again.
//!
//! No device is under two hints at a time. Whether each was told of what it lacks is the checker's to say
//! (C17).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use tidemark_chaos::words;
use tidemark_checker::Event;
use tidemark_checker::history::{Device, User};
use tidemark_store_client::Client;
use tidemark_store_core::command::Start;
use tidemark_store_core::hints::Hint;
use tidemark_store_core::value::PushTarget;
use tidemark_store_core::{Command, Reply};
use tidemark_types::{DeviceId, Seq};

use crate::plan::{DEVICES, Dice};
use crate::world::World;

/// The number of such a device among its user's.
const NUMBER: Device = Device(DEVICES);

/// Between two rounds of a dispatcher, and hints of a node in one.
const ROUND: Duration = Duration::from_millis(500);
const HINTS_PER_ROUND: u32 = 64;

/// A push service takes so long, in milliseconds.
const TAKES_MS: [u64; 2] = [5, 800];

/// A call that failed is made again after this.
const AGAIN: Duration = Duration::from_millis(300);

/// What is known of these devices.
#[derive(Default)]
pub struct Away(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// Who can be woken.
    targets: BTreeSet<User>,
    /// The highest head that each was told of.
    told: BTreeMap<User, Seq>,
    under_way: BTreeSet<User>,
}

impl Away {
    /// Can the user's device be woken, and has it been told up to here?
    pub fn is_told(&self, user: User, head: Seq) -> bool {
        let known = self.0.lock();
        known.targets.contains(&user) && known.told.get(&user).is_some_and(|told| *told >= head)
    }
}

/// A hint on its way; it ends when it is dropped, also with the host that sends it.
struct UnderWay {
    world: Arc<World>,
    user: User,
}

impl UnderWay {
    fn begin(world: &Arc<World>, user: User) -> Self {
        if !world.away.0.lock().under_way.insert(user) {
            let what = format!("C15: two hints are under way to {user}'s {NUMBER}");
            world.safety.violated(world, what);
        }
        UnderWay { world: world.clone(), user }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.world.away.0.lock().under_way.remove(&self.user);
    }
}

/// Registers a user's device, and says where it is woken.
pub async fn register(world: Arc<World>, client: Client, user: User) {
    let (owner, name) = (words::name(user), name());
    let target = PushTarget { provider: "simulated".to_owned(), target: user.0.to_string() };
    let commands = [
        Command::RegisterDevice {
            user: owner.clone(),
            device: name.clone(),
            start: Start::Floor,
            arrival: None,
            label: None,
        },
        Command::SetPush { user: owner, device: name, target: Some(target) },
    ];
    for command in commands {
        done(&client, &command).await;
    }
    world.note(|at| Event::Target { at, user, device: NUMBER });
    world.away.0.lock().targets.insert(user);
}

/// Asks until it is so.
pub async fn done(client: &Client, command: &Command) -> Reply {
    loop {
        let attempt = async { client.submit(command).await?.reply().await };
        match attempt.await {
            Ok(reply) => return reply,
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}

fn name() -> DeviceId {
    DeviceId::new(format!("device-{}", NUMBER.0)).expect("a legal name")
}

/// Wakes whoever is due, until its host is crashed.
pub async fn dispatch(world: Arc<World>, client: Client) {
    let dice = Dice::new(world.rng().number(), 21);
    loop {
        tokio::time::sleep(ROUND).await;
        let leases =
            world.plan.nodes().map(|node| client.lease_hints(node, HINTS_PER_ROUND, vec![]));
        for hint in join_all(leases).await.into_iter().flatten().flatten() {
            let takes = dice.ms(TAKES_MS[0], TAKES_MS[1]);
            tokio::spawn(push(world.clone(), client.clone(), hint, takes));
        }
    }
}

async fn push(world: Arc<World>, client: Client, hint: Hint, takes: Duration) {
    let Hint { user: owner, device, epoch, head, .. } = hint;
    let Ok(user) = words::user(&owner) else {
        return world.safety.violated(&world, format!("{owner} is told, and has no such device"));
    };
    let under_way = UnderWay::begin(&world, user);
    tokio::time::sleep(takes).await;
    drop(under_way);
    if !world.plan.lost_hints {
        world.note(|at| Event::Hint { at, user, device: NUMBER, head });
        let mut known = world.away.0.lock();
        let told = known.told.entry(user).or_default();
        *told = head.max(*told);
    }
    let sent = Command::PushSent { user: owner, device, epoch, upto: head };
    let attempt = async { client.submit(&sent).await?.reply().await };
    // What did not become known comes again when its lease has ended.
    drop(attempt.await);
}
