//! What goes into an engine, and what comes out of it.

use tidemark_proto::{Failure, v1};
use tidemark_types::{Epoch, Seq};

use crate::entry::Item;
use crate::event::Event;
use crate::outcome::Settled;
use crate::store::{Change, OutboxId};

/// A connection, by the number that the engine gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link(pub(super) u64);

/// What happens to a device.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time has passed; due at [`super::Engine::deadline`].
    Tick,
    /// The connection that was asked for stands.
    Connected(Link),
    /// A connection does not stand, or no longer.
    Lost {
        /// Which one.
        link: Link,
        /// Why, for a person.
        reason: String,
    },
    /// The server sent a frame.
    Frame {
        /// On which connection.
        link: Link,
        /// The frame.
        frame: Box<v1::ServerFrame>,
    },
    /// The answer to [`Action::FetchToken`].
    Token(Result<String, String>),
    /// The application has taken the item of [`Action::Hand`], or says why not.
    Handled(Result<(), String>),
    /// The application has taken an outcome.
    Taken(OutboxId),
    /// The device is to stop.
    Close,
}

/// What is to be done, once the changes beside it are durable.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Connect.
    Connect {
        /// The connection's number from now on.
        link: Link,
        /// To which gateway, by its place in the configuration.
        gateway: usize,
    },
    /// Close a connection, or give up connecting; it may be gone already.
    Close(Link),
    /// Send a frame.
    Send {
        /// On which connection; if that is gone, the frame is lost.
        link: Link,
        /// The frame.
        frame: v1::ClientFrame,
    },
    /// Get a token.
    FetchToken {
        /// The server refused the last one: the same again will not do.
        refused: bool,
    },
    /// Hand this to the application; one at a time.
    Hand(Item),
    /// Report an outcome; [`Input::Taken`] when the application has it.
    Report {
        /// Which send.
        id: OutboxId,
        /// What became of it.
        settled: Settled,
    },
    /// A question has its answer.
    Answer(Box<v1::ServerFrame>),
    /// A question was refused.
    Unanswered {
        /// Which one.
        request_id: u64,
        /// Why.
        failure: Failure,
    },
    /// Tell the application.
    Event(Event),
    /// Nothing more will come.
    Stop,
}

/// What a step wants: first these changes, durable; then these actions, in this order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// What must be durable first.
    pub changes: Vec<Change>,
    /// What is to be done then.
    pub actions: Vec<Action>,
}

/// How a device is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// Waiting for the next attempt.
    Waiting,
    /// Connecting, or saying `Hello`.
    Connecting,
    /// Welcomed.
    Online {
        /// By this gateway, by its place in the configuration.
        gateway: usize,
    },
    /// The gateway is stopping; another one is about to be asked.
    Leaving {
        /// Which gateway.
        gateway: usize,
    },
    /// Stopped for good.
    Stopped,
}

/// Where a device stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// How it is connected.
    pub connection: ConnectionState,
    /// The mailbox's epoch; [`Epoch::NONE`] before the first welcome.
    pub epoch: Epoch,
    /// The last seq that the application has taken.
    pub cursor: Seq,
    /// The last seq that the device has got.
    pub received: Seq,
    /// The highest seq that the device has heard of.
    pub head: Seq,
    /// Sends without an outcome.
    pub outbox_len: u64,
    /// Of these, the ones that went out: somebody may have taken them.
    pub unsettled: u64,
    /// Sending has stopped until the device is opened again.
    pub sending_stopped: bool,
}
