//! Records between shards, exactly once (R4).
//!
//! Each pair of shards has a stream with dense numbers. The destination's `in_seq` is the only
//! thing that decides whether a record is new; the source's trim mark follows it.

use tidemark_types::{Id, Recipient, ShardId, UserId};

use super::{deliver, group, lives_here, share};
use crate::group::GroupEntry;
use crate::key::{InboundKey, OutRecordKey, OutboundKey};
use crate::reply::{Alarm, Effect, Outcome, Reject, RelayStop, Relayed, Reply};
use crate::storage::Fatal;
use crate::transaction::{Step, Stop};
use crate::value::{OutSeq, Payload, Shard};

/// Records that one trim removes; the reply says how far it came.
const TRIM_RECORDS_MAX: u64 = 4_096;

/// `RelayIn`. Total: every record that is next consumes its number, whatever becomes of it (R6).
pub(super) fn relay_in(
    step: &mut Step<'_>,
    shard: &mut Shard,
    source: ShardId,
    records: &[(OutSeq, Payload)],
) -> Result<Reply, Stop> {
    if source == shard.shard || source.get() >= shard.shards.get() {
        return Err(Reject::Invalid(format!("source: shard {source} sends nothing here")).into());
    }
    let key = InboundKey { shard: source };
    let mut stream = step.get(&key)?.unwrap_or_default();
    let before = stream.in_seq;
    let mut stopped = None;
    let mut outcomes = Vec::new();
    for (out_seq, payload) in records {
        if *out_seq <= stream.in_seq {
            continue;
        }
        if *out_seq != stream.in_seq.next() {
            stopped = Some(RelayStop::Gap);
            break;
        }
        if let Some(stranger) = stranger(shard, source, payload) {
            step.effects.push(Effect::Alarm(Alarm::WrongShard(stranger)));
            stopped = Some(RelayStop::WrongShard);
            break;
        }
        outcomes.push((*out_seq, take(step, shard, source, payload)?));
        stream.in_seq = *out_seq;
    }
    if stream.in_seq != before {
        step.put(&key, &stream);
    }
    let returns = step.get(&OutboundKey { shard: source })?.unwrap_or_default().head;
    Ok(Reply::Relayed(Relayed { in_seq: stream.in_seq, returns, stopped, outcomes }))
}

/// An id of the record that does not live where the record comes from or goes to (R8).
fn stranger(shard: &Shard, source: ShardId, payload: &Payload) -> Option<Id> {
    let id = |user: &UserId| Id::User(user.clone());
    let from_source = |id: &Id| shard.shards.shard_of(id) == source;
    let here = |id: &Id| lives_here(shard, id);
    match payload {
        Payload::Message { origin, to, .. } => {
            let sender = id(origin.sender());
            let strangers = to.iter().map(id).find(|user| !here(user));
            strangers.or((!from_source(&sender)).then_some(sender))
        }
        Payload::Refused { origin, refusals } => {
            let sender = id(origin.sender());
            let mut recipients = refusals.iter().map(|(recipient, _)| recipient.id());
            let strangers = recipients.find(|recipient| !from_source(recipient));
            strangers.or((!here(&sender)).then_some(sender))
        }
        Payload::GroupPost { origin, group, .. } => {
            let (sender, group) = (id(origin.sender()), Id::Group(group.clone()));
            let stranger = (!here(&group)).then_some(group);
            stranger.or((!from_source(&sender)).then_some(sender))
        }
        Payload::GroupEntry { entry: GroupEntry { group, .. }, to, .. }
        | Payload::MoreMembers { group, to, .. } => {
            let group = Id::Group(group.clone());
            let strangers = to.iter().map(id).find(|user| !here(user));
            strangers.or((!from_source(&group)).then_some(group))
        }
    }
}

/// Takes a record that is next: what became of it for each user it was sent to.
fn take(
    step: &mut Step<'_>,
    shard: &mut Shard,
    source: ShardId,
    payload: &Payload,
) -> Result<Vec<(UserId, Outcome)>, Fatal> {
    match payload {
        Payload::Message { origin, message, to } => {
            let outcomes = deliver::to_users(step, shard, origin, message, to)?;
            let refusals = deliver::refusals(&outcomes);
            if !refusals.is_empty() {
                let back = Payload::Refused { origin: origin.clone(), refusals };
                deliver::push_record(step, source, back)?;
            }
            Ok(outcomes)
        }
        Payload::Refused { origin, refusals } => {
            deliver::refuse(step, shard, origin, refusals)?;
            Ok(Vec::new())
        }
        Payload::GroupPost { origin, message, group } => {
            if let Outcome::Refused(code) = group::post(step, shard, origin, message, group)? {
                let refusals = vec![(Recipient::Group(group.clone()), code)];
                let back = Payload::Refused { origin: origin.clone(), refusals };
                deliver::push_record(step, source, back)?;
            }
            Ok(Vec::new())
        }
        Payload::GroupEntry { origin, entry, to, more } => {
            share::to_members(step, shard, (origin, entry), None, to, *more)?;
            Ok(Vec::new())
        }
        Payload::MoreMembers { group, seq, to, more } => {
            share::to_more_members(step, shard, (group, *seq), to, *more)?;
            Ok(Vec::new())
        }
    }
}

/// `TrimOutbox`.
pub(super) fn trim_outbox(
    step: &mut Step<'_>,
    shard: ShardId,
    upto: OutSeq,
    returns: OutSeq,
) -> Result<Reply, Stop> {
    let key = OutboundKey { shard };
    let mut stream = step.get(&key)?.unwrap_or_default();
    if upto > stream.head {
        let head = stream.head;
        step.effects.push(Effect::Alarm(Alarm::RelayAboveHead { shard, upto, head }));
        let text = format!("upto {} is above the stream's head {}", upto.get(), head.get());
        return Err(Reject::Invalid(text).into());
    }
    let last = OutSeq::new(upto.get().min(stream.trim.get() + TRIM_RECORDS_MAX));
    if last > stream.trim {
        let record = step.get(&OutRecordKey { shard, out_seq: last })?.ok_or_else(|| {
            let last = last.get();
            Fatal::Corrupt(format!("record {last} for shard {shard} is not trimmed and not there"))
        })?;
        while stream.trim < last {
            stream.trim = stream.trim.next();
            step.delete(&OutRecordKey { shard, out_seq: stream.trim });
        }
        stream.trim_bytes = record.bytes_upto;
        stream.returns = stream.returns.max(returns);
        step.put(&key, &stream);
    }
    Ok(Reply::OutboxTrimmed { trim: stream.trim })
}
