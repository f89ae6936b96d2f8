//! A group's state as a stream of frames: what one replica sends to another.
//!
//! Memory is bounded by the few frames under way, however large the state is: a blocking task
//! reads a RocksDB snapshot and waits while nobody takes its frames; the receiver writes each frame
//! into a new generation as it comes. Every frame carries its own checksum; the last one counts and
//! hashes all pairs, so that a stream that was cut, reordered or altered is never installed.
//!
//! ```text
//!   crc32:u32  kind:u8  body                          (crc over kind and body, big-endian)
//!              1        postcard [(key, value), …]
//!              2        postcard End
//! ```

use std::io;
use std::ops::ControlFlow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tidemark_store_core::key::Kind;
use tidemark_store_core::{Fatal, Read};
use tokio::sync::{mpsc, oneshot};
use xxhash_rust::xxh3::Xxh3;

use crate::storage::{GroupId, Staging, StateDb, StateDbError};

/// Keys and values in a frame, before its head; one pair may exceed it.
const FRAME_BYTES: usize = 256 * 1024;

/// Frames that wait for a slow receiver.
const FRAMES_WAITING: usize = 4;

const PAIRS: u8 = 1;
const END: u8 = 2;

/// Why a snapshot cannot be taken or installed.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// The state cannot be read or written.
    #[error(transparent)]
    State(#[from] StateDbError),
    /// The state cannot be read.
    #[error(transparent)]
    Fatal(#[from] Fatal),
    /// A frame is not what was sent.
    #[error("a snapshot frame of {bytes} bytes is damaged: {reason}")]
    Damaged {
        /// The frame's length.
        bytes: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The stream ended before its last frame, or what came is not what was sent.
    #[error("the snapshot is incomplete: {0}")]
    Incomplete(String),
    /// The task that reads the state was stopped.
    #[error("the snapshot's reader was stopped")]
    Stopped,
}

impl From<SnapshotError> for io::Error {
    fn from(error: SnapshotError) -> Self {
        io::Error::other(error)
    }
}

/// What the last frame says of all before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct End {
    pairs: u64,
    hash: u128,
}

/// Counts and hashes the pairs of a snapshot, on both sides.
#[derive(Default)]
struct Tally {
    pairs: u64,
    hash: Xxh3,
}

impl Tally {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.pairs += 1;
        for part in [key, value] {
            self.hash.update(&(part.len() as u64).to_le_bytes());
            self.hash.update(part);
        }
    }

    fn end(&self) -> End {
        End { pairs: self.pairs, hash: self.hash.digest128() }
    }
}

/// The frames of one snapshot, in order.
pub struct SnapshotStream {
    frames: mpsc::Receiver<Result<Bytes, SnapshotError>>,
}

impl SnapshotStream {
    /// Starts reading `group` as it is now. Returns once the view is fixed, with the applied
    /// position that belongs to it; what is applied later is not in it.
    pub async fn of(
        state: StateDb,
        group: GroupId,
    ) -> Result<(Option<Bytes>, SnapshotStream), SnapshotError> {
        let (frames_tx, frames) = mpsc::channel(FRAMES_WAITING);
        let (fixed_tx, fixed) = oneshot::channel();
        tokio::task::spawn_blocking(move || {
            let failed = frames_tx.clone();
            let sent = state.read(group, |applied, view| {
                fixed_tx.send(applied).map_err(|_| SnapshotError::Stopped)?;
                send(view, &frames_tx)
            });
            if let Err(error) = sent.map_err(SnapshotError::from).flatten() {
                // The receiver may be gone, and then nobody wants to know.
                let _ = failed.blocking_send(Err(error));
            }
        });
        let applied = fixed.await.map_err(|_| SnapshotError::Stopped)?;
        Ok((applied, SnapshotStream { frames }))
    }

    /// The next frame, `None` after the last one.
    pub async fn next(&mut self) -> Option<Result<Bytes, SnapshotError>> {
        self.frames.recv().await
    }

