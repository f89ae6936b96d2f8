//! What a leader refuses before it proposes, so that it certainly had no effect: what its outbox or
//! its disk has no room for (R7), and an id from the future (R1).
//!
//! A send that is refused here leaves a hole in its session. Later sends of that session would be
//! proposed for nothing, so they are refused as well until the missing one returns.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tidemark_store_core::command::{BackendSend, Draft, Judged, Send};
use tidemark_store_core::{Command, act, read};
use tidemark_types::limits::CLOCK_SKEW_MAX;
use tidemark_types::{SessionId, ShardCount, ShardId, UserId};

use super::{Error, RETRY_AFTER};
use crate::metrics;
use crate::space::Space;
use crate::storage::{GroupId, StateDb};
use crate::time::ClusterTime;

/// Sessions with a refused send that are remembered. Beyond it all are forgotten: their later sends
/// are then proposed, and refused by apply.
const REFUSED_MAX: usize = 16_384;

/// What a leader refuses before it proposes.
pub(super) struct Admission {
    pub(super) shard: ShardId,
    pub(super) shards: ShardCount,
    pub(super) state: StateDb,
    pub(super) time: ClusterTime,
    pub(super) space: Space,
    /// Bytes that may wait for another shard.
    pub(super) queue_bytes_max: u64,
    /// The shard knows who it is; once it does, for ever.
    pub(super) created: AtomicBool,
    /// The send that each session must send again first.
    pub(super) refused: Mutex<HashMap<(UserId, SessionId), u64>>,
}

impl Admission {
    /// May it be proposed?
    pub(super) fn check(&self, command: &Command) -> Result<(), Error> {
        self.check_created(command)?;
        if let Command::Send(send) = command {
            self.check_turn(send)?;
        }
        self.space.check(command).map_err(|free| Error::NoSpace { free })?;
        match command {
            Command::Send(send) => match &send.judged {
                Judged::Allow(draft) => self.check_room(&send.user, draft),
                // Neither has anything for other shards.
                Judged::Refuse(_) | Judged::Drop(_) => Ok(()),
            },
            Command::BackendSend(BackendSend { sender, draft, .. }) => {
                self.check_id(draft.client_msg_id)?;
                self.check_room(sender, draft)
            }
            Command::DropBackend(BackendSend { draft, .. }) => self.check_id(draft.client_msg_id),
            Command::RefuseBackend { id, .. } | Command::Allocate { id: Some(id), .. } => {
                self.check_id(*id)
            }
            _ => Ok(()),
        }
    }

    /// Until its leader has told a new shard who it is, nothing else makes sense to it.
    fn check_created(&self, command: &Command) -> Result<(), Error> {
        if self.created.load(Ordering::Relaxed) || matches!(command, Command::Init { .. }) {
            return Ok(());
        }
        let known = self.state.peek(GroupId::shard(self.shard), |state| read::shard(state))?;
        self.created.store(known.is_some(), Ordering::Relaxed);
        known.map(drop).ok_or(Error::NotCreated)
    }

    /// It was refused, here or for lack of room in the queue.
    pub(super) fn was_refused(&self, command: &Command) {
        if !command.is_internal() {
            metrics::proposal_refused();
        }
        let Command::Send(Send { user, session, n, .. }) = command else { return };
        let mut refused = self.refused.lock();
        if refused.len() >= REFUSED_MAX {
            refused.clear();
        }
        refused.entry((user.clone(), *session)).or_insert(*n);
    }

    /// Refuses what would follow a refused send. One at or before it, or whose base has passed it,
    /// ends that.
    fn check_turn(&self, send: &Send) -> Result<(), Error> {
        let mut refused = self.refused.lock();
        if refused.is_empty() {
            return Ok(());
        }
        let key = (send.user.clone(), send.session);
        match refused.get(&key) {
            Some(first) if send.n > *first && send.base <= *first => {
                Err(Error::OutOfOrder { expected: *first })
            }
            Some(_) => {
                refused.remove(&key);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Is there room in the outbox for every shard that the message goes to?
    fn check_room(&self, user: &UserId, draft: &Draft) -> Result<(), Error> {
        let told;
        let to = match draft.act {
            None => &draft.to,
            Some(asked) => {
                let group = GroupId::shard(self.shard);
                told = self.state.peek(group, |state| act::destinations(state, user, asked))?;
                &told
            }
        };
        let shards = to.iter().map(|to| self.shards.shard_of(&to.id()));
        let elsewhere: BTreeSet<ShardId> = shards.filter(|shard| *shard != self.shard).collect();
        if elsewhere.is_empty() {
            return Ok(());
        }
        let full = self.state.peek(GroupId::shard(self.shard), |state| {
            for shard in elsewhere {
                if read::outbound(state, shard)?.queued_bytes() >= self.queue_bytes_max {
                    return Ok(true);
                }
            }
            Ok::<_, tidemark_store_core::Fatal>(false)
        })?;
        match full {
            true => Err(Error::Overloaded { retry_after: RETRY_AFTER }),
            false => Ok(()),
        }
    }

    fn check_id(&self, id: tidemark_types::ClientMsgId) -> Result<(), Error> {
        let now = self.time.now().ok_or(Error::NoTime)?;
        match id.created() > now.plus(CLOCK_SKEW_MAX) {
            true => Err(Error::IdInFuture),
            false => Ok(()),
        }
    }
}
