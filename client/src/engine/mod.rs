//! The device as a state machine without I/O: inputs in, changes and actions out.
//!
//! ```text
//!   frames, ticks,      ┌────────────┐ welcome, lost, due   ┌────────────┐
//!   connections,   ───► │ Connection │ ───────────────────► │  Receiver  │ ─► Hand, Sync, Ack
//!   tokens              └────────────┘          │           └─────┬──────┘
//!                                               ▼                 │ own copies
//!   sends of the        ┌─────────────────────────────────────────▼──────┐
//!   application    ───► │                    Sender                      │ ─► Open, Send, Report
//!                       └────────────────────────────────────────────────┘
//! ```
//!
//! No task, no socket, no disk, no clock: time comes with each input, randomness from a seam, so
//! one seed and one script of inputs give one output. A runtime makes the changes of an
//! [`Output`] durable and only then carries out its actions; inputs that came together may share
//! one output. That order is the whole of "durable before use": numbers before `Send`, `open_id`
//! before `Open`, the cursor before whatever confirms it, outcomes before the `base` above them.
//!
//! A crash may lose an output whole, or its actions after its changes; nothing else.

mod answer;
mod backoff;
mod connection;
mod io;
mod origins;
mod out;
mod outbox;
mod receiver;
mod sender;

use std::sync::Arc;
use std::time::Duration;

use tidemark_env::Rng;
use tidemark_proto::convert::{bytes_of, uuid};
use tidemark_proto::v1::{client_frame, server_frame};
use tidemark_proto::{Failure, FieldError, Position, v1};
use tidemark_types::{ClusterId, Epoch, ErrorCode, Seq, UnixMs, UserId};

use self::connection::{Connection, Due, From};
pub use self::io::{Action, ConnectionState, Input, Link, Output, Status};
pub use self::origins::ORIGINS_MAX;
use self::out::Out;
use self::outbox::Outbox;
use self::receiver::Receiver;
use self::sender::{Need, Sender};
use crate::config::Config;
use crate::event::{Event, Fatal};
use crate::store::{Change, Meta, OutboxId, Saved};

/// How long a device that closes waits for the item that its application has in its hands.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long outcomes that were taken stay in the store when nothing else is written: a write of
/// their own for each would double the writes.
const FORGET_INTERVAL: Duration = Duration::from_secs(1);

/// A device.
pub struct Engine {
    config: Arc<Config>,
    meta: Meta,
    connection: Connection,
    sender: Sender,
    receiver: Receiver,
    /// Whom it watches, whether they are there. A gateway knows it as long as a connection lasts.
    watched: Vec<UserId>,
    /// The server's clock, and when it was read.
    server_time: Option<(UnixMs, Duration)>,
    close_by: Option<Duration>,
    forget_at: Option<Duration>,
    out: Out,
}

impl Engine {
    /// A device that goes on where its store left off. The first [`Input::Tick`] makes it connect.
    pub fn new(config: Arc<Config>, saved: Saved, rng: Arc<dyn Rng>) -> Self {
        let new = || Meta::new(config.user.clone(), config.device.clone());
        let meta = saved.meta.unwrap_or_else(new);
        let mut out = Out::default();
        out.save_meta();
        for (id, settled) in &saved.outcomes {
            out.action(Action::Report { id: *id, settled: *settled });
        }
        let used = saved.outcomes.keys().next_back().map_or(meta.numbered, |last| last.plus(1));
        let outbox = Outbox::restore(saved.outbox, used.max(meta.numbered));
        Engine {
            connection: Connection::new(config.gateways.len(), rng.clone()),
            sender: Sender::new(outbox, &meta, rng.clone()),
            receiver: Receiver::new(&meta, rng),
            config,
            meta,
            watched: Vec::new(),
            server_time: None,
            close_by: None,
            forget_at: None,
            out,
        }
    }

    /// Takes a send, whose content was checked; its session, n and base are 0. It is stored with
    /// the next output.
    pub fn send(&mut self, now: Duration, send: v1::Send) -> OutboxId {
        let id = self.sender.push(send, &mut self.out);
        self.pump(now);
        id
    }

    /// Asks something on the connection in use, once: the answer is an action, if it comes. False
    /// when there is no connection.
    pub fn ask(&mut self, now: Duration, question: impl Into<v1::ClientFrame>) -> bool {
        let online = matches!(self.connection.state(), ConnectionState::Online { .. });
        if online {
            self.out.frame(question);
            self.pump(now);
        }
        online
    }

