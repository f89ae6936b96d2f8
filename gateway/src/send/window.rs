//! The sends of one session that have no answer yet, and what is done with them next. Pure: time
//! and the outcomes of attempts come in, what to do comes out.
//!
//! ```text
//!          unanswered, by n
//!   ───────|=====================|============|
//!        lowest            attempted  waiting
//!          ▲                     │
//!          └─────── go back ─────┘   once no attempt is under way, after a pause
//! ```
//!
//! An attempt that was lost or refused for now means that the later ones are out of order, so all
//! go back to the lowest and are repeated in order; the store knows each by session and n, so that
//! a repetition of one that was taken gets its stored answer. Out-of-order refusals that this
//! cures are not told to the device.
//!
//! A send may come in before it is judged: it has its place, and holds up those behind it until it is.
//!
//! Invariants: attempts are made in the order of n, a lower one never while a higher one is under
//! way. Every send that was taken in has one answer. An answer that is no stored verdict is UNKNOWN
//! if any attempt of that send may have been taken (R3).

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use tidemark_mutants::{Mutant, is};
use tidemark_proto::{Detail, Failure, v1};
use tidemark_store_client::Attempt;
use tidemark_store_core::command::{Judged, Send};
use tidemark_store_core::value::Verdict;
use tidemark_store_core::{Reject, Reply};
use tidemark_types::limits::{SEND_WINDOW, SEND_WINDOW_BYTES};
use tidemark_types::{ErrorCode, SessionId};

use crate::limits::{PAUSE_FIRST, PAUSE_LONGEST, SEND_DEADLINE};
use crate::{failure, metrics};

/// What a device is told of a send; an error is `INVALID`, and the connection is cut.
pub(crate) type Answer = Result<v1::SendAck, Failure>;

/// The unanswered sends of one session at a time.
#[derive(Default)]
pub(crate) struct Window {
    session: Option<SessionId>,
    /// Boxed: whoever leaves in front of others moves them.
    unanswered: BTreeMap<u64, Box<Unanswered>>,
    bytes: usize,
    /// The highest n attempted in this round, 0 for none; a device may choose the highest there is.
    attempted: u64,
    /// The highest n with a stored verdict.
    taken: u64,
    /// Attempts without an outcome.
    under_way: usize,
    /// Set while the sends go back to the lowest: when the next round may begin.
    resume: Option<Duration>,
    pause: Duration,
}

struct Unanswered {
    send: Send,
    /// Of its body as it came, whatever the judgement makes of it.
    bytes: usize,
    /// What the send holds is the gateway's judgement; until then it is not attempted.
    judged: bool,
    arrived: Duration,
    /// An attempt may have been taken.
    doubt: bool,
    /// Why the last attempt gave no answer.
    last: Option<Failure>,
}

/// What is to be done now.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// An attempt at this send; its outcome is to be told.
    Attempt(Send),
    /// The device is told this; the time is up.
    Answer(v1::SendAck),
    /// Nothing before this time, unless something happens.
    Wait(Duration),
    /// Nothing, unless something happens.
    Idle,
}

impl Window {
    /// Takes a send in that is judged, or refuses it for now; it may be one that is here already.
    pub(crate) fn push(&mut self, send: Send, now: Duration) -> Result<(), Failure> {
        self.take(send, true, now)
    }

    /// Takes a send in that is not here and not judged yet; [`Self::judged`] or
    /// [`Self::withdraw`] follows.
    pub(crate) fn push_unjudged(&mut self, send: Send, now: Duration) -> Result<(), Failure> {
        self.take(send, false, now)
    }

    /// The send that is not judged yet, and when it came.
    pub(crate) fn unjudged(&self, n: u64) -> (&Send, Duration) {
        let Unanswered { send, judged, arrived, .. } =
            &**self.unanswered.get(&n).expect("an unjudged send stays");
        assert!(!judged, "nobody judges it again");
        (send, *arrived)
    }

