//! One connection: its task, from the first frame to the last.
//!
//! ```text
//!   incoming ──► frame ──► peer ──► work (store) ──► done ──► answers ─┐  room in the channel
//!                           │                                          ├──► outgoing
//!                           └──► uplink ──► acknowledgements ──────────┤
//!   watch ─────► mailbox ──────────────────────────► push, when idle ──┘
//! ```
//!
//! The task never waits for anything but the next event, so that reading, sending and delivering
//! go on side by side. Answers go before what is pushed, in the order in which they were made.
//!
//! Invariant: nothing is read while there are as many answers or questions as there may be, so
//! both are bounded by what was read.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::OptionFuture;
use futures::{FutureExt as _, StreamExt as _};
use tidemark_mutants::{Mutant, is};
use tidemark_proto::hello::Hello;
use tidemark_proto::v1::client_frame::Frame;
use tidemark_proto::{Failure, v1};
use tidemark_types::ErrorCode;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

use super::peer::{Done, Peer, Pending, saturated};
use super::{Drain, Shared};
use crate::connect::{self, Incoming, Outgoing, Unreadable, Validity};
use crate::limits::{
    ANSWERS_MAX, CLOSE_TIMEOUT, HELLO_TIMEOUT, REFUSED_RETRY, TAKES_MAX, TOKEN_GRACE, WORK_MAX,
    WRITES_MAX,
};
use crate::metrics::{self, FramesWaiting};
use crate::send::{Answer, Uplink};
use crate::session::Seat;

/// A connection, from when its carrier hands it over.
pub(super) struct Connection {
    shared: Arc<Shared>,
    incoming: Incoming,
    outgoing: Outgoing,
    pending: Pending,
    peer: Option<Peer>,
    /// A `Hello` is being answered: what follows it waits.
    greeting: bool,
    /// There was room for what a frame may ask for.
    room: bool,
    began: Duration,
    /// When the device was last heard.
    heard: Duration,
    /// When it last had room for a frame, or none waited.
    took: Duration,
    /// When the gateway stops.
    closes: Option<Duration>,
    /// Frames and answers taken since all else was looked at.
    taken: usize,
    /// Frames written since all else was looked at.
    written: usize,
    waiting: FramesWaiting,
    alarm: Alarm,
}

/// Something happened.
pub(super) enum Event {
    Frame(Option<Result<Frame, Unreadable>>),
    /// There is room for a frame on its way out.
    Room,
    /// The carrier takes nothing any more.
    Gone,
    Answer(Answer),
    Done(Done),
    /// The cursor of a place, by its number, is refused for good, or the place is no more.
    Unconfirmed(u64, Option<Failure>),
    /// The mailbox has changed.
    Mailbox,
    /// The seat is not this connection's any more, and why.
    Unseated(ErrorCode),
    Drain(Drain),
    Time,
}

/// Why a connection ends.
enum End {
    /// The peer has gone.
    Gone,
    /// The peer said nothing for too long.
    Silent,
    /// The peer read nothing for too long.
    Slow,
    /// The gateway stops.
    Drained,
    /// The device connected again, was logged out or forgotten.
    Unseated(ErrorCode),
    /// There was no good `Hello` in time.
    NoHello,
    /// The token expired and was not renewed.
    Expired,
    /// A frame was refused in a way that ends it.
    Refused(v1::Error),
}

impl Connection {
    /// A connection that nothing was read from.
    pub(super) fn new(
        shared: Arc<Shared>,
        incoming: Incoming,
        outgoing: Outgoing,
        mut drain: watch::Receiver<Option<Drain>>,
    ) -> Self {
        let carrier = outgoing.clone();
        let gone = async move {
            carrier.closed().await;
            Event::Gone
        };
        let drains = async move {
            let drain = drain.wait_for(Option::is_some).await.ok().and_then(|drain| *drain);
            match drain {
                Some(drain) => Event::Drain(drain),
                None => std::future::pending().await,
            }
        };
        let rare = [gone.boxed(), drains.boxed()].into_iter().collect();
        let now = shared.parts.clock.monotonic();
        Connection {
            shared,
            incoming,
            outgoing,
            pending: Pending { rare, ..Pending::default() },
            peer: None,
            greeting: false,
            room: true,
            began: now,
            heard: now,
            took: now,
            closes: None,
            taken: 0,
            written: 0,
            waiting: FramesWaiting::default(),
            alarm: Alarm::at(now),
        }
    }

