//! Who is connected here: each user's mailbox as the gateway hears of it, shared by all of the
//! user's connections, and the seat of each device.
//!
//! It knows neither frames nor sockets. A mailbox is watched from its first seat on; when the last
//! one is empty it is kept for a while, since devices come back (a [`Registry::sweep`] ends it).
//!
//! Invariants: a device has one seat, and taking it displaces who sat there; whoever leaves never
//! takes a newer one's seat along. The store numbers connections over all gateways, and what it says of
//! a device's connections holds here as well.

mod mailbox;
mod passing;
mod signal;
mod tail;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tidemark_proto::v1;
use tidemark_store_client::WatchEvent;
use tidemark_store_core::devices::Seat as Seated;
use tidemark_types::{DeviceId, ErrorCode, UserId};
use tokio::sync::oneshot;

pub(crate) use mailbox::Mailbox;
#[cfg(test)]
pub(crate) use mailbox::tests as heard;
use passing::News;
pub(crate) use signal::Signal;
pub(crate) use tail::Kept;
use tail::Tails;

use crate::metrics;
use crate::store::Watch;

/// All users with a connection here.
pub(crate) struct Registry {
    watch: Box<dyn Watch>,
    tails: Arc<Tails>,
    /// Ordered, so that a simulation's runs are the same.
    users: Mutex<BTreeMap<UserId, User>>,
    /// Of whom it was said that they have gone, for whom: told when it lasts. There are as many as are
    /// watched, at most.
    leaving: Mutex<BTreeSet<(UserId, UserId)>>,
    /// How many seats were taken.
    taken: AtomicU64,
}

struct User {
    mailbox: Arc<Mutex<Mailbox>>,
    seats: BTreeMap<DeviceId, Taken>,
    /// No seat was taken when last swept.
    lonely: bool,
}

/// A seat that a connection has.
struct Taken {
    /// The seat's, unlike that of every other one here.
    id: u64,
    /// Given when the mailbox has news.
    news: Arc<Signal>,
    /// Told why the seat is lost; dropped when another connection here takes it.
    unseats: Option<oneshot::Sender<ErrorCode>>,
    /// The connection's number, once the store has said it.
    number: Option<u64>,
    /// What the store said before that: connections below this number have ended.
    ended: Option<(u64, ErrorCode)>,
}

impl Taken {
    /// Connections below a number have ended.
    fn unseat(&mut self, below: u64, code: ErrorCode) {
        match self.number {
            Some(number) if number < below => {
                if let Some(unseats) = self.unseats.take() {
                    // Its connection ends at the same time if nobody hears it.
                    let _ = unseats.send(code);
                }
            }
            Some(_) => {}
            None => self.ended = self.ended.max(Some((below, code))),
        }
    }
}

/// A connection's place among its user's; leaving is dropping it.
pub(crate) struct Seat {
    registry: Arc<Registry>,
    id: u64,
    user: UserId,
    device: DeviceId,
    /// The user's mailbox; looked at briefly, since whoever tells it something waits.
    pub(crate) mailbox: Arc<Mutex<Mailbox>>,
    /// Given when the mailbox has news, until another connection here takes the seat.
    pub(crate) news: Arc<Signal>,
    /// The last of what passes by that this connection was told, that was told before it came, or that was
    /// not for it.
    passed: u64,
    /// Whom it watches, whether they are there.
    watches: BTreeSet<UserId>,
    /// Says why the seat is lost; ends without a word when another connection here takes it.
    pub(crate) unseated: oneshot::Receiver<ErrorCode>,
}

impl Registry {
    /// Nobody is here yet; the newest entries of all mailboxes may hold so many bytes together.
    pub(crate) fn new(watch: Box<dyn Watch>, tails_bytes_max: usize) -> Self {
        let tails = Tails::new(tails_bytes_max);
        let (users, leaving) = (Mutex::default(), Mutex::default());
        Registry { watch, tails, users, leaving, taken: AtomicU64::new(0) }
    }

