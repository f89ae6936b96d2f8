//! Sending: the session, the window, and what each answer means (R1, R2, R3).
//!
//! ```text
//!   id:      front                 next             numbered            end
//!              │ in flight           │ to send again     │ waits            │
//!   ───────────┴─────────────────────┴───────────────────┴──────────────────┘
//!   n:       base                                     next new n
//! ```
//!
//! Sends go out in the order of their ids, never beyond the window, and again from the front when
//! nobody answers. A session that was replaced is asked for its answers until the last send that
//! it numbered is settled; only then is a new one opened, so there is never more than one, and the
//! order holds.
//!
//! Refuses to guess: a send leaves the outbox with a definite answer, or when nobody can know it
//! any more, and is then called unknown. Invariants: an outcome is stored before a `base` above it
//! goes out; a number is stored before it goes out; an `open_id` likewise (see [`super::Output`]).

use std::sync::Arc;
use std::time::Duration;

use tidemark_env::Rng;
use tidemark_proto::convert::{bytes_of, session_number};
use tidemark_proto::v1::{opened, send_ack};
use tidemark_proto::{Detail, Failure, v1};
use tidemark_types::limits::{SEND_WINDOW, SEND_WINDOW_BYTES};
use tidemark_types::{ClientMsgId, ErrorCode, OpenId, Seq, SessionId, UnixMs};

use super::answer::Answer;
use super::backoff::Backoff;
use super::out::Out;
use super::outbox::Outbox;
use crate::event::Event;
use crate::outcome::{Accepted, Outcome, Settled, Unknown};
use crate::store::{Meta, OutboxId, Session};

/// The pause after a refusal without a hint.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_LONGEST: Duration = Duration::from_secs(10);

/// When nobody has answered the oldest send in flight, all of it goes out again. A failover takes
/// a second or two, and asking in it would only add load.
const ANSWER_FIRST: Duration = Duration::from_secs(5);
const ANSWER_LONGEST: Duration = Duration::from_secs(60);

/// What an answer asks of the rest of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing.
    Nothing,
    /// Another `Hello`, with the same token.
    Hello,
    /// Another token, then a `Hello`.
    Token,
    /// Another gateway.
    Elsewhere,
    /// The mailbox up to its head, to settle what can be found there.
    Head,
}

/// The sending half of a device.
pub(super) struct Sender {
    outbox: Outbox,
    session: Option<Session>,
    open_id: Option<OpenId>,
    /// The first send without a number.
    numbered: OutboxId,
    /// The live session, as the server last said.
    live: Option<SessionId>,
    /// Ours was replaced: it answers, and takes nothing new.
    ended: bool,
    /// The server has forgotten it; the mailbox is searched.
    expired: bool,
    window: u64,
    window_bytes: usize,
    /// Welcomed on this connection.
    online: bool,
    open_sent: bool,
    /// The last `Open` named the wrong session to end.
    stale: bool,
    /// The `expected` that was obeyed last.
    gone_back: Option<u64>,
    paused_until: Option<Duration>,
    pause: Backoff,
    answer_by: Option<Duration>,
    answer: Backoff,
    halted: bool,
    rng: Arc<dyn Rng>,
}

impl Sender {
    pub(super) fn new(outbox: Outbox, meta: &Meta, rng: Arc<dyn Rng>) -> Self {
        Sender {
            session: meta.session,
            open_id: meta.open_id,
            numbered: meta.numbered,
            outbox,
            live: None,
            ended: false,
            expired: false,
            window: SEND_WINDOW,
            window_bytes: SEND_WINDOW_BYTES,
            online: false,
            open_sent: false,
            stale: false,
            gone_back: None,
            paused_until: None,
            pause: Backoff::new(PAUSE_FIRST, PAUSE_LONGEST),
            answer_by: None,
            answer: Backoff::new(ANSWER_FIRST, ANSWER_LONGEST),
            halted: false,
            rng,
        }
    }

    /// Puts its part into what is stored.
    pub(super) fn save(&self, meta: &mut Meta) {
        meta.session = self.session;
        meta.open_id = self.open_id;
        meta.numbered = self.numbered;
    }

