//! A leader whose process is gone is succeeded at once (ADR 14).
//!
//! The timers wait for the leader's lease and then for an election timeout, since silence alone may
//! mean anything. A process that is known to be gone leads nobody: a survivor stands for election the
//! way a leader's chosen heir does, which voters grant within the lease. Logs and terms are compared
//! as in every election, and nothing here reads by a lease (R16), so at worst, when the leader was
//! not gone after all, leadership moves once for nothing.
//!
//! ```text
//!   gone ─► ask the other replicas how far their logs go ─► the furthest stands at once
//!                                                        └► others later, if nobody leads by then
//! ```
//!
//! Nobody stands whom no majority answers: it would raise the term for nothing. Nobody tries twice:
//! whatever goes wrong, the timers still run.

use std::time::Duration;

use futures::future::join_all;
use openraft::network::{NetVote, RPCOption, RaftNetworkFactory};
use openraft::raft::{TransferLeaderRequest, VoteRequest};
use tidemark_types::NodeId;

use super::{Group, NotSubmitted, replica_on, stopped};
use crate::raft::types::{LogId, Replica, ReplicaId, Vote};

/// How long the others may take to say how far their logs go: a round trip between busy nodes.
const ANSWER_WITHIN: Duration = Duration::from_millis(200);

/// How long a replica leaves the election to one with a longer log: that one's question, two fsyncs
/// and a round trip.
const GIVE_WAY: Duration = Duration::from_millis(300);

/// What a replica goes by when it asks who should stand.
struct Fallen {
    replica: ReplicaId,
    vote: Vote,
    last: Option<LogId>,
}

impl Group {
    /// Stands for election if the leader, as far as this replica knows, is on `node`, whose process
    /// is gone; unless another replica is the better successor, and does.
    pub async fn succeed(&self, node: NodeId) -> Result<(), NotSubmitted> {
        let Some(fallen) = self.led_from(node).await? else { return Ok(()) };
        match self.is_successor(&fallen).await {
            Some(true) => {}
            Some(false) => tokio::time::sleep(GIVE_WAY).await,
            None => return Ok(()),
        }
        // In the meantime another one may have been elected, or the leader have come back.
        let Some(fallen) = self.led_from(node).await? else { return Ok(()) };
        let request = TransferLeaderRequest::new(fallen.vote, self.replica, fallen.last);
        // It waits until the log is on disk up to there, and refuses if the vote has changed.
        let stood = self.raft.handle_transfer_leader(request).await.map_err(stopped)?;
        tracing::info!(group = %self.id, %node, ?stood, "the leader's process is gone");
        Ok(())
    }

    /// The replica on `node`, the vote that made it leader, and how far this replica's log goes; none
    /// if it does not lead.
    async fn led_from(&self, node: NodeId) -> Result<Option<Fallen>, NotSubmitted> {
        let metrics = self.metrics();
        let leader = metrics.current_leader;
        let on_node = replica_on(&metrics, node);
        let Some(replica) = leader.filter(|_| leader == on_node) else { return Ok(None) };
        let last = self.raft.with_raft_state(|state| state.log_ids.last().copied()).await;
        Ok(Some(Fallen { replica, vote: metrics.vote, last: last.map_err(stopped)? }))
    }

    /// Does no other replica's log go further? None if no majority says. Of several that go as far each
    /// group has its own favourite, so that the shards of a fallen node spread over the others.
    async fn is_successor(&self, fallen: &Fallen) -> Option<bool> {
        let metrics = self.metrics();
        let members = metrics.membership_config.membership();
        let others = members
            .nodes()
            .filter(|(id, _)| **id != self.replica && **id != fallen.replica)
            .map(|(id, replica)| self.last_of(*id, replica.clone(), fallen));
        let logs: Vec<_> = join_all(others).await.into_iter().flatten().collect();
        if logs.len() < members.voter_ids().count() / 2 {
            return None;
        }
        let turn = |replica| replica ^ (u64::from(self.id.get()) & 1);
        let rank = |last: Option<LogId>, replica| (last, turn(replica));
        let mine = rank(fallen.last, self.replica);
        Some(logs.into_iter().all(|(replica, last)| mine > rank(last, replica)))
    }

    /// How far the log of another replica goes. The question is whether it would vote for this one:
    /// it would not, within the lease, but says why.
    async fn last_of(
        &self,
        id: ReplicaId,
        replica: Replica,
        fallen: &Fallen,
    ) -> Option<(ReplicaId, Option<LogId>)> {
        let mut link = self.network.clone().new_client(id, &replica).await;
        let asked = VoteRequest::new(fallen.vote, fallen.last);
        let answer = link.pre_vote(asked, RPCOption::new(ANSWER_WITHIN)).await.ok()?;
        Some((id, answer.last_log_id))
    }
}
