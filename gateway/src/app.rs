//! The composition root: everything of a gateway, built from a configuration and a store.
//!
//! Back ends meet the store here; devices join beside them, from the same store, keys and clock,
//! and [`App::drain`] is where they are sent away before the process ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tidemark_env::Clock;
use tidemark_token::{KeyError, Keys};
use tidemark_types::ClusterId;

use crate::backend::Backend;
use crate::config::GatewayConfig;
use crate::metrics;
use crate::store::Store;

/// A gateway without its sockets.
pub struct App {
    store: Arc<dyn Store>,
    keys: Arc<Keys>,
    backend: Backend,
    draining: AtomicBool,
}

impl App {
    /// A gateway of this store. It reads the keys, and needs at least one.
    pub fn new(
        config: &GatewayConfig,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, KeyError> {
        let keys = Arc::new(Keys::read(&config.keys, clock.clone())?);
        let backend = Backend::new(store.clone(), keys.clone(), clock, config.limits.page());
        Ok(App { store, keys, backend, draining: AtomicBool::new(false) })
    }

    /// The unary services.
    pub fn backend(&self) -> Backend {
        self.backend.clone()
    }

    /// The cluster behind it.
    pub fn cluster(&self) -> ClusterId {
        self.store.map().cluster
    }

    /// Does it want new connections and calls? What it says otherwise is why not.
    pub fn readiness(&self) -> Result<(), &'static str> {
        match self.draining.load(Ordering::Relaxed) {
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
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}
