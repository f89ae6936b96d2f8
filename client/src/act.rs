//! Acts: what a user does about messages that are there already, and what this side asks about them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use thiserror::Error;
use tidemark_proto::{Failure, Origin, v1};
use tidemark_types::{Epoch, Id, Recipient, Seq, SeqRange, UserId};

use crate::entry::{Content, Entry, Message};
use crate::handler::{AppError, Handler};

pub use tidemark_proto::v1::ActKind;

/// How often delivered marks are sent, each for what came meanwhile.
pub(crate) const MARK_INTERVAL: Duration = Duration::from_secs(1);

/// Conversations with a delivered mark that waits; what comes on top waits for its next message.
const MARKS_MAX: usize = 1_024;

/// A message by its place in the user's own mailbox: how an act names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The epoch in which `seq` counts.
    pub epoch: Epoch,
    /// Its number.
    pub seq: Seq,
}

impl From<&Entry> for Place {
    fn from(entry: &Entry) -> Self {
        Place { epoch: entry.epoch, seq: entry.seq }
    }
}

/// What somebody did about a message; who, stands in the entry's origin.
#[derive(Clone, Debug, PartialEq)]
pub struct Act {
    /// What.
    pub kind: ActKind,
    /// The message that it is about, by the origin that all its copies have. A mark is for all
    /// messages of the conversation up to it.
    pub of: Origin,
    /// The act itself as a message: by which device, when, in which conversation. `kind` is that of
    /// the message that it is about, `body` an edit's.
    pub message: Message,
}

/// Why a question has no answer. Nothing was changed by it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AskError {
    /// The device is not connected now.
    #[error("the device is not connected")]
    Offline,
    /// Too many questions are under way.
    #[error("too many questions are under way")]
    Busy,
    /// The server refused it.
    #[error(transparent)]
    Refused(Failure),
    /// There was no answer in time: the connection may have been lost.
    #[error("there was no answer in time")]
    NoAnswer,
    /// The device has stopped.
    #[error("the device has stopped")]
    Closed,
}

/// What was received since the last delivered mark, the newest message of each conversation.
#[derive(Default)]
pub(crate) struct Received(Mutex<BTreeMap<Id, Place>>);

impl Received {
    fn note(&self, user: &UserId, entry: &Entry) {
        let (Content::Message(message), Some(origin)) = (&entry.content, &entry.origin) else {
            return;
        };
        // In a group a delivered mark would tell nobody anything.
        if origin.sender() == user || message.conversation.is_some() {
            return;
        }
        let with = Recipient::User(origin.sender().clone()).id();
        let mut waiting = self.0.lock();
        if waiting.len() < MARKS_MAX || waiting.contains_key(&with) {
            waiting.insert(with, Place::from(entry));
        }
    }

    /// The messages to mark now.
    pub(crate) fn take(&self) -> Vec<Place> {
        std::mem::take(&mut *self.0.lock()).into_values().collect()
    }
}

/// The application's handler, and the notes for delivered marks of what it has taken.
pub(crate) struct Noting<H> {
    pub(crate) inner: H,
    pub(crate) user: UserId,
    /// None, if the application wants no delivered marks.
    pub(crate) received: Option<Arc<Received>>,
}

impl<H: Handler> Handler for Noting<H> {
    async fn entry(&self, entry: &Entry) -> Result<(), AppError> {
        self.inner.entry(entry).await?;
        if let Some(received) = &self.received {
            received.note(&self.user, entry);
        }
        Ok(())
    }

    async fn gap(&self, gap: SeqRange) -> Result<(), AppError> {
        self.inner.gap(gap).await
    }
}

/// An act as a device's outbox keeps it.
pub(crate) fn about(kind: ActKind, Place { epoch, seq }: Place) -> v1::About {
    v1::About { kind: kind.into(), epoch: epoch.get(), seq: seq.get() }
}
