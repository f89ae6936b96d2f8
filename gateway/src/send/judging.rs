//! One connection's sends before the operator's checks: several are judged at the same time, and
//! the [`Window`] keeps them in the order of n.
//!
//! A send that cannot be judged now keeps its place, and is judged again later; nobody is told. One that
//! comes too fast, or that nobody has judged when its time is up, is given back with `RETRY_AFTER`: it
//! consumes nothing, and that says nothing of earlier attempts at it (R2). What follows it in its session is
//! out of order until that one returns, and is told so: it names the one that must come, in case that one's
//! own answer was lost.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use tidemark_proto::{Detail, Failure, v1};
use tidemark_store_core::command::{Judged, Send};
use tidemark_types::{ErrorCode, SessionId};

use super::window::Window;
use crate::checks::{Checks, Judgement, Judging, Message};
use crate::limits::{RATE_PAUSE_MAX, SEND_DEADLINE};

/// What judges the sends of one connection.
pub(super) struct Judges {
    checks: Arc<Checks>,
    /// Sends of which somebody is asked, by their n: at most one for each send of the window.
    asked: FuturesUnordered<BoxFuture<'static, (u64, Judgement)>>,
    /// Until when the device should send nothing.
    paused: Option<Duration>,
    held: Option<Held>,
}

/// A send that was given back, and must return before those behind it.
struct Held {
    session: SessionId,
    n: u64,
}

impl Judges {
    pub(super) fn new(checks: Arc<Checks>) -> Self {
        Judges { checks, asked: FuturesUnordered::new(), paused: None, held: None }
    }

    /// Takes a send into the window, judged or not yet, or tells why not now.
    pub(super) fn take(
        &mut self,
        mut send: Send,
        window: &mut Window,
        now: Duration,
    ) -> Result<(), Failure> {
        let (session, n) = (send.session, send.n);
        if window.knows(session, n) {
            return window.push(send, now);
        }
        self.admit(&send, now)?;
        let Some(message) = message(&send) else { return window.push(send, now) };
        let judging = match self.checks.judge(message) {
            Judging::Done(Judgement::Verdict(judged)) => {
                send.judged = judged;
                return window.push(send, now);
            }
            judging => judging.done(),
        };
        window.push_unjudged(send, now)?;
        self.asked.push(judging.map(move |judgement| (n, judgement)).boxed());
        Ok(())
    }

    /// Is there a send that is being judged?
    pub(super) fn is_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    /// The next send that is judged; none, while nobody is asked. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Option<(u64, Judgement)> {
        self.asked.next().await
    }

    /// A send of the window cannot be judged now: it is judged again after this long. What the device is
    /// told, if its time is up before.
    pub(super) fn later(
        &mut self,
        window: &mut Window,
        n: u64,
        after: Duration,
        now: Duration,
    ) -> Option<v1::SendAck> {
        let (send, arrived) = window.unjudged(n);
        if now + after > arrived + SEND_DEADLINE {
            let failure = self.give_back(send.session, n, after);
            return Some(window.withdraw(n, failure));
        }
        let message = message(send).expect("somebody was asked about it");
        let checks = self.checks.clone();
        let again = async move {
            tokio::time::sleep(after).await;
            (n, checks.judge(message).done().await)
        };
        self.asked.push(again.boxed());
        None
    }

    /// Until when the device should send nothing.
    pub(super) fn paused_until(&self) -> Option<Duration> {
        self.paused
    }

    /// May this send come now?
    fn admit(&mut self, send: &Send, now: Duration) -> Result<(), Failure> {
        if let Some(Held { session, n }) = self.held {
            if session == send.session && send.n > n && send.base <= n {
                return Err(Failure::new(ErrorCode::OutOfOrder).detail(Detail::Expected(n)));
            }
            self.held = None;
        }
        let to = send.judged.draft().map_or(&[][..], |draft| &draft.to);
        match self.checks.admit(&send.user, Some(&send.device), to, RATE_PAUSE_MAX) {
            Ok(pause) => {
                self.paused = (!pause.is_zero()).then(|| now + pause);
                Ok(())
            }
            Err(wait) => Err(self.give_back(send.session, send.n, wait)),
        }
    }

    /// The code says that nothing was consumed; a hint is never none.
    fn give_back(&mut self, session: SessionId, n: u64, after: Duration) -> Failure {
        // Of several the lowest has to come first.
        let lower = self.held.as_ref().is_some_and(|held| held.session == session && held.n < n);
        if !lower {
            self.held = Some(Held { session, n });
        }
        Failure::new(ErrorCode::RetryAfter).retry_after(after.max(Duration::from_millis(1)))
    }
}

/// What is judged of a send; none, if the gateway has refused it already.
fn message(send: &Send) -> Option<Message> {
    let Judged::Allow(draft) = &send.judged else { return None };
    let (sender, device) = (send.user.clone(), Some(send.device.clone()));
    Some(Message { sender, device, draft: draft.clone() })
}
