//! The devices that are connected here: where carriers hand in their connections, and the task of
//! each, in which `connect`, `send`, `receive` and `push` meet.
//!
//! It knows no carrier, and stores nothing. Invariants: there is a bound on everything that a
//! connection may make the gateway keep; a device that does not read stops being read, and costs
//! no more than its place.

mod connection;
mod pace;
mod peer;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidemark_env::{Clock, Rng};
use tidemark_proto::Failure;
use tidemark_types::{ClusterId, ErrorCode, Id, UserId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::AbortHandle;

use crate::checks::Checks;
use crate::connect::{Authenticator, Carrier, Incoming, Outgoing};
use crate::limits::{CLOSE_TIMEOUT, Limits, REFUSED_RETRY};
use crate::receive::Cursors;
use crate::session::Registry;
use crate::store::Store;
use crate::{metrics, push};

use connection::Connection;

/// What the devices' side of a gateway is made of.
pub struct Parts {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Who verifies tokens.
    pub authenticator: Arc<dyn Authenticator>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub rng: Arc<dyn Rng>,
    /// What an operator may set.
    pub limits: Limits,
    /// What an operator lets be checked of each send.
    pub checks: Option<Arc<Checks>>,
}

/// The devices that are connected to this gateway.
pub struct Devices {
    shared: Arc<Shared>,
    places: Arc<Semaphore>,
    drain: watch::Sender<Option<Drain>>,
    /// What is done for all of them.
    tasks: Vec<AbortHandle>,
}

/// What all connections share.
struct Shared {
    parts: Parts,
    cluster: ClusterId,
    registry: Arc<Registry>,
    /// By shard.
    cursors: Vec<Arc<Cursors>>,
}

impl Shared {
    /// Those of the user's shard.
    fn cursors(&self, user: &UserId) -> &Arc<Cursors> {
        let shards = self.parts.store.map().shard_count().expect("checked by who made the store");
        &self.cursors[usize::from(shards.shard_of(&Id::User(user.clone())).get())]
    }
}

/// A place among the connections that there may be, until nobody keeps it any more.
#[derive(Clone)]
pub struct Admission {
    place: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
}

/// The gateway stops.
#[derive(Clone, Copy, Debug)]
struct Drain {
    /// Devices come back somewhere else within this time, each at its own.
    spread: Duration,
    /// When connections are cut, on the monotonic clock.
    closes: Duration,
}

impl Devices {
    /// Nobody is connected yet. Starts the store's watch, so it is made once, inside a runtime.
    pub fn new(parts: Parts) -> Arc<Self> {
        let (watch, events) = parts.store.watch();
        let registry = Arc::new(Registry::new(watch, parts.limits.tails_bytes_max));
        let shards = 0..parts.store.map().shards.len();
        let cursors: Vec<_> = shards.map(|_| Cursors::new(parts.clock.clone())).collect();
        let tell = |cursors: &Arc<Cursors>| cursors.clone().tell(parts.store.clone());
        let mut tasks: Vec<_> =
            cursors.iter().map(|cursors| tokio::spawn(tell(cursors)).abort_handle()).collect();
        tasks.push(tokio::spawn(push::listen(registry.clone(), events)).abort_handle());
        metrics::connections_max(parts.limits.connections_max);
        metrics::tails_may_hold(parts.limits.tails_bytes_max);
        let places = Arc::new(Semaphore::new(parts.limits.connections_max as usize));
        let cluster = parts.store.map().cluster;
        let shared = Arc::new(Shared { parts, cluster, registry, cursors });
        let drain = watch::Sender::default();
        Arc::new(Devices { shared, places, drain, tasks })
    }

    /// Takes a connection over: what the device sends, and a channel that its carrier empties. The
    /// carrier closes the connection when the channel ends, and until it has, it may keep the
    /// admission: a drain waits for it.
    ///
    /// # Errors
    /// `OVERLOADED` with a hint when the gateway is full, `GOING_AWAY` when it stops; the carrier
    /// tells it in its own way.
    pub fn connect(
        &self,
        carrier: Carrier,
        incoming: Incoming,
        outgoing: Outgoing,
    ) -> Result<Admission, Failure> {
        let refused = |code| {
            metrics::connection_refused();
            Failure::new(code)
        };
        if self.drain.borrow().is_some() {
            return Err(refused(ErrorCode::GoingAway));
        }
        let place = self.places.clone().try_acquire_owned();
        let place = place.map_err(|_| refused(ErrorCode::Overloaded).retry_after(REFUSED_RETRY))?;
        let admission = Admission { place: Arc::new(Mutex::new(Some(place))) };
        let drain = self.drain.subscribe();
        let connection = Connection::new(self.shared.clone(), incoming, outgoing, drain);
        let connection = Box::new(connection);
        let kept = admission.clone();
        tokio::spawn(async move {
            metrics::connected(carrier, true);
            let greeted = connection.run().await;
            metrics::connected(carrier, false);
            if !greeted {
                // A word or two may be on their way to whoever that is: not worth a device's place.
                kept.place.lock().take();
            }
        });
        Ok(admission)
    }

    /// How many devices are connected, those before their `Hello` included.
    pub fn connections(&self) -> usize {
        self.shared.parts.limits.connections_max as usize - self.places.available_permits()
    }

    /// Sends everybody away: tells each device to come back somewhere else within `spread`, at a
    /// time of its own, refuses new ones, cuts those that are left after `grace`, and ends when all
    /// are gone, or could have been.
    pub async fn drain(&self, spread: Duration, grace: Duration) {
        let closes = self.shared.parts.clock.monotonic() + grace;
        self.drain.send_replace(Some(Drain { spread, closes }));
        // Given back at once: it is the drain that refuses new ones.
        let all = self.places.acquire_many(self.shared.parts.limits.connections_max);
        // Who reads nothing keeps its place until its carrier's socket is closed.
        let _ = tokio::time::timeout(grace + CLOSE_TIMEOUT, all).await;
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