    /// Watches these users, whether they are there, and nobody else: on the connection in use, and on
    /// each one after it.
    pub fn watch_presence(&mut self, now: Duration, users: Vec<UserId>) {
        self.watched = users;
        if matches!(self.connection.state(), ConnectionState::Online { .. }) {
            self.say_watched();
            self.pump(now);
        }
    }

    fn say_watched(&mut self) {
        let users = self.watched.iter().map(ToString::to_string).collect();
        self.out.frame(v1::WatchPresence { users });
    }

    /// Takes an input. `now` never goes back.
    pub fn input(&mut self, now: Duration, input: Input) {
        if self.connection.is_stopped() {
            return;
        }
        match input {
            Input::Tick => self.tick(now),
            Input::Connected(link) => self.connection.connected(now, link, &mut self.out),
            Input::Lost { link, reason } => self.lose(now, link, reason, None),
            Input::Frame { link, frame } => self.frame(now, link, *frame),
            Input::Token(Ok(token)) => {
                self.connection.token(token);
                self.hello(now);
            }
            Input::Token(Err(reason)) => {
                if self.connection.no_token(now) {
                    self.drop_link(now, format!("no token: {reason}"), None);
                }
            }
            Input::Handled(result) => self.receiver.handled(now, result, &mut self.out),
            Input::Taken(id) => {
                self.out.forget(id);
                self.forget_at.get_or_insert(now + FORGET_INTERVAL);
            }
            Input::Close => {
                self.receiver.close();
                self.close_by.get_or_insert(now + CLOSE_TIMEOUT);
            }
        }
        let closed = self.close_by.is_some_and(|by| by <= now || !self.receiver.is_handing());
        if closed && !self.connection.is_stopped() {
            self.stop();
        }
        self.pump(now);
    }

    /// What has come together since this was last asked.
    pub fn output(&mut self) -> Output {
        let Engine { meta, sender, receiver, .. } = self;
        self.out.take(|| {
            sender.save(meta);
            receiver.save(meta);
            Change::Meta(Box::new(meta.clone()))
        })
    }

    /// When a tick is due.
    pub fn deadline(&self) -> Option<Duration> {
        let parts = [
            self.connection.deadline(),
            self.sender.deadline(),
            self.receiver.deadline(),
            self.close_by,
            self.forget_at,
        ];
        parts.into_iter().flatten().min().filter(|_| !self.is_stopped())
    }

    /// Has it stopped?
    pub fn is_stopped(&self) -> bool {
        self.connection.is_stopped()
    }

    /// Where it stands.
    pub fn status(&self) -> Status {
        let (outbox_len, unsettled) = self.sender.counts();
        Status {
            connection: self.connection.state(),
            outbox_len,
            unsettled,
            sending_stopped: self.sender.is_halted(),
            ..self.receiver.status()
        }
    }

    /// The server's clock as it was last told, and the monotonic time of that.
    pub fn server_time(&self) -> Option<(UnixMs, Duration)> {
        self.server_time
    }

    /// Goes on wherever something can go on.
    fn pump(&mut self, now: Duration) {
        if !self.connection.is_stopped() {
            self.receiver.pump(now, &mut self.out);
            self.sender.pump(now, &mut self.out);
        }
        if self.out.take_sent() {
            self.connection.sent(now);
        }
    }

    fn tick(&mut self, now: Duration) {
        self.receiver.tick(now, &mut self.out);
        self.sender.tick(now);
        if self.forget_at.take_if(|at| *at <= now).is_some() {
            self.out.flush();
        }
        match self.connection.tick(now, &mut self.out) {
            Due::Nothing => {}
            Due::Dead(reason) => self.drop_link(now, reason.to_owned(), None),
            Due::Hello => self.hello(now),
            Due::Ping => {
                let (epoch, seq) = self.receiver.confirm(&mut self.out);
                let (epoch, seq_cli) = (epoch.get(), seq.get());
                self.out.frame(v1::Ping { nonce: 1, epoch, seq_cli });
            }
        }
    }

