//! The operator's own service, asked about each send before it is taken.
//!
//! ```text
//!   message ─► breaker ─► a turn among the calls ─► call ─► verdict
//!                 │            └──── within the deadline ────┘ │
//!                 └─► left alone ─────────┐                    │
//!                                         ▼                    ▼
//!                              allow, or hold  ◄────────── it failed
//! ```
//!
//! It never becomes a part of the state machine: what it says travels in the command, and the first
//! verdict that is committed counts, so that a retry which it judges differently changes nothing
//! (R2). A hook that is down or hangs costs a few sends their deadline, then the breaker leaves it
//! alone.
//!
//! Invariant: as many calls are under way as are configured, at most, each until its deadline.

mod breaker;
mod grpc;
mod http;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use parking_lot::Mutex;
use thiserror::Error;
use tidemark_env::Clock;
use tidemark_mutants::{Mutant, is};
use tidemark_proto::convert::bytes_of;
use tidemark_proto::v1;
use tidemark_push::BuildError;
use tidemark_types::ErrorCode;
use tokio::sync::Semaphore;

use super::{Check, Finding, Message};
use crate::config::{HookConfig, Kinds, OnFailure};
use crate::metrics;
use breaker::Breaker;

/// Why a hook cannot be called as configured.
#[derive(Debug, Error)]
pub enum Error {
    /// Its address is none.
    #[error("checks.hook.url: {0}")]
    Url(String),
    /// Its address, its secrets or its authorities cannot be used.
    #[error("checks.hook: {0}")]
    Build(#[from] BuildError),
}

/// A call without a verdict; for a log.
type Failed = String;

/// What the hook says of a message.
#[derive(Debug, PartialEq)]
enum Verdict {
    Allow,
    Reject,
    Replace(Bytes),
    Drop,
}

/// How it is called.
enum Caller {
    Grpc(grpc::Caller),
    Http(Box<http::Caller>),
}

impl Caller {
    async fn ask(&self, request: v1::BeforeSendRequest) -> Result<Verdict, Failed> {
        match self {
            Caller::Grpc(caller) => caller.ask(request).await,
            Caller::Http(caller) => caller.ask(&request).await,
        }
    }
}

/// The hook as a check.
pub(super) struct Hook(Arc<Inner>);

struct Inner {
    caller: Caller,
    clock: Arc<dyn Clock>,
    deadline: Duration,
    on_failure: OnFailure,
    pause: Duration,
    kinds: Kinds,
    body_bytes_max: usize,
    turns: Semaphore,
    breaker: Mutex<Breaker>,
}

impl Hook {
    /// As configured, inside a runtime. Nobody is called yet.
    pub(super) fn new(
        config: &HookConfig,
        body_bytes_max: usize,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let deadline = Duration::from_millis(config.deadline_ms);
        let pause = Duration::from_millis(config.pause_ms);
        let authorities = config.ca_file.as_deref();
        let caller = match &config.secret_file {
            None => Caller::Grpc(grpc::Caller::new(&config.url, authorities)?),
            Some(secrets) => {
                let caller = http::Caller::new(&config.url, secrets, authorities, clock.clone())?;
                Caller::Http(Box::new(caller))
            }
        };
        metrics::hook_open(false);
        Ok(Hook(Arc::new(Inner {
            caller,
            clock,
            deadline,
            on_failure: config.on_failure,
            pause,
            kinds: config.kinds.clone(),
            body_bytes_max,
            turns: Semaphore::new(config.calls_max),
            breaker: Mutex::new(Breaker::new(config.failures_max, pause)),
        })))
    }
}

impl Check for Hook {
    fn name(&self) -> &'static str {
        "hook"
    }

    fn check(&self, message: &Message) -> Finding {
        let hook = &self.0;
        if !hook.kinds.contains(message.draft.kind) {
            return Finding::Pass;
        }
        if let Err(left) = hook.breaker.lock().admit(hook.clock.monotonic()) {
            metrics::hook_called("left_alone", None);
            return hook.failed(left);
        }
        let (hook, request) = (hook.clone(), request(message));
        Finding::Ask(async move { hook.ask(request).await }.boxed())
    }
}

impl Inner {
    async fn ask(&self, request: v1::BeforeSendRequest) -> Finding {
        let began = self.clock.monotonic();
        let call = async {
            let turn = self.turns.acquire().await.expect("it is never closed");
            let verdict = self.caller.ask(request).await;
            drop(turn);
            verdict
        };
        let verdict = match tokio::time::timeout(self.deadline, call).await {
            Ok(Ok(Verdict::Replace(body))) if body.len() > self.body_bytes_max => {
                Err(("failed", format!("a body of {} bytes is too large", body.len())))
            }
            Ok(Ok(verdict)) => Ok(verdict),
            Ok(Err(error)) => Err(("failed", error)),
            Err(_) => Err(("timeout", "it did not answer in time".to_owned())),
        };
        let now = self.clock.monotonic();
        let outcome = match &verdict {
            Ok(_) => "judged",
            Err((outcome, _)) => outcome,
        };
        metrics::hook_called(outcome, Some(now.saturating_sub(began)));
        self.ended(now, verdict.as_ref().err().map(|(_, error)| error.as_str()));
        match verdict {
            Ok(Verdict::Allow) => Finding::Pass,
            Ok(Verdict::Reject) => Finding::Refuse(ErrorCode::HookRefused),
            Ok(Verdict::Replace(body)) => Finding::Replace(body),
            Ok(Verdict::Drop) => Finding::Drop,
            Err(_) => self.failed(self.pause),
        }
    }

    /// A call ended, with this error or well.
    fn ended(&self, now: Duration, error: Option<&str>) {
        let mut breaker = self.breaker.lock();
        let was_open = breaker.is_open();
        breaker.ended(now, error.is_none());
        let is_open = breaker.is_open();
        drop(breaker);
        match error {
            Some(error) if is_open && !was_open => {
                tracing::error!(error, "the hook fails: it is left alone for a while");
            }
            Some(error) => tracing::debug!(error, "the hook did not judge a send"),
            None if was_open => tracing::info!("the hook judges again"),
            None => {}
        }
        if is_open != was_open {
            metrics::hook_open(is_open);
        }
    }

    /// What becomes of a send that it did not judge; it may judge again after this long.
    fn failed(&self, after: Duration) -> Finding {
        match self.on_failure {
            _ if is(Mutant::UnjudgedGoes) => Finding::Pass,
            OnFailure::Allow => Finding::Pass,
            OnFailure::Hold => Finding::Later(after),
        }
    }
}

/// What it is told of a message.
fn request(Message { sender, device, draft }: &Message) -> v1::BeforeSendRequest {
    v1::BeforeSendRequest {
        sender: sender.to_string(),
        device: device.as_ref().map(ToString::to_string).unwrap_or_default(),
        to: draft.to.iter().map(v1::Id::from).collect(),
        kind: draft.kind,
        body: draft.body.clone(),
        client_msg_id: bytes_of(draft.client_msg_id.as_bytes()),
        edit: draft.act.is_some(),
    }
}
