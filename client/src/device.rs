//! The handle of a device, and what an application holds of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use thiserror::Error;
use tidemark_env::{Clock, Rng, SystemClock, SystemRng};
use tidemark_proto::convert::bytes_of;
use tidemark_proto::v1::server_frame;
use tidemark_proto::{FieldError, send, v1};
use tidemark_types::{ClientMsgId, Recipient, UserId};
use tokio::sync::{Notify, SemaphorePermit, TryAcquireError, mpsc, oneshot, watch};

use crate::act::{self, ActKind, AskError, MARK_INTERVAL, Noting, Place, Received};
use crate::carrier::Connector;
use crate::config::{Config, ConfigError};
use crate::engine::{Engine, Status};
use crate::event::Event;
use crate::grpc::GrpcConnector;
use crate::handler::{Handler, TokenSource};
use crate::outcome::Outcome;
use crate::shared::{Reported, Room, Shared};
use crate::store::{OutboxId, Saved, Store, StoreError};
use crate::task::{Command, Task, Told, Waiter, Work};

/// Commands on their way to the task. Room in the outbox bounds what waits, not this.
const COMMANDS: usize = 256;

/// How long a question waits for its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Events that the application has not read; what comes on top is counted in [`Event::Missed`].
const EVENTS: usize = 256;

/// What a device is made of.
pub struct Parts<S, H, T, C = GrpcConnector> {
    /// Where it keeps what must survive.
    pub store: S,
    /// What it does with entries.
    pub handler: H,
    /// Where its tokens come from.
    pub tokens: T,
    /// How it reaches gateways.
    pub connector: C,
    /// Its clock.
    pub clock: Arc<dyn Clock>,
    /// Its randomness.
    pub rng: Arc<dyn Rng>,
}

impl<S: Store, H: Handler, T: TokenSource> Parts<S, H, T> {
    /// A device that speaks gRPC, with the system's clock and randomness.
    pub fn new(store: S, handler: H, tokens: T) -> Self {
        let (clock, rng) = (Arc::new(SystemClock::new()), Arc::new(SystemRng));
        Parts { store, handler, tokens, connector: GrpcConnector::default(), clock, rng }
    }
}

/// Why a device cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// The configuration is not one that can work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store is another device's, or of another cluster: its cursor would skip entries.
    #[error("the store belongs to {0}")]
    Foreign(String),
}

/// Why a send was not taken into the outbox. Nobody got it, and nobody will, but for `Unknown`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SendError {
    /// It breaks a limit, and every server would refuse it.
    #[error(transparent)]
    Invalid(#[from] FieldError),
    /// There is no room now ([`Device::try_send`]).
    #[error("the outbox is full; wait for outcomes")]
    Full,
    /// The device has stopped.
    #[error("the device has stopped")]
    Closed,
    /// The device stopped while it stored the send. If it is stored, its outcome is an event once
    /// the device is opened again.
    #[error("the device stopped while it stored the send: it may be in the outbox")]
    Unknown,
}

/// The device stopped before the outcome came. The send is in its store, and the outcome will be
/// an event once the device is opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the device stopped before the outcome came; it will be an event of its next run")]
pub struct Closed;

/// A device: a cheap handle. It works until it is closed, its last handle is dropped, or something
/// happens that only a person can heal ([`Event::Stopped`]).
#[derive(Clone)]
pub struct Device {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
}

