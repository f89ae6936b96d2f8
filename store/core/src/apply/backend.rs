//! Sends without a session: a back end's, keyed by sender and message id (R1).

use super::deliver;
use crate::command::BackendSend;
use crate::key::SentKey;
use crate::reply::{Reject, Reply};
use crate::transaction::{Step, Stop};
use crate::value::{Ack, Origin, Sent, Shard};

/// `BackendSend`. The stored ack is looked up first: whatever the floor, what is still known is
/// answered.
pub(super) fn send(
    step: &mut Step<'_>,
    shard: &mut Shard,
    send: &BackendSend,
) -> Result<Reply, Stop> {
    let id = send.draft.client_msg_id;
    let key = SentKey { id, sender: send.sender.clone() };
    if let Some(Sent { ack }) = step.get(&key)? {
        return match ack.content == send.content {
            true => Ok(Reply::Sent(ack.verdict)),
            false => Err(Reject::Conflict.into()),
        };
    }
    if id.created() < shard.dedup_floor {
        return Err(Reject::DedupExpired.into());
    }
    deliver::check_draft(&send.draft)?;
    let origin = Origin::Backend { sender: send.sender.clone(), id };
    let verdict = deliver::accept(step, shard, origin, None, &send.draft)?;
    step.put(&key, &Sent { ack: Ack { content: send.content, verdict } });
    Ok(Reply::Sent(verdict))
}
