//! The state machine that openraft drives: applies a group's log to its part of the state.
//!
//! Invariant: the replies and effects of an entry leave only after the write that holds both what
//! the entry changed and its position. If that write fails, the group stops.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use futures::{Stream, TryStreamExt};
use openraft::storage::{
    EntryResponder, RaftLogStorage, RaftSnapshotBuilder, RaftStateMachine, Snapshot,
};
use openraft::type_config::alias::SnapshotOf;
use openraft::{EntryPayload, OptionalSend};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tidemark_mutants::{Mutant, is};
use tidemark_store_core::{Applied as Outcome, Effect, Transaction, codec};

use super::log::GroupLog;
use super::snapshot::Snapshot as Data;
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

    /// What openraft is told of a snapshot that stands here.
    pub(in crate::raft) fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.last, last_membership: self.membership.clone() }
    }
}

/// One group's state machine.
pub struct Machine {
    group: GroupId,
    db: StateDb,
    state: GroupState,
    applied: Applied,
    /// What has been flushed for sure: the log up to here may be purged.
    flushed: Arc<Mutex<Applied>>,
    log: Option<GroupLog>,
    effects: Arc<dyn Effects>,
}

impl Machine {
    /// The state machine of `group`, where its state stands.
    pub fn open(db: StateDb, group: GroupId, effects: Arc<dyn Effects>) -> io::Result<Self> {
        let state = db.group(group);
        let applied = state.applied().map_err(io::Error::other)?;
        let applied = Applied::decode(applied.as_deref()).map_err(io::Error::other)?;
        let flushed = Arc::new(Mutex::new(applied.clone()));
        Ok(Machine { group, db, state, applied, flushed, log: None, effects })
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

    /// The log whose entries it applies: an install makes it begin behind the snapshot.
    pub(in crate::raft) fn with_log(mut self, log: GroupLog) -> Self {
        self.log = Some(log);
        self
    }

    /// Where its effects go.
    #[cfg(feature = "mutants")]
    pub(in crate::raft) fn effects(&self) -> Arc<dyn Effects> {
        self.effects.clone()
    }

    /// Where the state of all groups is.
    pub(in crate::raft) fn db(&self) -> &StateDb {
        &self.db
    }
}

/// Replies and effects of one entry's commands.
pub(super) fn split(outcomes: Vec<Outcome>) -> (Vec<tidemark_store_core::Reply>, Vec<Effect>) {
    let mut effects = Vec::new();
    let replies = outcomes.into_iter().map(|outcome| {
        effects.extend(outcome.effects);
        outcome.reply
    });
    (replies.collect(), effects)
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Data;
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
            group: self.group,
            applied: self.applied.clone(),
            flushed: self.flushed.clone(),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Data) -> io::Result<()> {
        let staged = snapshot.stage(&self.db, self.group).await?;
        let applied = staged.applied().map_err(io::Error::other)?;
        let applied = Applied::decode(applied.as_deref()).map_err(io::Error::other)?;
        if applied.last < meta.last_log_id {
            let short =
                format!("the snapshot covers {:?}, not {:?}", applied.last, meta.last_log_id);
            return Err(io::Error::other(short));
        }
        // openraft has cut off what contradicts the snapshot; were that lost, the log would
        // contradict the state.
        if let Some(log) = &self.log {
            log.sync().await?;
        }
        self.state.install(staged).map_err(io::Error::other)?;
        // Known for good that the log begins behind the state: were the state lost with this mark,
        // an older log would pass for a whole one.
        if let (Some(log), Some(last)) = (&mut self.log, applied.last) {
            log.purge(last).await?;
            log.sync().await?;
        }
        *self.flushed.lock() = applied.clone();
        self.applied = applied;
        Ok(())
    }

    /// There are no stored snapshots: whoever wants one reads the state, which covers at least what
    /// was flushed last.
    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<TypeConfig, Data>>> {
        let meta = self.flushed.lock().meta();
        if meta.last_log_id.is_none() {
            return Ok(None);
        }
        Ok(Some(Snapshot { meta, snapshot: Data::Live(self.db.clone(), self.group) }))
    }
}

/// Flushes what was applied when it was made, so that the log up to there may be purged.
pub struct Builder {
    db: StateDb,
    group: GroupId,
    applied: Applied,
    flushed: Arc<Mutex<Applied>>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Data;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<TypeConfig, Data>> {
        let db = self.db.clone();
        if !is(Mutant::PurgeUnflushed) {
            let flushed = self.db.blocking(move || db.flush()).await?;
            flushed.map_err(io::Error::other)?;
        }
        let mut flushed = self.flushed.lock();
        if flushed.last < self.applied.last {
            flushed.clone_from(&self.applied);
        }
        Ok(Snapshot {
            meta: self.applied.meta(),
            snapshot: Data::Live(self.db.clone(), self.group),
        })
    }
}
