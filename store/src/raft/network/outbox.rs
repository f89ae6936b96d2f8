//! What waits to be sent on a connection: bounded in frames and in bytes, and sent in batches.
//!
//! There is no linger: while one batch is on its way to the kernel the next one fills up, so
//! batches grow with the load. Only what nobody waits for (a follower learns what is committed, and
//! says that it has) rides with the next frame, or leaves alone a little later: a message of its own
//! costs as much as one that carries entries.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, stream};
use thiserror::Error;
use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::wire::PeerBatch;
use crate::metrics;

/// Frames that may wait, and ends of open streams for which room is kept: two streams for each of
/// a thousand groups, and as much again for what they say.
const FRAMES_MAX: usize = 8 * 1024;

/// Bytes that may wait: some batches' worth, so that a slow peer costs little memory.
const BYTES_MAX: usize = 16 << 20;

/// How long a frame that nobody waits for may wait for company.
const PATIENT_FOR: Duration = Duration::from_millis(5);

/// Frames and bytes in one message, unless a single frame has more.
const BATCH_FRAMES: usize = 1024;
/// See [`BATCH_FRAMES`].
pub(super) const BATCH_BYTES: usize = 1 << 20;

/// The connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the connection has ended")]
pub(super) struct Closed;

/// Where frames go in; a cheap handle.
#[derive(Clone)]
pub(super) struct Outbox {
    frames: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
}

/// Where they come out, in order.
pub(super) struct Outgoing {
    hello: Option<Bytes>,
    frames: mpsc::Receiver<Queued>,
}

/// Room for one small frame, kept until it is needed: what must be said later can be, without
/// waiting.
pub(super) struct Slot(OwnedPermit<Queued>);

struct Queued {
    frame: Bytes,
    haste: Haste,
    _room: Option<OwnedSemaphorePermit>,
}

/// Whether somebody waits for a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Haste {
    /// It leaves with the next message, and that leaves now.
    Now,
    /// It may wait for another one.
    Patient,
}

/// A queue that says `hello` first, in a message of its own.
pub(super) fn outbox(hello: Bytes) -> (Outbox, Outgoing) {
    let (sender, frames) = mpsc::channel(FRAMES_MAX);
    let outbox = Outbox { frames: sender, room: Arc::new(Semaphore::new(BYTES_MAX)) };
    (outbox, Outgoing { hello: Some(hello), frames })
}

impl Outbox {
    /// Queues a frame once there is room for it. Dropped before it returns, it queued nothing.
    pub(super) async fn send(&self, frame: Bytes, haste: Haste) -> Result<(), Closed> {
        let room = self.room.clone().acquire_many_owned(permits(&frame)).await;
        let room = Some(room.map_err(|_| Closed)?);
        self.frames.send(Queued { frame, haste, _room: room }).await.map_err(|_| Closed)
    }

    /// Queues a frame if there is room for it now.
    pub(super) fn try_send(&self, frame: &Bytes, haste: Haste) -> bool {
        let Ok(room) = self.room.clone().try_acquire_many_owned(permits(frame)) else {
            return false;
        };
        let frame = frame.clone();
        self.frames.try_send(Queued { frame, haste, _room: Some(room) }).is_ok()
    }

    /// Keeps room for one small frame.
    pub(super) async fn reserve(&self) -> Result<Slot, Closed> {
        self.frames.clone().reserve_owned().await.map(Slot).map_err(|_| Closed)
    }

    /// Waits until nobody will read what is queued.
    pub(super) async fn closed(&self) {
        self.frames.closed().await;
    }

    /// Fails whoever waits for room, now and later.
    pub(super) fn close(&self) {
        self.room.close();
    }
}

impl Slot {
    /// Queues the frame for which room was kept.
    pub(super) fn send(self, frame: Bytes) {
        self.0.send(Queued { frame, haste: Haste::Patient, _room: None });
    }
}

impl Outgoing {
    /// The messages to be sent, until every [`Outbox`] is gone.
    pub(super) fn batches(self) -> impl Stream<Item = PeerBatch> + Send + 'static {
        stream::unfold(self, |mut outgoing| async move {
            let batch = outgoing.next().await?;
            Some((batch, outgoing))
        })
    }

    async fn next(&mut self) -> Option<PeerBatch> {
        if let Some(hello) = self.hello.take() {
            return Some(PeerBatch { frames: vec![hello] });
        }
        let mut bytes = 0;
        let mut frames = Vec::new();
        let mut patient = true;
        let mut leaves = None;
        let mut next = Some(self.frames.recv().await?);
        while let Some(Queued { frame, haste, .. }) = next {
            bytes += frame.len();
            frames.push(frame);
            patient &= haste == Haste::Patient;
            if frames.len() == BATCH_FRAMES || bytes >= BATCH_BYTES {
                break;
            }
            next = self.frames.try_recv().ok();
            if next.is_none() && patient {
                let leaves = *leaves.get_or_insert_with(|| Instant::now() + PATIENT_FOR);
                // Late, or the last one there is: what is here leaves.
                next = timeout_at(leaves, self.frames.recv()).await.unwrap_or_default();
            }
        }
        metrics::peer_batch_sent(frames.len());
        Some(PeerBatch { frames })
    }
}

/// A frame larger than all the room takes all of it, instead of waiting for ever.
fn permits(frame: &Bytes) -> u32 {
    u32::try_from(frame.len().min(BYTES_MAX)).expect("the room is far below 4 GiB")
}

const _: () = assert!(BYTES_MAX <= u32::MAX as usize);