    /// Serves it until it ends. Did a device say a good `Hello`? Boxed, as its end is: what is moved into
    /// a future has its place there twice.
    pub(super) async fn run(mut self: Box<Self>) -> bool {
        let end = loop {
            if let Some(peer) = &mut self.peer {
                peer.start(&mut self.pending);
            }
            let event = self.event().await;
            if let Err(end) = self.on(event) {
                break end;
            }
        };
        metrics::connection_ended(end.reason());
        let (user, device) = self.peer.as_ref().map(|peer| (&peer.user, &peer.device)).unzip();
        tracing::debug!(reason = end.reason(), ?user, ?device, "a connection ended");
        let greeted = self.peer.is_some();
        Box::pin(self.close(end)).await;
        greeted
    }

    async fn event(&mut self) -> Event {
        if is(Mutant::UnboundedQueue) {
            let pushed = std::iter::from_fn(|| self.peer.as_mut()?.push());
            self.pending.answers.extend(pushed);
        }
        let reads = self.reads();
        if (1..TAKES_MAX).contains(&self.taken)
            && let Some(event) = self.at_hand(reads)
        {
            self.taken += 1;
            return event;
        }
        self.taken = 0;
        let writes =
            !self.pending.answers.is_empty() || self.peer.as_mut().is_some_and(Peer::pushes);
        let (now, vacant) = (self.now(), self.outgoing.capacity() > 0);
        if !writes || vacant {
            self.took = now;
        }
        // Nothing to wait for; but whoever pushes without end must not keep the rest waiting.
        if writes && vacant && self.written < WRITES_MAX {
            self.written += 1;
            return Event::Room;
        }
        self.written = 0;
        self.waiting.set(self.pending.answers.len());
        self.alarm.set(self.wakes(now), now);
        let (uplink, news, unseated) = match &mut self.peer {
            Some(Peer { uplink, seat: Seat { news, unseated, .. }, .. }) => {
                (Some(uplink), Some(news.given()), Some(unseated))
            }
            None => (None, None, None),
        };
        let event = tokio::select! {
            frame = self.incoming.next(), if reads => Event::Frame(frame),
            room = self.outgoing.reserve(), if writes => room.map_or(Event::Gone, |_| Event::Room),
            Some(event) = self.pending.rare.next() => event,
            // However many answers wait: nothing is read meanwhile, so the window bounds them; and
            // an attempt that nobody polls holds up others.
            Some(answer) = OptionFuture::from(uplink.map(Uplink::next)) => Event::Answer(answer),
            Some(done) = self.pending.work.next(), if !self.pending.work.is_empty() => {
                Event::Done(done)
            }
            Some(()) = OptionFuture::from(news) => Event::Mailbox,
            // Who displaces on this gateway just takes the seat, and says nothing.
            Some(code) = OptionFuture::from(unseated) => {
                Event::Unseated(code.unwrap_or(ErrorCode::Displaced))
            }
            () = &mut self.alarm.sleep => Event::Time,
        };
        self.taken = usize::from(matches!(event, Event::Frame(_) | Event::Answer(_)));
        event
    }

    /// Is there room for what a frame may ask for?
    fn reads(&mut self) -> bool {
        let room = self.pending.answers.len() < ANSWERS_MAX && self.pending.work.len() < WORK_MAX;
        if self.room && !room {
            metrics::read_paused();
        }
        self.room = room;
        room && !self.greeting && !self.is_paused()
    }

