//! Devices and their cursors (R11, R12).

use tidemark_types::{DeviceId, Epoch, Seq, UserId};

use super::mailbox::Open;
use super::session;
use crate::command::Start;
use crate::key::DeviceKey;
use crate::reply::{Alarm, Effect, Registered, Reject, Reply};
use crate::transaction::{Step, Stop};
use crate::value::{Device, Mailbox, Shard};

/// `last_seen` is written anew once it is this old, in milliseconds (R14).
const LAST_SEEN_MS: u64 = 60 * 60 * 1000;

/// `RegisterDevice`.
pub(super) fn register(
    step: &mut Step<'_>,
    shard: &Shard,
    user: &UserId,
    name: &DeviceId,
    start: Start,
) -> Result<Reply, Stop> {
    let mut mailbox = Open::of(step, user)?;
    mailbox.value.deleted = false;
    let Mailbox { epoch, floor, head, .. } = mailbox.value;
    let start = match start {
        Start::Head => head,
        Start::Floor => floor,
        Start::Last(n) => head.back(n).max(floor),
    };
    let key = DeviceKey { user: user.clone(), device: name.clone() };
    let mut device = step.get(&key)?.unwrap_or_else(|| Device {
        epoch,
        cursor: start,
        last_seen: shard.time,
        live: None,
        ended: Vec::new(),
    });
    if device.epoch != epoch {
        // What it confirmed counts in a log that is no longer there: it starts from the floor.
        device.epoch = epoch;
        device.cursor = floor;
    }
    if shard.time.get() - device.last_seen.get() >= LAST_SEEN_MS {
        device.last_seen = shard.time;
    }
    let Device { cursor, live, .. } = device;
    mailbox.save(step);
    step.put(&key, &device);
    Ok(Reply::Registered(Registered { epoch, floor, head, start, cursor, live }))
}

/// `ForgetDevice`; a device that is not there is forgotten already.
pub(super) fn forget(step: &mut Step<'_>, user: &UserId, name: &DeviceId) -> Result<Reply, Stop> {
    let key = DeviceKey { user: user.clone(), device: name.clone() };
    if let Some(device) = step.get(&key)? {
        for id in device.ended.into_iter().chain(device.live) {
            session::forget(step, user, id)?;
        }
        step.delete(&key);
    }
    Ok(Reply::Done)
}

/// `Confirm`: the cursor rises to `seq`, and never goes back in an epoch.
pub(super) fn confirm(
    step: &mut Step<'_>,
    user: &UserId,
    name: &DeviceId,
    epoch: Epoch,
    seq: Seq,
) -> Result<Reply, Stop> {
    let key = DeviceKey { user: user.clone(), device: name.clone() };
    let mut device = step.get(&key)?.ok_or(Reject::NoDevice)?;
    let mailbox = Open::of(step, user)?.value;
    let reset = Reject::Reset { epoch: mailbox.epoch, floor: mailbox.floor, head: mailbox.head };
    if epoch != mailbox.epoch {
        return Err(reset.into());
    }
    if seq > mailbox.head {
        let alarm = Alarm::CursorAboveHead { user: user.clone(), seq, head: mailbox.head };
        step.effects.push(Effect::Alarm(alarm));
        return Err(reset.into());
    }
    let confirmed = match device.epoch == epoch {
        true => device.cursor.max(seq),
        false => seq,
    };
    if (device.epoch, device.cursor) != (epoch, confirmed) {
        device.epoch = epoch;
        device.cursor = confirmed;
        step.put(&key, &device);
    }
    Ok(Reply::Confirmed { cursor: confirmed })
}
