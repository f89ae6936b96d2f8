//! Keeps every watched user registered at the leader of their shard.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tidemark_proto::Failure;
use tidemark_proto::store::v1::{NotLeading, Registered, ShardUsers, WatchRequest, WatchUpdate};
use tidemark_store_core::value::{Entry, Value};
use tidemark_types::{Epoch, ErrorCode, NodeId, Seq, ShardId, UserId};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::stream::{Heard, NodeStream};
use super::{Change, LIVE_FOR, Live, Shared, WatchEvent};
use crate::client::Client;
use crate::error::Attempt;

/// How often it looks for shards that nobody holds.
const TICK: Duration = Duration::from_millis(50);

/// A node that does not answer a question in this time is not asked again at once.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// After a node said that it does not lead and knows nobody who does.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Users in one registration.
const BATCH_USERS: usize = 512;

/// What streams said and is not looked at yet; when it is full the streams wait.
const HEARD: usize = 16;

/// Keeps every watched user registered at the leader of their shard.
pub(super) struct Director {
    client: Client,
    shared: Arc<Shared>,
    events: mpsc::Sender<WatchEvent>,
    shards: HashMap<ShardId, Watched>,
    streams: BTreeMap<NodeId, NodeStream>,
    generation: u64,
    heard: mpsc::Receiver<Heard>,
    heard_tx: mpsc::Sender<Heard>,
}

/// A shard with watched users.
#[derive(Default)]
struct Watched {
    users: HashSet<UserId>,
    /// Where they are registered.
    holder: Option<Holder>,
    /// Those who are not, in the order in which they will be.
    waiting: Vec<UserId>,
    /// Which node was asked whether it leads, and since when it has not answered.
    asked: Option<(NodeId, Duration)>,
    /// Nobody is asked before this.
    ask_at: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holder {
    node: NodeId,
    generation: u64,
    term: u64,
}

impl Director {
    pub(super) fn new(
        client: Client,
        shared: Arc<Shared>,
        events: mpsc::Sender<WatchEvent>,
    ) -> Self {
        let (heard_tx, heard) = mpsc::channel(HEARD);
        let (shards, streams) = (HashMap::new(), BTreeMap::new());
        Director { client, shared, events, shards, streams, generation: 0, heard, heard_tx }
    }

    /// Runs until nobody wants to hear.
    pub(super) async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let events = self.events.clone();
        let shared = self.shared.clone();
        loop {
            tokio::select! {
                // New users do not wait until the streams have nothing more to say; and what was
                // said is looked at before anybody is called silent.
                biased;
                () = events.closed() => return,
                () = shared.changed.notified() => self.change(),
                Some(heard) = self.heard.recv() => {
                    for event in self.heard(heard) {
                        if events.send(event).await.is_err() {
                            return;
                        }
                    }
                }
                _ = tick.tick() => self.tick(),
            }
        }
    }

    /// Takes what the handles asked for.
    fn change(&mut self) {
        let changes = std::mem::take(&mut *self.shared.changes.lock());
        let mut touched = HashSet::new();
        for change in changes {
            match change {
                Change::Register(user) => {
                    let shard = self.shared.shard_of(&user);
                    let watched = self.shards.entry(shard).or_default();
                    if watched.users.insert(user.clone()) {
                        watched.waiting.push(user);
                        touched.insert(shard);
                    }
                }
                Change::Unregister(user) => self.unregister(user),
            }
        }
        for shard in touched {
            self.flush(shard);
        }
    }

    fn unregister(&mut self, user: UserId) {
        let shard = self.shared.shard_of(&user);
        let Some(watched) = self.shards.get_mut(&shard) else { return };
        watched.users.remove(&user);
        watched.waiting.retain(|waiting| *waiting != user);
        if let Some(live) = self.shared.live.lock().get_mut(&shard) {
            live.registered.remove(&user);
        }
        let stream = watched.holder.and_then(|holder| self.streams.get(&holder.node));
        if let Some(stream) = stream {
            let users = vec![user.to_string()];
            let unregister = vec![ShardUsers { shard: u32::from(shard.get()), users }];
            // If there is no room the node goes on telling, and it is passed over.
            let request = WatchRequest { unregister, ..WatchRequest::default() };
            let _ = stream.requests.try_send(request);
        }
        if watched.users.is_empty() {
            self.shards.remove(&shard);
            self.shared.live.lock().remove(&shard);
        }
    }