impl Device {
    /// Opens a device, which connects and goes on where its store left off.
    pub async fn open<S: Store, H: Handler, T: TokenSource, C: Connector>(
        config: Config,
        parts: Parts<S, H, T, C>,
    ) -> Result<(Device, Events), OpenError> {
        config.validate()?;
        let Parts { mut store, handler, tokens, connector, clock, rng } = parts;
        let saved = store.load().await?;
        check(&config, &saved)?;
        let waiters = waiters(&saved);
        let used = waiters.values().map(|waiter| waiter.bytes).sum();
        let room = Room::new(&config, waiters.len(), used);
        let config = Arc::new(config);
        let engine = Engine::new(config.clone(), saved, rng.clone());
        let shared = Arc::new(Shared {
            room,
            taken: Mutex::default(),
            taken_some: Notify::new(),
            status: watch::Sender::new(engine.status()),
            server_time: Mutex::default(),
            clock,
            rng,
        });
        let (commands_tx, commands) = mpsc::channel(COMMANDS);
        let (events, events_rx) = mpsc::channel(EVENTS);
        let received = config.delivered_marks.then(Arc::<Received>::default);
        let noting = Noting { inner: handler, user: config.user.clone(), received };
        let received = noting.received.clone();
        let task = Task {
            config,
            engine,
            store,
            handler: Arc::new(noting),
            tokens: Arc::new(tokens),
            connector: Arc::new(connector),
            shared: shared.clone(),
            commands,
            events,
            waiters,
            work: Work::new(),
        };
        tokio::spawn(task.run());
        if let Some(received) = received {
            // It must not keep a device alive that nobody holds.
            let (shared, commands) = (shared.clone(), commands_tx.downgrade());
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(MARK_INTERVAL).await;
                    let Some(commands) = commands.upgrade() else { return };
                    let device = Device { shared: shared.clone(), commands };
                    for place in received.take() {
                        if device.act(ActKind::Delivered, place, 0, Bytes::new()).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
        let events = Events { told: events_rx, shared: shared.clone() };
        Ok((Device { shared, commands: commands_tx }, events))
    }

    /// Puts a message into the outbox, and waits while that is full; it is durable when this
    /// returns. When the future is dropped before, it may be sent nevertheless.
    pub async fn send(
        &self,
        to: &[Recipient],
        kind: u32,
        body: impl Into<Bytes>,
    ) -> Result<Sending, SendError> {
        let (client_msg_id, send) = self.draft(to, kind, body.into())?;
        self.wait_for_room(client_msg_id, send).await
    }

    /// Puts a message into the outbox if there is room now; it is durable when this returns.
    pub async fn try_send(
        &self,
        to: &[Recipient],
        kind: u32,
        body: impl Into<Bytes>,
    ) -> Result<Sending, SendError> {
        let (client_msg_id, send) = self.draft(to, kind, body.into())?;
        let full = |error| match error {
            TryAcquireError::NoPermits => SendError::Full,
            TryAcquireError::Closed => SendError::Closed,
        };
        let room = &self.shared.room;
        let entry = room.entries.try_acquire().map_err(full)?;
        let bytes = room.bytes.try_acquire_many(permits(&send)).map_err(full)?;
        self.enqueue([entry, bytes], client_msg_id, send).await
    }

    /// Says that the user has read everything of a conversation up to this message, which was
    /// received. It is a send: durable when this returns, and taken exactly once.
    pub async fn mark_read(&self, message: Place) -> Result<Sending, SendError> {
        self.act(ActKind::Read, message, 0, Bytes::new()).await
    }

    /// Says that this device has everything of a conversation up to this message.
    /// [`Config::delivered_marks`] does it by itself.
    pub async fn mark_delivered(&self, message: Place) -> Result<Sending, SendError> {
        self.act(ActKind::Delivered, message, 0, Bytes::new()).await
    }

    /// Takes back a message that this user sent, for as long as the cluster allows: the outcome
    /// is refused with `TOO_LATE` after that.
    pub async fn recall(&self, message: Place) -> Result<Sending, SendError> {
        self.act(ActKind::Recall, message, 0, Bytes::new()).await
    }

    /// Gives a message that this user sent another body, for as long as the cluster allows. The
    /// kind is the message's.
    pub async fn edit(
        &self,
        message: Place,
        kind: u32,
        body: impl Into<Bytes>,
    ) -> Result<Sending, SendError> {
        self.act(ActKind::Edit, message, kind, body.into()).await
    }

    /// Asks what the user has not read, and how far the user has come in each conversation.
    pub async fn unread(&self) -> Result<v1::UnreadCounts, AskError> {
        let question = |request_id, _| v1::Unread { request_id }.into();
        match self.ask(question, String::new()).await? {
            server_frame::Frame::UnreadReply(reply) => Ok(reply.counts.unwrap_or_default()),
            _ => Err(AskError::NoAnswer),
        }
    }

    /// Asks whether another user is there.
    pub async fn presence(&self, user: &UserId) -> Result<v1::PresenceStatus, AskError> {
        let question = |request_id, user| v1::Presence { request_id, user }.into();
        match self.ask(question, user.to_string()).await? {
            server_frame::Frame::PresenceReply(reply) => Ok(reply.status.unwrap_or_default()),
            _ => Err(AskError::NoAnswer),
        }
    }

    /// Watches these users, whether they are there, and nobody else: 256 at most where the operator has not
    /// set another limit. Each [`Event::Presence`] tells of one, first how it is and then what changes; it
    /// goes on whenever the device connects anew. One who blocks this user is told of as one who is not
    /// there.
    pub async fn watch_presence(&self, users: &[UserId]) {
        // A device that has stopped watches nobody.
        let _ = self.commands.send(Command::WatchPresence(users.to_vec())).await;
    }

    /// Says that this user types to another one, or has stopped. It passes by: it is said once, if
    /// the device is connected, and reaches who is connected then. While somebody types an
    /// application says it again every few seconds.
    pub async fn typing(&self, to: &UserId, typing: bool) {
        let frame = v1::Typing { user: to.to_string(), typing }.into();
        // A device that has stopped says nothing.
        let _ = self.commands.send(Command::Say(frame)).await;
    }

    async fn ask(
        &self,
        question: fn(u64, String) -> v1::ClientFrame,
        about: String,
    ) -> Result<server_frame::Frame, AskError> {
        let (answer, answered) = oneshot::channel();
        let asked = self.commands.send(Command::Ask { question, about, answer }).await;
        asked.map_err(|_| AskError::Closed)?;
        let answered = tokio::time::timeout(ANSWER_TIMEOUT, answered).await;
        answered.map_err(|_| AskError::NoAnswer)?.map_err(|_| AskError::Closed)?
    }

    /// Where the device stands.
    pub fn status(&self) -> Status {
        *self.shared.status.borrow()
    }

    /// Where the device stands, for waiting until it stands elsewhere.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.shared.status.subscribe()
    }

    /// Stops the device: waits for the entry that the handler has in its hands, confirms the
    /// cursor, stores everything, and disconnects. What is in the outbox stays there.
    pub async fn close(&self) {
        // A device that has stopped already is what was wanted.
        let _ = self.commands.send(Command::Close).await;
        self.commands.closed().await;
    }

    fn draft(
        &self,
        to: &[Recipient],
        kind: u32,
        body: Bytes,
    ) -> Result<(ClientMsgId, v1::Send), SendError> {
        let to: Vec<v1::Id> = to.iter().map(v1::Id::from).collect();
        send::validate(&to, &body)?;
        let id = self.shared.new_id();
        let client_msg_id = bytes_of(id.as_bytes());
        Ok((id, v1::Send { to, kind, body, client_msg_id, ..v1::Send::default() }))
    }

    async fn act(
        &self,
        kind: ActKind,
        message: Place,
        message_kind: u32,
        body: Bytes,
    ) -> Result<Sending, SendError> {
        let about = act::about(kind, message);
        send::validate_act(&about, &body)?;
        let id = self.shared.new_id();
        let send = v1::Send {
            kind: message_kind,
            body,
            client_msg_id: bytes_of(id.as_bytes()),
            about: Some(about),
            ..v1::Send::default()
        };
        self.wait_for_room(id, send).await
    }

    /// Puts a send into the outbox, and waits while that is full.
    async fn wait_for_room(
        &self,
        client_msg_id: ClientMsgId,
        send: v1::Send,
    ) -> Result<Sending, SendError> {
        let closed = |_| SendError::Closed;
        let room = &self.shared.room;
        let entry = room.entries.acquire().await.map_err(closed)?;
        let bytes = room.bytes.acquire_many(permits(&send)).await.map_err(closed)?;
        self.enqueue([entry, bytes], client_msg_id, send).await
    }

    async fn enqueue(
        &self,
        room: [SemaphorePermit<'_>; 2],
        client_msg_id: ClientMsgId,
        send: v1::Send,
    ) -> Result<Sending, SendError> {
        let place = self.commands.reserve().await.map_err(|_| SendError::Closed)?;
        // The room is given back with the outcome.
        room.into_iter().for_each(SemaphorePermit::forget);
        let (stored, is_stored) = oneshot::channel();
        let (outcome, reported) = oneshot::channel();
        place.send(Command::Send { send, stored, outcome });
        is_stored.await.map_err(|_| SendError::Unknown)?;
        Ok(Sending { client_msg_id, outcome: Awaited::Not(reported) })
    }
}

/// A body is bounded, and was checked.
fn permits(send: &v1::Send) -> u32 {
    u32::try_from(send.body.len()).expect("a body has 192 KiB at most")
}

/// Is it this device's store, and is it whole?
fn check(config: &Config, saved: &Saved) -> Result<(), OpenError> {
    if let Some(meta) = &saved.meta {
        if (&meta.user, &meta.device) != (&config.user, &config.device) {
            let owner = format!("device {} of user {}", meta.device, meta.user);
            return Err(OpenError::Foreign(owner));
        }
        let elsewhere = config.cluster.is_some() && meta.cluster != config.cluster;
        if let Some(cluster) = meta.cluster.filter(|_| elsewhere) {
            return Err(OpenError::Foreign(format!("cluster {cluster}")));
        }
    }
    for send in saved.outbox.values() {
        let id = ClientMsgId::try_from(send.client_msg_id.as_ref());
        id.map_err(|error| StoreError::Corrupt(error.to_string()))?;
    }
    Ok(())
}

/// What an earlier run left: nobody waits, and the room is used.
fn waiters(saved: &Saved) -> HashMap<OutboxId, Waiter> {
    let sends = saved.outbox.iter().map(|(id, send)| (*id, send.body.len()));
    let outcomes = saved.outcomes.keys().map(|id| (*id, 0));
    sends.chain(outcomes).map(|(id, bytes)| (id, Waiter { outcome: None, bytes })).collect()
}

/// A message in the outbox. Dropping it says that its outcome is of no interest.
pub struct Sending {
    client_msg_id: ClientMsgId,
    outcome: Awaited,
}

enum Awaited {
    Not(oneshot::Receiver<Reported>),
    Known(Result<Outcome, Closed>),
}

impl Sending {
    /// The application's name for the message, which all its copies carry.
    pub fn client_msg_id(&self) -> ClientMsgId {
        self.client_msg_id
    }

    /// Waits for what became of it; as long as it takes. It may be asked again.
    pub async fn outcome(&mut self) -> Result<Outcome, Closed> {
        let outcome = match &mut self.outcome {
            Awaited::Known(outcome) => *outcome,
            // What was reported is dropped here: the application has the outcome.
            Awaited::Not(waiting) => {
                waiting.await.map(|reported| reported.settled.outcome).map_err(|_| Closed)
            }
        };
        self.outcome = Awaited::Known(outcome);
        outcome
    }
}

/// What a device tells its application; read it, or lose all but outcomes.
pub struct Events {
    told: mpsc::Receiver<Told>,
    shared: Arc<Shared>,
}

impl Events {
    /// The next event; none once the device has stopped.
    pub async fn next(&mut self) -> Option<Event> {
        Some(match self.told.recv().await? {
            Told::Event(event) => event,
            // What is not read stays in the store.
            Told::Outcome(mut reported) => {
                reported.shared = Some(self.shared.clone());
                Event::Outcome(reported.settled)
            }
        })
    }
}