    fn hello(&mut self, now: Duration) {
        if !self.connection.may_greet() {
            return;
        }
        self.out.set_link(self.connection.link());
        let token = self.connection.greet(now);
        let (epoch, seq) = self.receiver.confirm(&mut self.out);
        let cluster = self.meta.cluster.or(self.config.cluster);
        self.out.frame(v1::Hello {
            cluster_id: cluster.map(|id| bytes_of(id.as_bytes())).unwrap_or_default(),
            token,
            user: self.config.user.to_string(),
            device: self.config.device.to_string(),
            epoch: epoch.get(),
            seq_cli: seq.get(),
            start: (epoch == Epoch::NONE).then(|| self.config.start.into()),
            agent: self.config.agent.clone(),
            label: self.config.label.as_ref().map(|label| v1::Label {
                name: label.name.clone(),
                platform: label.platform.clone(),
            }),
        });
    }

    fn frame(&mut self, now: Duration, link: Link, frame: v1::ServerFrame) {
        use server_frame::Frame;
        let from = self.connection.heard(now, link);
        // A frame of a kind that this version does not know is passed over.
        let Some(frame) = frame.frame else { return };
        match (from, frame) {
            (From::Nobody, _) => {}
            (from, Frame::SendAck(ack)) => {
                let need = self.sender.ack(now, from == From::Old, ack, &mut self.out);
                self.need(now, need);
            }
            (From::Current, Frame::Opened(opened)) => {
                let need = self.sender.opened(now, opened, &mut self.out);
                self.need(now, need);
            }
            (_, Frame::Deliver(deliver)) => {
                let taken = self.receiver.deliver(deliver, &mut self.sender, &mut self.out);
                self.check(now, link, taken);
            }
            (_, Frame::SyncPage(page)) => {
                let taken = self.receiver.page(page, &mut self.sender, &mut self.out);
                self.check(now, link, taken);
            }
            (From::Current, Frame::Welcome(welcome)) => self.welcome(now, &welcome),
            (From::Current, Frame::Notice(notice)) => {
                self.receiver.notice(Epoch::new(notice.epoch), Seq::new(notice.head));
            }
            (From::Current, Frame::Pong(pong)) => {
                self.server_time = Some((UnixMs::new(pong.server_time_ms), now));
                self.receiver.notice(Epoch::new(pong.epoch), Seq::new(pong.seq_svr));
            }
            (From::Current, Frame::Reset(reset)) => {
                if self.receiver.reset(Position::from(reset), &mut self.out) {
                    self.hello(now);
                }
            }
            (From::Current, Frame::GoAway(away)) => {
                let ms = |ms: u32| Duration::from_millis(ms.into());
                let after = Some(ms(away.reconnect_after_ms));
                self.leave(now, after, ms(away.close_after_ms));
            }
            (From::Current, Frame::Typing(v1::Typing { user, typing })) => {
                if let Ok(by) = user.parse() {
                    self.out.event(Event::Typing { by, typing });
                }
            }
            (From::Current, Frame::PresenceChange(v1::PresenceChange { user, status })) => {
                let v1::PresenceStatus { online, last_seen_ms } = status.unwrap_or_default();
                // It may have been said before the server heard that another one is watched.
                if let Some(user) = self.watched.iter().find(|known| known.as_str() == user) {
                    let (user, last_seen) = (user.clone(), UnixMs::new(last_seen_ms));
                    self.out.event(Event::Presence { user, online, last_seen });
                }
            }
            (From::Current, frame @ (Frame::UnreadReply(_) | Frame::PresenceReply(_))) => {
                let frame = v1::ServerFrame { frame: Some(frame) };
                self.out.action(Action::Answer(Box::new(frame)));
            }
            (From::Current, Frame::Error(error)) => self.error(now, link, error),
            // This device never asks for a Status; and what an old connection says of itself, or
            // of a session that the new one may have replaced, is over.
            (_, Frame::StatusReply(_)) | (From::Old, _) => {}
        }
    }

    fn welcome(&mut self, now: Duration, welcome: &v1::Welcome) {
        let Some(first) = self.connection.welcome(now, welcome, &mut self.out) else { return };
        let cluster = match uuid::<ClusterId>("welcome.cluster_id", &welcome.cluster_id) {
            Ok(cluster) => cluster,
            Err(error) => return self.drop_link(now, error.to_string(), None),
        };
        let known = self.meta.cluster.or(self.config.cluster);
        if known.is_some_and(|known| known != cluster) {
            return self.fatal(Fatal::WrongCluster(cluster.to_string()));
        }
        if self.meta.cluster.replace(cluster).is_none() {
            self.out.save_meta();
        }
        if !self.receiver.welcome(now, welcome, &mut self.out) {
            let reason = "the welcome is not for this device's cursor".to_owned();
            return self.drop_link(now, reason, None);
        }
        self.server_time = Some((UnixMs::new(welcome.server_time_ms), now));
        self.sender.welcome(welcome, &mut self.out);
        if first {
            let gateway = self.config.gateways[self.connection.gateway()].clone();
            self.out.event(Event::Connected { gateway });
            if !self.watched.is_empty() {
                self.say_watched();
            }
        }
    }

