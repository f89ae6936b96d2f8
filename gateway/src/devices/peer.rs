//! A device that has said who it is: what its frames do, and what becomes of its questions.
//!
//! ```text
//!   Hello ──► register ──► Welcome: a place ──► pages ──► Deliver, Notice
//!                    └──► Reset: no place until the next Hello
//! ```
//!
//! Invariants: without a place nothing is delivered, and what asks for one is passed over; what was
//! asked in an earlier place is not answered in a later one; one page is asked for at a time, and
//! the next one only when the answers before it are out.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tidemark_mutants::{Mutant, is};
use tidemark_proto::convert::{self, bytes_of, session_number};
use tidemark_proto::hello::{Hello, Open};
use tidemark_proto::v1::client_frame::Frame;
use tidemark_proto::{Detail, Failure, Position, v1};
use tidemark_store_core::Command;
use tidemark_store_core::reply::Registered;
use tidemark_types::limits::{BODY_BYTES_MAX, FRAME_BYTES_MAX, SEND_WINDOW, SEND_WINDOW_BYTES};
use tidemark_types::{DeviceId, Epoch, ErrorCode, Seq, UnixMs, UserId};

use super::connection::{Event, refusal};
use super::pace::Pace;
use super::{Parts, Shared};
use crate::metrics;
use crate::push::{Delivery, Push};
use crate::receive::{self, Cursor};
use crate::send::{self, Uplink};
use crate::session::Seat;

/// What a connection has to send, and what it waits for.
#[derive(Default)]
pub(super) struct Pending {
    /// Frames that wait for room.
    pub(super) answers: VecDeque<v1::ServerFrame>,
    /// Questions to the store.
    pub(super) work: FuturesUnordered<BoxFuture<'static, Done>>,
    /// What happens once at most, which is not looked at before it does.
    pub(super) rare: FuturesUnordered<BoxFuture<'static, Event>>,
}

/// A question to the store was answered; the number is the place's in which it was asked.
pub(super) enum Done {
    Registered(Result<(Seq, Registered), Failure>),
    Opened(v1::Opened),
    /// A `Sync`, by its request as well.
    Paged(u64, u64, Result<v1::Page, Failure>),
    Pinged(u64, Result<v1::Pong, Failure>),
    /// A `Status`, which has no place, by its request.
    Told(u64, Result<v1::MessageStatus, Failure>),
    /// An `Unread`, which has no place either, by its request.
    Counted(u64, Result<v1::UnreadCounts, Failure>),
    /// A `Presence`, as well.
    Seen(u64, Result<v1::PresenceStatus, Failure>),
    /// A `Typing` was told, or not: its device does not ask.
    Typed,
}

impl Pending {
    pub(super) fn answer(&mut self, frame: impl Into<v1::ServerFrame>) {
        self.answers.push_back(frame.into());
    }

    fn work(&mut self, work: impl Future<Output = Done> + Send + 'static) {
        self.work.push(work.boxed());
    }
}

/// A device that has said who it is.
pub(super) struct Peer {
    shared: Arc<Shared>,
    pub(super) user: UserId,
    pub(super) device: DeviceId,
    pub(super) seat: Seat,
    pub(super) uplink: Uplink,
    /// When its token expires.
    pub(super) expires: UnixMs,
    /// It had a `Welcome`, and may say more than `Hello`.
    pub(super) welcomed: bool,
    place: Option<Place>,
    /// Its connection's number.
    number: Option<u64>,
    /// How many places it has had.
    places: u64,
    pace: Pace,
}

/// Where the device is in its mailbox.
struct Place {
    delivery: Delivery,
    cursor: Cursor,
    /// The page that it waits for: asked for, or still to be.
    asks: Option<v1::Sync>,
    paging: bool,
}

impl Peer {
    /// The device takes its seat; it has no place in the mailbox yet.
    pub(super) fn new(shared: Arc<Shared>, hello: &Hello, expires: UnixMs) -> Self {
        let (user, device) = (hello.user.clone(), hello.device.clone());
        let parts = &shared.parts;
        let uplink = Uplink::new(
            parts.store.clone(),
            parts.clock.clone(),
            parts.rng.clone(),
            parts.checks.clone(),
            user.clone(),
            device.clone(),
        );
        let seat = shared.registry.join(&user, &device);
        let (place, number, places) = (None, None, 0);
        let welcomed = false;
        let pace = Pace::default();
        Peer { shared, user, device, seat, uplink, expires, welcomed, place, number, places, pace }
    }

