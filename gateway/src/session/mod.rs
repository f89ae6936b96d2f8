//! Who is connected here: each user's mailbox as the gateway hears of it, shared by all of the
//! user's connections, and the seat of each device.
//!
//! It knows neither frames nor sockets. A mailbox is watched from its first seat on; when the last
//! one is empty it is kept for a while, since devices come back (a [`Registry::sweep`] ends it).
//!
//! Invariants: a device has one seat, and taking it displaces who sat there; whoever leaves never
//! takes a newer one's seat along.

mod mailbox;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tidemark_store_client::WatchEvent;
use tidemark_types::{DeviceId, UserId};
use tokio::sync::{oneshot, watch};

pub(crate) use mailbox::Mailbox;
#[cfg(test)]
pub(crate) use mailbox::tests as heard;

use crate::metrics;
use crate::store::Watch;

/// All users with a connection here.
pub(crate) struct Registry {
    watch: Box<dyn Watch>,
    /// Ordered, so that a simulation's runs are the same.
    users: Mutex<BTreeMap<UserId, User>>,
}

struct User {
    mailbox: watch::Sender<Mailbox>,
    /// What is dropped when another connection takes the seat.
    seats: BTreeMap<DeviceId, oneshot::Sender<()>>,
    /// No seat was taken when last swept.
    lonely: bool,
}

/// A connection's place among its user's; leaving is dropping it.
pub(crate) struct Seat {
    registry: Arc<Registry>,
    user: UserId,
    device: DeviceId,
    /// The user's mailbox.
    pub(crate) mailbox: watch::Receiver<Mailbox>,
    /// Ends when another connection of the same device takes the seat.
    pub(crate) displaced: oneshot::Receiver<()>,
}

impl Registry {
    /// Nobody is here yet.
    pub(crate) fn new(watch: Box<dyn Watch>) -> Self {
        Registry { watch, users: Mutex::default() }
    }

    /// Takes the device's seat.
    pub(crate) fn join(self: &Arc<Self>, user: &UserId, device: &DeviceId) -> Seat {
        let mut users = self.users.lock();
        let entry = users.entry(user.clone()).or_insert_with(|| {
            self.watch.register(user.clone());
            metrics::mailbox_watched(true);
            User { mailbox: watch::Sender::default(), seats: BTreeMap::new(), lonely: false }
        });
        entry.lonely = false;
        let (displaces, displaced) = oneshot::channel();
        entry.seats.insert(device.clone(), displaces);
        Seat {
            registry: self.clone(),
            user: user.clone(),
            device: device.clone(),
            mailbox: entry.mailbox.subscribe(),
            displaced,
        }
    }

    /// May what was heard of the user's mailbox be told as its head (R15)?
    pub(crate) fn is_live(&self, user: &UserId) -> bool {
        self.watch.is_live(user)
    }

    /// Hears of a mailbox. One that nobody here asks for is passed over.
    pub(crate) fn hear(&self, event: WatchEvent) {
        let (WatchEvent::Registered { user, .. }
        | WatchEvent::Appended { user, .. }
        | WatchEvent::Head { user, .. }) = &event;
        if let Some(user) = self.users.lock().get(user) {
            user.mailbox.send_if_modified(|mailbox| mailbox.hear(&event));
        }
    }

    /// Forgets mailboxes without a seat, and entries that came before the sweep before this one.
    pub(crate) fn sweep(&self) {
        self.users.lock().retain(|name, user| {
            let lonely = user.seats.is_empty();
            if lonely && user.lonely {
                self.watch.unregister(name);
                metrics::mailbox_watched(false);
                return false;
            }
            user.lonely = lonely;
            // Nobody is told: what is there for a device does not change by it.
            user.mailbox.send_if_modified(|mailbox| {
                mailbox.age();
                false
            });
            true
        });
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut users = self.registry.users.lock();
        let Some(user) = users.get_mut(&self.user) else { return };
        // Closed is the end of whoever leaves, never that of a newer one.
        self.displaced.close();
        if user.seats.get(&self.device).is_some_and(oneshot::Sender::is_closed) {
            user.seats.remove(&self.device);
        }
    }
}

#[cfg(test)]
mod tests {
    use tidemark_types::{Epoch, Seq};

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

        fn is_live(&self, _: &UserId) -> bool {
            true
        }
    }

    fn registry() -> (Arc<Registry>, Watched) {
        let watched = Watched::default();
        (Arc::new(Registry::new(Box::new(watched.clone()))), watched)
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
    fn a_seat_is_one_connections_and_the_newest_has_it() {
        let (registry, _) = registry();
        let (alice, phone) = names("alice", "phone");
        let mut old = registry.join(&alice, &phone);
        assert!(old.displaced.try_recv().is_err_and(|e| e == oneshot::error::TryRecvError::Empty));
        let mut new = registry.join(&alice, &phone);
        assert!(old.displaced.try_recv().is_err_and(|e| e == oneshot::error::TryRecvError::Closed));
        drop(old);
        assert!(new.displaced.try_recv().is_err_and(|e| e == oneshot::error::TryRecvError::Empty));
    }

    #[test]
    fn all_of_a_users_devices_hear_the_same() {
        let (registry, _) = registry();
        let (alice, phone) = names("alice", "phone");
        let (bob, tablet) = names("bob", "tablet");
        let mut hers = registry.join(&alice, &phone);
        let mut his = registry.join(&bob, &tablet);
        let head = Seq::new(7);
        let (epoch, floor) = (Epoch::FIRST, Seq::NONE);
        registry.hear(WatchEvent::Registered { user: alice.clone(), epoch, floor, head });
        assert!(hers.mailbox.has_changed().expect("the registry is there"));
        assert!(!his.mailbox.has_changed().expect("the registry is there"));
        assert_eq!(hers.mailbox.borrow_and_update().head(), Some((epoch, head)));
        assert_eq!(his.mailbox.borrow_and_update().head(), None);
    }
}
