//! One Raft group of this node, in our own words: the rest of the store never sees openraft.

#[cfg(feature = "mutants")]
mod foresee;
mod succession;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt};
use openraft::async_runtime::instant::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{
    ClientWriteError, Fatal, ForwardReason, InitializeError, LinearizableReadError, RaftError,
};
use openraft::impls::OneshotResponder;
use openraft::metrics::RaftServerMetrics;
use openraft::raft::{
    AppendEntriesRequest, ClientWriteResult, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{Config, RaftMetrics, ReadPolicy, SnapshotPolicy};
use parking_lot::Mutex;
use thiserror::Error;
use tidemark_mutants::{Mutant, is};
use tidemark_store_core::Reply;
use tidemark_types::NodeId;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::log::GroupLog;
#[cfg(feature = "mutants")]
use super::machine::Effects;
use super::machine::{Applied, Machine};
use super::network::Network;
use super::snapshot::{self, Snapshot, SnapshotStream};
use super::types::{LogId, Payload, Replica, ReplicaId, TypeConfig, Vote};
use crate::config::RaftConfig;
use crate::storage::{GroupId, Staging, StateDb};

/// openraft keeps an entry count per group for what waits in its own queue; the bytes are bounded
/// before it, by the proposer.
type Inner = openraft::Raft<TypeConfig, Machine>;

/// A follower that was not heard of for this long may be gone: a few heartbeats.
const HEARD_WITHIN: Duration = Duration::from_secs(1);
/// A leader that heard from no majority for so long is deaf: longer than a busy machine holds up
/// everybody, and about when the others elect.
const QUORUM_PATIENCE: Duration = Duration::from_secs(2);

/// A follower that lacks no more than this catches up while leadership moves.
const CLOSE_ENTRIES: u64 = 1_000;

/// One Raft group of this node.
#[derive(Clone)]
pub struct Group {
    id: GroupId,
    replica: ReplicaId,
    network: Network,
    state: StateDb,
    #[cfg(feature = "mutants")]
    effects: Arc<dyn Effects>,
    raft: Inner,
    heard: Arc<Heard>,
}

/// What a replica has heard from its leaders.
#[derive(Debug, Default)]
struct Heard {
    /// What the first of them had committed then.
    goal: OnceLock<Option<u64>>,
    /// When the last one said something.
    last: Mutex<Option<Instant>>,
}

impl Heard {
    fn hears(&self, append: &AppendEntriesRequest<TypeConfig>) {
        self.goal.get_or_init(|| append.leader_commit.map(|committed| committed.index));
        *self.last.lock() = Some(Instant::now());
    }
}

/// Why a group does not run.
#[derive(Debug, Error)]
#[error("raft group {group} {what}: {reason}")]
pub struct GroupError {
    group: GroupId,
    what: &'static str,
    reason: String,
}

/// Why a payload was not handed to Raft: it certainly had no effect.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotSubmitted {
    /// This replica does not lead.
    #[error("not the leader")]
    NotLeader {
        /// Who does, as far as this replica knows.
        leader: Option<Replica>,
    },
    /// The group has stopped.
    #[error("the group has stopped: {0}")]
    Stopped(String),
}

/// The payload was handed to Raft, and what became of it is unknown (R3).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the outcome is unknown: {0}")]
pub struct Lost(pub String);

/// Why leadership did not move, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TransferError {
    /// Nothing was tried.
    #[error(transparent)]
    NotSubmitted(#[from] NotSubmitted),
    /// Nothing was tried either.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// It may still move.
    #[error(transparent)]
    Lost(#[from] Lost),
}

/// Why a node cannot lead a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unfit {
    /// The group has no replica there.
    #[error("node {0} has no replica of this group")]
    NoReplica(NodeId),
    /// The replica there is down, or too far behind to lead soon.
    #[error(
        "node {0} cannot take over now: it is down, or its log lags; see `tidemark cluster status`"
    )]
    NotClose(NodeId),
}

