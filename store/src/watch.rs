//! Who watches which mailboxes (R15): the leader's appends, on their way to gateways.
//!
//! ```text
//!   apply ── Effect::Appended ──► Hub ── user ──► Watcher (one per gateway's stream)
//!                                                   ├ small entries, in order, up to a bound
//!                                                   └ beyond it: the newest head of each user
//! ```
//!
//! A registration stands before the mailbox's head is read for its answer, and an entry is in the
//! state before its effect comes here. So every append is in that answer or told after it, or
//! both; the device's arithmetic does the rest. A registration belongs to its stream: what an
//! older stream leaves behind never touches a newer one's.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tidemark_types::limits::NAME_BYTES_MAX;
use tidemark_types::{DeviceId, ErrorCode, Seq, ShardId, UserId};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::metrics;

/// A larger entry is not sent along; the gateway reads it when a device asks.
const INLINE_BYTES_MAX: usize = 16 << 10;

/// What waits for one gateway; beyond it only heads are told, until it has caught up.
const QUEUE_BYTES_MAX: usize = 8 << 20;

/// Heads told at once; the others wait for their turn, so that a message stays small.
const HEADS_MAX: usize = 4_096;

/// Pairs of users who type that wait for one gateway; more are dropped.
const TYPING_MAX: usize = 1_024;

/// Pairs whose presence is told at once; the others wait for their turn.
const MOVED_MAX: usize = 1_024;

/// Who may follow whether one user is there; more are refused.
const FOLLOWERS_MAX: usize = 10_000;

/// Who watches what, on one node.
#[derive(Default)]
pub struct Hub {
    shards: BTreeMap<ShardId, Mutex<Registrations>>,
    /// Who wants to hear whether users are there. Never locked together with the other.
    followed: BTreeMap<ShardId, Mutex<Followers>>,
}

/// Who watches each user's mailbox.
type Registrations = HashMap<UserId, Vec<Arc<Watcher>>>;

/// Who follows each user, and through which gateways: two, while whoever follows changes from one to another.
type Followers = HashMap<UserId, HashMap<UserId, Vec<Arc<Watcher>>>>;

impl Hub {
    /// For a node that hosts these shards.
    pub fn new(shards: impl Iterator<Item = ShardId>) -> Self {
        let shards: Vec<ShardId> = shards.collect();
        Hub {
            shards: shards.iter().map(|shard| (*shard, Mutex::default())).collect(),
            followed: shards.iter().map(|shard| (*shard, Mutex::default())).collect(),
        }
    }

    /// A mailbox has a new entry.
    pub fn appended(&self, shard: ShardId, user: &UserId, seq: Seq, entry: &Bytes) {
        let Some(users) = self.shards.get(&shard) else { return };
        for watcher in users.lock().get(user).into_iter().flatten() {
            watcher.appended(user, seq, entry);
        }
    }

    /// Connections of a device below a number have ended.
    pub fn unseated(
        &self,
        shard: ShardId,
        user: &UserId,
        device: &DeviceId,
        below: u64,
        code: ErrorCode,
    ) {
        let Some(users) = self.shards.get(&shard) else { return };
        for watcher in users.lock().get(user).into_iter().flatten() {
            watcher.unseated(user, device, below, code);
        }
        self.moved(shard, user);
    }

    /// Mailboxes that are watched, each once for every watcher.
    pub fn watched(&self) -> usize {
        self.shards.values().map(|users| users.lock().values().map(Vec::len).sum::<usize>()).sum()
    }

    /// Somebody types to the user, or stops. It is told to who watches now, and to nobody else.
    pub fn typing(&self, shard: ShardId, user: &UserId, by: &UserId, typing: bool) {
        let Some(users) = self.shards.get(&shard) else { return };
        for watcher in users.lock().get(user).into_iter().flatten() {
            watcher.typing(user, by, typing);
        }
    }

    /// Does anybody watch the user's mailbox?
    pub fn is_watched(&self, shard: ShardId, user: &UserId) -> bool {
        self.shards.get(&shard).is_some_and(|users| users.lock().contains_key(user))
    }