    /// Has the device sent so fast that it is not read for now?
    fn is_paused(&self) -> bool {
        let until = self.peer.as_ref().and_then(|peer| peer.uplink.paused_until());
        until.is_some_and(|until| until > self.now())
    }

    /// What has come already of that which comes in crowds, behind another one: looked at by itself it costs
    /// a fraction of a look at everything, and what it leads to goes out together.
    fn at_hand(&mut self, reads: bool) -> Option<Event> {
        if reads && let Some(frame) = self.incoming.next().now_or_never() {
            return Some(Event::Frame(frame));
        }
        let answer = self.peer.as_mut()?.uplink.next().now_or_never()?;
        Some(Event::Answer(answer))
    }

    fn on(&mut self, event: Event) -> Result<(), End> {
        match event {
            Event::Frame(None) | Event::Gone => Err(End::Gone),
            Event::Frame(Some(frame)) => {
                self.heard = self.now();
                metrics::received(&frame);
                match frame {
                    Ok(frame) => self.frame(frame),
                    Err(unreadable) => self.unreadable(unreadable),
                }
            }
            Event::Room => {
                self.write();
                Ok(())
            }
            Event::Answer(Ok(ack)) => {
                self.pending.answer(ack);
                Ok(())
            }
            Event::Answer(Err(failure)) => Err(End::Refused(refusal(failure, Frame::SEND, 0))),
            Event::Done(done) => self.done(done),
            Event::Unconfirmed(place, Some(failure)) => self.unconfirmed(place, failure),
            Event::Unconfirmed(_, None) => Ok(()),
            // What there is to send is seen when it is looked for.
            Event::Mailbox => Ok(()),
            Event::Unseated(code) => Err(End::Unseated(code)),
            Event::Drain(drain) => {
                self.go_away(drain);
                Ok(())
            }
            Event::Time => self.time(),
        }
    }

    fn frame(&mut self, frame: Frame) -> Result<(), End> {
        let (number, request_id) = (frame.number(), frame.request_id());
        let refused = |failure| End::Refused(refusal(failure, number, request_id));
        match (frame, &mut self.peer) {
            (Frame::Hello(hello), _) => self.hello(hello).map_err(refused),
            (frame, Some(peer)) if peer.welcomed => {
                peer.take(frame, &mut self.pending).map_err(refused)
            }
            _ => {
                let text = "a connection begins with Hello, and nothing comes before its Welcome";
                Err(refused(Failure::new(ErrorCode::Unauthenticated).message(text)))
            }
        }
    }

    fn hello(&mut self, hello: v1::Hello) -> Result<(), Failure> {
        let parts = &self.shared.parts;
        let (hello, Validity { issued, expires }) =
            connect::check(hello, self.shared.cluster, parts.authenticator.as_ref())?;
        let peer = match &mut self.peer {
            Some(peer) if peer.user == hello.user && peer.device == hello.device => {
                peer.expires = expires;
                peer
            }
            Some(_) => {
                let text = "the connection is another user's or device's";
                return Err(Failure::new(ErrorCode::PermissionDenied).message(text));
            }
            none => {
                let Hello { user, device, agent, .. } = &hello;
                tracing::debug!(%user, %device, agent, "a device is here");
                none.insert(Peer::new(self.shared.clone(), &hello, expires))
            }
        };
        peer.greet(hello, issued, &mut self.pending);
        self.greeting = true;
        Ok(())
    }

    /// A frame that cannot be read, or whose kind nobody here knows.
    fn unreadable(&mut self, unreadable: Unreadable) -> Result<(), End> {
        let welcomed = self.peer.as_ref().is_some_and(|peer| peer.welcomed);
        match unreadable {
            Unreadable::Passed(failure) if welcomed => {
                self.pending.answer(refusal(failure, 0, 0));
                Ok(())
            }
            Unreadable::Passed(failure) | Unreadable::Broken(failure) => {
                Err(End::Refused(refusal(failure, 0, 0)))
            }
        }
    }

