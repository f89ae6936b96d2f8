//! One stream of records to another shard, as its source drives it: what may be sent, what to do
//! with an answer. No I/O, no clock; the task around it has those.
//!
//! ```text
//!   trim ───────── acked ───────── sent ───────── head
//!    │  to be trimmed │   under way   │  not sent yet │
//! ```
//!
//! After any failure nothing more is sent until all that was under way has come back; then the
//! stream goes on after `acked`. The destination skips what it had (R4), so nothing is doubled.

use std::time::Duration;

use tidemark_store_core::reply::{RelayStop, Relayed};
use tidemark_store_core::value::{OutSeq, Outbound};

/// The first pause after a failure, doubled up to the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
const PAUSE_LONGEST: Duration = Duration::from_secs(1);

/// One stream of records to another shard.
#[derive(Debug)]
pub(super) struct Stream {
    /// The last record handed out.
    sent: OutSeq,
    /// The destination has applied every record up to here.
    acked: OutSeq,
    /// What the destination had sent back when it said so.
    returns: OutSeq,
    /// Every record up to here is removed here.
    trim: OutSeq,
    in_flight: usize,
    /// A batch is being handed to the transport; the next one must wait, or it could overtake.
    handing_over: bool,
    trimming: bool,
    rewinding: bool,
    failures: u32,
    /// Nothing is sent or trimmed before this, after a failure.
    retry_at: Option<Duration>,
    halted: bool,
}

/// What an answer means beyond the stream's own progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Suspicion {
    /// The destination lacks what was trimmed here because it had acknowledged it.
    BelowTrim,
    /// The destination has what was never sent.
    AboveHead,
    /// The destination says that a record does not belong there (R8).
    WrongShard,
}

impl Stream {
    /// A stream that goes on where the state says.
    pub(super) fn new(state: Outbound) -> Self {
        Stream {
            sent: state.trim,
            acked: state.trim,
            returns: state.returns,
            trim: state.trim,
            in_flight: 0,
            handing_over: false,
            trimming: false,
            rewinding: false,
            failures: 0,
            retry_at: None,
            halted: false,
        }
    }

    /// After which record the next batch begins, if one may be sent now.
    pub(super) fn may_send(&self, in_flight_max: usize) -> Option<OutSeq> {
        let waits = self.halted || self.rewinding || self.handing_over || self.retry_at.is_some();
        (!waits && self.in_flight < in_flight_max).then_some(self.sent)
    }

    /// When it goes on after a failure; until [`Stream::retry`] nothing happens.
    pub(super) fn retry_at(&self) -> Option<Duration> {
        self.retry_at
    }

    /// The pause after a failure is over.
    pub(super) fn retry(&mut self) {
        self.retry_at = None;
    }

    /// A batch up to `upto` is being handed over.
    pub(super) fn sending(&mut self, upto: OutSeq) {
        self.sent = upto;
        self.in_flight += 1;
        self.handing_over = true;
    }

    /// It is handed over; the next one may follow.
    pub(super) fn handed_over(&mut self) {
        self.handing_over = false;
    }

    /// The destination answered a batch. `head` is the last record there is.
    pub(super) fn answered(&mut self, answer: &Relayed, head: OutSeq) -> Option<Suspicion> {
        if answer.in_seq > head {
            self.came_back();
            return (!self.halted).then_some(Suspicion::AboveHead);
        }
        self.acked = self.acked.max(answer.in_seq);
        self.returns = self.returns.max(answer.returns);
        self.failures = 0;
        self.rewinding |= answer.stopped.is_some();
        let suspicion = match answer.stopped {
            Some(RelayStop::WrongShard) => Some(Suspicion::WrongShard),
            _ if answer.in_seq < self.trim => Some(Suspicion::BelowTrim),
            Some(RelayStop::Gap) | None => None,
        };
        self.came_back();
        // It is being looked into already; or it was found to hold, and stays halted.
        suspicion.filter(|_| !self.halted)
    }

    /// A batch came to nothing, or nobody knows; `jitter` is in 0..1.
    pub(super) fn failed(&mut self, now: Duration, jitter: f64) {
        self.handing_over = false;
        // All that was under way fails at once: that is one failure.
        let is_first = !std::mem::replace(&mut self.rewinding, true);
        self.failures = self.failures.saturating_add(u32::from(is_first));
        let doubled = PAUSE_FIRST.saturating_mul(1 << self.failures.saturating_sub(1).min(16));
        self.retry_at = Some(now + doubled.min(PAUSE_LONGEST).mul_f64(0.5 + 0.5 * jitter));
        self.came_back();
    }

    /// Sends nothing more until it is resumed.
    pub(super) fn halt(&mut self) {
        self.halted = true;
    }

    /// Goes on where it was halted.
    pub(super) fn resume(&mut self) {
        self.halted = false;
    }

    /// Is there something to trim, and nothing against it?
    pub(super) fn may_trim(&self) -> bool {
        let waits = self.trimming || self.halted || self.retry_at.is_some();
        !waits && self.acked > self.trim
    }

    /// Up to where to trim, if it may, and what came back by then; a trim is then under way.
    pub(super) fn start_trim(&mut self) -> Option<(OutSeq, OutSeq)> {
        let due = self.may_trim();
        self.trimming |= due;
        due.then_some((self.acked, self.returns))
    }

    /// A trim came as far as `trim`.
    pub(super) fn trimmed(&mut self, trim: OutSeq) {
        self.trimming = false;
        self.trim = self.trim.max(trim);
    }

    /// A trim came to nothing, or nobody knows.
    pub(super) fn not_trimmed(&mut self, now: Duration) {
        self.trimming = false;
        self.retry_at = self.retry_at.max(Some(now + PAUSE_FIRST));
    }