    /// Sends without an outcome, and how many of these have a number: somebody may have taken them.
    pub(super) fn counts(&self) -> (u64, u64) {
        let waiting = self.outbox.end().since(self.numbered);
        let all = self.outbox.len() as u64;
        (all, all.saturating_sub(waiting))
    }

    /// Has it stopped until the device is opened again?
    pub(super) fn is_halted(&self) -> bool {
        self.halted
    }

    /// Takes a send of the application, which has checked it.
    pub(super) fn push(&mut self, send: v1::Send, out: &mut Out) -> OutboxId {
        let id = self.outbox.push(send.clone());
        out.put(id, send);
        id
    }

    /// The server said where things stand. On a new connection, and after an answer that asked for
    /// this `Hello`, everything without an answer goes out again.
    pub(super) fn welcome(&mut self, welcome: &v1::Welcome, out: &mut Out) {
        self.window = u64::from(welcome.send_window).clamp(1, SEND_WINDOW);
        self.window_bytes = usize::try_from(welcome.send_window_bytes).unwrap_or(usize::MAX);
        self.live = SessionId::new(welcome.live_session).ok();
        if self.session.is_some_and(|session| self.live != Some(session.id)) {
            self.replaced(out);
        }
        if !self.online {
            self.offline();
            self.online = true;
        }
    }

    /// Nothing is in flight any more, and nothing goes out until the next `Welcome`.
    pub(super) fn offline(&mut self) {
        self.online = false;
        self.open_sent = false;
        self.expired = false;
        self.paused_until = None;
        self.start_over();
    }

    /// Goes on until a window or a pause says stop.
    pub(super) fn pump(&mut self, now: Duration, out: &mut Out) {
        let ready = self.online && !self.halted && !self.expired && self.paused_until.is_none();
        if !ready || self.outbox.len() == 0 {
            return;
        }
        match self.session {
            Some(session) => self.send(session, out),
            None => self.open(out),
        }
        if self.answer_by.is_none() && (self.outbox.in_flight() > 0 || self.open_sent) {
            self.answer_by = Some(now + self.answer.grow());
        }
    }

    fn send(&mut self, session: Session, out: &mut Out) {
        let end = if self.ended { self.numbered } else { self.outbox.end() };
        loop {
            let (next, base) = (self.outbox.next(), self.outbox.front());
            if next >= end || next.since(base) >= self.window {
                return;
            }
            if let Some(send) = self.outbox.get(next) {
                // One send goes out even if a server's window is smaller than its body.
                let bytes = self.outbox.in_flight_bytes() + send.body.len();
                if self.outbox.in_flight() > 0 && bytes > self.window_bytes {
                    return;
                }
                let (n, base) = (session.n(next), session.n(base));
                out.frame(v1::Send { session: session.id.get(), n, base, ..send.clone() });
                if next >= self.numbered {
                    self.numbered = next.plus(1);
                    out.save_meta();
                }
            }
            self.outbox.pass();
        }
    }

    fn open(&mut self, out: &mut Out) {
        if self.open_sent {
            return;
        }
        let open_id = self.open_id.unwrap_or_else(|| {
            let mut bytes = [0; 16];
            self.rng.fill(&mut bytes);
            OpenId::from_bytes(bytes).expect("any 16 bytes are one")
        });
        if self.open_id.replace(open_id).is_none() {
            out.save_meta();
        }
        let ends = session_number(self.live);
        out.frame(v1::Open { open_id: bytes_of(open_id.as_bytes()), ends });
        self.open_sent = true;
    }

    /// The answer to an `Open`.
    pub(super) fn opened(&mut self, now: Duration, frame: v1::Opened, out: &mut Out) -> Need {
        let ours = self.open_id.is_some_and(|id| frame.open_id == id.as_bytes().as_slice());
        if !ours || !self.open_sent {
            return Need::Nothing;
        }
        self.open_sent = false;
        let number = match frame.result {
            Some(opened::Result::Session(number)) => number,
            Some(opened::Result::Failure(failure)) => {
                return self.not_opened(now, failure.into(), out);
            }
            // A result that this version does not know.
            None => 0,
        };
        let Ok(id) = SessionId::new(number) else { return self.wait(now, None) };
        self.answered();
        self.session = Some(Session { id, first: self.numbered });
        self.live = Some(id);
        self.open_id = None;
        self.ended = false;
        self.stale = false;
        self.start_over();
        out.save_meta();
        Need::Nothing
    }

