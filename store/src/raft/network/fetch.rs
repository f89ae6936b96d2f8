//! Snapshots between nodes: whoever needs one fetches it, over a connection of its own.
//!
//! ```text
//!   leader:  Install {vote} ──►  follower
//!                           ◄──  Fetch {group}                  (or without being asked, at start)
//!            frames         ──►  a generation beside the live one, verified, flushed, installed
//!            openraft       ◄──  its vote
//! ```
//!
//! A fetch that makes no progress is given up; whoever wants the snapshot tries again, from the
//! start: what was received before is removed with its generation. Few run at once: a node that was
//! away lags in all its groups, and each is fetched the faster the fewer are under way.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use thiserror::Error;
use tidemark_types::NodeId;
use tokio::sync::Semaphore;
use tonic::Status;

use super::dial::{NoWay, Peers};
use super::frame::{Fetch, FrameError, Refusal, Told};
use super::wire::{self, Batches, PeerBatch};
use crate::metrics;
use crate::raft::group::Group;
use crate::raft::snapshot::{SnapshotError, stage};
use crate::raft::types::Vote;
use crate::storage::{GroupId, Staging, StateDb};

/// A node that sends nothing for so long will not; longer than any disk's pause.
const FRAME_WITHIN: Duration = Duration::from_secs(30);
/// Snapshots that a node fetches at once.
pub(super) const FETCHES_MAX: usize = 2;
/// Snapshots that a node sends at once, to all others.
const SENDS_MAX: usize = 8;

/// Why a snapshot was not received.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The node cannot be reached.
    #[error(transparent)]
    NoWay(#[from] NoWay),
    /// It cannot be asked.
    #[error("the request cannot be encoded: {0}")]
    Unsayable(String),
    /// The node refuses, or its connection broke.
    #[error("{}: {}", .0.code(), .0.message())]
    Status(#[from] Status),
    /// What came cannot be written, or is not what was sent.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// It stopped sending.
    #[error("nothing came for {} s", FRAME_WITHIN.as_secs())]
    Stalled,
}

impl From<FrameError> for FetchError {
    fn from(error: FrameError) -> Self {
        FetchError::Unsayable(error.to_string())
    }
}

impl Peers {
    /// All the state of `group` as `node` has it, as a complete and verified generation of `state`.
    pub async fn fetch(
        &self,
        node: NodeId,
        group: GroupId,
        state: &StateDb,
    ) -> Result<Staging, FetchError> {
        let _permit = self.fetches().acquire().await.expect("it is never closed");
        let started = Instant::now();
        let (hello, channel) = self.channel(node).await?;
        let request = PeerBatch { frames: vec![Fetch { hello, group }.encode()?] };
        let asked = tokio::time::timeout(FRAME_WITHIN, wire::fetch(channel, request)).await;
        let batches = asked.map_err(|_| FetchError::Stalled)??;
        tracing::info!(%group, %node, "receiving a snapshot");
        let mut bytes = 0;
        let batches = stream::try_unfold(batches, |mut batches| async {
            let next = tokio::time::timeout(FRAME_WITHIN, batches.message()).await;
            let next = next.map_err(|_| FetchError::Stalled)??;
            Ok::<_, FetchError>(next.map(|batch| (batch, batches)))
        });
        let frames = batches
            .map_ok(|batch| stream::iter(batch.frames).map(Ok::<_, FetchError>))
            .try_flatten()
            .inspect_ok(|frame: &Bytes| bytes += frame.len());
        let staged = stage(state, group, pin!(frames)).await?;
        let took = started.elapsed();
        metrics::snapshot_received(bytes, took);
        tracing::info!(%group, %node, bytes, ?took, "received a snapshot");
        Ok(staged)
    }
}

/// What a node sends and fetches.
pub(super) struct Snapshots {
    peers: Peers,
    installing: Mutex<HashSet<GroupId>>,
    sends: Arc<Semaphore>,
}

impl Snapshots {
    /// Nothing is under way.
    pub(super) fn new(peers: Peers) -> Self {
        Snapshots {
            peers,
            installing: Mutex::default(),
            sends: Arc::new(Semaphore::new(SENDS_MAX)),
        }
    }

    /// Fetches `group`'s snapshot from the node `from`, which leads it by `vote`, and installs it.
    pub(super) async fn install(
        &self,
        group: &Group,
        vote: Vote,
        from: NodeId,
    ) -> Result<Told, Refusal> {
        if !self.installing.lock().insert(group.id()) {
            return Err(Refusal::Busy);
        }
        let _done = Done { snapshots: self, group: group.id() };
        let fetch = async {
            let fetched = self.peers.fetch(from, group.id(), group.state()).await;
            fetched.map_err(|error| Refusal::NotFetched(error.to_string()))
        };
        let staged = tokio::select! {
            // The new leader's snapshot must not wait for one that would be refused.
            () = group.outvoted(&vote) => {
                Err(Refusal::NotFetched("another leads meanwhile".to_owned()))
            }
            staged = fetch => staged,
        }?;
        group.install(vote, staged).await.map(Told::Install).map_err(Refusal::NotFetched)
    }

    /// The frames of all the state of `group`, for node `to`.
    pub(super) fn send(&self, group: &Group, to: NodeId) -> Result<Batches, Refusal> {
        let permit = self.sends.clone().try_acquire_owned().map_err(|_| Refusal::Busy)?;
        tracing::info!(group = %group.id(), %to, "sending a snapshot");
        let batches = group.snapshot().map(move |frame| {
            // Given back with the stream.
            let _ = &permit;
            frame.map(|frame| PeerBatch { frames: vec![frame] }).map_err(|error| {
                tracing::error!(%error, "a snapshot cannot be read");
                Status::data_loss(error.to_string())
            })
        });
        Ok(batches.boxed())
    }
}

/// The group's snapshot is no longer under way.
struct Done<'a> {
    snapshots: &'a Snapshots,
    group: GroupId,
}

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.snapshots.installing.lock().remove(&self.group);
    }
}
