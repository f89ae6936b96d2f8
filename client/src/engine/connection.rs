//! The connection: which gateway, when to try the next one, whether the peer is alive.
//!
//! ```text
//!             ┌────────── lost, refused or silent: pause, next gateway ◄───────┐
//!             ▼                                                                │
//!   Idle ─► Connecting ─► Greeting ── Welcome ──► Online ── GoAway ──► Leaving ┤
//!             ▲           token, Hello            Ping, Pong                   │
//!             └────────────────────────── after reconnect_after ───────────────┘
//!                                         the old one is read on meanwhile
//! ```
//!
//! It knows times and peers, and nothing of entries or sends. Invariant: a frame of a connection
//! that is neither the current nor the old one is dropped.

use std::sync::Arc;
use std::time::Duration;

use tidemark_env::Rng;
use tidemark_proto::v1;

use super::backoff::Backoff;
use super::out::Out;
use super::{Action, ConnectionState, Link};

/// The pause after a connection that failed.
const RECONNECT_FIRST: Duration = Duration::from_millis(200);
const RECONNECT_LONGEST: Duration = Duration::from_secs(30);

/// A connection that lasted this long was a good one: after it the pauses begin small again.
const STABLE: Duration = Duration::from_secs(10);

/// Connecting, or the token, or a `Welcome`, takes no longer, or something is broken.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A peer that sends nothing for this long after a `Ping` is gone.
const PONG_TIMEOUT: Duration = Duration::from_secs(5);

/// The silence of a device, when the server tells no maximum.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// A token is renewed this long before it expires, or after half of its time if it is short.
const RENEW_BEFORE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle { until: Duration },
    Connecting(Link),
    Greeting(Link),
    Online(Link),
    Leaving { link: Link, until: Duration, close_at: Duration },
    Stopped,
}

impl Phase {
    /// The connection in use.
    fn link(self) -> Option<Link> {
        match self {
            Phase::Connecting(link)
            | Phase::Greeting(link)
            | Phase::Online(link)
            | Phase::Leaving { link, .. } => Some(link),
            Phase::Idle { .. } | Phase::Stopped => None,
        }
    }
}

/// Whose frame it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// The connection in use.
    Current,
    /// One that is left, for the answers that it still brings.
    Old,
    /// One that is gone.
    Nobody,
}

/// What a tick found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing for others.
    Nothing,
    /// The connection is dead.
    Dead(&'static str),
    /// A `Ping` must go out.
    Ping,
    /// A `Hello` must go out again.
    Hello,
}

/// The connection of a device.
pub(super) struct Connection {
    gateways: usize,
    gateway: usize,
    phase: Phase,
    /// A connection that said `GoAway`, and when it is cut.
    old: Option<(Link, Duration)>,
    links: u64,
    online_since: Option<Duration>,
    reconnect: Backoff,
    /// By when the peer must have answered: the connection, the token or the `Hello`.
    answer_by: Option<Duration>,
    hello_at: Option<Duration>,
    token: Option<String>,
    /// The server refused the last token that it was given.
    token_refused: bool,
    fetching: bool,
    renew_at: Option<Duration>,
    heartbeat: Duration,
    last_sent: Duration,
    /// When the peer of the connection in use last said something.
    last_heard: Duration,
    pong_by: Option<Duration>,
    rng: Arc<dyn Rng>,
}

impl Connection {
    pub(super) fn new(gateways: usize, rng: Arc<dyn Rng>) -> Self {
        let first = rng.number() % gateways.max(1) as u64;
        Connection {
            gateways,
            gateway: usize::try_from(first).expect("below a usize"),
            phase: Phase::Idle { until: Duration::ZERO },
            old: None,
            links: 0,
            online_since: None,
            reconnect: Backoff::new(RECONNECT_FIRST, RECONNECT_LONGEST),
            answer_by: None,
            hello_at: None,
            token: None,
            token_refused: false,
            fetching: false,
            renew_at: None,
            heartbeat: HEARTBEAT,
            last_sent: Duration::ZERO,
            last_heard: Duration::ZERO,
            pong_by: None,
            rng,
        }
    }

    /// For the application.
    pub(super) fn state(&self) -> ConnectionState {
        match self.phase {
            Phase::Idle { .. } => ConnectionState::Waiting,
            Phase::Connecting(_) | Phase::Greeting(_) => ConnectionState::Connecting,
            Phase::Online(_) => ConnectionState::Online { gateway: self.gateway },
            Phase::Leaving { .. } => ConnectionState::Leaving { gateway: self.gateway },
            Phase::Stopped => ConnectionState::Stopped,
        }
    }

