//! The sending half of a light device: one send session, in memory. Pure.
//!
//! Acknowledgements may come in any order, and their seqs must have the order of n. After an answer
//! by which nothing is decided the device waits until every frame has its answer, pauses, and sends
//! again from the lowest: so a late answer to an earlier attempt is never taken for one to a later.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tidemark_proto::{Failure, v1};

/// The pause before sends go again, when the server asks for none.
const PAUSE: Duration = Duration::from_millis(20);

/// An answer that no server may give, or that this load never deserves.
#[derive(Debug, Error)]
pub(crate) enum Wrong {
    /// Of another session.
    #[error("an acknowledgement of session {0}")]
    Session(u64),
    /// Of a send that was not sent, or has its acknowledgement.
    #[error("n {0} is acknowledged, which has no acknowledgement to come")]
    Twice(u64),
    /// The sender's own copies are numbered in the order of the sends.
    #[error("n {n} has seq {seq}, and the one before it {before}")]
    Seq {
        /// Which send.
        n: u64,
        /// Its seq.
        seq: u32,
        /// The seq of the send before it.
        before: u32,
    },
    /// It was refused for good.
    #[error("n {n} was refused: {failure}")]
    Refused {
        /// Which send.
        n: u64,
        /// Why.
        failure: Box<Failure>,
    },
    /// Neither accepted nor failed.
    #[error("an empty answer to n {0}")]
    Empty(u64),
}

/// What an answer means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    /// The send that was due then is acknowledged.
    Accepted {
        /// When it was due.
        due: Duration,
    },
    /// Nothing is decided: it goes again.
    Later,
}

/// A send session.
#[derive(Debug)]
pub(crate) struct Outbox {
    session: u64,
    /// From the lowest one without an acknowledgement on, by n.
    window: VecDeque<InFlight>,
    /// How many of them have none.
    unanswered: usize,
    next: u64,
    /// The seq of the last one below the window.
    seq: u32,
    /// Frames sent that have no answer.
    frames: usize,
    /// Set when sends are to go again: how long to wait before.
    again: Option<Duration>,
}

#[derive(Debug)]
struct InFlight {
    send: v1::Send,
    due: Duration,
    /// Its seq, once it is acknowledged.
    seq: Option<u32>,
}

impl Outbox {
    /// A new session.
    pub(crate) fn new(session: u64) -> Self {
        let window = VecDeque::new();
        Outbox { session, window, unanswered: 0, next: 1, seq: 0, frames: 0, again: None }
    }

    /// The number of the next send.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// How many have no acknowledgement.
    pub(crate) fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// How many lie between the lowest without an acknowledgement and the next: what the server's
    /// window counts.
    pub(crate) fn span(&self) -> usize {
        self.window.len()
    }

    /// Are sends waiting to go again? New ones would be refused behind them.
    pub(crate) fn is_stalled(&self) -> bool {
        self.again.is_some()
    }

    /// Numbers a new send; the caller sends it.
    pub(crate) fn push(
        &mut self,
        to: Vec<v1::Id>,
        body: Bytes,
        id: Vec<u8>,
        due: Duration,
    ) -> v1::Send {
        let (n, base) = (self.next, self.base());
        self.next += 1;
        self.frames += 1;
        self.unanswered += 1;
        let session = self.session;
        let about = None;
        let send = v1::Send { session, n, base, to, kind: 0, body, client_msg_id: id, about };
        self.window.push_back(InFlight { send: send.clone(), due, seq: None });
        send
    }

    /// The lowest n without an acknowledgement.
    fn base(&self) -> u64 {
        self.next - self.window.len() as u64
    }

    /// An answer came.
    pub(crate) fn answered(&mut self, ack: v1::SendAck) -> Result<Answered, Wrong> {
        if ack.session != self.session {
            return Err(Wrong::Session(ack.session));
        }
        self.frames = self.frames.saturating_sub(1);
        match ack.result {
            None => Err(Wrong::Empty(ack.n)),
            Some(v1::send_ack::Result::Failure(failure)) => self.failed(ack.n, failure.into()),
            Some(v1::send_ack::Result::Accepted(accepted)) => self.accepted(ack.n, accepted.seq),
        }
    }

    fn accepted(&mut self, n: u64, seq: u32) -> Result<Answered, Wrong> {
        let place = n.checked_sub(self.base()).and_then(|place| usize::try_from(place).ok());
        let sent = place.and_then(|place| self.window.get_mut(place));
        let sent = sent.filter(|sent| sent.seq.is_none()).ok_or(Wrong::Twice(n))?;
        sent.seq = Some(seq);
        let due = sent.due;
        self.unanswered -= 1;
        while let Some((n, seq)) = self.window.front().and_then(|low| Some((low.send.n, low.seq?)))
        {
            self.window.pop_front();
            let before = std::mem::replace(&mut self.seq, seq);
            // What is sent to a group has no seq when it is acknowledged.
            let to_group = (before, seq) == (0, 0);
            if seq <= before && !to_group {
                return Err(Wrong::Seq { n, seq, before });
            }
        }
        Ok(Answered::Accepted { due })
    }