    /// Bytes that the newest entries of all mailboxes hold.
    pub(crate) fn tails_bytes(&self) -> usize {
        self.tails.bytes()
    }

    /// Takes the device's seat.
    pub(crate) fn join(self: &Arc<Self>, user: &UserId, device: &DeviceId) -> Seat {
        let mut users = self.users.lock();
        let entry = users.entry(user.clone()).or_insert_with(|| {
            self.watch.register(user.clone());
            metrics::mailbox_watched(true);
            let mailbox = Arc::new(Mutex::new(Mailbox::new(self.tails.clone())));
            User { mailbox, seats: BTreeMap::new(), lonely: false }
        });
        entry.lonely = false;
        let (unseats, unseated) = oneshot::channel();
        let id = self.taken.fetch_add(1, Ordering::Relaxed);
        let news = Arc::<Signal>::default();
        let taken =
            Taken { id, news: news.clone(), unseats: Some(unseats), number: None, ended: None };
        entry.seats.insert(device.clone(), taken);
        Seat {
            registry: self.clone(),
            id,
            user: user.clone(),
            device: device.clone(),
            mailbox: entry.mailbox.clone(),
            news,
            passed: entry.mailbox.lock().passing.last(),
            watches: BTreeSet::new(),
            unseated,
        }
    }

    /// May what was heard of the user's mailbox be told as its head (R15)?
    pub(crate) fn is_live(&self, user: &UserId) -> bool {
        self.watch.is_live(user)
    }

    /// Hears of a mailbox. One that nobody here asks for is passed over.
    pub(crate) fn hear(&self, event: WatchEvent) {
        let (WatchEvent::Registered { user, .. }
        | WatchEvent::Seats { user, .. }
        | WatchEvent::Unseated { user, .. }
        | WatchEvent::Typing { user, .. }
        | WatchEvent::Presence { by: user, .. }
        | WatchEvent::Appended { user, .. }
        | WatchEvent::Head { user, .. }) = &event;
        let mut users = self.users.lock();
        let Some(user) = users.get_mut(user) else { return };
        match &event {
            WatchEvent::Seats { seats, last_number, .. } => user.review(seats, *last_number),
            WatchEvent::Unseated { seat, .. } => user.unseat(seat),
            WatchEvent::Presence { user: about, by, present } => {
                let mut news = News::None;
                user.change(|mailbox| {
                    news = mailbox.passing.present(about, *present);
                    news == News::ToTell
                });
                if news == News::ToSettle {
                    self.leaving.lock().insert((by.clone(), about.clone()));
                }
            }
            event => {
                if matches!(event, WatchEvent::Registered { .. }) {
                    metrics::watch_began();
                }
                user.change(|mailbox| mailbox.hear(event));
            }
        }
    }

    /// Tells of those who have gone for so long that it is no accident.
    pub(crate) fn settle(&self) {
        let leaving = std::mem::take(&mut *self.leaving.lock());
        if leaving.is_empty() {
            return;
        }
        let mut users = self.users.lock();
        for (by, about) in leaving {
            let Some(user) = users.get_mut(&by) else { continue };
            let mut news = News::None;
            user.change(|mailbox| {
                news = mailbox.passing.settle(&about);
                news == News::ToTell
            });
            if news == News::ToSettle {
                self.leaving.lock().insert((by, about));
            }
        }
    }

    /// Forgets mailboxes without a seat, and entries that came before the sweep before this one.
    pub(crate) fn sweep(&self) {
        self.users.lock().retain(|name, user| {
            // One that was displaced may not have noticed yet; seats alone have the mailbox, and they come by
            // this lock.
            let lonely = user.seats.is_empty() && Arc::strong_count(&user.mailbox) == 1;
            if lonely && user.lonely {
                self.watch.unregister(name);
                metrics::mailbox_watched(false);
                return false;
            }
            user.lonely = lonely;
            // Nobody is told: what is there for a device does not change by it.
            user.mailbox.lock().age();
            true
        });
    }
}

