//! One connection's way to the store: the [`Window`] says what to do, this does it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, OptionFuture};
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use tidemark_env::{Clock, Rng};
use tidemark_proto::send::{Draft, Send};
use tidemark_proto::{FieldError, v1};
use tidemark_store_client::Attempt;
use tidemark_store_core::{Command, Reply, command};
use tidemark_types::{DeviceId, UserId};

use super::judging::Judges;
use super::window::{Answer, Step, Window};
use crate::checks::{Checks, Judgement};
use crate::entry;
use crate::store::{PendingReply, Store};

type Outcome = Result<Reply, Attempt>;

/// The sends of one connection.
pub(crate) struct Uplink {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    user: UserId,
    device: DeviceId,
    window: Window,
    /// What an operator's checks say; none where there are none.
    judges: Option<Box<Judges>>,
    /// Answers that nobody has taken yet: at most one for each send of the window.
    answers: VecDeque<Answer>,
    /// The attempt on its way to the shard, and its n; the next one starts behind it.
    starting: Option<(u64, BoxFuture<'static, Result<PendingReply, Attempt>>)>,
    /// Attempts that wait for their reply, by their n.
    started: FuturesUnordered<BoxFuture<'static, (u64, Outcome)>>,
}

impl Uplink {
    /// The way of this device; nothing is sent yet.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
        checks: Option<Arc<Checks>>,
        user: UserId,
        device: DeviceId,
    ) -> Self {
        Uplink {
            store,
            clock,
            rng,
            user,
            device,
            window: Window::default(),
            judges: checks.map(|checks| Box::new(Judges::new(checks))),
            answers: VecDeque::new(),
            starting: None,
            started: FuturesUnordered::new(),
        }
    }

    /// Takes a send from the device, or tells why not now; an error is `INVALID`, as nothing can be
    /// answered under its number.
    pub(crate) fn push(&mut self, send: v1::Send) -> Result<Option<v1::SendAck>, FieldError> {
        let send = Send::try_from(send)?;
        let (session, n) = (send.session, send.n);
        let command = self.command(send);
        let now = self.clock.monotonic();
        let taken = match &mut self.judges {
            Some(judges) => judges.take(command, &mut self.window, now),
            None => self.window.push(command, now),
        };
        Ok(taken.err().map(|failure| v1::SendAck::failed(session, n, failure)))
    }

    /// Until when the device should send nothing; what it sends is not read until then.
    pub(crate) fn paused_until(&self) -> Option<Duration> {
        self.judges.as_ref().and_then(|judges| judges.paused_until())
    }

    /// The next answer for the device; never, while there is nothing to answer. Dropping the
    /// future loses nothing.
    pub(crate) async fn next(&mut self) -> Answer {
        loop {
            let wake = self.advance();
            if let Some(answer) = self.answers.pop_front() {
                return answer;
            }
            let wait = wake.map(|wake| wake.saturating_sub(self.clock.monotonic()));
            let pause = OptionFuture::from(wait.map(tokio::time::sleep));
            let starting = self.starting.as_mut().map(|(_, start)| start);
            let judges = self.judges.as_mut().filter(|judges| judges.is_asked());
            let judging = judges.map(|judges| judges.next());
            tokio::select! {
                Some(started) = OptionFuture::from(starting) => {
                    let (n, _) = self.starting.take().expect("it was waited for");
                    match started {
                        Ok(pending) => {
                            self.started.push(pending.map(move |outcome| (n, outcome)).boxed());
                        }
                        Err(attempt) => self.ended(n, Err(attempt)),
                    }
                }
                Some((n, outcome)) = self.started.next(), if !self.started.is_empty() => {
                    self.ended(n, outcome);
                }
                Some(Some((n, judgement))) = OptionFuture::from(judging) => {
                    self.judged(n, judgement);
                }
                Some(()) = pause => {}
                else => std::future::pending().await,
            }
        }
    }

    /// Does what the window asks for; when it wants to be asked again at the latest.
    fn advance(&mut self) -> Option<Duration> {
        while self.starting.is_none() {
            match self.window.step(self.clock.monotonic()) {
                Step::Attempt(send) => {
                    let n = send.n;
                    self.starting = Some((n, self.store.submit(Command::Send(send))));
                }
                Step::Answer(ack) => self.answers.push_back(Ok(ack)),
                Step::Wait(until) => return Some(until),
                Step::Idle => return None,
            }
        }
        None
    }

    fn judged(&mut self, n: u64, judgement: Judgement) {
        match judgement {
            Judgement::Verdict(judged) => self.window.judged(n, judged),
            Judgement::Later(after) => {
                let judges = self.judges.as_mut().expect("they have judged");
                let told = judges.later(&mut self.window, n, after, self.clock.monotonic());
                self.answers.extend(told.map(Ok));
            }
        }
    }

    fn ended(&mut self, n: u64, outcome: Outcome) {
        let (now, jitter) = (self.clock.monotonic(), self.rng.unit());
        self.answers.extend(self.window.outcome(n, outcome, now, jitter));
    }

    /// The command of a send, with what the gateway can say of it by itself (R2).
    fn command(&self, send: Send) -> command::Send {
        let judged = match send.judged {
            Ok(Draft { to, kind, client_msg_id, body, about }) => {
                // A slice of a frame keeps all of it, with whatever fields nobody knows.
                let body = Bytes::copy_from_slice(&body);
                let act = about.map(entry::asked);
                command::Judged::Allow(command::Draft { to, kind, client_msg_id, body, act })
            }
            Err(error) => command::Judged::Refuse(error.code()),
        };
        command::Send {
            user: self.user.clone(),
            device: self.device.clone(),
            session: send.session,
            n: send.n,
            base: send.base,
            content: send.content,
            judged,
        }
    }
}