    /// From now on `watcher` hears of the users' mailboxes; once, however often it is asked for.
    pub fn register(&self, shard: ShardId, users: &[UserId], watcher: &Arc<Watcher>) {
        let Some(registered) = self.shards.get(&shard) else { return };
        let mut come = Vec::new();
        {
            let mut registered = registered.lock();
            for user in users {
                let watchers = registered.entry(user.clone()).or_default();
                if watchers.is_empty() {
                    come.push(user);
                }
                if !watchers.iter().any(|known| Arc::ptr_eq(known, watcher)) {
                    watchers.push(watcher.clone());
                }
            }
        }
        come.into_iter().for_each(|user| self.moved(shard, user));
    }

    /// `watcher` hears of them no more.
    pub fn unregister(&self, shard: ShardId, users: &[UserId], watcher: &Arc<Watcher>) {
        let Some(registered) = self.shards.get(&shard) else { return };
        let mut gone = Vec::new();
        {
            let mut registered = registered.lock();
            for user in users {
                if let Some(watchers) = registered.get_mut(user)
                    && !leave(watchers, watcher)
                {
                    registered.remove(user);
                    gone.push(user);
                }
            }
        }
        gone.into_iter().for_each(|user| self.moved(shard, user));
    }

    /// `watcher` hears of no user of the shard any more.
    pub fn forget(&self, shard: ShardId, watcher: &Arc<Watcher>) {
        if let Some(followed) = self.followed.get(&shard) {
            followed.lock().retain(|_, followers| {
                followers.retain(|_, watchers| leave(watchers, watcher));
                !followers.is_empty()
            });
        }
        let Some(registered) = self.shards.get(&shard) else { return };
        let mut gone = Vec::new();
        registered.lock().retain(|user, watchers| {
            let watched = leave(watchers, watcher);
            if !watched {
                gone.push(user.clone());
            }
            watched
        });
        gone.iter().for_each(|user| self.moved(shard, user));
    }

    /// From now on `watcher` hears, for the second one of each pair, whether the first one is there; and
    /// how it is now. Those that are refused, since as many as may follow the first one of them do.
    #[must_use]
    pub fn follow(
        &self,
        shard: ShardId,
        mut pairs: Vec<(UserId, UserId)>,
        watcher: &Arc<Watcher>,
    ) -> Vec<(UserId, UserId)> {
        let Some(followed) = self.followed.get(&shard) else { return Vec::new() };
        let mut followed = followed.lock();
        pairs.retain(|(user, by)| {
            let followers = followed.entry(user.clone()).or_default();
            if followers.len() >= FOLLOWERS_MAX && !followers.contains_key(by) {
                return true;
            }
            let watchers = followers.entry(by.clone()).or_default();
            if !watchers.iter().any(|known| Arc::ptr_eq(known, watcher)) {
                watchers.push(watcher.clone());
            }
            watcher.moved(user, by);
            false
        });
        pairs
    }

    /// `watcher` hears of those pairs no more.
    pub fn unfollow(&self, shard: ShardId, pairs: &[(UserId, UserId)], watcher: &Arc<Watcher>) {
        let Some(followed) = self.followed.get(&shard) else { return };
        let mut followed = followed.lock();
        for (user, by) in pairs {
            let Some(followers) = followed.get_mut(user) else { continue };
            let Some(watchers) = followers.get_mut(by) else { continue };
            if !leave(watchers, watcher) {
                followers.remove(by);
            }
            if followers.is_empty() {
                followed.remove(user);
            }
        }
    }

    /// Whether the user is there, or who may know it, may have changed: whoever follows is to look.
    pub fn moved(&self, shard: ShardId, user: &UserId) {
        let Some(followed) = self.followed.get(&shard) else { return };
        for (by, watchers) in followed.lock().get(user).into_iter().flatten() {
            watchers.iter().for_each(|watcher| watcher.moved(user, by));
        }
    }
}

/// Takes a watcher out; is there another one?
fn leave(watchers: &mut Vec<Arc<Watcher>>, watcher: &Arc<Watcher>) -> bool {
    watchers.retain(|known| !Arc::ptr_eq(known, watcher));
    !watchers.is_empty()
}