    /// A run that has a hole, or a page whose parts disagree, is a broken server.
    fn check(&mut self, now: Duration, link: Link, taken: Result<(), FieldError>) {
        if let Err(error) = taken {
            tracing::error!(%error, "the server broke the protocol");
            self.lose(now, link, error.to_string(), None);
        }
    }

    fn need(&mut self, now: Duration, need: Need) {
        match need {
            Need::Nothing => {}
            Need::Hello => self.hello(now),
            Need::Token => {
                self.connection.refuse_token();
                self.connection.fetch_token(&mut self.out);
            }
            Need::Elsewhere => self.leave(now, None, CLOSE_TIMEOUT),
            Need::Head => self.receiver.seek(),
        }
    }

    fn leave(&mut self, now: Duration, after: Option<Duration>, close_after: Duration) {
        self.connection.go_away(now, after, close_after);
        self.offline();
    }

    fn error(&mut self, now: Duration, link: Link, error: v1::Error) {
        use client_frame::Frame;
        let failure = Failure::from(error.failure.unwrap_or_default());
        let code = failure.code;
        let hello = error.frame == Frame::HELLO;
        let token = matches!(code, ErrorCode::Unauthenticated | ErrorCode::TokenExpired);
        let again = token && self.connection.refuse_token();
        let fatal: Option<fn(String) -> Fatal> = match code {
            ErrorCode::WrongCluster => Some(Fatal::WrongCluster),
            ErrorCode::PermissionDenied if hello => Some(Fatal::PermissionDenied),
            ErrorCode::Invalid | ErrorCode::TooManyDevices if hello => Some(Fatal::Refused),
            ErrorCode::Unauthenticated if again => Some(Fatal::Unauthenticated),
            ErrorCode::LoggedOut => Some(Fatal::LoggedOut),
            _ => None,
        };
        if let Some(fatal) = fatal {
            return self.fatal(fatal(failure.message));
        }
        if code == ErrorCode::GoingAway {
            self.leave(now, failure.retry_after, CLOSE_TIMEOUT);
        }
        let closing = error.closing;
        let hint = failure.retry_after;
        let reason = failure.to_string();
        match error.frame {
            Frame::HELLO if !closing => self.connection.greet_later(now, hint),
            Frame::OPEN | Frame::SEND => {
                let need = self.sender.not_taken(now, failure, &mut self.out);
                if !closing {
                    self.need(now, need);
                }
            }
            Frame::SYNC => self.receiver.refused(now, error.request_id, hint),
            Frame::UNREAD | Frame::PRESENCE => {
                let request_id = error.request_id;
                self.out.action(Action::Unanswered { request_id, failure });
            }
            Frame::WATCH_PRESENCE => {
                self.out.event(Event::PresenceRefused { message: failure.message });
            }
            // The device was forgotten, and hears nothing more until it registers again.
            _ if code == ErrorCode::NoDevice && !closing => self.hello(now),
            _ => {}
        }
        if closing {
            self.lose(now, link, reason, hint);
        }
    }

    fn drop_link(&mut self, now: Duration, reason: String, hint: Option<Duration>) {
        if let Some(link) = self.connection.link() {
            self.lose(now, link, reason, hint);
        }
    }

    fn lose(&mut self, now: Duration, link: Link, reason: String, hint: Option<Duration>) {
        if let Some(retry_in) = self.connection.lose(now, link, hint, &mut self.out) {
            self.offline();
            self.out.event(Event::Disconnected { reason, retry_in });
        }
    }

    /// No frame goes out until the next `Hello`.
    fn offline(&mut self) {
        self.out.set_link(None);
        self.sender.offline();
        self.receiver.offline();
    }

    fn fatal(&mut self, reason: Fatal) {
        tracing::error!(%reason, "the device stops");
        self.out.event(Event::Stopped(reason));
        self.stop();
    }

    fn stop(&mut self) {
        self.receiver.flush(&mut self.out);
        self.out.flush();
        self.connection.stop(&mut self.out);
        self.offline();
    }
}
