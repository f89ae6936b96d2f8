//! What an operator lets be checked of each send before it is proposed, whoever sends it: devices
//! and back ends alike.
//!
//! ```text
//!   send ─► rates ─────► limits ─► filter ─► hook ─► judgement, which travels in the command
//!             │ too fast                       │ away
//!             └─► later: nothing is taken ◄────┘
//! ```
//!
//! A [`Check`] judges a message by itself, or by what somebody else says; the first one that does
//! not let it pass decides, and the next ones see what an earlier one replaced. Rates are no check:
//! they are flow control and never a verdict (R2). It stores nothing and decides nothing about
//! order; the first judgement that is committed is the verdict, whatever another gateway, or this
//! one later, thinks of a retry.
//!
//! Whether a recipient blocks the sender, or knows them, is not looked at here: it is decided where
//! the recipient lives, when the message is applied there. A gateway could only know it from
//! earlier, and a refusal is for good.
//!
//! Invariant: with nothing configured there are no [`Checks`], and a send costs nothing for them.

mod filter;
mod hook;
mod limits;
mod rates;
mod words;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use thiserror::Error;
use tidemark_env::{Clock, Rng};
use tidemark_store_core::act::ActKind;
use tidemark_store_core::command::{Draft, Judged};
use tidemark_types::limits::BODY_BYTES_MAX;
use tidemark_types::{DeviceId, ErrorCode, Recipient, UserId};
use tokio::task::AbortHandle;

use crate::config::ChecksConfig;
use crate::metrics;
use filter::Filter;
use hook::Hook;
use limits::Limits;
use rates::Rates;

/// Why the checks cannot be made as configured.
#[derive(Debug, Error)]
pub enum Error {
    /// The word list cannot be used.
    #[error(transparent)]
    Words(#[from] words::Error),
    /// The hook cannot be called.
    #[error(transparent)]
    Hook(#[from] hook::Error),
}

/// A message that is to be judged.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// In whose name.
    pub(crate) sender: UserId,
    /// From which device; none, if a back end sends it.
    pub(crate) device: Option<DeviceId>,
    /// What it says, as far as earlier checks have left it.
    pub(crate) draft: Draft,
}

/// One check.
trait Check: Send + Sync {
    /// Its name in metrics.
    fn name(&self) -> &'static str;

    /// What it says of this message. It does not block: who has to ask somebody says so.
    fn check(&self, message: &Message) -> Finding;
}

/// What a check says of a message.
enum Finding {
    /// Nothing is wrong with it.
    Pass,
    /// It is refused for good, with a code that a gateway may refuse with.
    Refuse(ErrorCode),
    /// It may go with this body.
    Replace(Bytes),
    /// It goes nowhere, and its sender learns nothing of that.
    Drop,
    /// It cannot be judged now; after this long, perhaps.
    Later(Duration),
    /// Somebody is asked; what is found then is none of these.
    Ask(BoxFuture<'static, Finding>),
}

impl Finding {
    /// Its name in metrics.
    fn name(&self) -> &'static str {
        match self {
            Finding::Pass => "pass",
            Finding::Refuse(_) => "refuse",
            Finding::Replace(_) => "replace",
            Finding::Drop => "drop",
            Finding::Later(_) => "later",
            Finding::Ask(_) => "ask",
        }
    }
}

/// What all checks together say of a message.
#[derive(Debug)]
pub(crate) enum Judgement {
    /// This, which travels in the command.
    Verdict(Judged),
    /// Nothing for so long; it is not proposed.
    Later(Duration),
}

/// Judging a message.
pub(crate) enum Judging {
    /// It is done.
    Done(Judgement),
    /// Somebody is asked.
    Open(BoxFuture<'static, Judgement>),
}

impl Judging {
    /// What comes of it.
    pub(crate) async fn done(self) -> Judgement {
        match self {
            Judging::Done(judgement) => judgement,
            Judging::Open(judging) => judging.await,
        }
    }
}

/// The checks of a gateway.
pub struct Checks {
    clock: Arc<dyn Clock>,
    rates: Option<Rates>,
    chain: Vec<Box<dyn Check>>,
    body_bytes_max: usize,
    /// Looks after the word list.
    reloading: Option<AbortHandle>,
}

impl Checks {
    /// What is configured, inside a runtime; none, if that is nothing.
    pub fn new(
        config: &ChecksConfig,
        clock: Arc<dyn Clock>,
        rng: &dyn Rng,
    ) -> Result<Option<Arc<Self>>, Error> {
        let rates = Rates::new(&config.rates, rng);
        let body_bytes_max = config.body_bytes_max;
        let mut chain: Vec<Box<dyn Check>> = Vec::new();
        if body_bytes_max < BODY_BYTES_MAX || !config.kinds.is_empty() {
            chain.push(Box::new(Limits { body_bytes_max, kinds: config.kinds.clone() }));
        }
        let mut reloading = None;
        if let Some(config) = &config.filter {
            let filter = Filter::read(config)?;
            reloading = Some(tokio::spawn(filter.clone().keep()).abort_handle());
            chain.push(Box::new(filter));
        }
        if let Some(config) = &config.hook {
            chain.push(Box::new(Hook::new(config, body_bytes_max, clock.clone())?));
        }
        if rates.is_none() && chain.is_empty() {
            return Ok(None);
        }
        Ok(Some(Arc::new(Checks { clock, rates, chain, body_bytes_max, reloading })))
    }