    /// Registers who is waiting, as far as there is a holder and room.
    fn flush(&mut self, shard: ShardId) {
        let Some(watched) = self.shards.get_mut(&shard) else { return };
        let stream = watched.holder.and_then(|holder| self.streams.get(&holder.node));
        let Some(stream) = stream else { return };
        while !watched.waiting.is_empty() {
            let Ok(room) = stream.requests.try_reserve() else { return };
            let count = watched.waiting.len().min(BATCH_USERS);
            let users = watched.waiting.drain(..count).map(|user| user.to_string());
            let users = users.collect();
            let register = vec![ShardUsers { shard: u32::from(shard.get()), users }];
            room.send(WatchRequest { register, ..WatchRequest::default() });
        }
    }

    /// Asks who leads where nobody is heard; goes on registering where somebody is.
    fn tick(&mut self) {
        let now = self.shared.clock.monotonic();
        for shard in self.shards.keys().copied().collect::<Vec<_>>() {
            self.flush(shard);
            let watched = &self.shards[&shard];
            if watched.holder.is_some() && self.is_fresh(shard, now) || now < watched.ask_at {
                continue;
            }
            match watched.asked {
                Some((_, since)) if now - since < ANSWER_WITHIN => {}
                Some((node, _)) => {
                    let silent = Attempt::NotSent("no answer".to_owned());
                    self.client.learn_failure(shard, node, &silent);
                    self.ask(shard, now);
                }
                None => self.ask(shard, now),
            }
        }
    }

    fn is_fresh(&self, shard: ShardId, now: Duration) -> bool {
        let live = self.shared.live.lock();
        live.get(&shard).is_some_and(|live| now.saturating_sub(live.beat_at) < LIVE_FOR)
    }

    /// Asks the node that most likely leads a shard whether it does.
    fn ask(&mut self, shard: ShardId, now: Duration) {
        let node = self.client.candidate(shard);
        let question = ShardUsers { shard: u32::from(shard.get()), users: Vec::new() };
        let request = WatchRequest { register: vec![question], ..WatchRequest::default() };
        // Without room it is asked later; meanwhile it counts as asked.
        let _ = self.stream(node).requests.try_send(request);
        if let Some(watched) = self.shards.get_mut(&shard) {
            watched.asked = Some((node, now));
        }
    }

    fn stream(&mut self, node: NodeId) -> &NodeStream {
        let Director { client, streams, generation, heard_tx, .. } = self;
        streams.entry(node).or_insert_with(|| {
            *generation += 1;
            NodeStream::open(client.clone(), node, *generation, heard_tx.clone())
        })
    }

    /// Takes what a stream said; what the watcher learns of it.
    fn heard(&mut self, heard: Heard) -> Vec<WatchEvent> {
        let Heard { node, generation, update } = heard;
        if self.streams.get(&node).is_none_or(|stream| stream.generation != generation) {
            return Vec::new();
        }
        let Some(update) = update else {
            self.ended(node);
            return Vec::new();
        };
        let WatchUpdate { registered, not_leading, appended, heads, beats } = update;
        let mut events = Vec::new();
        for answer in registered {
            self.registered(node, generation, answer, &mut events);
        }
        for answer in not_leading {
            self.not_leading(node, generation, &answer);
        }
        for told in appended {
            events.extend(self.told(&told.user, told.seq, Some(&told.entry)));
        }
        for told in heads {
            events.extend(self.told(&told.user, told.head, None));
        }
        for beat in beats {
            self.beat(number(beat.shard), Holder { node, generation, term: beat.term });
        }
        events
    }