/// Why a payload has no replies.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WriteError {
    /// It certainly had no effect.
    #[error(transparent)]
    NotSubmitted(#[from] NotSubmitted),
    /// It may have had one.
    #[error(transparent)]
    Lost(#[from] Lost),
}

/// A payload on its way.
pub struct Submitted(oneshot::Receiver<ClientWriteResult<TypeConfig>>);

impl Submitted {
    /// Waits until it is applied; its replies, one per command.
    pub async fn replies(self) -> Result<Vec<Reply>, WriteError> {
        let lost = match self.0.await {
            Ok(Ok(response)) => return Ok(response.data.0),
            Ok(Err(ClientWriteError::ForwardToLeader(to))) => match to.reason {
                // Judged before anything is appended.
                ForwardReason::LeaseExpired | ForwardReason::LeadershipTransfer => {
                    return Err(NotSubmitted::NotLeader { leader: to.leader_node }.into());
                }
                ForwardReason::NotLeader => "the leader changed".to_owned(),
            },
            Ok(Err(other)) => other.to_string(),
            Err(_) => "the group stopped".to_owned(),
        };
        Err(Lost(lost).into())
    }
}

impl Group {
    /// Starts the group from its log and state.
    pub async fn start(
        id: GroupId,
        replica: ReplicaId,
        config: &RaftConfig,
        network: Network,
        log: GroupLog,
        machine: Machine,
    ) -> Result<Self, GroupError> {
        let failed = |reason: String| GroupError { group: id, what: "cannot start", reason };
        let state = machine.db().clone();
        #[cfg(feature = "mutants")]
        let effects = machine.effects();
        let machine = machine.with_log(log.clone());
        let config = openraft_config(id, config).validate().map_err(|e| failed(e.to_string()))?;
        let links = network.clone();
        let raft = openraft::Raft::new(replica, Arc::new(config), links, log, machine).await;
        let raft = raft.map_err(|e| failed(e.to_string()))?;
        // Until its core takes messages, its metrics are those of a replica without vote and log.
        raft.with_raft_state(|_| ()).await.map_err(|e| failed(e.to_string()))?;
        Ok(Group {
            id,
            replica,
            network,
            state,
            #[cfg(feature = "mutants")]
            effects,
            raft,
            heard: Arc::default(),
        })
    }

    /// Makes `members` a new group; on one of them, once.
    pub async fn create(&self, members: BTreeMap<ReplicaId, Replica>) -> Result<(), GroupError> {
        match self.raft.initialize(members).await {
            Ok(()) => Ok(()),
            // Created before, by an earlier attempt whose answer was lost.
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(other) => Err(self.error("cannot be created", other.to_string())),
        }
    }

    fn error(&self, what: &'static str, reason: String) -> GroupError {
        GroupError { group: self.id, what, reason }
    }

    /// Its name.
    pub fn id(&self) -> GroupId {
        self.id
    }

    /// Which replica of it this is.
    pub fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// Does this replica lead, as far as it knows?
    pub fn is_leader(&self) -> bool {
        self.raft.is_leader()
    }

    /// The term in which this replica leads, as far as it knows.
    pub fn leads(&self) -> Option<u64> {
        self.leadership().term()
    }

    /// The term in which this replica leads, or who does, as far as it knows.
    pub fn must_lead(&self) -> Result<u64, NotSubmitted> {
        match self.raft.as_leader() {
            Ok(leader) => Ok(leader.leader_id().term),
            Err(forward) => Err(NotSubmitted::NotLeader { leader: forward.leader_node }),
        }
    }

    /// Follows whether this replica leads.
    pub fn leadership(&self) -> Leadership {
        Leadership(self.raft.server_metrics())
    }

    /// Has a leader here heard from a majority within `fresh`?
    pub fn hears_quorum(&self, fresh: Duration) -> bool {
        self.quorum_silence().is_some_and(|silence| silence < fresh)
    }

    /// Is a leader here one that nobody should wait for? It has heard from no majority for so long that
    /// somebody else may lead by now. New proposals it refuses long before.
    pub fn is_deaf(&self) -> bool {
        self.quorum_silence().is_some_and(|silence| silence >= QUORUM_PATIENCE)
    }

    /// For how long a leader here, if it ever did, has heard from no majority; who is alone is one.
    fn quorum_silence(&self) -> Option<Duration> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        match metrics.membership_config.membership().voter_ids().count() {
            1 => Some(Duration::ZERO),
            _ => metrics.last_quorum_acked.map(|acked| acked.elapsed()),
        }
    }

    /// Does it lead a majority, or hear from whoever does, and did so within `fresh`?
    pub fn is_in_touch(&self, fresh: Duration) -> bool {
        if self.is_leader() {
            return self.hears_quorum(fresh);
        }
        self.heard.last.lock().is_some_and(|last| last.elapsed() < fresh)
    }

    /// Waits until the group has moved: its core answers, and what is committed, as far as this
    /// replica knows, is applied here, or at least the next entry of it.
    pub async fn advance(&self) -> Result<(), GroupError> {
        let failed = |reason: String| self.error("does not move", reason);
        let committed = self.raft.with_raft_state(|state| state.local_committed().cloned()).await;
        let committed = committed.map_err(|fatal| failed(fatal.to_string()))?;
        let before = self.metrics().last_applied;
        let wait = self.raft.wait(None);
        let moved = |metrics: &RaftMetrics<TypeConfig>| {
            metrics.last_applied >= committed || metrics.last_applied > before
        };
        let applied = wait.metrics(moved, "applying");
        applied.await.map(drop).map_err(|error| failed(error.to_string()))
    }

    /// The last entry that is applied here.
    pub fn applied(&self) -> Option<LogId> {
        self.raft.metrics().borrow_watched().last_applied
    }

    /// Waits until more than `applied` is applied here.
    pub async fn applies_more(&self, applied: Option<LogId>) -> Result<(), GroupError> {
        let wait = self.raft.wait(None);
        let more = wait.metrics(|metrics| metrics.last_applied > applied, "applying more");
        more.await.map(drop).map_err(|error| self.error("applies nothing", error.to_string()))
    }

    /// Hands an encoded batch to Raft; batches are taken in the order in which this returns.
    pub async fn submit(&self, payload: Bytes) -> Result<Submitted, NotSubmitted> {
        self.must_lead()?;
        let (responder, receiver) = OneshotResponder::new_pair();
        self.raft.client_write_ff(Payload(payload), Some(responder)).await.map_err(stopped)?;
        Ok(Submitted(receiver))
    }

    /// Waits until everything that was committed when this was called is applied here, after a
    /// round to a majority: what is read then is not stale (R16).
    pub async fn read_index(&self) -> Result<(), NotSubmitted> {
        match self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to))) => {
                Err(NotSubmitted::NotLeader { leader: to.leader_node })
            }
            // It may have led a moment ago; a caller finds the new leader the same way.
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                Err(NotSubmitted::NotLeader { leader: None })
            }
            Err(RaftError::Fatal(fatal)) => Err(stopped(fatal)),
        }
    }

    /// The nodes whose replicas follow this leader so closely that they could take over at once, the
    /// closest first.
    pub fn heirs(&self) -> Vec<NodeId> {
        heirs(&self.raft.metrics().borrow_watched())
    }

    /// The other replicas' nodes, and how many entries each of them lacks, as far as a leader here
    /// knows; none, where it does not lead.
    pub fn lags(&self) -> Vec<(NodeId, u64)> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let last = metrics.last_log_index.unwrap_or_default();
        let others = metrics.membership_config.membership().nodes();
        let others = others.filter(|(replica, _)| **replica != metrics.id);
        let lag = |replica| {
            let matched = *metrics.replication.as_ref()?.get(replica)?;
            Some(last.saturating_sub(matched.map_or(0, |id| id.index)))
        };
        others.map(|(replica, other)| (other.node, lag(replica).unwrap_or_default())).collect()
    }

    /// Does it have everything that was committed when its leader was first heard of? Before that
    /// nobody knows how far it lags; a leader has everything.
    pub fn has_caught_up(&self) -> bool {
        let goal = self.heard.goal.get();
        self.is_leader() || goal.is_some_and(|goal| self.status().applied >= *goal)
    }

    /// Hands leadership, which must be this replica's, to the one on `to`, and waits until that
    /// leads; its term. From then on this replica takes nothing until somebody else leads, so one
    /// that cannot take over is refused before.
    pub async fn transfer_to(&self, to: NodeId, within: Duration) -> Result<u64, TransferError> {
        self.must_lead()?;
        let metrics = self.metrics();
        let replica = replica_on(&metrics, to).ok_or(Unfit::NoReplica(to))?;
        if replica == self.replica {
            return Ok(metrics.current_term);
        }
        if !heirs(&metrics).contains(&to) {
            return Err(Unfit::NotClose(to).into());
        }
        self.raft.trigger().transfer_leader(replica).await.map_err(stopped)?;
        let wait = self.raft.wait(Some(within));
        let led = wait.metrics(|metrics| metrics.current_leader == Some(replica), "the new leader");
        match led.await {
            Ok(metrics) => Ok(metrics.current_term),
            Err(error) => Err(Lost(error.to_string()).into()),
        }
    }

    /// How the group stands.
    pub fn status(&self) -> GroupStatus {
        let mut metrics = self.raft.metrics();
        let mut status = status(&metrics.borrow_and_update());
        // A core that panics says nothing: its end of the channel is gone.
        if status.running.is_ok() && matches!(metrics.changed().now_or_never(), Some(Err(_))) {
            status.running = Err("its core panicked".to_owned());
        }
        status
    }

    fn metrics(&self) -> RaftMetrics<TypeConfig> {
        self.raft.metrics().borrow_watched().clone()
    }

    /// Stops the group; its log and state are closed by their owners.
    pub async fn shut_down(&self) {
        // It never fails.
        let _ = self.raft.shutdown().await;
    }
}

