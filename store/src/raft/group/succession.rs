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
//! Nobody stands whom no majority answers: it would raise the term for nothing. Two who stood at one
//! moment, each with its own vote, try again in the same order. Once the timers must have run out,
//! they are left alone.

use std::time::Duration;

use futures::future::join_all;
use openraft::RaftMetrics;
use openraft::network::{NetVote, RPCOption, RaftNetworkFactory};
use openraft::raft::{TransferLeaderRequest, VoteRequest, VoteResponse};
use tidemark_types::NodeId;

use super::{Group, NotSubmitted, replica_on, stopped};
use crate::raft::types::{LogId, Membership, Replica, ReplicaId, TypeConfig, Vote};

/// How long the others may take to say how far their logs go: a round trip between busy nodes.
const ANSWER_WITHIN: Duration = Duration::from_millis(200);

/// What the leader had sent before it died is on its way into the logs: how far they go is asked after
/// that, or the one that is found to be the heir is overtaken.
const SETTLE: Duration = Duration::from_millis(30);

/// How long a replica leaves the election to another one: that one's question, two fsyncs and a round
/// trip. It grows by half each time, since a disk may be slower than that.
const GIVE_WAY: Duration = Duration::from_millis(300);

/// Who led, and by which vote.
struct Fallen {
    replica: ReplicaId,
    vote: Vote,
}

impl Fallen {
    /// Does somebody lead since?
    fn succeeded(&self, metrics: &RaftMetrics<TypeConfig>) -> bool {
        metrics.current_leader.is_some() && metrics.vote != self.vote
    }
}

/// What a replica goes by when it asks who should stand.
struct Standing {
    vote: Vote,
    last: Option<LogId>,
    members: Membership,
}

/// Who should stand, by what the other replicas say.
enum Heir {
    /// This one.
    Me,
    /// Another one, whose log goes as far, and which has not stood yet.
    Another,
    /// Nobody here: another one's log goes further, or it stands, or no majority answers.
    Nobody,
}

impl Group {
    /// Stands for election if the leader, as far as this replica knows, is on `node`, whose process
    /// is gone; unless another replica is the better successor, and does. It returns when somebody
    /// leads again, or when the timers decide.
    pub async fn succeed(&self, node: NodeId) -> Result<(), NotSubmitted> {
        let Some(fallen) = self.led_from(node) else { return Ok(()) };
        let timers = Duration::from_millis(self.raft.config().election_timeout_max);
        let attempts = async {
            tokio::time::sleep(SETTLE).await;
            let mut pause = Duration::ZERO;
            while let Some(standing) = self.vacant(&fallen).await? {
                match self.heir(&fallen, &standing).await {
                    Heir::Me => self.stand(standing).await?,
                    Heir::Another if !pause.is_zero() => self.stand(standing).await?,
                    Heir::Another | Heir::Nobody => {}
                }
                pause = (pause * 3 / 2).max(GIVE_WAY);
                let led = |metrics: &RaftMetrics<TypeConfig>| fallen.succeeded(metrics);
                // Whether it came to that, and whether the group still runs, is asked above.
                let _ = self.raft.wait(Some(pause)).metrics(led, "a new leader").await;
            }
            Ok(())
        };
        tokio::time::timeout(timers, attempts).await.unwrap_or(Ok(()))
    }

    /// The leader, if it is on `node`.
    fn led_from(&self, node: NodeId) -> Option<Fallen> {
        let metrics = self.metrics();
        let replica = replica_on(&metrics, node)?;
        (metrics.current_leader == Some(replica)).then_some(Fallen { replica, vote: metrics.vote })
    }

    /// Where this replica stands, as long as nobody leads since that leader fell.
    async fn vacant(&self, fallen: &Fallen) -> Result<Option<Standing>, NotSubmitted> {
        let metrics = self.metrics();
        if fallen.succeeded(&metrics) {
            return Ok(None);
        }
        let last = self.raft.with_raft_state(|state| state.log_ids.last().copied()).await;
        let members = metrics.membership_config.membership().clone();
        Ok(Some(Standing { vote: metrics.vote, last: last.map_err(stopped)?, members }))
    }

    async fn stand(&self, Standing { vote, last, .. }: Standing) -> Result<(), NotSubmitted> {
        // It waits until the log is on disk up to there, and refuses if the vote has changed. A vote
        // that this replica gave itself was written after its log.
        let last = last.filter(|_| vote.is_committed());
        let request = TransferLeaderRequest::new(vote, self.replica, last);
        let stood = self.raft.handle_transfer_leader(request).await.map_err(stopped)?;
        tracing::info!(group = %self.id, ?stood, "the leader's process is gone");
        Ok(())
    }

    /// The replica whose log goes furthest. Of several that go as far each group has its own favourite,
    /// so that the shards of a fallen node spread over the others.
    async fn heir(&self, fallen: &Fallen, standing: &Standing) -> Heir {
        let others = standing
            .members
            .nodes()
            .filter(|(id, _)| **id != self.replica && **id != fallen.replica)
            .map(
                |(id, replica)| async move { Some((*id, self.ask(*id, replica, standing).await?)) },
            );
        let answers: Vec<_> = join_all(others).await.into_iter().flatten().collect();
        let given = standing.vote.leader_id.voted_for != self.replica && !standing.vote.committed;
        // Whose log is shorter may stand, and cannot win.
        let stands = |answer: &VoteResponse<TypeConfig>| {
            answer.vote.leader_id.term > standing.vote.leader_id.term
                && answer.last_log_id >= standing.last
        };
        let turn = |replica| replica ^ (u64::from(self.id.get()) & 1);
        let further = answers.iter().any(|(_, answer)| answer.last_log_id > standing.last);
        if given
            || further
            || answers.len() < standing.members.voter_ids().count() / 2
            || answers.iter().any(|(_, answer)| stands(answer))
        {
            return Heir::Nobody;
        }
        let mut as_far = answers.iter().filter(|(_, answer)| answer.last_log_id == standing.last);
        match as_far.all(|(id, _)| turn(self.replica) > turn(*id)) {
            true => Heir::Me,
            false => Heir::Another,
        }
    }

    /// How far the log of another replica goes, and its vote. The question is whether it would vote
    /// for this one: it would not, within the lease, but says why.
    async fn ask(
        &self,
        id: ReplicaId,
        replica: &Replica,
        standing: &Standing,
    ) -> Option<VoteResponse<TypeConfig>> {
        let mut link = self.network.clone().new_client(id, replica).await;
        let asked = VoteRequest::new(standing.vote, standing.last);
        link.pre_vote(asked, RPCOption::new(ANSWER_WITHIN)).await.ok()
    }
}