/// What waits for one gateway's stream.
#[derive(Default)]
pub struct Watcher {
    queue: Mutex<News>,
    ready: Notify,
}

/// What a watcher has not been told yet.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Entries, of each user in seq order.
    pub appended: VecDeque<(UserId, Seq, Bytes)>,
    /// The newest head of users whose entries are not here.
    pub heads: BTreeMap<UserId, Seq>,
    /// Of devices whose connections have ended, below which number, and why: the newest news of each.
    pub unseated: BTreeMap<(UserId, DeviceId), (u64, ErrorCode)>,
    /// Who types to whom, or has stopped: the newest of each.
    pub typing: BTreeMap<(UserId, UserId), bool>,
    /// Users who may have come or gone, each with one who wants to know. How it is, is looked at when it
    /// is told; so there is one of each pair that is followed, however often it changes.
    pub moved: BTreeSet<(UserId, UserId)>,
    bytes: usize,
    /// Since when the oldest of them waits.
    since: Option<Instant>,
}

impl News {
    fn is_empty(&self) -> bool {
        self.appended.is_empty()
            && self.heads.is_empty()
            && self.unseated.is_empty()
            && self.typing.is_empty()
            && self.moved.is_empty()
    }
}

impl Watcher {
    /// Waits until there is something, and takes as much as fits into one message.
    pub async fn news(&self) -> News {
        loop {
            {
                let mut queue = self.queue.lock();
                if !queue.is_empty() {
                    let mut news = std::mem::take(&mut *queue);
                    if let Some(rest) = news.heads.keys().nth(HEADS_MAX).cloned() {
                        queue.heads = news.heads.split_off(&rest);
                        queue.since = news.since;
                    }
                    if let Some(rest) = news.moved.iter().nth(MOVED_MAX).cloned() {
                        queue.moved = news.moved.split_off(&rest);
                    }
                    if let Some(since) = news.since {
                        metrics::watch_told(since.elapsed());
                    }
                    return news;
                }
            }
            self.ready.notified().await;
        }
    }

    fn unseated(&self, user: &UserId, device: &DeviceId, below: u64, code: ErrorCode) {
        let key = (user.clone(), device.clone());
        self.queue.lock().unseated.insert(key, (below, code));
        self.ready.notify_one();
    }

    fn moved(&self, user: &UserId, by: &UserId) {
        self.queue.lock().moved.insert((user.clone(), by.clone()));
        self.ready.notify_one();
    }

    fn typing(&self, user: &UserId, by: &UserId, typing: bool) {
        let key = (user.clone(), by.clone());
        let mut queue = self.queue.lock();
        if queue.typing.len() >= TYPING_MAX && !queue.typing.contains_key(&key) {
            return metrics::typing_dropped();
        }
        queue.typing.insert(key, typing);
        self.ready.notify_one();
    }

