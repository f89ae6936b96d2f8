//! Sends without a session: a back end's, keyed by sender and message id (R1).

use tidemark_types::{ClientMsgId, ContentHash, ErrorCode, UserId};

use super::deliver::{self, Fate};
use crate::command::BackendSend;
use crate::key::SentKey;
use crate::reply::{Reject, Reply};
use crate::transaction::{Step, Stop};
use crate::value::{Ack, Origin, Sent, Shard, Verdict};

/// `BackendSend` and `DropBackend`.
pub(super) fn send(
    step: &mut Step<'_>,
    shard: &mut Shard,
    send: &BackendSend,
    fate: Fate,
) -> Result<Reply, Stop> {
    let id = send.draft.client_msg_id;
    let key = SentKey { id, sender: send.sender.clone() };
    if let Some(verdict) = answered(step, shard, &key, send.content)? {
        return Ok(Reply::Sent(verdict));
    }
    deliver::check_draft(&send.draft)?;
    let origin = Origin::Backend { sender: send.sender.clone(), id };
    let verdict = deliver::accept(step, shard, origin, None, &send.draft, fate)?;
    Ok(record(step, &key, send.content, verdict))
}

/// `RefuseBackend`: the verdict is the gateway's, if it is the first one.
pub(super) fn refuse(
    step: &mut Step<'_>,
    shard: &Shard,
    (sender, id): (&UserId, ClientMsgId),
    content: ContentHash,
    code: ErrorCode,
) -> Result<Reply, Stop> {
    let key = SentKey { id, sender: sender.clone() };
    if let Some(verdict) = answered(step, shard, &key, content)? {
        return Ok(Reply::Sent(verdict));
    }
    let verdict = deliver::refused_by_gateway(code)?;
    Ok(record(step, &key, content, verdict))
}

/// The stored verdict, if the send was taken before; a reject, if it cannot be taken any more. The
/// stored ack is looked up first: whatever the floor, what is still known is answered.
fn answered(
    step: &Step<'_>,
    shard: &Shard,
    key: &SentKey,
    content: ContentHash,
) -> Result<Option<Verdict>, Stop> {
    match step.get(key)? {
        Some(Sent { ack }) if ack.content == content => Ok(Some(ack.verdict)),
        Some(_) => Err(Reject::Conflict.into()),
        None if key.id.created() < shard.dedup_floor => Err(Reject::DedupExpired.into()),
        None => Ok(None),
    }
}

fn record(step: &mut Step<'_>, key: &SentKey, content: ContentHash, verdict: Verdict) -> Reply {
    step.put(key, &Sent { ack: Ack { content, verdict } });
    Reply::Sent(verdict)
}