    /// Writes the stream into a new generation; complete and verified when it returns.
    pub async fn stage(
        mut self,
        state: &StateDb,
        group: GroupId,
    ) -> Result<Staging, SnapshotError> {
        let mut receiver = Receiver::new(state.stage(group)?);
        while let Some(frame) = self.next().await {
            receiver.take(&frame?)?;
        }
        receiver.finish()
    }
}

/// Takes frames into a generation that is not live yet.
pub struct Receiver {
    staging: Staging,
    tally: Tally,
    end: Option<End>,
}

impl Receiver {
    /// Nothing received yet.
    pub fn new(staging: Staging) -> Self {
        Receiver { staging, tally: Tally::default(), end: None }
    }

    /// Verifies and writes one frame.
    pub fn take(&mut self, frame: &[u8]) -> Result<(), SnapshotError> {
        if self.end.is_some() {
            return Err(SnapshotError::Incomplete("a frame follows the last one".to_owned()));
        }
        match decode(frame)? {
            Frame::Pairs(pairs) => {
                for (key, value) in &pairs {
                    self.tally.add(key, value);
                }
                Ok(self.staging.put(pairs.iter().map(|(key, value)| (&key[..], &value[..])))?)
            }
            Frame::End(end) => {
                self.end = Some(end);
                Ok(())
            }
        }
    }

    /// The complete generation; refuses if anything is missing or altered.
    pub fn finish(self) -> Result<Staging, SnapshotError> {
        let found = self.tally.end();
        match self.end {
            Some(end) if end == found => Ok(self.staging),
            Some(end) => {
                Err(SnapshotError::Incomplete(format!("{found:?} was received of {end:?}")))
            }
            None => Err(SnapshotError::Incomplete("the last frame is missing".to_owned())),
        }
    }
}

enum Frame {
    Pairs(Vec<(Bytes, Bytes)>),
    End(End),
}

/// Sends all of `view` but the applied position, which the installer sets itself.
fn send(
    view: &dyn Read,
    frames: &mpsc::Sender<Result<Bytes, SnapshotError>>,
) -> Result<(), SnapshotError> {
    let mut tally = Tally::default();
    let mut pairs = Vec::new();
    let mut bytes = 0;
    let mut gone = false;
    let from = [Kind::Applied as u8 + 1];
    let visit = &mut |key: &[u8], value: &[u8]| {
        tally.add(key, value);
        bytes += key.len() + value.len();
        pairs.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        if bytes >= FRAME_BYTES {
            bytes = 0;
            let frame = encode(PAIRS, &std::mem::take(&mut pairs));
            gone = frames.blocking_send(Ok(frame)).is_err();
        }
        if gone { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    view.scan(&from, &[u8::MAX], visit).map_err(Fatal::from)?;
    let last = [encode(PAIRS, &pairs), encode(END, &tally.end())];
    for frame in last {
        gone = gone || frames.blocking_send(Ok(frame)).is_err();
    }
    Ok(())
}

fn encode(kind: u8, body: &impl Serialize) -> Bytes {
    let start = vec![0, 0, 0, 0, kind];
    let mut frame = postcard::to_extend(body, start).expect("a Vec grows as needed");
    let crc = crc32fast::hash(&frame[4..]);
    frame[..4].copy_from_slice(&crc.to_be_bytes());
    frame.into()
}

fn decode(frame: &[u8]) -> Result<Frame, SnapshotError> {
    let damaged =
        |reason: &str| SnapshotError::Damaged { bytes: frame.len(), reason: reason.to_owned() };
    let (crc, rest) = frame.split_first_chunk().ok_or_else(|| damaged("no checksum"))?;
    if u32::from_be_bytes(*crc) != crc32fast::hash(rest) {
        return Err(damaged("its checksum does not match"));
    }
    let decoded = match rest.split_first() {
        Some((&PAIRS, body)) => postcard::from_bytes(body).map(Frame::Pairs),
        Some((&END, body)) => postcard::from_bytes(body).map(Frame::End),
        _ => return Err(damaged("its kind is unknown")),
    };
    decoded.map_err(|error| damaged(&error.to_string()))
}