    /// Asks for a place.
    pub(super) fn greet(&self, hello: Hello, issued: UnixMs, pending: &mut Pending) {
        let store = self.shared.parts.store.clone();
        pending.work(receive::register(store, hello, issued).map(Done::Registered));
    }

    /// Takes a frame; an error is `INVALID`, and the connection is cut.
    pub(super) fn take(&mut self, frame: Frame, pending: &mut Pending) -> Result<(), Failure> {
        match frame {
            Frame::Send(send) => {
                if let Some(refused) = self.uplink.push(send)? {
                    pending.answer(refused);
                }
            }
            Frame::Open(open) => {
                let open = Open::try_from(&open)?;
                let store = self.shared.parts.store.clone();
                let opening = send::open(store, self.user.clone(), self.device.clone(), open);
                pending.work(opening.map(Done::Opened));
            }
            Frame::Ack(ack) => self.confirm(ack.epoch, ack.seq),
            Frame::Sync(sync) => {
                if let Some(place) = &mut self.place {
                    // The newest one counts: a device repeats one that got no answer.
                    place.asks = Some(sync);
                }
            }
            Frame::Ping(ping) => self.ping(ping, pending),
            Frame::Typing(typing) => self.typing(&typing, pending)?,
            Frame::Presence(v1::Presence { request_id, user }) => {
                let user = convert::name("presence.user", &user)?;
                let store = self.shared.parts.store.clone();
                let seen = receive::presence(store, user, Some(self.user.clone()));
                pending.work(seen.map(move |status| Done::Seen(request_id, status)));
            }
            Frame::WatchPresence(watch) => self.watch(&watch, pending)?,
            Frame::Status(status) => self.ask(&status, pending)?,
            Frame::Unread(v1::Unread { request_id }) => {
                let counted = receive::unread(self.shared.parts.store.clone(), self.user.clone());
                pending.work(counted.map(move |counts| Done::Counted(request_id, counts)));
            }
            // It is its connection's.
            Frame::Hello(_) => {
                let failure = Failure::new(ErrorCode::UnknownFrame);
                pending.answer(refusal(failure, Frame::HELLO, 0));
            }
        }
        Ok(())
    }

    /// Asks for the page that is due, where none is under way.
    pub(super) fn start(&mut self, pending: &mut Pending) {
        let (store, user, number) = (&self.shared.parts.store, &self.user, self.places);
        let Some(place) = &mut self.place else { return };
        if let Some(sync) = place.asks.take_if(|_| !place.paging && pending.answers.is_empty()) {
            place.paging = true;
            let (epoch, seq_cli) = (Epoch::new(sync.epoch), Seq::new(sync.seq_cli));
            let page = receive::page(store.clone(), user.clone(), epoch, seq_cli, sync.limit);
            pending.work(page.map(move |page| Done::Paged(number, sync.request_id, page)));
        }
    }

    /// A question was answered.
    pub(super) fn done(&mut self, done: Done, pending: &mut Pending) -> Result<(), Failure> {
        match done {
            Done::Paged(number, ..) | Done::Pinged(number, _)
                if number != self.places || self.place.is_none() => {}
            // Its cursor is of another epoch or above the head (R11).
            Done::Registered(Err(Failure { detail: Some(Detail::Position(position)), .. }))
            | Done::Paged(.., Err(Failure { detail: Some(Detail::Position(position)), .. }))
            | Done::Pinged(_, Err(Failure { detail: Some(Detail::Position(position)), .. })) => {
                let reset = self.displace(position);
                pending.answer(reset);
            }
            Done::Registered(Ok((start, registered))) => self.welcome(start, &registered, pending),
            Done::Registered(Err(failure)) if failure.code.is_retryable() => {
                pending.answer(refusal(failure, Frame::HELLO, 0));
            }
            Done::Registered(Err(failure)) => return Err(failure),
            Done::Opened(opened) => pending.answer(opened),
            Done::Paged(_, request_id, page) => self.paged(request_id, page, pending),
            Done::Pinged(_, Ok(pong)) => pending.answer(self.stamped(pong)),
            Done::Pinged(_, Err(failure)) => pending.answer(refusal(failure, Frame::PING, 0)),
            Done::Told(request_id, Ok(status)) => {
                pending.answer(v1::StatusReply { request_id, status: Some(status) });
            }
            Done::Told(request_id, Err(failure)) => {
                pending.answer(refusal(failure, Frame::STATUS, request_id));
            }
            Done::Counted(request_id, Ok(counts)) => {
                pending.answer(v1::UnreadReply { request_id, counts: Some(counts) });
            }
            Done::Seen(request_id, Ok(status)) => {
                pending.answer(v1::PresenceReply { request_id, status: Some(status) });
            }
            Done::Seen(request_id, Err(failure)) => {
                pending.answer(refusal(failure, Frame::PRESENCE, request_id));
            }
            Done::Typed => {}
            Done::Counted(request_id, Err(failure)) => {
                pending.answer(refusal(failure, Frame::UNREAD, request_id));
            }
        }
        Ok(())
    }