fn stopped(fatal: Fatal<TypeConfig>) -> NotSubmitted {
    NotSubmitted::Stopped(fatal.to_string())
}

/// Whether a replica leads its group, as it changes.
pub struct Leadership(WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>>);

impl Leadership {
    /// The term in which it leads now.
    pub fn term(&self) -> Option<u64> {
        let server = self.0.borrow_watched();
        server.state.is_leader().then(|| server.vote.leader_id.term)
    }

    /// Waits until it leads; its term, or nothing once the group has stopped.
    pub async fn gained(&mut self) -> Option<u64> {
        loop {
            self.0.borrow_and_update();
            if let Some(term) = self.term() {
                // A group that stopped while it led says so for ever, and that it says no more.
                let stopped = matches!(self.0.changed().now_or_never(), Some(Err(_)));
                return (!stopped).then_some(term);
            }
            self.0.changed().await.ok()?;
        }
    }

    /// Waits until it no longer leads in `term`.
    pub async fn lost(&mut self, term: u64) {
        loop {
            self.0.borrow_and_update();
            if self.term() != Some(term) || self.0.changed().await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
impl Group {
    /// Waits until the group stands as `holds` wants it.
    pub(in crate::raft) async fn until(
        &self,
        within: Duration,
        what: &str,
        holds: impl Fn(&GroupStatus) -> bool,
    ) -> Result<GroupStatus, GroupError> {
        let mut metrics = self.raft.metrics();
        let wait = async {
            loop {
                let status = status(&metrics.borrow_and_update());
                if holds(&status) {
                    return Ok(status);
                }
                metrics.changed().await.map_err(|_| "the group stopped")?;
            }
        };
        let waited = tokio::time::timeout(within, wait).await.unwrap_or(Err("too late"));
        waited.map_err(|why| self.error("waits", format!("{what}: {why}; {:?}", self.status())))
    }

    /// Flushes the state, and lets the log be purged up to what is kept behind it.
    pub(in crate::raft) async fn compact(&self) -> Result<(), NotSubmitted> {
        self.raft.trigger().snapshot().await.map_err(stopped)
    }

    /// Lets the core panic.
    pub(in crate::raft) async fn panic(&self) {
        let panicked = self.raft.with_raft_state(|_| panic!("on purpose")).await;
        panicked.expect_err("a core that panicked does not answer");
    }
}

/// What other replicas ask of this one. An error means that the group has stopped.
impl Group {
    /// For a vote.
    pub(in crate::raft) async fn vote(
        &self,
        request: VoteRequest<TypeConfig>,
    ) -> Result<VoteResponse<TypeConfig>, String> {
        self.raft.vote(request).await.map_err(|error| error.to_string())
    }

    /// Whether it would vote.
    pub(in crate::raft) async fn pre_vote(
        &self,
        request: VoteRequest<TypeConfig>,
    ) -> Result<VoteResponse<TypeConfig>, String> {
        self.raft.pre_vote(request).await.map_err(|error| error.to_string())
    }

    /// To stand for election at once, because the leader wants to step down.
    pub(in crate::raft) async fn take_over(
        &self,
        request: TransferLeaderRequest<TypeConfig>,
    ) -> Result<TransferLeaderResponse<TypeConfig>, String> {
        self.raft.handle_transfer_leader(request).await.map_err(|fatal| fatal.to_string())
    }

    /// To install a snapshot that was fetched from the leader with this vote.
    pub(in crate::raft) async fn install(
        &self,
        vote: Vote,
        staged: Staging,
    ) -> Result<SnapshotResponse<TypeConfig>, String> {
        let applied = staged.applied().map_err(|error| error.to_string())?;
        let applied = Applied::decode(applied.as_deref()).map_err(|error| error.to_string())?;
        let term = applied.last.map_or(0, |last| **last.committed_leader_id());
        // It was read after that leader had fallen: openraft takes this for corruption.
        if term > vote.leader_id.term {
            return Err(format!("it is of term {term}, its leader of {}", vote.leader_id.term));
        }
        let snapshot = openraft::storage::Snapshot {
            meta: applied.meta(),
            snapshot: Snapshot::Staged(staged),
        };
        self.raft.install_full_snapshot(vote, snapshot).await.map_err(|fatal| fatal.to_string())
    }

    /// For all its state, as it is now.
    pub(in crate::raft) fn snapshot(&self) -> SnapshotStream {
        snapshot::frames(self.state.clone(), self.id)
    }

    /// Waits until this replica knows of a newer vote than `vote`, or has stopped.
    pub(in crate::raft) async fn outvoted(&self, vote: &Vote) {
        let mut server = self.raft.server_metrics();
        loop {
            if server.borrow_and_update().vote > *vote || server.changed().await.is_err() {
                return;
            }
        }
    }

    /// Where its state is.
    pub(in crate::raft) fn state(&self) -> &StateDb {
        &self.state
    }

    /// To take a stream of appends; answers in their order. Ends after the first failure.
    pub(in crate::raft) fn append(
        &self,
        appends: impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + 'static,
    ) -> impl Stream<Item = Result<StreamAppendResult<TypeConfig>, String>> + Send + 'static {
        let heard = self.heard.clone();
        let appends = appends.inspect(move |append| heard.hears(append));
        self.raft.stream_append(appends).map_err(|fatal| fatal.to_string())
    }

    /// To take one append without entries: a heartbeat, a new commit index.
    pub(in crate::raft) async fn append_nothing(
        &self,
        append: AppendEntriesRequest<TypeConfig>,
    ) -> Result<StreamAppendResult<TypeConfig>, String> {
        // With entries, a partial success would be answered as a full one.
        assert!(append.entries.is_empty(), "only for appends without entries");
        self.heard.hears(&append);
        let prev = append.prev_log_id;
        let response = self.raft.append_entries(append).await;
        response
            .map(|response| response.into_stream_result(prev, prev))
            .map_err(|error| error.to_string())
    }
}

/// How a group stands on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStatus {
    /// Why it stopped, if it did.
    pub running: Result<(), String>,
    /// The term of its vote as it is on disk: a newer one may still be forgotten by a power cut.
    pub term: u64,
    /// Who leads it, as far as this replica knows.
    pub leader: Option<Replica>,
    /// The last entry of the log.
    pub last_log: Option<u64>,
    /// The last applied entry.
    pub applied: Option<u64>,
    /// Up to where a snapshot covers the log.
    pub snapshot: Option<u64>,
    /// The last entry that was purged.
    pub purged: Option<u64>,
}

fn status(metrics: &RaftMetrics<TypeConfig>) -> GroupStatus {
    let members = metrics.membership_config.membership();
    GroupStatus {
        running: metrics.running_state.clone().map_err(|fatal| fatal.to_string()),
        term: metrics.vote.leader_id.term,
        leader: metrics.current_leader.and_then(|id| members.get_node(&id).cloned()),
        last_log: metrics.last_log_index,
        applied: metrics.last_applied.map(|id| id.index),
        snapshot: metrics.snapshot.map(|id| id.index),
        purged: metrics.purged.map(|id| id.index),
    }
}

/// The nodes that could take over from this leader, the closest first.
fn heirs(leader: &RaftMetrics<TypeConfig>) -> Vec<NodeId> {
    let (Some(heard), Some(matched)) = (&leader.heartbeat, &leader.replication) else {
        return Vec::new();
    };
    let last = leader.last_log_index.unwrap_or_default();
    let others = leader.membership_config.membership().nodes();
    let others = others.filter(|(replica, _)| **replica != leader.id);
    let mut heirs: Vec<(u64, NodeId)> = others
        .filter_map(|(replica, Replica { node, .. })| {
            let heard = heard.get(replica).copied().flatten()?;
            let matched = matched.get(replica).cloned().flatten().map_or(0, |id| id.index);
            let close = heard.elapsed() < HEARD_WITHIN && matched + CLOSE_ENTRIES >= last;
            close.then_some((matched, *node))
        })
        .collect();
    heirs.sort_unstable_by(|one, other| other.cmp(one));
    heirs.into_iter().map(|(_, node)| node).collect()
}

/// The group's replica on `node`.
fn replica_on(metrics: &RaftMetrics<TypeConfig>, node: NodeId) -> Option<ReplicaId> {
    let mut members = metrics.membership_config.membership().nodes();
    members.find(|(_, replica)| replica.node == node).map(|(id, _)| *id)
}

fn openraft_config(id: GroupId, config: &RaftConfig) -> Config {
    Config {
        cluster_name: id.to_string(),
        heartbeat_interval: config.heartbeat_ms,
        heartbeat_min_interval: Some(config.heartbeat_ms / 2),
        election_timeout_min: config.election_timeout_min_ms,
        election_timeout_max: config.election_timeout_max_ms,
        enable_pre_vote: Some(true),
        // A leader that hears no majority falls silent, for as long as the others need to elect.
        quorum_loss_probe_interval: Some(2 * config.election_timeout_max_ms),
        // The state may be older than what this replica led: it must not lead without an election.
        enable_leader_restore: Some(is(Mutant::LeadWithoutElection)),
        allow_log_reversion: Some(is(Mutant::StartOnEmptyDisk)),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_entries),
        max_in_snapshot_log_to_keep: config.keep_entries,
        ..Config::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_is_told_when_its_vote_is_on_the_disk_and_not_before() {
        let mut metrics = RaftMetrics::<TypeConfig>::new_initial(ReplicaId::default());
        metrics.current_term = 2;
        assert_eq!(status(&metrics).term, 0);
        metrics.vote.leader_id.term = 2;
        assert_eq!(status(&metrics).term, 2);
    }
}