    fn done(&mut self, done: Done) -> Result<(), End> {
        if matches!(done, Done::Registered(_)) {
            self.greeting = false;
        }
        let Some(peer) = &mut self.peer else { return Ok(()) };
        let refused = |failure| End::Refused(refusal(failure, Frame::HELLO, 0));
        peer.done(done, &mut self.pending).map_err(refused)
    }

    fn unconfirmed(&mut self, place: u64, failure: Failure) -> Result<(), End> {
        let Some(peer) = &mut self.peer else { return Ok(()) };
        let refused = |failure| End::Refused(refusal(failure, Frame::ACK, 0));
        peer.unconfirmed(place, failure, &mut self.pending).map_err(refused)
    }

    /// Sends one frame; there is room for it.
    fn write(&mut self) {
        let push = || self.peer.as_mut().and_then(Peer::push);
        if let Some(frame) = self.pending.answers.pop_front().or_else(push) {
            metrics::sent(&frame);
            // Nobody else sends here, so the room is still there; a carrier that has gone is
            // noticed by the next event.
            let _ = self.outgoing.try_send(Box::new(frame));
        }
    }

    fn go_away(&mut self, Drain { spread, closes }: Drain) {
        self.closes = Some(closes);
        let reconnect = spread.mul_f64(self.shared.parts.rng.unit());
        let go_away = v1::GoAway {
            reconnect_after_ms: saturated(reconnect.as_millis()),
            close_after_ms: saturated(closes.saturating_sub(self.now()).as_millis()),
            message: "the gateway is stopping".to_owned(),
        };
        self.pending.answer(go_away);
    }

    /// When there is something to do of which no event tells, on the monotonic clock.
    fn wakes(&self, now: Duration) -> Duration {
        let silent = self.heard.min(self.took) + self.shared.parts.limits.heartbeat_max;
        let times = match &self.peer {
            Some(peer) => {
                let paused = peer.uplink.paused_until().filter(|until| *until > now);
                [Some(self.expires(peer, now)), paused, self.closes]
            }
            None => [Some(self.began + HELLO_TIMEOUT), None, self.closes],
        };
        times.into_iter().flatten().fold(silent, Duration::min)
    }

    fn time(&mut self) -> Result<(), End> {
        let now = self.now();
        if self.closes.is_some_and(|closes| closes <= now) {
            return Err(End::Drained);
        }
        match &self.peer {
            None if self.began + HELLO_TIMEOUT <= now => return Err(End::NoHello),
            Some(peer) if self.expires(peer, now) <= now => return Err(End::Expired),
            _ => {}
        }
        let over = |since: Duration| since + self.shared.parts.limits.heartbeat_max <= now;
        match self.outgoing.capacity() {
            0 if over(self.took.min(self.heard)) => Err(End::Slow),
            _ if over(self.heard) => Err(End::Silent),
            _ => Ok(()),
        }
    }

    /// When the connection ends because of its token. The wall clock may jump meanwhile.
    fn expires(&self, peer: &Peer, now: Duration) -> Duration {
        let left = peer.expires.plus(TOKEN_GRACE).get();
        let left = left.saturating_sub(self.shared.parts.clock.wall().get());
        now.saturating_add(Duration::from_millis(left))
    }

    /// Writes what is left and why it ends, while somebody reads it; the last thing that is done
    /// is to tell the store where the device is.
    async fn close(self: Box<Self>, end: End) {
        let Connection {
            incoming,
            outgoing,
            pending: Pending { mut answers, work, rare },
            peer,
            ..
        } = *self;
        // What is under way is not polled any more: it must not hold up others, nor the carrier.
        drop((work, rare));
        let gone = matches!(end, End::Gone);
        answers.extend(end.error().map(v1::ServerFrame::from));
        if !gone {
            // Who reads nothing is just cut.
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, write(&outgoing, answers)).await;
        }
        drop((incoming, outgoing));
        if let Some(peer) = peer {
            peer.leave().await;
        }
    }

    fn now(&self) -> Duration {
        self.shared.parts.clock.monotonic()
    }
}

