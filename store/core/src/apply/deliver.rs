//! The fan-out of an accepted message: the sender's copy, the recipients here, the records for
//! recipients elsewhere. Sends and relay-in go through the same functions (R6).

use std::collections::BTreeMap;
use std::time::Duration;

use tidemark_mutants::{Mutant, is, noise};
use tidemark_types::limits::{BODY_BYTES_MAX, RECIPIENTS_MAX};
use tidemark_types::{DeviceId, ErrorCode, GroupId, Id, Recipient, Seq, ShardId, UserId};

use super::act::{self, Judgement};
use super::mailbox::Open;
use super::{contacts, group, lives_here, push};
use crate::command::Draft;
use crate::key::{OutRecordKey, OutboundKey};
use crate::reply::{Effect, Outcome, Reject};
use crate::storage::Fatal;
use crate::transaction::{Step, Stop};
use crate::value::{
    Content, Entry, Message, Origin, OutRecord, OutSeq, Outgoing, Payload, Shard, Value, Verdict,
};

/// What becomes of a message once it is accepted.
#[derive(Clone, Copy)]
pub(super) enum Fate {
    /// Each recipient will have one outcome.
    Delivered,
    /// Nobody but its sender will see it: the gateway's verdict, of which the sender learns
    /// nothing (R2).
    Dropped,
    /// Nobody but its sender is to see it, who knows that: a mark in a group, or an act about a
    /// message that was dropped.
    Kept,
}

/// The verdict of a gateway that refuses a send for good, if it may do so with this code.
pub(super) fn refused_by_gateway(code: ErrorCode) -> Result<Verdict, Reject> {
    let is_gateways = matches!(
        code,
        ErrorCode::BodyTooLarge
            | ErrorCode::TooManyRecipients
            | ErrorCode::BadRecipient
            | ErrorCode::KindNotAllowed
            | ErrorCode::Filtered
            | ErrorCode::HookRefused
            | ErrorCode::NoMessage
    );
    match is_gateways {
        true => Ok(Verdict::Refused(code)),
        false => Err(Reject::Invalid(format!("judged: {code} is not a gateway's verdict"))),
    }
}

/// Refuses a draft that a gateway should never have let through.
pub(super) fn check_draft(draft: &Draft) -> Result<(), Reject> {
    let invalid = |text: String| Err(Reject::Invalid(text));
    let groups = draft.to.iter().filter(|to| matches!(to, Recipient::Group(_))).count();
    if draft.body.len() > BODY_BYTES_MAX {
        return invalid(format!("body: {} bytes, at most {BODY_BYTES_MAX}", draft.body.len()));
    }
    if let Some(asked) = draft.act {
        return act::check(draft, asked);
    }
    if draft.to.is_empty() || draft.to.len() > RECIPIENTS_MAX {
        return invalid(format!("to: {} recipients, 1 to {RECIPIENTS_MAX}", draft.to.len()));
    }
    if groups > 0 && draft.to.len() > 1 {
        return invalid("to: a group stands alone".to_owned());
    }
    Ok(())
}

/// Accepts a send: everything of it that happens in the sender's shard, or a verdict that nothing
/// does.
pub(super) fn accept(
    step: &mut Step<'_>,
    shard: &mut Shard,
    origin: Origin,
    device: Option<&DeviceId>,
    draft: &Draft,
    fate: Fate,
) -> Result<Verdict, Stop> {
    let own = Open::of(step, origin.sender())?;
    if let Err(code) = own.vacancy() {
        return Ok(Verdict::Refused(code));
    }
    let message = Message {
        device: device.cloned(),
        sent: shard.time,
        client_msg_id: draft.client_msg_id,
        kind: draft.kind,
        body: draft.body.clone(),
        act: None,
    };
    let Some(asked) = draft.act else {
        return give(step, shard, own, origin, message, &draft.to, fate);
    };
    match act::judge(step, shard, origin.sender(), asked, draft)? {
        Judgement::Refused(code) => Ok(Verdict::Refused(code)),
        Judgement::Nothing => Ok(Verdict::Accepted { seq: Seq::NONE, time: shard.time }),
        Judgement::Send(sent) => {
            let fate = if sent.kept { Fate::Kept } else { fate };
            let message = Message { kind: sent.kind, act: Some(sent.act), ..message };
            give(step, shard, own, origin, message, &sent.to, fate)
        }
    }
}

