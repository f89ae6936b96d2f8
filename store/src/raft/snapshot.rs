//! A group's state as a stream of frames: what one replica takes from another.
//!
//! The applied position is one of the pairs: a snapshot says itself up to where it covers the log.
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
use futures::{Stream, StreamExt};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tidemark_mutants::{Mutant, is};
use tidemark_store_core::key::Kind;
use tidemark_store_core::{Fatal, Read};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
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
    /// The task that writes the state was stopped.
    #[error("the snapshot's writer was stopped")]
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

/// What openraft carries as a snapshot's data.
pub enum Snapshot {
    /// Whatever a replica has applied when it is read: at least what openraft asked for.
    Live(StateDb, GroupId),
    /// Received and verified, not yet live.
    Staged(Staging),
}

impl Snapshot {
    /// A complete generation of `group` with the snapshot's pairs.
    pub async fn stage(self, state: &StateDb, group: GroupId) -> Result<Staging, SnapshotError> {
        match self {
            Snapshot::Staged(staging) => Ok(staging),
            Snapshot::Live(from, its) => stage(state, group, frames(from, its)).await,
        }
    }
}

/// Writes a snapshot's frames into a new generation of `group`; it is complete, verified and on
/// disk when it returns.
pub async fn stage<E: From<SnapshotError>>(
    state: &StateDb,
    group: GroupId,
    mut frames: impl Stream<Item = Result<Bytes, E>> + Unpin,
) -> Result<Staging, E> {
    let mut receiver = Receiver::new(state.stage(group));
    while let Some(frame) = frames.next().await {
        let frame = frame?;
        receiver = blocking(state, move || receiver.take(&frame).map(|()| receiver)).await?;
    }
    let flushed = state.clone();
    Ok(blocking(state, move || {
        let staging = receiver.finish()?;
        flushed.flush()?;
        Ok(staging)
    })
    .await?)
}

/// The disk may take its time.
async fn blocking<T: Send + 'static>(
    state: &StateDb,
    work: impl FnOnce() -> Result<T, SnapshotError> + Send + 'static,
) -> Result<T, SnapshotError> {
    state.blocking(work).await.map_err(|_| SnapshotError::Stopped)?
}

/// The frames of one snapshot, in order.
pub type SnapshotStream = ReceiverStream<Result<Bytes, SnapshotError>>;

/// Starts reading `group` as it is at one moment, soon; all that is applied now is in it.
pub fn frames(state: StateDb, group: GroupId) -> SnapshotStream {
    let (frames_tx, frames) = mpsc::channel(FRAMES_WAITING);
    if state.is_simulated() {
        tokio::spawn(async move {
            for frame in all_frames(&state, group) {
                if frames_tx.send(frame).await.is_err() {
                    return;
                }
            }
        });
        return ReceiverStream::new(frames);
    }
    tokio::task::spawn_blocking(move || {
        let mut take = |frame| frames_tx.blocking_send(Ok(frame)).is_ok();
        let sent = state.read_flushed(group, |view| send(view, &mut take));
        if let Err(error) = sent.map_err(SnapshotError::from).flatten() {
            // The receiver may be gone, and then nobody wants to know.
            let _ = frames_tx.blocking_send(Err(error));
        }
    });
    ReceiverStream::new(frames)
}

/// The same at once, for a simulation, which has no threads to wait in.
fn all_frames(state: &StateDb, group: GroupId) -> Vec<Result<Bytes, SnapshotError>> {
    let mut frames = Vec::new();
    let mut take = |frame| {
        frames.push(Ok(frame));
        true
    };
    let sent = state.read_flushed(group, |view| send(view, &mut take));
    if let Err(error) = sent.map_err(SnapshotError::from).flatten() {
        frames.push(Err(error));
    }
    frames
}

/// Takes frames into a generation that is not live yet.
struct Receiver {
    staging: Staging,
    tally: Tally,
    end: Option<End>,
}

impl Receiver {
    /// Nothing received yet.
    fn new(staging: Staging) -> Self {
        Receiver { staging, tally: Tally::default(), end: None }
    }