    /// A stream ended: what it held is held by nobody.
    fn ended(&mut self, node: NodeId) {
        self.streams.remove(&node);
        let now = self.shared.clock.monotonic();
        for (shard, watched) in &mut self.shards {
            let asked = watched.asked.is_some_and(|(asked, _)| asked == node);
            if asked || watched.holder.is_some_and(|holder| holder.node == node) {
                let lost = Attempt::NotSent("the stream ended".to_owned());
                self.client.learn_failure(*shard, node, &lost);
                watched.holder = watched.holder.filter(|holder| holder.node != node);
                watched.asked = None;
                watched.ask_at = now + ASK_AGAIN;
            }
        }
    }

    /// A node leads a shard, and has registered some of its users.
    fn registered(
        &mut self,
        node: NodeId,
        generation: u64,
        answer: Registered,
        events: &mut Vec<WatchEvent>,
    ) {
        let shard = number(answer.shard);
        let Some(watched) = self.shards.get_mut(&shard) else { return };
        let holder = Holder { node, generation, term: answer.term };
        if watched.holder.is_some_and(|held| held.term > holder.term) {
            return;
        }
        self.client.learn_leader(shard, node);
        watched.asked = None;
        if watched.holder != Some(holder) {
            watched.holder = Some(holder);
            watched.waiting = watched.users.iter().cloned().collect();
            self.shared.live.lock().insert(shard, Live::default());
        }
        self.beat(shard, holder);
        self.flush(shard);
        for mailbox in answer.mailboxes {
            let Some(user) = self.user(&mailbox.user) else { continue };
            if let Some(live) = self.shared.live.lock().get_mut(&shard) {
                live.registered.insert(user.clone());
            }
            events.push(WatchEvent::Registered {
                user,
                epoch: Epoch::new(mailbox.epoch),
                floor: Seq::new(mailbox.floor),
                head: Seq::new(mailbox.head),
            });
        }
    }

    fn not_leading(&mut self, node: NodeId, generation: u64, answer: &NotLeading) {
        let shard = number(answer.shard);
        let now = self.shared.clock.monotonic();
        let Some(watched) = self.shards.get_mut(&shard) else { return };
        let holds = |holder: &Holder| (holder.node, holder.generation) == (node, generation);
        watched.holder = watched.holder.filter(|holder| !holds(holder));
        watched.asked = watched.asked.filter(|(asked, _)| *asked != node);
        let failure = Failure::new(ErrorCode::NotLeader);
        let failure = match answer.leader.is_empty() {
            true => {
                watched.ask_at = now + ASK_AGAIN;
                failure
            }
            false => failure.leader(&answer.leader),
        };
        self.client.learn_failure(shard, node, &Attempt::Failed(failure));
    }

    fn beat(&mut self, shard: ShardId, from: Holder) {
        let held = self.shards.get(&shard).is_some_and(|watched| watched.holder == Some(from));
        if let Some(live) = self.shared.live.lock().get_mut(&shard).filter(|_| held) {
            live.beat_at = self.shared.clock.monotonic();
        }
    }

    /// What a node told of a user's mailbox: an entry, or only its head.
    fn told(&self, user: &str, seq: u32, entry: Option<&[u8]>) -> Option<WatchEvent> {
        let user = self.user(user)?;
        let seq = Seq::new(seq);
        match entry.map(Entry::decode) {
            Some(Ok(entry)) => Some(WatchEvent::Appended { user, seq, entry }),
            Some(Err(error)) => {
                tracing::error!(%error, "a store node tells an entry that does not decode");
                Some(WatchEvent::Head { user, head: seq })
            }
            None => Some(WatchEvent::Head { user, head: seq }),
        }
    }

    /// The user of this name, if watched.
    fn user(&self, name: &str) -> Option<UserId> {
        let user: UserId = name.parse().ok()?;
        let watched = self.shards.get(&self.shared.shard_of(&user))?;
        watched.users.contains(&user).then_some(user)
    }
}

/// A number that is no shard's is not found anywhere.
fn number(shard: u32) -> ShardId {
    ShardId::new(u16::try_from(shard).unwrap_or(u16::MAX))
}