    /// Bytes that a body may have.
    pub(crate) fn body_bytes_max(&self) -> usize {
        self.body_bytes_max
    }

    /// May one more send come? If so, for how long its sender should send nothing, at most
    /// `patience`; if not, when it may come again, and nothing was taken.
    pub(crate) fn admit(
        &self,
        sender: &UserId,
        device: Option<&DeviceId>,
        to: &[Recipient],
        patience: Duration,
    ) -> Result<Duration, Duration> {
        match &self.rates {
            Some(rates) => rates.take(sender, device, to, self.clock.monotonic(), patience),
            None => Ok(Duration::ZERO),
        }
    }

    /// Judges a message.
    pub(crate) fn judge(self: &Arc<Self>, message: Message) -> Judging {
        // Marks and recalls say nothing; an edit says what its message would, of its kind.
        if message.draft.act.is_some_and(|act| act.kind != ActKind::Edit) {
            return Judging::Done(Judgement::Verdict(Judged::Allow(message.draft)));
        }
        self.judge_from(0, message)
    }

    /// Goes on with the check that has this place in the chain.
    fn judge_from(self: &Arc<Self>, first: usize, mut message: Message) -> Judging {
        for (at, check) in self.chain.iter().enumerate().skip(first) {
            let finding = check.check(&message);
            if let Finding::Ask(asked) = finding {
                let checks = self.clone();
                let rest = async move {
                    let finding = asked.await;
                    metrics::checked(checks.chain[at].name(), finding.name());
                    match settled(finding, &mut message) {
                        Some(judgement) => judgement,
                        None => checks.judge_from(at + 1, message).done().await,
                    }
                };
                return Judging::Open(rest.boxed());
            }
            metrics::checked(check.name(), finding.name());
            if let Some(judgement) = settled(finding, &mut message) {
                return Judging::Done(judgement);
            }
        }
        Judging::Done(Judgement::Verdict(Judged::Allow(message.draft)))
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        if let Some(reloading) = &self.reloading {
            reloading.abort();
        }
    }
}

/// The judgement, if the finding is one; else the message is left as the next check shall see it.
fn settled(finding: Finding, message: &mut Message) -> Option<Judgement> {
    let verdict = match finding {
        Finding::Pass => return None,
        Finding::Replace(body) => {
            message.draft.body = body;
            return None;
        }
        Finding::Refuse(code) => Judged::Refuse(code),
        Finding::Drop => Judged::Drop(message.draft.clone()),
        Finding::Later(after) => return Some(Judgement::Later(after)),
        Finding::Ask(_) => unreachable!("who was asked has answered"),
    };
    Some(Judgement::Verdict(verdict))
}

#[cfg(test)]
mod tests;