    fn not_opened(&mut self, now: Duration, failure: Failure, out: &mut Out) -> Need {
        if let (ErrorCode::Stale, Some(Detail::Live(live))) = (failure.code, failure.detail) {
            self.live = live;
            // Once at once, and then with pauses: whoever opened that one may do so again.
            return match std::mem::replace(&mut self.stale, true) {
                false => Need::Nothing,
                true => self.wait(now, None),
            };
        }
        self.not_taken(now, failure, out)
    }

    /// The answer to a `Send`. On a connection that is being left only an outcome counts: what
    /// else it says of itself is no news.
    pub(super) fn ack(
        &mut self,
        now: Duration,
        leaving: bool,
        ack: v1::SendAck,
        out: &mut Out,
    ) -> Need {
        let Some(session) = self.session.filter(|session| session.id.get() == ack.session) else {
            return Need::Nothing;
        };
        let id = session.id_of(ack.n);
        if ack.n == 0 || id >= self.numbered || self.outbox.get(id).is_none() {
            return Need::Nothing;
        }
        let failure = match ack.result {
            Some(send_ack::Result::Accepted(accepted)) => {
                let seq = Some(Seq::new(accepted.seq)).filter(|seq| *seq != Seq::NONE);
                let time = UnixMs::new(accepted.time_ms);
                self.settle(id, Outcome::Accepted(Accepted { seq, time }), out);
                return Need::Nothing;
            }
            Some(send_ack::Result::Failure(failure)) => failure.into(),
            // A result that this version does not know.
            None => Failure::new(ErrorCode::Unknown),
        };
        if leaving && !Answer::of(&failure).is_definite() {
            return Need::Nothing;
        }
        self.failed(now, session, id, failure, out)
    }

    fn failed(
        &mut self,
        now: Duration,
        session: Session,
        id: OutboxId,
        failure: Failure,
        out: &mut Out,
    ) -> Need {
        match Answer::of(&failure) {
            Answer::Refused => self.settle(id, Outcome::Refused(failure.code), out),
            Answer::Ended(last_n) => self.session_ended(session, last_n, out),
            Answer::OutOfOrder(expected) => {
                if self.gone_back.replace(expected) != Some(expected) {
                    self.outbox.go_back(session.id_of(expected));
                }
            }
            Answer::Settled => self.settle(id, Outcome::Unknown(Unknown::Settled), out),
            Answer::Conflict => self.give_up(Unknown::Conflict, out),
            Answer::Expired => {
                self.ended = true;
                self.expired = true;
                return Need::Head;
            }
            Answer::Wait | Answer::Hello | Answer::Token | Answer::Elsewhere | Answer::Stop => {
                self.outbox.go_back(id);
                return self.not_taken(now, failure, out);
            }
        }
        Need::Nothing
    }

    /// Nothing is decided: the same again, later or elsewhere, or not at all.
    pub(super) fn not_taken(&mut self, now: Duration, failure: Failure, out: &mut Out) -> Need {
        let need = match Answer::of(&failure) {
            Answer::Wait => return self.wait(now, failure.retry_after),
            Answer::Hello => Need::Hello,
            Answer::Token => Need::Token,
            Answer::Elsewhere => Need::Elsewhere,
            // Those that speak of a send in its session are out of place where it has none.
            Answer::Stop
            | Answer::Refused
            | Answer::Ended(_)
            | Answer::OutOfOrder(_)
            | Answer::Settled
            | Answer::Expired
            | Answer::Conflict => {
                self.halt(failure, out);
                return Need::Nothing;
            }
        };
        self.online = false;
        need
    }

    /// Sends nothing any more, and says so.
    fn halt(&mut self, failure: Failure, out: &mut Out) {
        if !std::mem::replace(&mut self.halted, true) {
            let Failure { code, message, .. } = failure;
            // A SendAck brings no text.
            let message = Some(message).filter(|message| !message.is_empty());
            let message = message.unwrap_or_else(|| code.meaning().trim().to_owned());
            tracing::error!(%code, %message, "sending has stopped");
            out.event(Event::SendingStopped { code, message });
        }
    }

