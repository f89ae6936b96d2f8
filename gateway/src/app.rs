//! The composition root: everything of a gateway, built from a configuration and a store.
//!
//! Devices and back ends meet here: the same store, keys and clock, and the same end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use thiserror::Error;
use tidemark_env::{Clock, Rng};
use tidemark_proto::Failure;
use tidemark_push::Providers;
use tidemark_token::Keys;
use tidemark_types::{ClusterId, DeviceId, UserId};

use crate::backend::Backend;
use crate::checks::{self, Checks};
use crate::config::GatewayConfig;
use crate::connect::{Authenticator, Validity};
use crate::devices::{Devices, Parts};
use crate::hints::Dispatching;
use crate::live::Live;
use crate::store::Store;
use crate::{failure, metrics};

/// Why a gateway cannot be made as configured.
#[derive(Debug, Error)]
pub enum Error {
    /// The store nodes belong to another cluster than the configuration says.
    #[error(
        "the store is cluster {found}, and `cluster` says {wanted}: correct it, or `store.endpoints`"
    )]
    WrongCluster {
        /// What the configuration says.
        wanted: ClusterId,
        /// What the store says.
        found: ClusterId,
    },
    /// The checks of sends cannot be made.
    #[error(transparent)]
    Checks(#[from] checks::Error),
    /// The push providers cannot be made.
    #[error("push: {0}")]
    Push(#[from] tidemark_push::BuildError),
}

/// A gateway without its sockets.
pub struct App {
    cluster: ClusterId,
    keys: Arc<Keys>,
    backend: Backend,
    devices: Arc<Devices>,
    live: Live,
    /// Who sends hints, if somebody does.
    hints: Mutex<Option<Dispatching>>,
    leaving: AtomicBool,
}

impl App {
    /// A gateway of this store, inside a runtime.
    pub fn new(
        config: &GatewayConfig,
        keys: Keys,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
    ) -> Result<Self, Error> {
        let keys = Arc::new(keys);
        let cluster = store.map().cluster;
        if let Some(wanted) = config.cluster.filter(|wanted| *wanted != cluster) {
            return Err(Error::WrongCluster { wanted, found: cluster });
        }
        let checks = Checks::new(&config.checks, clock.clone(), rng.as_ref())?;
        let providers = Providers::build(&config.push, &clock, &rng)?;
        let hints = Dispatching::start(
            store.clone(),
            providers.clone(),
            config.push.dispatch.clone(),
            rng.clone(),
        );
        let own = config.announced().unwrap_or_else(|| config.http.to_string());
        let live = Live::new(store.clone(), keys.clone(), clock.clone(), own);
        let (seam, time) = (store.clone(), clock.clone());
        let backend = Backend::new(seam, keys.clone(), time, checks.clone(), providers);
        let authenticator = Arc::new(Tokens(keys.clone()));
        let limits = (&config.limits).into();
        let devices = Devices::new(Parts { store, authenticator, clock, rng, limits, checks });
        let (hints, leaving) = (Mutex::new(hints), AtomicBool::new(false));
        Ok(App { cluster, keys, backend, devices, live, hints, leaving })
    }

    /// The services of back ends and operators.
    pub(crate) fn backend(&self) -> Backend {
        self.backend.clone()
    }

    /// Where carriers hand in the connections of devices.
    pub fn devices(&self) -> Arc<Devices> {
        self.devices.clone()
    }

    /// The live page.
    pub(crate) fn live(&self) -> &Live {
        &self.live
    }

    /// The cluster behind it.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Does it want new connections and calls? What it says otherwise is why not.
    pub(crate) fn readiness(&self) -> Result<(), &'static str> {
        match self.leaving.load(Ordering::Relaxed) {
            true => Err("it is stopping"),
            false => Ok(()),
        }
    }

    /// Reads the keys anew. When they cannot be read, the old ones stay in use.
    pub fn reload_keys(&self) {
        let reloaded = self.keys.reload();
        metrics::keys_reloaded(reloaded.is_ok());
        match reloaded {
            Ok(changed) => tracing::info!(changed, keys = ?self.keys.ids(), "keys reloaded"),
            Err(error) => tracing::error!(%error, "keys not reloaded, the old ones stay in use"),
        }
    }

    /// Leaves the load balancer: from now on it is not ready. What is under way goes on.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Sends the devices away, well within this time: half of it for their own going, a quarter
    /// more for those that do not, and the rest is left to the calls of back ends, whose streams end
    /// at once.
    pub(crate) async fn drain(&self, within: Duration) {
        self.backend.leave();
        let hints = self.hints.lock().take();
        let hints = async {
            if let Some(mut hints) = hints {
                // What is left then is due again when its lease has ended.
                let _ = tokio::time::timeout(within * 3 / 4, hints.stop()).await;
            }
        };
        tokio::join!(self.devices.drain(within / 2, within * 3 / 4), hints);
    }
}

/// The tokens of devices.
struct Tokens(Arc<Keys>);

impl Authenticator for Tokens {
    fn check(&self, token: &str, user: &UserId, device: &DeviceId) -> Result<Validity, Failure> {
        let claims = self.0.verify(token).map_err(failure::of_token)?;
        claims.may_connect(user, device).map_err(failure::of_token)?;
        let issued = claims.issued.unwrap_or_default();
        Ok(Validity { issued, expires: claims.expires })
    }
}