    /// Is this send here already?
    pub(crate) fn knows(&self, session: SessionId, n: u64) -> bool {
        self.session == Some(session) && self.unanswered.contains_key(&n)
    }

    /// The send that was not judged is judged now.
    pub(crate) fn judged(&mut self, n: u64, judged: Judged) {
        let unanswered = self.unanswered.get_mut(&n).expect("an unjudged send stays");
        assert!(!unanswered.judged, "it is judged once");
        unanswered.send.judged = judged;
        unanswered.judged = true;
    }

    /// The send that was not judged cannot be: what the device is told.
    pub(crate) fn withdraw(&mut self, n: u64, failure: Failure) -> v1::SendAck {
        metrics::send_given_back(metrics::CHECKS);
        self.failed(n, failure)
    }

    fn take(&mut self, send: Send, judged: bool, now: Duration) -> Result<(), Failure> {
        if self.session != Some(send.session) {
            // One session at a time, as devices must: else the order would be anybody's guess.
            if !self.unanswered.is_empty() {
                return Err(Failure::new(ErrorCode::Overloaded).retry_after(PAUSE_LONGEST));
            }
            *self = Window { session: Some(send.session), pause: PAUSE_FIRST, ..Window::default() };
        }
        if let Some(known) = self.unanswered.get_mut(&send.n) {
            if known.send.content != send.content {
                return Err(Failure::new(ErrorCode::Conflict));
            }
            known.send.base = known.send.base.max(send.base);
            return Ok(());
        }
        let bytes = cost(&send);
        let all = self.bytes + bytes;
        if self.unanswered.len() as u64 >= SEND_WINDOW || all > SEND_WINDOW_BYTES {
            return Err(Failure::new(ErrorCode::WindowFull));
        }
        self.bytes = all;
        if send.n <= self.attempted {
            // The device repeats what was given back to it: no failure, and no reason to wait.
            self.resume.get_or_insert(now);
        }
        let n = send.n;
        let (arrived, doubt, last) = (now, false, None);
        let unanswered = Unanswered { send, bytes, judged, arrived, doubt, last };
        self.unanswered.insert(n, Box::new(unanswered));
        Ok(())
    }

    /// What is to be done now; called until there is nothing.
    pub(crate) fn step(&mut self, now: Duration) -> Step {
        if let Some(resume) = self.resume {
            if self.under_way > 0 {
                return Step::Idle;
            }
            if let Some(n) = self.overdue(now) {
                return Step::Answer(self.give_back(n));
            }
            if now < resume {
                return Step::Wait(resume);
            }
            self.resume = None;
            self.attempted = 0;
        }
        let rest = (Bound::Excluded(self.attempted), Bound::Unbounded);
        let Some((n, unanswered)) = self.unanswered.range(rest).next() else {
            return Step::Idle;
        };
        if !unanswered.judged {
            return Step::Idle;
        }
        self.attempted = *n;
        self.under_way += 1;
        Step::Attempt(unanswered.send.clone())
    }

