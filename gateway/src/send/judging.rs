//! One connection's sends before the operator's checks: several are judged at the same time, and
//! the [`Window`] keeps them in the order of n.
//!
//! A send that comes too fast, or cannot be judged now, is given back with `RETRY_AFTER`: it consumes
//! nothing, and that says nothing of earlier attempts at it (R2). What follows it in its session
//! would be out of order, so that it is given back as well until that one returns.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use tidemark_proto::Failure;
use tidemark_store_core::command::{Judged, Send};
use tidemark_types::{ErrorCode, SessionId};

use super::window::Window;
use crate::checks::{Checks, Judgement, Judging, Message};
use crate::limits::RATE_PAUSE_MAX;

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
    /// Before this it need not come.
    until: Duration,
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
        let Judged::Allow(draft) = &send.judged else { return window.push(send, now) };
        let message = Message {
            sender: send.user.clone(),
            device: Some(send.device.clone()),
            draft: draft.clone(),
        };
        match self.checks.judge(message) {
            Judging::Done(Judgement::Verdict(judged)) => {
                send.judged = judged;
                window.push(send, now)
            }
            Judging::Done(Judgement::Later(after)) => Err(self.give_back(session, n, after, now)),
            Judging::Open(judging) => {
                window.push_unjudged(send, now)?;
                self.asked.push(judging.map(move |judgement| (n, judgement)).boxed());
                Ok(())
            }
        }
    }

    /// The next send that is judged; none, while nobody is asked. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Option<(u64, Judgement)> {
        self.asked.next().await
    }

    /// A send of the window cannot be judged now; what the device is told.
    pub(super) fn hold(
        &mut self,
        window: &Window,
        n: u64,
        after: Duration,
        now: Duration,
    ) -> Failure {
        let session = window.session().expect("the send is in it");
        self.give_back(session, n, after, now)
    }

    /// Until when the device should send nothing.
    pub(super) fn paused_until(&self) -> Option<Duration> {
        self.paused
    }

    /// May this send come now?
    fn admit(&mut self, send: &Send, now: Duration) -> Result<(), Failure> {
        if let Some(Held { session, n, until }) = self.held {
            if session == send.session && send.n > n && send.base <= n {
                return Err(retry_after(until.saturating_sub(now)));
            }
            self.held = None;
        }
        let to = send.judged.draft().map_or(&[][..], |draft| &draft.to);
        match self.checks.admit(&send.user, Some(&send.device), to, RATE_PAUSE_MAX) {
            Ok(pause) => {
                self.paused = (!pause.is_zero()).then(|| now + pause);
                Ok(())
            }
            Err(wait) => Err(self.give_back(send.session, send.n, wait, now)),
        }
    }

    fn give_back(&mut self, session: SessionId, n: u64, after: Duration, now: Duration) -> Failure {
        // Of several the lowest has to come first.
        let lower = self.held.as_ref().is_some_and(|held| held.session == session && held.n < n);
        if !lower {
            self.held = Some(Held { session, n, until: now + after });
        }
        retry_after(after)
    }
}

/// The code says that nothing was consumed; a hint is never none.
fn retry_after(after: Duration) -> Failure {
    Failure::new(ErrorCode::RetryAfter).retry_after(after.max(Duration::from_millis(1)))
}