impl End {
    /// For metrics and logs.
    fn reason(&self) -> &'static str {
        match self {
            End::Gone => "gone",
            End::Silent => "silent",
            End::Slow => "slow",
            End::Drained => "drained",
            End::Unseated(ErrorCode::Displaced) => "displaced",
            End::Unseated(ErrorCode::LoggedOut) => "logged_out",
            End::Unseated(_) => "forgotten",
            End::NoHello => "no_hello",
            End::Expired => "token_expired",
            End::Refused(_) => "refused",
        }
    }

    /// What the device is told, if somebody may still listen.
    fn error(self) -> Option<v1::Error> {
        let told = |failure| refusal(failure, 0, 0);
        let error = match self {
            End::Gone | End::Silent | End::Slow | End::Drained => return None,
            End::Refused(error) => error,
            End::Unseated(ErrorCode::Displaced) => {
                told(Failure::new(ErrorCode::Displaced).retry_after(REFUSED_RETRY))
            }
            End::Unseated(code) => told(Failure::new(code)),
            End::NoHello => {
                told(Failure::new(ErrorCode::Unauthenticated).message("no Hello came in time"))
            }
            End::Expired => told(Failure::new(ErrorCode::TokenExpired)),
        };
        Some(v1::Error { closing: true, ..error })
    }
}

/// Wakes the connection at a time that mostly moves on before it comes: a timer is only set anew
/// when it is too late, or when it is over and was for nothing. One that is over and due stays so
/// until it is looked at, however much else happens.
struct Alarm {
    /// On the monotonic clock.
    at: Duration,
    sleep: Pin<Box<Sleep>>,
}

impl Alarm {
    fn at(now: Duration) -> Self {
        Alarm { at: now, sleep: Box::pin(tokio::time::sleep(Duration::ZERO)) }
    }

    /// It goes off at `at`, or earlier for nothing.
    fn set(&mut self, at: Duration, now: Duration) {
        if at < self.at || (at > now && self.sleep.is_elapsed()) {
            self.at = at;
            self.sleep.as_mut().reset(Instant::now() + at.saturating_sub(now));
        }
    }
}

async fn write(outgoing: &Outgoing, frames: VecDeque<v1::ServerFrame>) {
    for frame in frames {
        metrics::sent(&frame);
        if outgoing.send(Box::new(frame)).await.is_err() {
            return;
        }
    }
}

/// A frame was refused, and the connection goes on.
pub(super) fn refusal(failure: Failure, frame: u32, request_id: u64) -> v1::Error {
    v1::Error { failure: Some(failure.into()), frame, request_id, closing: false }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn an_alarm_that_is_due_goes_off_though_it_is_set_again_and_again() {
        let start = Instant::now();
        let mut alarm = Alarm::at(Duration::ZERO);
        (&mut alarm.sleep).await;
        alarm.set(SECOND, Duration::ZERO);
        tokio::time::advance(SECOND / 2).await;
        alarm.set(2 * SECOND, start.elapsed());
        assert!((&mut alarm.sleep).now_or_never().is_none());
        tokio::time::advance(SECOND).await;
        // Over, and for nothing: it is due later by now.
        assert!((&mut alarm.sleep).now_or_never().is_some());
        alarm.set(2 * SECOND, start.elapsed());
        assert!((&mut alarm.sleep).now_or_never().is_none());
        tokio::time::advance(SECOND).await;
        // Due, and other events come first.
        for _ in 0..10 {
            alarm.set(2 * SECOND, start.elapsed());
        }
        assert!((&mut alarm.sleep).now_or_never().is_some());
        // Sooner than it was set.
        alarm.set(9 * SECOND, start.elapsed());
        alarm.set(3 * SECOND, start.elapsed());
        tokio::time::advance(SECOND).await;
        assert!((&mut alarm.sleep).now_or_never().is_some());
    }
}