/// Brings a message to its sender's own mailbox, which has room, and to its recipients.
fn give(
    step: &mut Step<'_>,
    shard: &mut Shard,
    mut own: Open,
    origin: Origin,
    message: Message,
    recipients: &[Recipient],
    fate: Fate,
) -> Result<Verdict, Stop> {
    let mut users = Vec::with_capacity(recipients.len());
    for to in recipients {
        match to {
            Recipient::User(user) => users.push(user.clone()),
            // It stands alone, and the sender's copy comes from it: of what is dropped there is none.
            Recipient::Group(_) if matches!(fate, Fate::Dropped) => {
                shard.dropped += 1;
                return Ok(Verdict::Accepted { seq: Seq::NONE, time: shard.time });
            }
            Recipient::Group(_) if matches!(fate, Fate::Kept) => {}
            Recipient::Group(group) => return to_group(step, shard, origin, message, group),
        }
    }
    users.sort_unstable();
    users.dedup();
    let to = match users.is_empty() {
        true => recipients.to_vec(),
        false => users.iter().cloned().map(Recipient::User).collect(),
    };
    // Self counts once, and the sender's own copy is it.
    users.retain(|user| user != origin.sender());
    let dropped = match fate {
        Fate::Delivered => false,
        Fate::Dropped => {
            shard.dropped += users.len() as u64;
            if !is(Mutant::DeliverDropped) {
                users.clear();
            }
            true
        }
        Fate::Kept => {
            users.clear();
            true
        }
    };

    let (here, elsewhere): (Vec<_>, Vec<_>) =
        users.into_iter().partition(|user| lives_here(shard, &Id::User(user.clone())));
    let records = send_elsewhere(step, shard, &origin, &message, elsewhere)?;
    let entry = Entry {
        time: shard.time,
        origin: origin.clone(),
        content: Content::Message {
            message: message.clone(),
            outgoing: Some(Outgoing { to, records, dropped }),
        },
    };
    let seq = own.append(step, shard, &entry.encode_chunked(), None)?.expect("there is a vacancy");
    if message.wakes() {
        push::arm(step, shard, origin.sender(), &mut own)?;
    }
    own.save(step);

    let outcomes = to_users(step, shard, &origin, &message, &here)?;
    refuse(step, shard, &origin, &refusals(&outcomes))?;
    Ok(Verdict::Accepted { seq, time: shard.time })
}

/// Brings a message to its group, here or elsewhere. Whether the group takes it is not known yet
/// where it lives elsewhere; a refusal comes back in any case (R6, R10).
fn to_group(
    step: &mut Step<'_>,
    shard: &mut Shard,
    origin: Origin,
    message: Message,
    group: &GroupId,
) -> Result<Verdict, Stop> {
    let time = shard.time;
    let id = Id::Group(group.clone());
    if lives_here(shard, &id) {
        if let Outcome::Refused(code) = group::post(step, shard, &origin, &message, group)? {
            refuse(step, shard, &origin, &[(Recipient::Group(group.clone()), code)])?;
        }
    } else {
        let payload = Payload::GroupPost { origin, message, group: group.clone() };
        push_record(step, shard.shards.shard_of(&id), payload)?;
    }
    Ok(Verdict::Accepted { seq: Seq::NONE, time })
}