    fn appended(&self, user: &UserId, seq: Seq, entry: &Bytes) {
        let mut queue = self.queue.lock();
        queue.since.get_or_insert_with(Instant::now);
        let bytes = queue.bytes + entry.len() + NAME_BYTES_MAX;
        // Behind a head that is not told yet an entry would only be a hole.
        let degraded = queue.heads.contains_key(user);
        if degraded || entry.len() > INLINE_BYTES_MAX || bytes > QUEUE_BYTES_MAX {
            metrics::watch_degraded();
            queue.heads.insert(user.clone(), seq);
        } else {
            queue.bytes = bytes;
            // A copy: the entry shares its memory with others, which a slow gateway would keep as well.
            let entry = Bytes::copy_from_slice(entry);
            queue.appended.push_back((user.clone(), seq, entry));
        }
        self.ready.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const SHARD: ShardId = ShardId::new(0);

    fn user(name: &str) -> UserId {
        UserId::new(name).expect("legal")
    }

    fn hub() -> Hub {
        Hub::new([SHARD].into_iter())
    }

    fn append(hub: &Hub, name: &str, seq: u32, bytes: usize) {
        hub.appended(SHARD, &user(name), Seq::new(seq), &vec![0; bytes].into());
    }

    fn news(watcher: &Watcher) -> (Vec<u32>, Vec<(String, u32)>) {
        let news = watcher.news().now_or_never().unwrap_or_default();
        let seqs = news.appended.iter().map(|(_, seq, _)| seq.get()).collect();
        let heads = news.heads.iter().map(|(user, seq)| (user.to_string(), seq.get()));
        (seqs, heads.collect())
    }

    #[test]
    fn a_watcher_hears_of_what_it_registered_and_nothing_else() {
        let (hub, watcher) = (hub(), Arc::default());
        append(&hub, "a", 1, 1);
        hub.register(SHARD, &[user("a"), user("b")], &watcher);
        hub.register(SHARD, &[user("a")], &watcher);
        append(&hub, "a", 2, 1);
        append(&hub, "c", 1, 1);
        append(&hub, "b", 7, 1);
        assert_eq!(news(&watcher), (vec![2, 7], vec![]));
        hub.unregister(SHARD, &[user("a")], &watcher);
        append(&hub, "a", 3, 1);
        append(&hub, "b", 8, 1);
        assert_eq!(news(&watcher), (vec![8], vec![]));
    }

    #[test]
    fn an_older_stream_takes_nothing_of_a_newer_one_with_it() {
        let hub = hub();
        let (older, newer) = (Arc::default(), Arc::default());
        hub.register(SHARD, &[user("a")], &older);
        hub.register(SHARD, &[user("a")], &newer);
        hub.forget(SHARD, &older);
        append(&hub, "a", 1, 1);
        assert_eq!(news(&older), (vec![], vec![]));
        assert_eq!(news(&newer), (vec![1], vec![]));
        hub.forget(SHARD, &newer);
        assert!(hub.shards[&SHARD].lock().is_empty());
    }

    #[test]
    fn a_large_entry_is_told_by_its_head() {
        let (hub, watcher) = (hub(), Arc::default());
        hub.register(SHARD, &[user("a")], &watcher);
        append(&hub, "a", 1, INLINE_BYTES_MAX);
        append(&hub, "a", 2, INLINE_BYTES_MAX + 1);
        append(&hub, "a", 3, 1);
        assert_eq!(news(&watcher), (vec![1], vec![("a".to_owned(), 3)]));
        append(&hub, "a", 4, 1);
        assert_eq!(news(&watcher), (vec![4], vec![]));
    }

    #[test]
    fn a_slow_gateway_is_told_one_head_for_each_user_and_misses_nobody() {
        let (hub, watcher) = (hub(), Arc::default());
        hub.register(SHARD, &[user("a"), user("b")], &watcher);
        let many = u32::try_from(QUEUE_BYTES_MAX / INLINE_BYTES_MAX + 10).expect("few");
        for seq in 1..=many {
            append(&hub, "a", seq, INLINE_BYTES_MAX);
        }
        append(&hub, "b", 5, INLINE_BYTES_MAX);
        let (seqs, heads) = news(&watcher);
        assert!(seqs.len() * INLINE_BYTES_MAX <= QUEUE_BYTES_MAX);
        assert_eq!(heads, [("a".to_owned(), many), ("b".to_owned(), 5)]);
    }

    #[test]
    fn the_newest_news_of_a_devices_connections_is_told() {
        let (hub, watcher) = (hub(), Arc::default());
        hub.register(SHARD, &[user("a")], &watcher);
        let phone = DeviceId::new("phone").expect("legal");
        hub.unseated(SHARD, &user("b"), &phone, 1, ErrorCode::Displaced);
        hub.unseated(SHARD, &user("a"), &phone, 2, ErrorCode::Displaced);
        hub.unseated(SHARD, &user("a"), &phone, 4, ErrorCode::LoggedOut);
        let news = watcher.news().now_or_never().expect("there is some");
        let told: Vec<_> = news.unseated.into_iter().collect();
        assert_eq!(told, [((user("a"), phone), (4, ErrorCode::LoggedOut))]);
    }

    #[test]
    fn who_types_is_told_to_who_watches_and_what_is_too_much_is_dropped() {
        let (hub, watcher) = (hub(), Arc::default());
        hub.typing(SHARD, &user("a"), &user("b"), true);
        assert!(!hub.is_watched(SHARD, &user("a")));
        hub.register(SHARD, &[user("a")], &watcher);
        assert!(hub.is_watched(SHARD, &user("a")));
        hub.typing(SHARD, &user("a"), &user("b"), true);
        hub.typing(SHARD, &user("a"), &user("b"), false);
        hub.typing(SHARD, &user("c"), &user("b"), true);
        let news = watcher.news().now_or_never().expect("there is some");
        let told: Vec<_> = news.typing.into_iter().collect();
        assert_eq!(told, [((user("a"), user("b")), false)]);
        for by in 0..=TYPING_MAX {
            hub.typing(SHARD, &user("a"), &user(&format!("user-{by}")), true);
        }
        let news = watcher.news().now_or_never().expect("there is some");
        assert_eq!(news.typing.len(), TYPING_MAX);
    }

    #[test]
    fn who_follows_a_user_is_to_look_whenever_that_one_may_have_come_or_gone() {
        let (hub, watcher, other) = (hub(), Arc::default(), Arc::default());
        let pair = [(user("a"), user("b"))];
        let moved = |watcher: &Watcher| {
            watcher.news().now_or_never().unwrap_or_default().moved.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(hub.follow(SHARD, pair.to_vec(), &watcher), []);
        assert_eq!(moved(&watcher), pair, "how it is now");
        // Once, however many gateways come to watch; and once when the last one has gone.
        hub.register(SHARD, &[user("a"), user("c")], &other);
        hub.register(SHARD, &[user("a")], &watcher);
        assert_eq!(moved(&watcher), pair);
        hub.unregister(SHARD, &[user("a")], &watcher);
        assert_eq!(moved(&watcher), []);
        hub.forget(SHARD, &other);
        assert_eq!(moved(&watcher), pair);
        let phone = DeviceId::new("phone").expect("legal");
        hub.unseated(SHARD, &user("a"), &phone, 2, ErrorCode::LoggedOut);
        assert_eq!(moved(&watcher), pair);
        hub.unfollow(SHARD, &pair, &watcher);
        hub.moved(SHARD, &user("a"));
        assert_eq!(moved(&watcher), []);
        assert!(hub.followed[&SHARD].lock().is_empty());
    }

    #[test]
    fn a_user_is_followed_by_as_many_as_may_and_the_next_one_is_refused() {
        let (hub, watcher, other) = (hub(), Arc::default(), Arc::default());
        let pair = |by: usize| (user("a"), user(&format!("user-{by}")));
        let all: Vec<_> = (0..=FOLLOWERS_MAX).map(pair).collect();
        let late = [pair(FOLLOWERS_MAX)];
        assert_eq!(hub.follow(SHARD, all.clone(), &watcher), late);
        // Whoever follows already is not refused, neither again nor through another gateway.
        assert_eq!(hub.follow(SHARD, all, &watcher), late);
        assert_eq!(hub.follow(SHARD, vec![pair(0), (user("b"), late[0].1.clone())], &other), []);
        hub.unfollow(SHARD, &[pair(0)], &watcher);
        assert_eq!(hub.follow(SHARD, late.to_vec(), &watcher), late);
        hub.forget(SHARD, &other);
        assert_eq!(hub.follow(SHARD, late.to_vec(), &watcher), []);
        let mut told = BTreeSet::new();
        while let Some(news) = watcher.news().now_or_never() {
            told.extend(news.moved);
        }
        assert_eq!(told.len(), FOLLOWERS_MAX + 1);
        assert!(told.contains(&late[0]));
    }

    #[test]
    fn heads_are_told_in_portions_and_none_is_forgotten() {
        let (hub, watcher) = (hub(), Arc::default());
        let users: Vec<_> = (0..=HEADS_MAX).map(|at| user(&format!("user-{at:05}"))).collect();
        hub.register(SHARD, &users, &watcher);
        for user in &users {
            append(&hub, user.as_str(), 1, INLINE_BYTES_MAX + 1);
        }
        let (_, heads) = news(&watcher);
        assert_eq!(heads.len(), HEADS_MAX);
        let last = users.last().expect("many").to_string();
        append(&hub, &last, 2, 1);
        assert_eq!(news(&watcher), (vec![], vec![(last, 2)]));
    }
}