    /// A cursor that the device had in this place is refused for good.
    pub(super) fn unconfirmed(
        &mut self,
        number: u64,
        failure: Failure,
        pending: &mut Pending,
    ) -> Result<(), Failure> {
        match failure {
            _ if number != self.places || self.place.is_none() => {}
            Failure { detail: Some(Detail::Position(position)), .. } => {
                let reset = self.displace(position);
                pending.answer(reset);
            }
            // It was forgotten, and has to register.
            Failure { code: ErrorCode::NoDevice, .. } => {
                self.place = None;
                pending.answer(refusal(failure, Frame::ACK, 0));
            }
            logged_out => return Err(logged_out),
        }
        Ok(())
    }

    /// Is there something to be pushed?
    pub(super) fn pushes(&mut self) -> bool {
        let Some(place) = &self.place else { return false };
        let is_due = place.delivery.is_due(&self.seat.mailbox.lock());
        is_due || self.seat.passes()
    }

    /// What is to be pushed; its caller sends it.
    pub(super) fn push(&mut self) -> Option<v1::ServerFrame> {
        let now = self.shared.parts.clock.wall();
        let due = self.place.as_mut()?.delivery.take(&self.seat.mailbox.lock(), now);
        // A slow device has more important things to hear than what passes by.
        let Some(push) = due else { return self.seat.pass() };
        Some(match push {
            Push::Deliver(deliver) => {
                if is(Mutant::ConfirmWhenSent) {
                    let last = deliver.prev_seq + deliver.entries.len() as u32;
                    self.confirm(deliver.epoch, last);
                }
                deliver.into()
            }
            Push::Notice(notice) => notice.into(),
            Push::Reset(position) => self.displace(position).into(),
        })
    }

    /// The connection ends: leaves the seat, and tells the store where the device is.
    pub(super) async fn leave(self) {
        let Peer { shared, user, device, seat, uplink, place, number, .. } = self;
        drop((seat, uplink));
        let store = shared.parts.store.clone();
        if let Some((epoch, seq)) = place.and_then(|place| place.cursor.rest()) {
            let (store, user, device) = (store.clone(), user.clone(), device.clone());
            if let Err(failure) = receive::confirm(store, user, device, epoch, seq).await {
                // The device tells it again in its next Hello.
                tracing::debug!(%failure, "a device's last cursor is not confirmed");
            }
        }
        let Some(connection) = number else { return };
        if let Err(error) = store.command(Command::Depart { user, device, connection }).await {
            // Its hints come a little later then, when it has not confirmed for a while.
            tracing::debug!(%error, "a connection's end is not known to the store");
        }
    }

    fn welcome(&mut self, start: Seq, registered: &Registered, pending: &mut Pending) {
        let Registered { epoch, floor, head, cursor, live, connection, .. } = *registered;
        self.seat.numbered(connection);
        self.number = Some(connection);
        let rest = v1::Sync { request_id: 0, epoch: epoch.get(), seq_cli: start.get(), limit: 0 };
        let cursors = self.shared.cursors(&self.user);
        let (user, device) = (self.user.clone(), self.device.clone());
        let (cursor, refused) = cursors.at(user, device, epoch, cursor);
        self.places += 1;
        let number = self.places;
        pending.rare.push(refused.map(move |why| Event::Unconfirmed(number, why.ok())).boxed());
        self.place = Some(Place {
            delivery: Delivery::at(epoch, start, head),
            cursor,
            asks: (start < head).then_some(rest),
            paging: false,
        });
        self.welcomed = true;
        let Parts { limits, checks, .. } = &self.shared.parts;
        let body_bytes_max = checks.as_ref().map_or(BODY_BYTES_MAX, |it| it.body_bytes_max());
        pending.answer(v1::Welcome {
            cluster_id: bytes_of(self.shared.cluster.as_bytes()),
            epoch: epoch.get(),
            seq_svr: head.get(),
            floor: floor.get(),
            start: start.get(),
            send_window: saturated(SEND_WINDOW.into()),
            send_window_bytes: saturated(SEND_WINDOW_BYTES as u128),
            frame_bytes_max: saturated(FRAME_BYTES_MAX as u128),
            body_bytes_max: saturated(body_bytes_max as u128),
            heartbeat_min_ms: saturated(limits.heartbeat_min.as_millis()),
            heartbeat_max_ms: saturated(limits.heartbeat_max.as_millis()),
            server_time_ms: self.shared.parts.clock.wall().get(),
            live_session: session_number(live),
            token_expires_ms: self.expires.get(),
        });
    }

