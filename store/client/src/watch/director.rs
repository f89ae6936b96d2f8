//! Keeps every watched user registered at the leader of their shard.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tidemark_proto::store::v1::{
    NotLeading, PresenceNow, PresenceOf, Registered, ShardPairs, ShardUsers, Unseated,
    WatchRequest, WatchUpdate,
};
use tidemark_proto::{Failure, convert};
use tidemark_store_core::devices::Seat;
use tidemark_store_core::value::{Entry, Value};
use tidemark_types::{Epoch, ErrorCode, NodeId, Seq, ShardId, UnixMs, UserId};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::stream::{Heard, NodeStream};
use super::{Change, LIVE_FOR, Live, Shared, WatchEvent};
use crate::client::{Client, Present};
use crate::error::Attempt;

/// How often it looks for shards that nobody holds.
const TICK: Duration = Duration::from_millis(50);

/// It looks by then, however much the streams have to say: what they do not say may be worse.
const TICK_WITHIN: Duration = Duration::from_secs(1);

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
    tick_by: Duration,
    heard: mpsc::Receiver<Heard>,
    heard_tx: mpsc::Sender<Heard>,
}

/// A shard with watched users.
#[derive(Default)]
struct Watched {
    users: HashSet<UserId>,
    /// About whom it is heard whether they are there, and for whom.
    pairs: HashSet<Pair>,
    /// Where they are registered.
    holder: Option<Holder>,
    /// Those who are not, in the order in which they will be.
    waiting: Vec<UserId>,
    /// Nobody watches these any more, and the holder tells of them still.
    leaving: Vec<UserId>,
    /// The same of pairs.
    pairs_waiting: Vec<Pair>,
    pairs_leaving: Vec<Pair>,
    /// Which node was asked whether it leads, and since when it has not answered.
    asked: Option<(NodeId, Duration)>,
    /// Nobody is asked before this.
    ask_at: Duration,
}

/// About whom, and for whom.
type Pair = (UserId, UserId);

impl Watched {
    fn is_empty(&self) -> bool {
        self.users.is_empty() && self.pairs.is_empty()
    }

    /// Is there something to tell the holder?
    fn has_news(&self) -> bool {
        let users = !(self.waiting.is_empty() && self.leaving.is_empty());
        users || !(self.pairs_waiting.is_empty() && self.pairs_leaving.is_empty())
    }

    /// Some of it. A list without users would be a question.
    fn news(&mut self, shard: ShardId) -> WatchRequest {
        let shard = u32::from(shard.get());
        let users = |users: &mut Vec<UserId>| {
            let users: Vec<_> = batch(users).map(|user| user.to_string()).collect();
            let batch = ShardUsers { shard, users };
            Some(batch).filter(|batch| !batch.users.is_empty()).into_iter().collect()
        };
        let pairs = |pairs: &mut Vec<Pair>| {
            let pair = |(user, by): Pair| PresenceOf { user: user.to_string(), by: by.to_string() };
            let batch = ShardPairs { shard, pairs: batch(pairs).map(pair).collect() };
            Some(batch).filter(|batch| !batch.pairs.is_empty()).into_iter().collect()
        };
        WatchRequest {
            register: users(&mut self.waiting),
            unregister: users(&mut self.leaving),
            follow: pairs(&mut self.pairs_waiting),
            unfollow: pairs(&mut self.pairs_leaving),
        }
    }
}