impl User {
    /// Changes the mailbox, and tells all seats if that is news for them.
    fn change(&self, change: impl FnOnce(&mut Mailbox) -> bool) {
        if change(&mut self.mailbox.lock()) {
            for taken in self.seats.values() {
                taken.news.give();
            }
        }
    }

    /// What the store says of a device's connections.
    fn unseat(&mut self, Seated { device, below, code }: &Seated) {
        if let Some(taken) = self.seats.get_mut(device) {
            taken.unseat(*below, *code);
        }
    }

    /// What the store says of all of the user's devices; one that it does not know was forgotten.
    fn review(&mut self, seats: &[Seated], last_number: u64) {
        for (device, taken) in &mut self.seats {
            match seats.iter().find(|seat| seat.device == *device) {
                Some(seat) => taken.unseat(seat.below, seat.code),
                // One that is not numbered yet is being registered.
                None if taken.number.is_some() => {
                    taken.unseat(last_number.saturating_add(1), ErrorCode::NoDevice);
                }
                None => {}
            }
        }
    }
}

impl Seat {
    /// Watches these users, and nobody else.
    pub(crate) fn watch(&mut self, wanted: BTreeSet<UserId>) {
        let registry = self.registry.clone();
        let mut users = registry.users.lock();
        // It is there as long as somebody hears of its mailbox, as this one does.
        let Some(user) = users.get_mut(&self.user) else { return };
        for about in wanted.difference(&self.watches) {
            let mut first = false;
            user.change(|mailbox| {
                first = mailbox.passing.watch(about);
                !first
            });
            if first {
                registry.watch.follow(about.clone(), self.user.clone());
            }
        }
        for about in self.watches.difference(&wanted) {
            if user.mailbox.lock().passing.unwatch(about) {
                registry.watch.unfollow(about, &self.user);
            }
        }
        self.watches = wanted;
    }

    /// Does something pass by that it was not told yet? What was for other connections of its user it has
    /// seen then, and does not look through again.
    pub(crate) fn passes(&mut self) -> bool {
        let mailbox = self.mailbox.lock();
        let passes = mailbox.passing.after(self.passed, &self.watches).is_some();
        if !passes {
            self.passed = mailbox.passing.last();
        }
        passes
    }

    /// What passes by that it was not told yet, the oldest of it.
    pub(crate) fn pass(&mut self) -> Option<v1::ServerFrame> {
        let (number, frame) = self.mailbox.lock().passing.after(self.passed, &self.watches)?;
        self.passed = number;
        Some(frame)
    }