    /// The attempt at `n` ended so; what the device is told, if that settles it.
    ///
    /// `jitter`, from 0 to 1, keeps gateways from coming back all at once.
    pub(crate) fn outcome(
        &mut self,
        n: u64,
        outcome: Result<Reply, Attempt>,
        now: Duration,
        jitter: f64,
    ) -> Option<Answer> {
        self.under_way -= 1;
        match outcome {
            Ok(Reply::Sent(verdict)) => {
                self.taken = self.taken.max(n);
                self.pause = PAUSE_FIRST;
                metrics::send_answered(now - self.unanswered[&n].arrived);
                Some(Ok(self.settled(n, verdict)))
            }
            Ok(Reply::Rejected(Reject::OutOfOrder { expected })) if self.cures(expected) => {
                self.go_back(None, now, jitter);
                None
            }
            Ok(Reply::Rejected(reject @ Reject::Invalid(_))) => {
                self.remove(n);
                Some(Err(failure::of_reject(reject)))
            }
            Ok(reply) => Some(Ok(self.failed(n, failure::of_reply(reply)))),
            Err(attempt) => {
                let failure = failure::of_attempt(attempt);
                // A leader that refused an earlier send for lack of room waits for that one (R7).
                if let Some(Detail::Expected(expected)) = failure.detail
                    && !self.cures(expected)
                {
                    return Some(Ok(self.failed(n, failure)));
                }
                if is(Mutant::UnknownIsRefused) && failure.code == ErrorCode::Unknown {
                    return Some(Ok(self.failed(n, Failure::new(ErrorCode::NoMailbox))));
                }
                let send = self.unanswered.get_mut(&n).expect("an attempt's send stays");
                send.doubt |= failure.code == ErrorCode::Unknown;
                if !failure.code.is_retryable() {
                    let code = if send.doubt { ErrorCode::Unknown } else { failure.code };
                    return Some(Ok(self.failed(n, Failure::new(code))));
                }
                let hint = failure.retry_after;
                send.last = Some(failure);
                self.go_back(hint, now, jitter);
                None
            }
        }
    }

    /// Is the send that the store expects here, or known to be taken since?
    fn cures(&self, expected: u64) -> bool {
        expected <= self.taken || self.unanswered.contains_key(&expected)
    }

    fn go_back(&mut self, hint: Option<Duration>, now: Duration, jitter: f64) {
        let first_of_round = self.resume.is_none();
        let pause = self.pause.mul_f64(0.5 + 0.5 * jitter);
        let wait = hint.map_or(pause, |hint| hint.min(SEND_DEADLINE));
        self.resume = self.resume.max(Some(now + wait));
        if first_of_round {
            metrics::sends_repeated();
            self.pause = (self.pause * 2).min(PAUSE_LONGEST);
        }
    }

    fn overdue(&self, now: Duration) -> Option<u64> {
        let mut sends = self.unanswered.iter();
        let overdue = |send: &Unanswered| send.judged && now - send.arrived >= SEND_DEADLINE;
        sends.find(|(_, send)| overdue(send)).map(|(n, _)| *n)
    }

    /// What the device is told when the time is up: it repeats the send, here or elsewhere.
    fn give_back(&mut self, n: u64) -> v1::SendAck {
        let Unanswered { doubt, last, .. } = &*self.unanswered[&n];
        let code = match last.as_ref().map(|last| last.code) {
            _ if *doubt => ErrorCode::Unknown,
            Some(code @ (ErrorCode::Overloaded | ErrorCode::RetryAfter)) => code,
            _ => ErrorCode::Unavailable,
        };
        let retry_after = last.as_ref().and_then(|last| last.retry_after);
        metrics::send_given_back(metrics::STORE);
        self.failed(n, Failure { retry_after, ..Failure::new(code) })
    }

    fn settled(&mut self, n: u64, verdict: Verdict) -> v1::SendAck {
        match verdict {
            Verdict::Accepted { seq, time } => {
                v1::SendAck::accepted(self.remove(n).session, n, seq, time)
            }
            Verdict::Refused(code) => self.failed(n, Failure::new(code)),
        }
    }

    fn failed(&mut self, n: u64, failure: Failure) -> v1::SendAck {
        v1::SendAck::failed(self.remove(n).session, n, failure)
    }

    fn remove(&mut self, n: u64) -> Send {
        let removed = self.unanswered.remove(&n).expect("only an unanswered send is answered");
        self.bytes -= removed.bytes;
        removed.send
    }
}

/// Bytes that a send costs while it waits: of its body, as its device counts them.
fn cost(send: &Send) -> usize {
    send.judged.draft().map_or(0, |draft| draft.body.len())
}

#[cfg(test)]
mod tests;