    fn failed(&mut self, n: u64, failure: Failure) -> Result<Answered, Wrong> {
        if !failure.code.is_retryable() {
            return Err(Wrong::Refused { n, failure: Box::new(failure) });
        }
        let asked = failure.retry_after.unwrap_or(PAUSE);
        self.again = Some(self.again.map_or(asked, |again| again.max(asked)));
        Ok(Answered::Later)
    }

    /// How long to wait from now before [`Self::resend`], once no frame is under way.
    pub(crate) fn pause(&self) -> Option<Duration> {
        self.again.filter(|_| self.frames == 0)
    }

    /// What goes again, lowest first; the caller sends it.
    pub(crate) fn resend(&mut self) -> Vec<v1::Send> {
        self.again = None;
        self.frames = self.unanswered;
        let base = self.base();
        let unanswered = self.window.iter().filter(|sent| sent.seq.is_none());
        unanswered.map(|sent| v1::Send { base, ..sent.send.clone() }).collect()
    }
}

#[cfg(test)]
mod tests {
    use tidemark_types::{ErrorCode, Seq, SessionId, UnixMs};

    use super::*;

    const SESSION: u64 = 3;

    fn session() -> SessionId {
        SessionId::new(SESSION).expect("not 0")
    }

    fn accepted(n: u64, seq: u32) -> v1::SendAck {
        v1::SendAck::accepted(session(), n, Seq::new(seq), UnixMs::new(1))
    }

    fn failed(n: u64, code: ErrorCode) -> v1::SendAck {
        v1::SendAck::failed(session(), n, Failure::new(code))
    }

    fn with(sends: u64) -> Outbox {
        let mut outbox = Outbox::new(SESSION);
        for n in 1..=sends {
            let due = Duration::from_millis(n);
            let send = outbox.push(Vec::new(), Bytes::new(), Vec::new(), due);
            assert_eq!((send.n, send.base, send.session), (n, 1, SESSION));
        }
        outbox
    }

    #[test]
    fn base_is_the_lowest_without_an_acknowledgement() {
        let mut outbox = with(3);
        for (n, base, span) in [(2, 1, 3), (1, 3, 1)] {
            let due = Duration::from_millis(n);
            let ack = accepted(n, u32::try_from(n).expect("small"));
            assert_eq!(outbox.answered(ack).expect("legal"), Answered::Accepted { due });
            assert_eq!((outbox.base(), outbox.span()), (base, span));
        }
        let send = outbox.push(Vec::new(), Bytes::new(), Vec::new(), Duration::ZERO);
        assert_eq!((send.n, send.base, outbox.unanswered()), (4, 3, 2));
    }

    #[test]
    fn what_no_server_may_say_is_seen() {
        let wrong = |outbox: &mut Outbox, ack| outbox.answered(ack).expect_err("wrong").to_string();
        let twice = "is acknowledged, which has no acknowledgement to come";
        let mut outbox = with(3);
        for ack in [accepted(0, 1), accepted(4, 1)] {
            assert!(wrong(&mut outbox, ack).ends_with(twice));
        }
        let foreign = v1::SendAck { session: 9, ..accepted(1, 1) };
        assert_eq!(wrong(&mut outbox, foreign), "an acknowledgement of session 9");
        let empty = v1::SendAck { result: None, ..accepted(1, 1) };
        assert_eq!(wrong(&mut outbox, empty), "an empty answer to n 1");
        assert!(wrong(&mut outbox, failed(1, ErrorCode::Blocked)).starts_with("n 1 was refused"));
        for n in [1, 2] {
            outbox.answered(accepted(n, 4 + u32::from(n == 2))).expect("legal");
            assert!(wrong(&mut outbox, accepted(n, 5)).ends_with(twice));
        }
        assert_eq!(wrong(&mut outbox, accepted(3, 5)), "n 3 has seq 5, and the one before it 5");
    }

    #[test]
    fn a_send_that_was_not_taken_goes_again_with_those_behind_it() {
        let mut outbox = with(4);
        outbox.answered(accepted(1, 1)).expect("in order");
        for (n, code) in [(2, ErrorCode::Overloaded), (3, ErrorCode::OutOfOrder)] {
            assert_eq!(outbox.answered(failed(n, code)).expect("for now"), Answered::Later);
            assert!(outbox.is_stalled());
            assert_eq!(outbox.pause(), None, "a frame has no answer yet");
        }
        outbox.answered(failed(4, ErrorCode::OutOfOrder)).expect("for now");
        assert_eq!(outbox.pause(), Some(PAUSE));
        let again: Vec<_> = outbox.resend().iter().map(|send| (send.n, send.base)).collect();
        assert_eq!(again, [(2, 2), (3, 2), (4, 2)]);
        assert!(!outbox.is_stalled());
        for n in [2, 3, 4] {
            outbox.answered(accepted(u64::from(n), n)).expect("in order");
        }
        assert_eq!(outbox.unanswered(), 0);
    }
}
