//! The dialer's side of one connection: who waits for which answer.
//!
//! Invariant: once the connection has ended nobody waits: whoever did was told, and whoever comes
//! later is refused. The lock is held for a map's operation, never across a wait.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use parking_lot::Mutex;
use thiserror::Error;
use tidemark_store_core::codec::DecodeError;
use tokio::sync::{mpsc, oneshot};

use super::STREAM_WINDOW;
use super::frame::{Address, Answer, Ask, FrameError, Refusal, Request, Told};
use super::outbox::{Haste, Outbox, Slot};
use crate::raft::types::TypeConfig;

/// Why a call or a stream got no answer.
#[derive(Debug, Error)]
pub(super) enum PeerError {
    /// There is no connection, or it ended meanwhile.
    #[error("no connection: {0}")]
    Disconnected(Arc<str>),
    /// The node does not let the group answer.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It cannot be said.
    #[error(transparent)]
    Unsayable(#[from] FrameError),
    /// The answer was to another question.
    #[error("the answer is to another question")]
    Confused,
}

/// What an acceptor must not say; the connection ends.
#[derive(Debug, Error)]
pub(super) enum Broken {
    /// It does not decode.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// More answers than appends.
    #[error("stream {0} got more answers than it has appends")]
    Unasked(u64),
    /// A second hello.
    #[error("it said hello twice")]
    HelloAgain,
}

/// The answer to one append.
pub(super) type Appended = Result<StreamAppendResult<TypeConfig>, Refusal>;

/// One connection, for as long as it lives; shared by all groups.
pub(super) struct Connection {
    outbox: Outbox,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    ended: Option<Arc<str>>,
    numbers: u64,
    calls: HashMap<u64, oneshot::Sender<Result<Told, Refusal>>>,
    streams: HashMap<u64, mpsc::Sender<Appended>>,
}

impl Waiting {
    /// The next number, unless the connection has ended.
    fn number(&mut self) -> Result<u64, PeerError> {
        if let Some(reason) = &self.ended {
            return Err(PeerError::Disconnected(reason.clone()));
        }
        self.numbers += 1;
        Ok(self.numbers)
    }
}

impl Connection {
    /// A connection on which frames leave through `outbox`.
    pub(super) fn new(outbox: Outbox) -> Self {
        Connection { outbox, waiting: Mutex::default() }
    }

    /// Asks, and waits for the answer. Dropped before, it no longer waits.
    pub(super) async fn call(&self, to: Address, ask: Ask) -> Result<Told, PeerError> {
        let (sender, answer) = oneshot::channel();
        let call = {
            let mut waiting = self.waiting.lock();
            let call = waiting.number()?;
            waiting.calls.insert(call, sender);
            call
        };
        let _forget = Forget { connection: self, call };
        let frame = Request::Call { call, to, ask }.encode()?;
        self.outbox.send(frame, Haste::Now).await.map_err(|_| self.why())?;
        Ok(answer.await.map_err(|_| self.why())??)
    }

    /// Opens a stream of appends.
    pub(super) async fn open(self: &Arc<Self>, to: Address) -> Result<OpenStream, PeerError> {
        // One answer per append of the window, so that there is always room for an honest one.
        let (sender, answers) = mpsc::channel(STREAM_WINDOW);
        let end = self.outbox.reserve().await.map_err(|_| self.why())?;
        let mut waiting = self.waiting.lock();
        let number = waiting.number()?;
        waiting.streams.insert(number, sender);
        drop(waiting);
        Ok(OpenStream { connection: self.clone(), to, number, answers, end: Some(end) })
    }

    /// Hands an answer to whoever waits for it, if anybody still does. Never waits.
    pub(super) fn answered(&self, frame: &[u8]) -> Result<(), Broken> {
        match Answer::decode(frame)? {
            Answer::Hello(_) => Err(Broken::HelloAgain),
            Answer::Called { call, result } => {
                if let Some(sender) = self.waiting.lock().calls.remove(&call) {
                    // Whoever stopped waiting meanwhile does not want to know.
                    let _ = sender.send(result);
                }
                Ok(())
            }
            Answer::Appended { stream, result } => {
                let waiting = self.waiting.lock();
                match waiting.streams.get(&stream).map(|sender| sender.try_send(result)) {
                    None | Some(Ok(()) | Err(mpsc::error::TrySendError::Closed(_))) => Ok(()),
                    Some(Err(mpsc::error::TrySendError::Full(_))) => Err(Broken::Unasked(stream)),
                }
            }
        }
    }

    /// Fails whoever waits, and refuses whoever comes.
    pub(super) fn end(&self, reason: &Arc<str>) {
        self.outbox.close();
        let mut waiting = self.waiting.lock();
        waiting.ended.get_or_insert_with(|| reason.clone());
        waiting.calls.clear();
        waiting.streams.clear();
    }

    fn why(&self) -> PeerError {
        let ended = self.waiting.lock().ended.clone();
        PeerError::Disconnected(ended.unwrap_or_else(|| "it is ending".into()))
    }
}

/// A call that nobody waits for is not kept.
struct Forget<'a> {
    connection: &'a Connection,
    call: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.connection.waiting.lock().calls.remove(&self.call);
    }
}

/// A stream of appends; dropped, it tells the acceptor that nobody waits any more.
pub(super) struct OpenStream {
    connection: Arc<Connection>,
    to: Address,
    number: u64,
    answers: mpsc::Receiver<Appended>,
    /// Room to say so; none once the last append was sent, which says it too.
    end: Option<Slot>,
}

impl OpenStream {
    /// The frame of one append.
    pub(super) fn encode(
        &self,
        append: AppendEntriesRequest<TypeConfig>,
        last: bool,
    ) -> Result<Bytes, PeerError> {
        Ok(Request::Append { stream: self.number, to: self.to, last, append }.encode()?)
    }

    /// Queues a frame if there is room for it now.
    pub(super) fn try_send(&self, frame: &Bytes, haste: Haste) -> bool {
        self.connection.outbox.try_send(frame, haste)
    }

    /// The queue, to wait for room in it.
    pub(super) fn outbox(&self) -> Outbox {
        self.connection.outbox.clone()
    }

    /// The next answer.
    pub(super) async fn answer(&mut self) -> Result<StreamAppendResult<TypeConfig>, PeerError> {
        match self.answers.recv().await {
            Some(answer) => Ok(answer?),
            None => Err(self.connection.why()),
        }
    }

    /// Why no answer will come.
    pub(super) fn why(&self) -> PeerError {
        self.connection.why()
    }

    /// The last append was queued: the acceptor knows that no more come.
    pub(super) fn sent_last(&mut self) {
        self.end = None;
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.connection.waiting.lock().streams.remove(&self.number);
        let frame = Request::End { stream: self.number }.encode();
        if let (Some(slot), Ok(frame)) = (self.end.take(), frame) {
            slot.send(frame);
        }
    }
}