    /// Verifies and writes one frame.
    fn take(&mut self, frame: &[u8]) -> Result<(), SnapshotError> {
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
    fn finish(self) -> Result<Staging, SnapshotError> {
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

/// Gives all of `view` to `take`, which says whether it wants more.
fn send(view: &dyn Read, take: &mut dyn FnMut(Bytes) -> bool) -> Result<(), SnapshotError> {
    let mut tally = Tally::default();
    let mut pairs = Vec::new();
    let mut bytes = 0;
    let mut gone = false;
    let visit = &mut |key: &[u8], value: &[u8]| {
        if is(Mutant::SnapshotWithoutIds) && key.first() == Some(&(Kind::Sent as u8)) {
            return ControlFlow::Continue(());
        }
        tally.add(key, value);
        bytes += key.len() + value.len();
        pairs.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        if bytes >= FRAME_BYTES {
            bytes = 0;
            let frame = encode(PAIRS, &std::mem::take(&mut pairs));
            gone = !take(frame);
        }
        if gone { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    view.scan(&[Kind::Applied as u8], &[u8::MAX], visit).map_err(Fatal::from)?;
    let last = [encode(PAIRS, &pairs), encode(END, &tally.end())];
    for frame in last {
        gone = gone || !take(frame);
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;
    use tempfile::TempDir;
    use tidemark_store_core::ValueBytes;
    use tidemark_store_core::key::KeyBytes;

    use super::*;

    const FROM: GroupId = GroupId::new(1);
    const TO: GroupId = GroupId::new(2);

    type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

    fn create() -> (TempDir, StateDb) {
        let dir = TempDir::new().expect("a folder");
        let db = StateDb::create(&dir.path().join("state")).expect("a new state");
        (dir, db)
    }

    fn write(db: &StateDb, group: GroupId, pairs: &Pairs, applied: &[u8]) {
        let pairs = pairs
            .iter()
            .map(|(key, value)| (KeyBytes::new(key), Some(ValueBytes::from(value.clone()))));
        db.group(group).write(pairs.collect(), applied).expect("a write");
    }

    fn pairs(db: &StateDb, group: GroupId) -> Pairs {
        let mut pairs = Pairs::new();
        db.read(group, |_, view| {
            let mut visit = |key: &[u8], value: &[u8]| {
                pairs.insert(key.to_vec(), value.to_vec());
                ControlFlow::Continue(())
            };
            view.scan(&[Kind::Applied as u8 + 1], &[u8::MAX], &mut visit).expect("a scan");
        })
        .expect("a read");
        pairs
    }

    /// More frames than may wait, none of them empty, with values of every size that matters.
    fn large() -> Pairs {
        let sizes = [0, 1, 100, 5_000, 70_000, FRAME_BYTES + 1];
        let pair = |at: u16| {
            let key = [&[0x11][..], &at.to_be_bytes()].concat();
            let size = sizes[usize::from(at) % sizes.len()];
            let value = (0..size).map(|byte| (byte * 31 + usize::from(at)) as u8).collect();
            (key, value)
        };
        (0..61).map(pair).collect()
    }

    async fn frames(db: &StateDb) -> Vec<Bytes> {
        let mut stream = super::frames(db.clone(), FROM);
        let mut frames = Vec::new();
        while let Some(frame) = stream.next().await {
            frames.push(frame.expect("a frame"));
        }
        frames
    }

    fn receive(db: &StateDb, frames: &[Bytes]) -> Result<Staging, SnapshotError> {
        let mut receiver = Receiver::new(db.stage(TO));
        for frame in frames {
            receiver.take(frame)?;
        }
        receiver.finish()
    }

    #[tokio::test]
    async fn a_stream_of_many_frames_installs_the_same_pairs() {
        let (_one, from) = create();
        let (_two, to) = create();
        write(&from, FROM, &large(), b"five");
        write(&to, TO, &Pairs::from([(vec![0x11], b"old".to_vec())]), b"one");
        let mut stream = super::frames(from.clone(), FROM);
        let first = stream.next().await.expect("a frame");
        // What is applied after the view was fixed is not in it.
        write(&from, FROM, &Pairs::from([(vec![0x12], b"later".to_vec())]), b"six");
        let mut frames = vec![first];
        while let Some(frame) = stream.next().await {
            frames.push(frame);
        }
        let staged = stage(&to, TO, futures::stream::iter(frames)).await.expect("complete");
        assert_eq!(pairs(&to, TO).len(), 1, "it is not live before it is installed");
        to.group(TO).install(staged).expect("an install");
        assert_eq!(pairs(&to, TO), large());
        let applied = to.group(TO).applied().expect("a read");
        assert_eq!(applied.as_deref(), Some(&b"five"[..]), "it comes with the pairs");
    }

    #[tokio::test]
    async fn an_empty_state_is_a_snapshot_too() {
        let (_one, from) = create();
        let frames = frames(&from).await;
        let staged = receive(&from, &frames).expect("complete");
        from.group(TO).install(staged).expect("an install");
        assert_eq!(pairs(&from, TO), Pairs::new());
    }

    #[tokio::test]
    async fn a_stream_that_is_not_whole_is_refused_and_changes_nothing() {
        let (_one, from) = create();
        let (_two, to) = create();
        let old = Pairs::from([(vec![0x11], b"old".to_vec())]);
        write(&from, FROM, &large(), b"five");
        write(&to, TO, &old, b"one");
        let whole = frames(&from).await;
        assert!(whole.len() > FRAMES_WAITING + 3, "{} frames", whole.len());
        receive(&to, &whole).expect("it is whole");

        let mut broken = Vec::new();
        for at in 0..whole.len() {
            let mut missing = whole.clone();
            missing.remove(at);
            broken.push((format!("without frame {at}"), missing));
            let mut repeated = whole.clone();
            repeated.insert(at, whole[at].clone());
            broken.push((format!("with frame {at} twice"), repeated));
            broken.push((format!("cut before frame {at}"), whole[..at].to_vec()));
            if at + 1 < whole.len() {
                let mut swapped = whole.clone();
                swapped.swap(at, at + 1);
                broken.push((format!("with frames {at} and {} swapped", at + 1), swapped));
            }
            let mut short = whole.clone();
            short[at] = whole[at].slice(..whole[at].len() - 1);
            broken.push((format!("with frame {at} cut short"), short));
        }
        let mut longer = whole.clone();
        longer.push(encode(PAIRS, &Vec::<(Bytes, Bytes)>::new()));
        broken.push(("with a frame behind the last one".to_owned(), longer));
        for (name, frames) in broken {
            assert!(receive(&to, &frames).is_err(), "{name}");
            assert_eq!(pairs(&to, TO), old, "{name}");
        }
    }

    #[tokio::test]
    async fn a_flipped_bit_in_any_frame_is_refused() {
        let (_one, from) = create();
        write(&from, FROM, &large(), b"five");
        for frame in frames(&from).await {
            for at in (0..frame.len().min(40)).chain((0..frame.len()).step_by(9_973)) {
                let mut damaged = frame.to_vec();
                damaged[at] ^= 1 << (at % 8);
                let refused = decode(&damaged).err().expect("it is damaged").to_string();
                assert!(refused.contains("its checksum does not match"), "byte {at}: {refused}");
            }
        }
    }

    #[tokio::test]
    async fn an_altered_pair_under_a_right_checksum_is_refused_at_the_end() {
        let (_one, from) = create();
        write(&from, FROM, &large(), b"five");
        let mut frames = frames(&from).await;
        let Frame::Pairs(mut pairs) = decode(&frames[0]).expect("whole") else { panic!("pairs") };
        pairs[0].1 = Bytes::from_static(b"forged");
        frames[0] = encode(PAIRS, &pairs);
        assert!(matches!(receive(&from, &frames), Err(SnapshotError::Incomplete(_))));
    }

    #[tokio::test]
    async fn a_receiver_that_goes_away_ends_the_reader() {
        let (_dir, db) = create();
        write(&db, FROM, &large(), b"five");
        let mut stream = super::frames(db.clone(), FROM);
        stream.next().await.expect("a frame").expect("whole");
        drop(stream);
        // The reader holds a handle of the state until it ends.
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while db.handles() > 1 {
            assert!(tokio::time::Instant::now() < deadline, "the reader still waits");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_frame_panic(kind: u8, body: Vec<u8>) {
            let _ = decode(&body);
            let rest = [&[kind][..], &body].concat();
            let crc = crc32fast::hash(&rest).to_be_bytes();
            let _ = decode(&[&crc[..], &rest].concat());
        }
    }
}
