//! Hints to devices that are not connected, or do not confirm (R18): what is due is state, found by
//! time, and moved by every command that changes it.
//!
//! ```text
//!   append ──arms──► Due{at, user} ◄──reckons── confirm, arrive, depart, hint sent, token gone
//! ```
//!
//! Invariant: a device with a token that lacks an entry of which it had no hint has its user in a
//! [`Due`], if the entry is worth waking for: marks are not (R19). So silence is not possible, whoever
//! leads and whatever was lost; a hint may come twice.

use tidemark_types::limits::{PUSH_PROVIDER_BYTES_MAX, PUSH_TARGET_BYTES_MAX};
use tidemark_types::{DeviceId, Epoch, Seq, UnixMs, UserId};

use super::device;
use super::mailbox::Open;
use crate::hints;
use crate::key::{DeviceKey, DevicesKey, DueKey};
use crate::reply::{Reject, Reply};
use crate::storage::Fatal;
use crate::transaction::{Step, Stop};
use crate::value::{Due, Mailbox, PushTarget, PushToken, Shard};

/// Counts a device's token out and another one in.
pub(super) fn set(mailbox: &mut Mailbox, before: Option<&PushToken>, after: Option<&PushToken>) {
    mailbox.pushes += u32::from(after.is_some());
    mailbox.pushes -= u32::from(before.is_some());
}

/// A mailbox has a new entry. While its devices are to be looked at anyway nothing changes by it.
pub(super) fn arm(
    step: &mut Step<'_>,
    shard: &Shard,
    user: &UserId,
    mailbox: &mut Open,
) -> Result<(), Fatal> {
    match mailbox.value.pushes > 0 && mailbox.value.due == UnixMs::default() {
        true => reckon(step, shard, user, mailbox),
        false => Ok(()),
    }
}

/// Sets when the user's devices are to be looked at next, after something about them has changed.
pub(super) fn reckon(
    step: &mut Step<'_>,
    shard: &Shard,
    user: &UserId,
    mailbox: &mut Open,
) -> Result<(), Fatal> {
    let Mailbox { pushes, due, .. } = mailbox.value;
    let armed = due != UnixMs::default();
    if pushes == 0 && !armed {
        return Ok(());
    }
    let key = |at| DueKey { at, user: user.clone() };
    let since = match armed {
        true => step.get(&key(due))?.map_or(shard.time, |due| due.since),
        false => shard.time,
    };
    let next = hints::next(&step.layers(), &shard.settings, user, &mailbox.value, since)?;
    if next == armed.then_some(due) {
        return Ok(());
    }
    if armed {
        step.delete(&key(due));
    }
    mailbox.value.due = next.unwrap_or_default();
    if let Some(at) = next {
        step.put(&key(at), &Due { since });
    }
    Ok(())
}

/// `SetPush`.
pub(super) fn set_push(
    step: &mut Step<'_>,
    shard: &Shard,
    user: &UserId,
    name: &DeviceId,
    target: Option<&PushTarget>,
) -> Result<Reply, Stop> {
    let key = DeviceKey { user: user.clone(), device: name.clone() };
    let mut found = step.get(&key)?.ok_or(Reject::NoDevice)?;
    if found.push.as_ref().map(|push| &push.target) == target {
        return Ok(Reply::Done);
    }
    let mut mailbox = Open::of(step, user)?;
    let push = match target {
        Some(target) => {
            check(target)?;
            let mut devices = device::list(step, user)?;
            devices.last_number += 1;
            let version = devices.last_number;
            step.put(&DevicesKey { user: user.clone() }, &devices);
            Some(PushToken { target: target.clone(), version, registered: shard.time })
        }
        None => None,
    };
    set(&mut mailbox.value, found.push.as_ref(), push.as_ref());
    found.push = push;
    step.put(&key, &found);
    reckon(step, shard, user, &mut mailbox)?;
    mailbox.save(step);
    Ok(Reply::Done)
}

fn check(PushTarget { provider, target }: &PushTarget) -> Result<(), Reject> {
    let bounds = [
        ("provider", provider, PUSH_PROVIDER_BYTES_MAX),
        ("target", target, PUSH_TARGET_BYTES_MAX),
    ];
    for (field, text, max) in bounds {
        if text.is_empty() || text.len() > max {
            let text = format!("push.{field}: {} bytes, 1 to {max}", text.len());
            return Err(Reject::Invalid(text));
        }
    }
    Ok(())
}

/// `PushSent`: the device was told of everything up to `upto`, or as good as told.
pub(super) fn sent(
    step: &mut Step<'_>,
    shard: &Shard,
    (user, name): (&UserId, &DeviceId),
    epoch: Epoch,
    upto: Seq,
) -> Result<Reply, Stop> {
    let key = DeviceKey { user: user.clone(), device: name.clone() };
    let mut mailbox = Open::of(step, user)?;
    let found = step.get(&key)?;
    let Some(mut device) = found.filter(|it| it.epoch == epoch) else { return Ok(Reply::Done) };
    if epoch != mailbox.value.epoch || upto > mailbox.value.head {
        return Ok(Reply::Done);
    }
    device.pushed_upto = device.pushed_upto.max(upto);
    device.pushed_at = shard.time;
    step.put(&key, &device);
    reckon(step, shard, user, &mut mailbox)?;
    mailbox.save(step);
    Ok(Reply::Done)
}

/// `DropPush`: removes the token if it is still that one.
pub(super) fn drop_push(
    step: &mut Step<'_>,
    shard: &Shard,
    (user, name): (&UserId, &DeviceId),
    version: u64,
    since: Option<UnixMs>,
) -> Result<Reply, Stop> {
    let key = DeviceKey { user: user.clone(), device: name.clone() };
    let Some(mut device) = step.get(&key)? else { return Ok(Reply::Done) };
    let dead = |token: &PushToken| {
        token.version == version && since.is_none_or(|since| token.registered <= since)
    };
    if !device.push.as_ref().is_some_and(dead) {
        return Ok(Reply::Done);
    }
    let mut mailbox = Open::of(step, user)?;
    set(&mut mailbox.value, device.push.as_ref(), None);
    device.push = None;
    step.put(&key, &device);
    reckon(step, shard, user, &mut mailbox)?;
    mailbox.save(step);
    Ok(Reply::Done)
}