    /// The gateway in use, by its place in the list.
    pub(super) fn gateway(&self) -> usize {
        self.gateway
    }

    /// The connection in use.
    pub(super) fn link(&self) -> Option<Link> {
        self.phase.link()
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.phase == Phase::Stopped
    }

    /// May entries and pages be asked for?
    pub(super) fn is_online(&self) -> bool {
        matches!(self.phase, Phase::Online(_))
    }

    /// Whose frame is it? Any frame shows that its peer is alive.
    pub(super) fn heard(&mut self, now: Duration, link: Link) -> From {
        if self.link() == Some(link) {
            self.last_heard = now;
            self.pong_by = None;
            From::Current
        } else if self.old.is_some_and(|(old, _)| old == link) {
            From::Old
        } else {
            From::Nobody
        }
    }

    /// A frame went out.
    pub(super) fn sent(&mut self, now: Duration) {
        self.last_sent = now;
    }

    /// The connection stands: a token is wanted for the `Hello`.
    pub(super) fn connected(&mut self, now: Duration, link: Link, out: &mut Out) {
        if self.phase == Phase::Connecting(link) {
            self.phase = Phase::Greeting(link);
            self.answer_by = Some(now + ANSWER_TIMEOUT);
            self.fetch_token(out);
        }
    }

    /// Asks the application for a token.
    pub(super) fn fetch_token(&mut self, out: &mut Out) {
        if !std::mem::replace(&mut self.fetching, true) {
            out.action(Action::FetchToken { refused: self.token_refused });
        }
    }

    /// There is a token, for the next `Hello`.
    pub(super) fn token(&mut self, token: String) {
        self.fetching = false;
        self.token = Some(token);
    }

    /// Is there a connection on which a `Hello` makes sense? Not one that is being left.
    pub(super) fn may_greet(&self) -> bool {
        matches!(self.phase, Phase::Greeting(_) | Phase::Online(_))
    }

    /// There is no token, for now. True when nothing can go on without one.
    pub(super) fn no_token(&mut self, now: Duration) -> bool {
        self.fetching = false;
        if self.is_online() {
            self.renew_at = Some(now + self.reconnect.pause(&*self.rng));
        }
        matches!(self.phase, Phase::Greeting(_))
    }

    /// The server refused the token. True when the one before was refused as well.
    pub(super) fn refuse_token(&mut self) -> bool {
        std::mem::replace(&mut self.token_refused, true)
    }

    /// A `Hello` goes out with this token.
    pub(super) fn greet(&mut self, now: Duration) -> String {
        self.hello_at = None;
        self.answer_by = Some(now + ANSWER_TIMEOUT);
        self.token.clone().unwrap_or_default()
    }

    /// A `Hello` was put off: again after this time.
    pub(super) fn greet_later(&mut self, now: Duration, hint: Option<Duration>) {
        let pause = hint.unwrap_or_else(|| self.reconnect.pause(&*self.rng));
        self.answer_by = None;
        self.hello_at = Some(now + pause);
    }

    /// The device is welcome: true for the first time on this connection, none when nothing had
    /// asked for it.
    pub(super) fn welcome(
        &mut self,
        now: Duration,
        welcome: &v1::Welcome,
        out: &mut Out,
    ) -> Option<bool> {
        self.answer_by.take()?;
        self.token_refused = false;
        let ms = |ms: u32| Duration::from_millis(ms.into());
        let longest = ms(welcome.heartbeat_max_ms);
        let longest = if longest.is_zero() { HEARTBEAT * 3 } else { longest };
        self.heartbeat = (longest / 3).max(ms(welcome.heartbeat_min_ms));
        // By the server's clock alone: the device's own may be wrong.
        let left = welcome.token_expires_ms.saturating_sub(welcome.server_time_ms);
        let left = Duration::from_millis(left);
        let early = RENEW_BEFORE.min(left / 2);
        self.renew_at = (welcome.token_expires_ms > 0).then(|| now + (left - early));
        let Phase::Greeting(link) = self.phase else { return Some(false) };
        self.phase = Phase::Online(link);
        self.online_since = Some(now);
        self.close_old(out);
        Some(true)
    }