    fn came_back(&mut self) {
        self.in_flight -= 1;
        if self.in_flight == 0 && self.rewinding {
            self.rewinding = false;
            self.sent = self.acked;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(10);
    const WINDOW: usize = 4;

    fn seq(number: u64) -> OutSeq {
        OutSeq::new(number)
    }

    fn stream(trim: u64) -> Stream {
        Stream::new(Outbound { head: seq(9), trim: seq(trim), ..Outbound::default() })
    }

    fn answer(in_seq: u64, stopped: Option<RelayStop>) -> Relayed {
        Relayed { in_seq: seq(in_seq), returns: seq(1), stopped, outcomes: Vec::new() }
    }

    fn send(stream: &mut Stream, upto: u64) {
        stream.sending(seq(upto));
        stream.handed_over();
    }

    fn next(stream: &Stream) -> Option<u64> {
        stream.may_send(WINDOW).map(OutSeq::get)
    }

    #[test]
    fn batches_follow_each_other_without_waiting_for_answers() {
        let mut stream = stream(0);
        for upto in [2, 4, 6, 8] {
            assert!(next(&stream).is_some());
            send(&mut stream, upto);
        }
        assert_eq!(next(&stream), None, "the window is full");
        assert_eq!(stream.answered(&answer(2, None), seq(9)), None);
        assert_eq!(next(&stream), Some(8));
    }

    #[test]
    fn a_batch_never_overtakes_the_one_being_handed_over() {
        let mut stream = stream(0);
        stream.sending(seq(2));
        assert_eq!(next(&stream), None);
        stream.handed_over();
        assert_eq!(next(&stream), Some(2));
    }

    #[test]
    fn after_a_gap_it_goes_back_once_everything_is_back() {
        let mut stream = stream(0);
        send(&mut stream, 2);
        send(&mut stream, 4);
        send(&mut stream, 6);
        assert_eq!(stream.answered(&answer(2, None), seq(9)), None);
        assert_eq!(stream.answered(&answer(2, Some(RelayStop::Gap)), seq(9)), None);
        assert_eq!(next(&stream), None, "one is still under way");
        stream.failed(NOW, 0.0);
        assert_eq!(next(&stream), None, "it pauses");
        stream.retry();
        assert_eq!(next(&stream), Some(2));
    }

    #[test]
    fn pauses_grow_to_a_bound_and_end_with_an_answer() {
        let mut stream = stream(0);
        for _ in 0..40 {
            send(&mut stream, 2);
            stream.failed(NOW, 1.0);
            assert_eq!(next(&stream), None);
            assert!(stream.retry_at().is_some_and(|at| at <= NOW + PAUSE_LONGEST));
            stream.retry();
        }
        send(&mut stream, 2);
        stream.failed(NOW, 1.0);
        assert_eq!(stream.retry_at(), Some(NOW + PAUSE_LONGEST));
        stream.retry();
        assert_eq!(next(&stream), Some(0));
        send(&mut stream, 2);
        stream.answered(&answer(2, None), seq(9));
        send(&mut stream, 4);
        stream.failed(NOW, 1.0);
        assert_eq!(stream.retry_at(), Some(NOW + PAUSE_FIRST));
    }

    #[test]
    fn batches_that_fail_together_are_one_failure() {
        let mut stream = stream(0);
        for pause in [PAUSE_FIRST, PAUSE_FIRST * 2] {
            for upto in [2, 4, 6, 8] {
                send(&mut stream, upto);
            }
            for _ in 0..WINDOW {
                stream.failed(NOW, 1.0);
            }
            assert_eq!(stream.retry_at(), Some(NOW + pause));
            stream.retry();
        }
    }

    #[test]
    fn one_trim_at_a_time_up_to_what_was_acknowledged() {
        let mut stream = stream(3);
        assert_eq!(stream.start_trim(), None);
        send(&mut stream, 5);
        stream.answered(&answer(5, None), seq(9));
        assert_eq!(stream.start_trim(), Some((seq(5), seq(1))));
        assert_eq!(stream.start_trim(), None);
        stream.trimmed(seq(4));
        assert_eq!(stream.start_trim(), Some((seq(5), seq(1))), "it did not come all the way");
        stream.not_trimmed(NOW);
        assert_eq!(stream.start_trim(), None, "it pauses");
        assert!(stream.retry_at().is_some());
        stream.retry();
        assert_eq!(stream.start_trim(), Some((seq(5), seq(1))), "nobody knows how far it came");
    }

    #[test]
    fn what_contradicts_the_stream_is_suspected() {
        let mut stream = stream(3);
        send(&mut stream, 5);
        send(&mut stream, 6);
        send(&mut stream, 7);
        send(&mut stream, 8);
        let suspicion = stream.answered(&answer(2, None), seq(9));
        assert_eq!(suspicion, Some(Suspicion::BelowTrim));
        assert_eq!(stream.answered(&answer(10, None), seq(9)), Some(Suspicion::AboveHead));
        let wrong = answer(4, Some(RelayStop::WrongShard));
        assert_eq!(stream.answered(&wrong, seq(9)), Some(Suspicion::WrongShard));
        assert_eq!(stream.acked, seq(4), "an impossible number moves nothing");
        stream.halt();
        assert_eq!(next(&stream), None);
        assert_eq!(stream.start_trim(), None);
        assert_eq!(
            stream.answered(&answer(10, None), seq(9)),
            None,
            "it is halted for one already"
        );
        stream.resume();
        assert_eq!(next(&stream), Some(4));
    }
}
