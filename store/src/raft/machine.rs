//! The state machine that openraft drives: applies a group's log to its part of the state.
//!
//! Invariant: the replies and effects of an entry leave only after the write that holds both what
//! the entry changed and its position. If that write fails, the group stops.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use futures::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot};
use openraft::type_config::alias::SnapshotOf;
use openraft::{EntryPayload, OptionalSend};
use serde::{Deserialize, Serialize};
use tidemark_store_core::{Applied as Outcome, Effect, Transaction, codec};

use super::snapshot::{SnapshotError, SnapshotStream};
use super::types::{LogId, Replies, SnapshotMeta, StoredMembership, TypeConfig};
use crate::metrics;
use crate::storage::{GroupId, GroupState, StateDb};

/// Entries that are applied and written together; more only make the write larger.
const ROUND_ENTRIES: usize = 256;

/// Where a group's effects go: to those who watch mailboxes, relay records and raise alarms.
pub trait Effects: Send + Sync + 'static {
    /// `effects` of `group` are in the state now. Must not block.
    fn applied(&self, group: GroupId, effects: Vec<Effect>);
}

/// Up to where a group's log is applied, and the membership there; written with the state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The last applied entry.
    pub last: Option<LogId>,
    /// The last applied membership.
    pub membership: StoredMembership,
}

impl Applied {
    const VERSION: u8 = 1;

    /// The position with these bytes; that of an empty state where there are none.
    pub fn decode(bytes: Option<&[u8]>) -> Result<Self, codec::DecodeError> {
        match bytes {
            Some(bytes) => codec::decode("Applied", Self::VERSION, bytes),
            None => Ok(Applied::default()),
        }
    }

    fn encode(&self) -> Vec<u8> {
        codec::encode(Self::VERSION, self)
    }

    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.last, last_membership: self.membership.clone() }
    }
}

/// One group's state machine.
pub struct Machine {
    group: GroupId,
    db: StateDb,
    state: GroupState,
    applied: Applied,
    effects: Arc<dyn Effects>,
}

impl Machine {
    /// The state machine of `group`, where its state stands.
    pub fn open(db: StateDb, group: GroupId, effects: Arc<dyn Effects>) -> io::Result<Self> {
        let state = db.group(group).map_err(io::Error::other)?;
        let applied = state.applied().map_err(io::Error::other)?;
        let applied = Applied::decode(applied.as_deref()).map_err(io::Error::other)?;
        Ok(Machine { group, db, state, applied, effects })
    }

    /// Applies entries, writes them, and only then answers.
    fn round(&mut self, entries: Vec<EntryResponder<TypeConfig>>) -> io::Result<()> {
        let started = Instant::now();
        let mut applied = self.applied.clone();
        let mut answers = Vec::with_capacity(entries.len());
        let writes = {
            let reader = self.state.reader();
            let mut transaction = Transaction::new(&reader);
            for (entry, responder) in entries {
                applied.last = Some(entry.log_id);
                let outcomes = match entry.payload {
                    EntryPayload::Blank => Vec::new(),
                    EntryPayload::Normal(payload) => {
                        transaction.apply(&payload.0).map_err(io::Error::other)?
                    }
                    EntryPayload::Membership(membership) => {
                        applied.membership = StoredMembership::new(Some(entry.log_id), membership);
                        Vec::new()
                    }
                };
                answers.push((outcomes, responder));
            }
            transaction.finish()
        };
        self.state.write(writes, &applied.encode()).map_err(io::Error::other)?;
        self.applied = applied;
        metrics::applied(started.elapsed());
        for (outcomes, responder) in answers {
            let (replies, effects) = split(outcomes);
            if let Some(responder) = responder {
                responder.send(Replies(replies));
            }
            if !effects.is_empty() {
                self.effects.applied(self.group, effects);
            }
        }
        Ok(())
    }

    /// The state as it is now, as a stream.
    async fn stream(&self) -> Result<SnapshotStream, SnapshotError> {
        let (applied, stream) = SnapshotStream::of(self.db.clone(), self.group).await?;
        let applied = Applied::decode(applied.as_deref())
            .map_err(|error| SnapshotError::Fatal(error.into()))?;
        assert_eq!(applied, self.applied, "nobody else applies to this group");
        Ok(stream)
    }
}

fn split(outcomes: Vec<Outcome>) -> (Vec<tidemark_store_core::Reply>, Vec<Effect>) {
    let mut effects = Vec::new();
    let replies = outcomes.into_iter().map(|outcome| {
        effects.extend(outcome.effects);
        outcome.reply
    });
    (replies.collect(), effects)
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotStream;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied.last, self.applied.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut round = Vec::new();
        while let Some(entry) = entries.try_next().await? {
            round.push(entry);
            if round.len() == ROUND_ENTRIES {
                self.round(std::mem::take(&mut round))?;
            }
        }
        match round.is_empty() {
            true => Ok(()),
            false => self.round(round),
        }
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            db: self.db.clone(),
            meta: self.applied.meta(),
            stream: Some(self.stream().await),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotStream,
    ) -> io::Result<()> {
        let staged = snapshot.stage(&self.db, self.group).await?;
        let applied = Applied { last: meta.last_log_id, membership: meta.last_membership.clone() };
        self.state.install(staged, &applied.encode()).map_err(io::Error::other)?;
        self.applied = applied;
        Ok(())
    }

    /// The state as it is now; there are no stored snapshots. Flushed first, because openraft may
    /// purge the log up to it.
    async fn get_current_snapshot(
        &mut self,
    ) -> io::Result<Option<SnapshotOf<TypeConfig, SnapshotStream>>> {
        if self.applied.last.is_none() {
            return Ok(None);
        }
        self.get_snapshot_builder().await.build_snapshot().await.map(Some)
    }
}

/// A snapshot whose view is fixed already; building it only flushes what it holds, so that the
/// log up to it may be purged.
pub struct Builder {
    db: StateDb,
    meta: SnapshotMeta,
    stream: Option<Result<SnapshotStream, SnapshotError>>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotStream;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<TypeConfig, SnapshotStream>> {
        let db = self.db.clone();
        let flushed = tokio::task::spawn_blocking(move || db.flush()).await;
        flushed.map_err(io::Error::other)?.map_err(io::Error::other)?;
        let stream = self
            .stream
            .take()
            .ok_or_else(|| io::Error::other("openraft builds a snapshot once per builder"))?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: stream? })
    }
}
