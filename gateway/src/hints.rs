//! Hints to devices that are away (R18): what the stores have due, through the platforms' push services.
//!
//! ```text
//!   store nodes ◄── LeaseHints, round by round ── Leased ◄──► tidemark-push's Dispatcher ──► services
//!        ▲                                            │
//!        └── PushSent, DropPush, postponed ───────────┘
//! ```
//!
//! Nothing is kept here that matters: a hint whose gateway dies is due again when its lease has ended.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use tidemark_env::Rng;
use tidemark_proto::store::v1::Postponed;
use tidemark_push::config::DispatchConfig;
use tidemark_push::{Dispatcher, Event, Hint, Hints, HintsError, Observer, Outcome, Providers};
use tidemark_store_core::{Command, hints};
use tidemark_types::UnixMs;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::metrics;
use crate::store::Store;

/// Hints of one node in one round, and those that it is told of in it.
const HINTS_PER_ROUND: usize = 512;

/// Hints that wait to be given back. The oldest are forgotten: their leases end by themselves.
const POSTPONED_MAX: usize = 4_096;

/// A dispatcher that runs.
pub(crate) struct Dispatching {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Dispatching {
    /// Sends what is due from now on; nobody does where no provider is configured.
    pub(crate) fn start(
        store: Arc<dyn Store>,
        providers: Providers,
        config: DispatchConfig,
        rng: Arc<dyn Rng>,
    ) -> Option<Self> {
        providers.names().next()?;
        metrics::hints_in_hand_max(config.in_hand);
        let leased = Arc::new(Leased { store, postponed: Mutex::default() });
        let dispatcher = Dispatcher::new(leased, providers, config, rng, Arc::new(Counted));
        let (stop, mut stopped) = watch::channel(false);
        let task = tokio::spawn(dispatcher.run(async move {
            // A sender that is gone is a gateway that is gone.
            let _ = stopped.wait_for(|stop| *stop).await;
        }));
        Some(Dispatching { stop, task })
    }

    /// Begins with nothing more, and waits until what is under way has ended.
    pub(crate) async fn stop(&mut self) {
        self.stop.send_replace(true);
        if let Err(ended) = (&mut self.task).await {
            tracing::error!(%ended, "the dispatcher of hints ended by itself");
        }
    }
}

/// What the stores have due.
struct Leased {
    store: Arc<dyn Store>,
    postponed: Mutex<VecDeque<Postponed>>,
}

impl Leased {
    /// What became of a hint is told until the store has it, or the call's deadline has passed: then
    /// the lease's end brings it back.
    async fn tell(&self, command: Command) {
        if let Err(error) = self.store.command(command).await {
            tracing::debug!(%error, "what became of a hint is not known to the store");
        }
    }
}

impl Hints for Leased {
    async fn lease(&self, max: usize) -> Result<Vec<Hint>, HintsError> {
        let nodes: Vec<_> = self.store.map().nodes.keys().copied().collect();
        let postponed: Vec<Postponed> = {
            let mut postponed = self.postponed.lock();
            let count = postponed.len().min(HINTS_PER_ROUND);
            postponed.drain(..count).collect()
        };
        let each = max.div_ceil(nodes.len().max(1)).min(HINTS_PER_ROUND);
        let each = u32::try_from(each).expect("some hundreds");
        // Which node has leased one it knows itself.
        let nodes = nodes.into_iter();
        let asked = nodes.map(|node| self.store.lease_hints(node, each, postponed.clone()));
        let (mut hints, mut failed) = (Vec::new(), None);
        for leased in join_all(asked).await {
            match leased {
                Ok(leased) => hints.extend(leased.into_iter().map(hint)),
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            // The others lead its shards soon.
            Some(error) if hints.is_empty() => Err(HintsError(error.to_string())),
            _ => Ok(hints),
        }
    }

    async fn sent(&self, Hint { user, device, epoch, head, .. }: &Hint) {
        let (user, device) = (user.clone(), device.clone());
        self.tell(Command::PushSent { user, device, epoch: *epoch, upto: *head }).await;
    }

    async fn dead(&self, hint: &Hint, since: Option<UnixMs>) {
        let (user, device) = (hint.user.clone(), hint.device.clone());
        self.tell(Command::DropPush { user, device, version: hint.version, since }).await;
    }

    async fn postpone(&self, hint: &Hint, after: Duration) {
        let mut postponed = self.postponed.lock();
        if postponed.len() >= POSTPONED_MAX {
            postponed.pop_front();
        }
        postponed.push_back(Postponed {
            user: hint.user.to_string(),
            device: hint.device.to_string(),
            after_ms: u32::try_from(after.as_millis()).unwrap_or(u32::MAX),
        });
    }
}

/// A hint in the words of the dispatcher.
fn hint(hint: hints::Hint) -> Hint {
    let hints::Hint { user, device, token, epoch, head, .. } = hint;
    Hint {
        user,
        device,
        provider: token.target.provider,
        target: token.target.target,
        version: token.version,
        registered_at: token.registered,
        epoch,
        head,
    }
}

/// Counts what the dispatcher does.
struct Counted;

impl Observer for Counted {
    fn attempted(&self, provider: &str, outcome: &Outcome, took: Duration) {
        metrics::pushed(provider, outcome.label(), took);
    }

    fn in_hand(&self, hints: usize) {
        metrics::hints_in_hand(hints);
    }

    fn event(&self, provider: &str, event: Event) {
        // A name that is not configured is anybody's word.
        let provider = if event == Event::Unconfigured { "" } else { provider };
        metrics::push_event(provider, event.label());
    }
}