    fn confirm(&self, epoch: u32, seq: u32) {
        if let Some(place) = &self.place {
            place.cursor.heard(Epoch::new(epoch), Seq::new(seq));
        }
    }

    fn ask(&self, status: &v1::Status, pending: &mut Pending) -> Result<(), Failure> {
        let request_id = status.request_id;
        match receive::asked(&self.user, status) {
            Ok(origin) => {
                let told = receive::status(self.shared.parts.store.clone(), origin);
                pending.work(told.map(move |told| Done::Told(request_id, told)));
            }
            // A question that it may not ask, and nothing else is wrong.
            Err(failure) if failure.code == ErrorCode::PermissionDenied => {
                pending.answer(refusal(failure, Frame::STATUS, request_id));
            }
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    /// What comes too fast is dropped, and so is what the store does not take.
    fn typing(&mut self, typing: &v1::Typing, pending: &mut Pending) -> Result<(), Failure> {
        let to = convert::name("typing.user", &typing.user)?;
        if !self.pace.admit(self.shared.parts.clock.monotonic()) {
            metrics::typing_dropped();
            return Ok(());
        }
        let (store, by) = (self.shared.parts.store.clone(), self.user.clone());
        let typing = typing.typing;
        pending.work(async move {
            if store.typing(to, by, typing).await.is_err() {
                metrics::typing_dropped();
            }
            Done::Typed
        });
        Ok(())
    }

    fn watch(&mut self, watch: &v1::WatchPresence, pending: &mut Pending) -> Result<(), Failure> {
        let max = self.shared.parts.limits.presence_max as usize;
        if watch.users.len() > max {
            let text = format!("watch_presence.users: {}, at most {max}", watch.users.len());
            let failure = Failure::new(ErrorCode::Invalid).message(text);
            pending.answer(refusal(failure, Frame::WATCH_PRESENCE, 0));
            return Ok(());
        }
        let user = |name: &String| convert::name("watch_presence.users", name);
        let users = watch.users.iter().map(user).collect::<Result<_, _>>()?;
        self.seat.watch(users);
        Ok(())
    }

    fn ping(&mut self, ping: v1::Ping, pending: &mut Pending) {
        if self.place.is_none() {
            return;
        }
        // A device without a cursor of its own has nothing to confirm.
        if Epoch::new(ping.epoch) != Epoch::NONE {
            self.confirm(ping.epoch, ping.seq_cli);
        }
        let head = self.seat.mailbox.lock().head();
        let live = head.filter(|_| self.shared.registry.is_live(&self.user));
        if let Some(pong) = live.and_then(|head| receive::cached(&ping, head)) {
            return pending.answer(self.stamped(pong));
        }
        let (store, number) = (self.shared.parts.store.clone(), self.places);
        let asked = receive::ping(store, self.user.clone(), ping);
        pending.work(asked.map(move |pinged| Done::Pinged(number, pinged)));
    }

    fn paged(&mut self, request_id: u64, page: Result<v1::Page, Failure>, pending: &mut Pending) {
        let Some(place) = &mut self.place else { return };
        place.paging = false;
        match page {
            Ok(page) => {
                let last = page.entries.last().map_or(page.prev_seq, |entry| entry.seq);
                if Epoch::new(page.epoch) == place.delivery.epoch() {
                    place.delivery.paged(Seq::new(last), page.more);
                }
                pending.answer(v1::SyncPage { request_id, page: Some(page) });
            }
            // The page after a Welcome, which nobody asked for: the device is told to ask.
            Err(_) if request_id == 0 => {
                let (epoch, head) = place.delivery.noticed();
                pending.answer(v1::Notice { epoch: epoch.get(), head: head.get() });
            }
            Err(failure) => pending.answer(refusal(failure, Frame::SYNC, request_id)),
        }
    }

    /// The device loses its place until it says `Hello`.
    fn displace(&mut self, position: Position) -> v1::Reset {
        self.place = None;
        metrics::reset();
        position.into()
    }

    fn stamped(&self, pong: v1::Pong) -> v1::Pong {
        v1::Pong { server_time_ms: self.shared.parts.clock.wall().get(), ..pong }
    }
}

/// A number as frames hold it; what does not fit means "very many".
pub(super) fn saturated(number: u128) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