    /// The store has numbered this connection.
    pub(crate) fn numbered(&self, number: u64) {
        let mut users = self.registry.users.lock();
        let Some(user) = users.get_mut(&self.user) else { return };
        // A newer one that sits there has its own.
        let taken = user.seats.get_mut(&self.device).filter(|taken| taken.id == self.id);
        let Some(taken) = taken else { return };
        taken.number = Some(number);
        if let Some((below, code)) = taken.ended.take() {
            taken.unseat(below, code);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.watch(BTreeSet::new());
        let mut users = self.registry.users.lock();
        let Some(user) = users.get_mut(&self.user) else { return };
        // A newer one that sits there stays.
        if user.seats.get(&self.device).is_some_and(|taken| taken.id == self.id) {
            user.seats.remove(&self.device);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use tidemark_store_client::Present;
    use tidemark_types::{Epoch, Seq, UnixMs};
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;

    #[derive(Clone, Default)]
    struct Watched(Arc<Mutex<Vec<String>>>);

    impl Watch for Watched {
        fn register(&self, user: UserId) {
            self.0.lock().push(format!("+{user}"));
        }

        fn unregister(&self, user: &UserId) {
            self.0.lock().push(format!("-{user}"));
        }

        fn follow(&self, user: UserId, by: UserId) {
            self.0.lock().push(format!("+{user} for {by}"));
        }

        fn unfollow(&self, user: &UserId, by: &UserId) {
            self.0.lock().push(format!("-{user} for {by}"));
        }

        fn is_live(&self, _: &UserId) -> bool {
            true
        }
    }

    fn registry() -> (Arc<Registry>, Watched) {
        let watched = Watched::default();
        (Arc::new(Registry::new(Box::new(watched.clone()), usize::MAX)), watched)
    }

    fn names(user: &str, device: &str) -> (UserId, DeviceId) {
        (user.parse().expect("legal"), device.parse().expect("legal"))
    }

    #[test]
    fn a_mailbox_is_watched_while_somebody_sits_there_and_a_little_longer() {
        let (registry, watched) = registry();
        let (alice, phone) = names("alice", "phone");
        let (_, tablet) = names("alice", "tablet");
        let first = registry.join(&alice, &phone);
        let second = registry.join(&alice, &tablet);
        drop(first);
        registry.sweep();
        registry.sweep();
        drop(second);
        registry.sweep();
        let back = registry.join(&alice, &phone);
        registry.sweep();
        drop(back);
        assert_eq!(*watched.0.lock(), ["+alice"]);
        registry.sweep();
        registry.sweep();
        assert_eq!(*watched.0.lock(), ["+alice", "-alice"]);
    }

    #[test]
    fn a_mailbox_is_kept_for_who_was_displaced_and_has_not_noticed() {
        let (registry, watched) = registry();
        let (alice, phone) = names("alice", "phone");
        let old = registry.join(&alice, &phone);
        drop(registry.join(&alice, &phone));
        for _ in 0..3 {
            registry.sweep();
        }
        assert_eq!(watched.0.lock().join(", "), "+alice");
        drop(old);
        registry.sweep();
        registry.sweep();
        assert_eq!(*watched.0.lock(), ["+alice", "-alice"]);
    }

    #[test]
    fn a_seat_is_one_connections_and_the_newest_has_it() {
        let (registry, _) = registry();
        let (alice, phone) = names("alice", "phone");
        let mut old = registry.join(&alice, &phone);
        assert_eq!(old.unseated.try_recv(), Err(TryRecvError::Empty));
        let mut new = registry.join(&alice, &phone);
        assert_eq!(old.unseated.try_recv(), Err(TryRecvError::Closed));
        drop(old);
        assert_eq!(new.unseated.try_recv(), Err(TryRecvError::Empty));
    }

    #[test]
    fn whom_a_users_devices_watch_is_followed_once() {
        let (registry, watched) = registry();
        let (alice, phone) = names("alice", "phone");
        let (_, tablet) = names("alice", "tablet");
        let both = |names: &[&str]| -> BTreeSet<UserId> {
            names.iter().map(|name| name.parse().expect("legal")).collect()
        };
        let mut first = registry.join(&alice, &phone);
        let mut second = registry.join(&alice, &tablet);
        first.watch(both(&["bob", "carol"]));
        second.watch(both(&["bob"]));
        first.watch(both(&["carol", "dave"]));
        drop(first);
        drop(second);
        let told = watched.0.lock().join(", ");
        assert_eq!(
            told,
            "+alice, +bob for alice, +carol for alice, +dave for alice, \
             -carol for alice, -dave for alice, -bob for alice"
        );
    }

    #[test]
    fn what_was_for_another_connection_is_looked_through_once() {
        let (registry, _) = registry();
        let (alice, phone) = names("alice", "phone");
        let (bob, desk) = names("bob", "desk");
        let mut phone = registry.join(&alice, &phone);
        let mut desk = registry.join(&alice, &desk);
        desk.watch([bob.clone()].into());
        let there = |online| {
            let present = Ok(Present { online, last_seen: UnixMs::new(7) });
            let event = WatchEvent::Presence { user: bob.clone(), by: alice.clone(), present };
            registry.hear(event);
        };
        there(true);
        let last = phone.mailbox.lock().passing.last();
        assert!(phone.passed < last);
        assert!(!phone.passes());
        assert_eq!(phone.passed, last);
        assert!(desk.passes());
        assert!(desk.passed < last, "that it is there is not that it was told");
        assert!(desk.pass().is_some());
        assert!(!desk.passes());
        // What comes later is told to whom it is for.
        phone.watch([bob.clone()].into());
        for seat in [&mut phone, &mut desk] {
            assert!(seat.passes());
            assert!(seat.pass().is_some());
            assert!(seat.pass().is_none());
        }
        let typing = WatchEvent::Typing { user: alice.clone(), by: bob.clone(), typing: true };
        registry.hear(typing);
        assert!(phone.passes());
        assert!(desk.passes());
    }

    fn seat(device: &DeviceId, below: u64, code: ErrorCode) -> Seated {
        Seated { device: device.clone(), below, code }
    }

    #[test]
    fn a_connection_ends_when_the_store_has_a_newer_one_and_not_by_its_own_news() {
        let (registry, _) = registry();
        let (user, phone) = names("alice", "phone");
        let unseated = |below, code| {
            registry
                .hear(WatchEvent::Unseated { user: user.clone(), seat: seat(&phone, below, code) });
        };
        // What is told before the connection knows its number waits for it.
        let mut own = registry.join(&user, &phone);
        unseated(4, ErrorCode::Displaced);
        own.numbered(4);
        assert_eq!(own.unseated.try_recv(), Err(TryRecvError::Empty));
        let mut late = registry.join(&user, &phone);
        unseated(6, ErrorCode::Displaced);
        late.numbered(5);
        assert_eq!(late.unseated.try_recv(), Ok(ErrorCode::Displaced));
        // The older one's number is not the newer one's.
        let mut new = registry.join(&user, &phone);
        late.numbered(5);
        unseated(7, ErrorCode::Displaced);
        new.numbered(7);
        assert_eq!(new.unseated.try_recv(), Err(TryRecvError::Empty));
        unseated(8, ErrorCode::LoggedOut);
        assert_eq!(new.unseated.try_recv(), Ok(ErrorCode::LoggedOut));
    }

    #[test]
    fn what_was_not_heard_is_seen_at_the_next_registration() {
        let (registry, _) = registry();
        let (user, phone) = names("alice", "phone");
        let (_, tablet) = names("alice", "tablet");
        let (_, watch) = names("alice", "watch");
        let mut seats: Vec<_> =
            [&phone, &tablet, &watch].map(|device| registry.join(&user, device)).into();
        for (seat, number) in seats.iter().zip([3, 4]) {
            seat.numbered(number);
        }
        let known = vec![seat(&phone, 5, ErrorCode::LoggedOut)];
        registry.hear(WatchEvent::Seats { user, seats: known, last_number: 4 });
        let told: Vec<_> = seats.iter_mut().map(|seat| seat.unseated.try_recv()).collect();
        let (out, gone) = (Ok(ErrorCode::LoggedOut), Ok(ErrorCode::NoDevice));
        assert_eq!(told, [out, gone, Err(TryRecvError::Empty)], "one is being registered");
    }

    #[test]
    fn all_of_a_users_devices_hear_the_same() {
        let (registry, _) = registry();
        let (alice, phone) = names("alice", "phone");
        let (bob, tablet) = names("bob", "tablet");
        let hers = registry.join(&alice, &phone);
        let also_hers = registry.join(&alice, &tablet);
        let his = registry.join(&bob, &tablet);
        let head = Seq::new(7);
        let (epoch, floor) = (Epoch::FIRST, Seq::NONE);
        registry.hear(WatchEvent::Registered { user: alice.clone(), epoch, floor, head });
        for seat in [hers, also_hers] {
            assert!(seat.news.given().now_or_never().is_some());
            assert!(seat.news.given().now_or_never().is_none(), "it is told once");
            assert_eq!(seat.mailbox.lock().head(), Some((epoch, head)));
        }
        assert!(his.news.given().now_or_never().is_none());
        assert_eq!(his.mailbox.lock().head(), None);
    }
}