/// As many as fit into one request.
fn batch<T>(waiting: &mut Vec<T>) -> std::vec::Drain<'_, T> {
    waiting.drain(..waiting.len().min(BATCH_USERS))
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
        let tick_by = shared.clock.monotonic() + TICK_WITHIN;
        Director {
            client,
            shared,
            events,
            shards: HashMap::new(),
            streams: BTreeMap::new(),
            generation: 0,
            tick_by,
            heard,
            heard_tx,
        }
    }

    /// Runs until nobody wants to hear.
    pub(super) async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let events = self.events.clone();
        let shared = self.shared.clone();
        loop {
            if self.shared.clock.monotonic() >= self.tick_by {
                self.tick();
            }
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
                    watched.leaving.retain(|leaving| *leaving != user);
                    if watched.users.insert(user.clone()) {
                        watched.waiting.push(user);
                        touched.insert(shard);
                    }
                }
                Change::Unregister(user) => touched.extend(self.unregister(user)),
                Change::Follow(user, by) => {
                    let shard = self.shared.shard_of(&user);
                    let watched = self.shards.entry(shard).or_default();
                    let pair = (user, by);
                    watched.pairs_leaving.retain(|leaving| *leaving != pair);
                    if watched.pairs.insert(pair.clone()) {
                        watched.pairs_waiting.push(pair);
                        touched.insert(shard);
                    }
                }
                Change::Unfollow(user, by) => {
                    let shard = self.shared.shard_of(&user);
                    let Some(watched) = self.shards.get_mut(&shard) else { continue };
                    let pair = (user, by);
                    watched.pairs.remove(&pair);
                    watched.pairs_waiting.retain(|waiting| *waiting != pair);
                    watched.pairs_leaving.push(pair);
                    touched.insert(shard);
                }
            }
        }
        for shard in touched {
            self.flush(shard);
        }
    }

    /// The shard, if somebody must be told.
    fn unregister(&mut self, user: UserId) -> Option<ShardId> {
        let shard = self.shared.shard_of(&user);
        let watched = self.shards.get_mut(&shard)?;
        watched.users.remove(&user);
        watched.waiting.retain(|waiting| *waiting != user);
        if let Some(live) = self.shared.live.lock().get_mut(&shard) {
            live.registered.remove(&user);
        }
        // One that was still waiting is named for nothing, which does no harm.
        watched.leaving.push(user);
        Some(shard)
    }

    /// Registers who is waiting and unregisters who is leaving, as far as there is a holder and room.
    /// A shard in which nobody is watched is forgotten then.
    fn flush(&mut self, shard: ShardId) {
        let Some(watched) = self.shards.get_mut(&shard) else { return };
        let stream = watched.holder.and_then(|holder| self.streams.get(&holder.node));
        match stream {
            // Who holds nobody tells of nobody.
            None => {
                watched.leaving.clear();
                watched.pairs_leaving.clear();
            }
            Some(stream) => {
                while watched.has_news() {
                    let Ok(room) = stream.requests.try_reserve() else { return };
                    room.send(watched.news(shard));
                }
            }
        }
        if watched.is_empty() {
            self.shards.remove(&shard);
            self.shared.live.lock().remove(&shard);
        }
    }

    /// Asks who leads where nobody is heard; goes on registering where somebody is.
    fn tick(&mut self) {
        let now = self.shared.clock.monotonic();
        self.tick_by = now + TICK_WITHIN;
        for shard in self.shards.keys().copied().collect::<Vec<_>>() {
            self.flush(shard);
            let Some(watched) = self.shards.get(&shard) else { continue };
            if watched.is_empty() {
                continue;
            }
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
        let WatchUpdate {
            registered,
            not_leading,
            appended,
            heads,
            beats,
            unseated,
            typing,
            presence,
        } = update;
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
        for told in unseated {
            let seat = self.user(&told.user).zip(seat(&told));
            events.extend(seat.map(|(user, seat)| WatchEvent::Unseated { user, seat }));
        }
        for told in typing {
            let users = self.user(&told.user).zip(told.by.parse().ok());
            let event = |(user, by)| WatchEvent::Typing { user, by, typing: told.typing };
            events.extend(users.map(event));
        }
        events.extend(presence.into_iter().filter_map(|told| self.presence(told)));
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
            watched.pairs_waiting = watched.pairs.iter().cloned().collect();
            watched.leaving.clear();
            watched.pairs_leaving.clear();
            self.shared.live.lock().insert(shard, Live::default());
        }
        self.beat(shard, holder);
        self.flush(shard);
        for mailbox in answer.mailboxes {
            let Some(user) = self.user(&mailbox.user) else { continue };
            if let Some(live) = self.shared.live.lock().get_mut(&shard) {
                live.registered.insert(user.clone());
            }
            let seats = mailbox.seats.iter().filter_map(seat).collect();
            let last_number = mailbox.last_number;
            let seats = WatchEvent::Seats { user: user.clone(), seats, last_number };
            events.push(WatchEvent::Registered {
                user,
                epoch: Epoch::new(mailbox.epoch),
                floor: Seq::new(mailbox.floor),
                head: Seq::new(mailbox.head),
            });
            events.push(seats);
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

    /// Whether a user is there, if that is followed.
    fn presence(&self, told: PresenceNow) -> Option<WatchEvent> {
        let PresenceOf { user, by } = told.of?;
        let pair: Pair = (user.parse().ok()?, by.parse().ok()?);
        let present = match told.present {
            Some(now) => {
                Ok(Present { online: now.online, last_seen: UnixMs::new(now.last_seen_ms) })
            }
            None => Err(convert::error_code(told.refused)),
        };
        let watched = self.shards.get(&self.shared.shard_of(&pair.0))?;
        let followed = watched.pairs.contains(&pair);
        let (user, by) = pair;
        followed.then_some(WatchEvent::Presence { user, by, present })
    }

    /// The user of this name, if watched.
    fn user(&self, name: &str) -> Option<UserId> {
        let user: UserId = name.parse().ok()?;
        let watched = self.shards.get(&self.shared.shard_of(&user))?;
        watched.users.contains(&user).then_some(user)
    }
}

/// What a node says of a device's connections; none of a device whose name is illegal.
fn seat(told: &Unseated) -> Option<Seat> {
    let device = told.device.parse().ok()?;
    Some(Seat { device, below: told.below, code: convert::error_code(told.code) })
}

/// A number that is no shard's is not found anywhere.
fn number(shard: u32) -> ShardId {
    ShardId::new(u16::try_from(shard).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use parking_lot::Mutex;
    use tidemark_env::{SystemClock, SystemRng};
    use tidemark_store_core::value::{ClusterMap, NodeAddress, Settings};
    use tidemark_types::{ClusterId, ShardCount};
    use tokio::sync::Notify;

    use super::*;

    /// A director of one shard, held by a node to which so few requests can be on their way.
    fn director(room: usize) -> (Director, mpsc::Receiver<WatchRequest>) {
        let (node, shards) = (NodeId::new(1), ShardCount::new(1).expect("legal"));
        let cluster = ClusterId::from_bytes([7; 16]).expect("legal");
        let nodes = [(node, NodeAddress { grpc: "127.0.0.1:1".to_owned() })].into();
        let map = ClusterMap::new(cluster, shards, nodes, Settings::default());
        let clock = Arc::new(SystemClock::new());
        let client = Client::new(map, ANSWER_WITHIN, clock.clone(), Arc::new(SystemRng));
        let (changes, changed, live) = (Mutex::default(), Notify::new(), Mutex::default());
        let shared = Arc::new(Shared { clock, shards, changes, changed, live });
        let mut director = Director::new(client, shared, mpsc::channel(1).0);
        let (requests, sent) = mpsc::channel(room);
        director.streams.insert(node, NodeStream { generation: 1, requests });
        let holder = Some(Holder { node, generation: 1, term: 1 });
        director.shards.insert(ShardId::new(0), Watched { holder, ..Watched::default() });
        (director, sent)
    }

    #[test]
    fn the_holder_is_told_of_everybody_who_leaves_however_many_at_once() {
        const USERS: usize = 5 * BATCH_USERS;
        let (mut director, mut sent) = director(2);
        let shard = ShardId::new(0);
        let users: Vec<UserId> =
            (0..USERS).map(|n| format!("user-{n}").parse().expect("legal")).collect();
        let watched = director.shards.get_mut(&shard).expect("there");
        watched.users = users.iter().cloned().collect();
        for user in &users {
            director.shared.change(Change::Unregister(user.clone()));
        }
        director.shared.change(Change::Register(users[0].clone()));
        director.change();
        let (mut registered, mut left) = (BTreeSet::new(), BTreeSet::new());
        while let Ok(request) = sent.try_recv() {
            for (of, to) in [(request.register, &mut registered), (request.unregister, &mut left)] {
                for ShardUsers { users, .. } in of {
                    assert!(!users.is_empty(), "that would be a question");
                    to.extend(users);
                }
            }
            director.flush(shard);
        }
        assert_eq!(registered, BTreeSet::from([users[0].to_string()]));
        assert_eq!(left, users[1..].iter().map(UserId::to_string).collect());
        director.shared.change(Change::Unregister(users[0].clone()));
        director.change();
        assert!(director.shards.is_empty(), "nobody is watched");
    }
}