    /// The server drains: connect elsewhere after a while, and read on here until then.
    pub(super) fn go_away(&mut self, now: Duration, after: Option<Duration>, close: Duration) {
        if let Phase::Online(link) | Phase::Greeting(link) = self.phase {
            let after = after.unwrap_or_else(|| self.reconnect.pause(&*self.rng));
            let (until, close_at) = (now + after, now + close.max(after));
            self.phase = Phase::Leaving { link, until, close_at };
            self.quiet();
        }
    }

    /// The connection is gone, or is given up. The pause until the next attempt, if it was the one
    /// in use.
    pub(super) fn lose(
        &mut self,
        now: Duration,
        link: Link,
        hint: Option<Duration>,
        out: &mut Out,
    ) -> Option<Duration> {
        if self.old.is_some_and(|(old, _)| old == link) {
            self.close_old(out);
        }
        if self.link() != Some(link) {
            return None;
        }
        out.action(Action::Close(link));
        self.next_gateway();
        let until = match self.phase {
            Phase::Leaving { until, .. } => until,
            _ => {
                if self.online_since.is_some_and(|since| now.saturating_sub(since) >= STABLE) {
                    self.reconnect.reset();
                }
                now + self.reconnect.pause(&*self.rng).max(hint.unwrap_or_default())
            }
        };
        self.phase = Phase::Idle { until };
        self.online_since = None;
        self.quiet();
        Some(until.saturating_sub(now))
    }

    /// Closes everything, for good.
    pub(super) fn stop(&mut self, out: &mut Out) {
        self.close_old(out);
        if let Some(link) = self.link() {
            out.action(Action::Close(link));
        }
        self.phase = Phase::Stopped;
        self.quiet();
        out.action(Action::Stop);
    }

    /// When a `Ping` is due: after a silence of either side, since what a device repeats into a dead
    /// connection is no silence of its own.
    fn ping_at(&self) -> Duration {
        self.last_sent.min(self.last_heard) + self.heartbeat
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let phase = match self.phase {
            Phase::Idle { until } | Phase::Leaving { until, .. } => Some(until),
            Phase::Online(_) => self.pong_by.or(Some(self.ping_at())),
            Phase::Connecting(_) | Phase::Greeting(_) | Phase::Stopped => None,
        };
        let old = self.old.map(|(_, until)| until);
        let renew = self.renew_at.filter(|_| self.is_online() && !self.fetching);
        [phase, old, self.answer_by, self.hello_at, renew].into_iter().flatten().min()
    }

    pub(super) fn tick(&mut self, now: Duration, out: &mut Out) -> Due {
        if self.old.is_some_and(|(_, until)| until <= now) {
            self.close_old(out);
        }
        match self.phase {
            Phase::Idle { until } if until <= now => self.connect(now, out),
            Phase::Leaving { link, until, close_at } if until <= now => {
                self.close_old(out);
                self.old = Some((link, close_at));
                self.next_gateway();
                self.connect(now, out);
            }
            _ => {}
        }
        if self.answer_by.is_some_and(|by| by <= now) {
            return Due::Dead("no answer to a Hello");
        }
        if self.hello_at.take_if(|at| *at <= now).is_some() {
            return Due::Hello;
        }
        if !self.is_online() {
            return Due::Nothing;
        }
        if self.renew_at.take_if(|at| *at <= now).is_some() {
            self.fetch_token(out);
        }
        match self.pong_by {
            Some(by) if by <= now => Due::Dead("no frame since a Ping"),
            None if self.ping_at() <= now => {
                self.pong_by = Some(now + PONG_TIMEOUT);
                Due::Ping
            }
            _ => Due::Nothing,
        }
    }

    fn connect(&mut self, now: Duration, out: &mut Out) {
        self.quiet();
        self.links += 1;
        let link = Link(self.links);
        self.phase = Phase::Connecting(link);
        self.answer_by = Some(now + ANSWER_TIMEOUT);
        out.action(Action::Connect { link, gateway: self.gateway });
    }

    fn next_gateway(&mut self) {
        self.gateway = (self.gateway + 1) % self.gateways.max(1);
    }

    fn close_old(&mut self, out: &mut Out) {
        if let Some((old, _)) = self.old.take() {
            out.action(Action::Close(old));
        }
    }

    /// Nothing is expected of a peer.
    fn quiet(&mut self) {
        self.answer_by = None;
        self.hello_at = None;
        self.renew_at = None;
        self.pong_by = None;
    }
}