    /// This user's own copy of a message: as good as an acknowledgement, and the only answer when
    /// the session is no longer kept. The message's id tells it from what another state of this
    /// store sent under the same number.
    pub(super) fn own_copy(
        &mut self,
        (number, n): (SessionId, u64),
        id: ClientMsgId,
        accepted: Accepted,
        out: &mut Out,
    ) {
        let Some(session) = self.session.filter(|session| session.id == number) else { return };
        let place = session.id_of(n);
        let send = self.outbox.get(place).filter(|_| place < self.numbered);
        if send.is_some_and(|send| send.client_msg_id == id.as_bytes().as_slice()) {
            self.settle(place, Outcome::Accepted(accepted), out);
        }
    }

    /// The mailbox was searched up to its head: what was not found there is unknown for ever.
    pub(super) fn searched(&mut self, out: &mut Out) {
        if std::mem::take(&mut self.expired) {
            self.give_up(Unknown::Expired, out);
        }
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let answer_by = self.answer_by.filter(|_| self.online && !self.halted);
        [self.paused_until, answer_by].into_iter().flatten().min()
    }

    pub(super) fn tick(&mut self, now: Duration) {
        self.paused_until.take_if(|until| *until <= now);
        if self.answer_by.is_some_and(|by| by <= now) {
            self.open_sent = false;
            self.start_over();
        }
    }

    /// Nobody could have taken what lies above `last_n`, and it is sent anew in the next session;
    /// what lies below has its answer here.
    fn session_ended(&mut self, session: Session, last_n: u64, out: &mut Out) {
        let end = session.first.plus(last_n);
        self.outbox.go_back(end);
        self.numbered = self.numbered.min(end).max(self.outbox.front());
        out.save_meta();
        self.replaced(out);
    }

    /// The session takes nothing new.
    fn replaced(&mut self, out: &mut Out) {
        if !std::mem::replace(&mut self.ended, true) {
            out.event(Event::SessionReplaced);
        }
        self.leave_if_done(out);
    }

    /// Everything that somebody may have taken is unknown, and the session is left.
    fn give_up(&mut self, reason: Unknown, out: &mut Out) {
        while self.outbox.front() < self.numbered {
            self.settle(self.outbox.front(), Outcome::Unknown(reason), out);
        }
        self.ended = true;
        self.leave_if_done(out);
    }

    fn settle(&mut self, id: OutboxId, outcome: Outcome, out: &mut Out) {
        let Some(send) = self.outbox.settle(id) else { return };
        self.answered();
        let client_msg_id = ClientMsgId::try_from(send.client_msg_id.as_ref());
        let client_msg_id = client_msg_id.expect("checked when it was sent and when it was loaded");
        out.settle(id, Settled { client_msg_id, outcome });
        self.leave_if_done(out);
    }

    /// A session that takes nothing new is left when its last send is settled.
    fn leave_if_done(&mut self, out: &mut Out) {
        if self.ended && self.session.is_some() && self.outbox.front() >= self.numbered {
            self.session = None;
            self.expired = false;
            self.start_over();
            out.save_meta();
        }
    }

    /// There was an answer: pauses begin small again.
    fn answered(&mut self) {
        self.answer_by = None;
        self.answer.reset();
        self.pause.reset();
    }

    /// Sends nothing for a while. What comes back of the same round makes it no longer.
    fn wait(&mut self, now: Duration, hint: Option<Duration>) -> Need {
        let until = match (hint, self.paused_until) {
            (Some(hint), until) => until.unwrap_or_default().max(now + hint),
            (None, Some(until)) => until,
            (None, None) => now + self.pause.pause(&*self.rng),
        };
        self.paused_until = Some(until);
        self.answer_by = None;
        self.answer.reset();
        Need::Nothing
    }

    /// Sends everything without an answer again.
    fn start_over(&mut self) {
        self.outbox.go_back(self.outbox.front());
        self.gone_back = None;
        self.answer_by = None;
    }
}