/// Appends a message to mailboxes of this shard; one outcome for each user.
pub(super) fn to_users(
    step: &mut Step<'_>,
    shard: &mut Shard,
    origin: &Origin,
    message: &Message,
    users: &[UserId],
) -> Result<Vec<(UserId, Outcome)>, Fatal> {
    if users.is_empty() {
        return Ok(Vec::new());
    }
    let mut time = shard.time;
    if is(Mutant::ClockInApply) {
        time = time.plus(Duration::from_millis(noise()));
    }
    let entry = Entry {
        time,
        origin: origin.clone(),
        content: Content::Message { message: message.clone(), outgoing: None },
    };
    let entry = entry.encode_chunked();
    let mut outcomes = Vec::with_capacity(users.len());
    for user in users {
        let mut mailbox = Open::of(step, user)?;
        let unwelcome = contacts::unwelcome(step, &mailbox, user, origin.sender())?;
        let outcome = match (unwelcome, mailbox.value.silent) {
            (Some(_), true) => {
                shard.blocked_silently += 1;
                Outcome::Silenced
            }
            (Some(code), false) => Outcome::Refused(code),
            (None, _) => match mailbox.append(step, shard, &entry, None)? {
                Ok(seq) => {
                    if message.wakes() {
                        push::arm(step, shard, user, &mut mailbox)?;
                    }
                    mailbox.save(step);
                    Outcome::Appended(seq)
                }
                Err(code) => Outcome::Refused(code),
            },
        };
        outcomes.push((user.clone(), outcome));
    }
    Ok(outcomes)
}

/// The refusals among the outcomes.
pub(super) fn refusals(outcomes: &[(UserId, Outcome)]) -> Vec<(Recipient, ErrorCode)> {
    let refused = |(user, outcome): &(UserId, Outcome)| match outcome {
        Outcome::Refused(code) => Some((Recipient::User(user.clone()), *code)),
        Outcome::Appended(_) | Outcome::Silenced => None,
    };
    outcomes.iter().filter_map(refused).collect()
}

/// Tells a sender of this shard who refused; one entry for each. A refusal is never refused: what
/// cannot be written is counted (R6).
pub(super) fn refuse(
    step: &mut Step<'_>,
    shard: &mut Shard,
    origin: &Origin,
    refusals: &[(Recipient, ErrorCode)],
) -> Result<(), Fatal> {
    if refusals.is_empty() {
        return Ok(());
    }
    let mut own = Open::of(step, origin.sender())?;
    for (recipient, code) in refusals {
        let entry = Entry {
            time: shard.time,
            origin: origin.clone(),
            content: Content::Refused { recipient: recipient.clone(), code: *code },
        };
        if own.append(step, shard, &entry.encode_chunked(), None)?.is_err() {
            shard.refusals_unwritable += 1;
        }
    }
    push::arm(step, shard, origin.sender(), &mut own)?;
    own.save(step);
    Ok(())
}

/// Puts one record per destination shard into the outbox.
fn send_elsewhere(
    step: &mut Step<'_>,
    shard: &Shard,
    origin: &Origin,
    message: &Message,
    users: Vec<UserId>,
) -> Result<Vec<(ShardId, OutSeq)>, Fatal> {
    let mut by_shard = BTreeMap::<ShardId, Vec<UserId>>::new();
    for user in users {
        by_shard.entry(shard.shards.shard_of(&Id::User(user.clone()))).or_default().push(user);
    }
    let mut records = Vec::with_capacity(by_shard.len());
    for (to_shard, to) in by_shard {
        let payload = Payload::Message { origin: origin.clone(), message: message.clone(), to };
        records.push((to_shard, push_record(step, to_shard, payload)?));
    }
    Ok(records)
}

/// Appends a record to the stream to another shard, under the next number (R4).
pub(super) fn push_record(
    step: &mut Step<'_>,
    shard: ShardId,
    payload: Payload,
) -> Result<OutSeq, Fatal> {
    let key = OutboundKey { shard };
    let mut stream = step.get(&key)?.unwrap_or_default();
    stream.head = stream.head.next();
    stream.head_bytes += payload.cost();
    let record = OutRecord { bytes_upto: stream.head_bytes, payload };
    step.put(&OutRecordKey { shard, out_seq: stream.head }, &record);
    step.put(&key, &stream);
    step.effects.push(Effect::Outgoing { shard });
    Ok(stream.head)
}
