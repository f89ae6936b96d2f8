//! Devices, their connections and their cursors (R11, R12, R14).
//!
//! A user's devices stand in one list, so that their number is bounded and all of them are found
//! without a scan. The list also counts the connections: a number that is never given again, by which
//! every gateway knows which connection of a device is the newest.

use tidemark_mutants::{Mutant, is};
use tidemark_types::limits::{CONFIRMATIONS_MAX, LABEL_BYTES_MAX};
use tidemark_types::{DeviceId, Epoch, ErrorCode, Id, Seq, UnixMs, UserId};

use super::mailbox::Open;
use super::{check_lives_here, push, session};
use crate::command::{Arrival, Confirmation, Start};
use crate::key::{DeviceKey, DevicesKey};
use crate::reply::{Alarm, Effect, Registered, Reject, Reply};
use crate::storage::Fatal;
use crate::transaction::{Step, Stop};
use crate::value::{Device, Devices, Label, Mailbox, Shard};

/// `last_seen` is written anew once it is this old, in milliseconds (R14).
const LAST_SEEN_MS: u64 = 60 * 60 * 1000;

/// `RegisterDevice`.
pub(super) fn register(
    step: &mut Step<'_>,
    shard: &Shard,
    (user, name): (&UserId, &DeviceId),
    start: Start,
    arrival: Option<Arrival>,
    label: Option<&Label>,
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
    let mut devices = list(step, user)?;
    let mut device = match step.get(&key)? {
        Some(device) => device,
        None => {
            enlist(&mut devices, name, shard)?;
            Device { last_seen: shard.time, ..Device::at(epoch, start) }
        }
    };
    if device.epoch != epoch {
        // What it confirmed counts in a log that is no longer there: it starts from the floor.
        device = Device { epoch, cursor: floor, pushed_upto: Seq::NONE, ..device };
    }
    if let Some(label) = label {
        device.label = checked(label)?;
    }
    if let Some(arrival) = arrival {
        arrive(step, user, name, &mut device, &mut devices, arrival)?;
    }
    seen(&mut device, shard);
    let Device { cursor, live, .. } = device;
    let connection = arrival.map_or(0, |_| device.connection);
    let pushes = device.push.is_some();
    step.put(&DevicesKey { user: user.clone() }, &devices);
    step.put(&key, &device);
    if arrival.is_some() {
        push::reckon(step, shard, user, &mut mailbox)?;
    }
    mailbox.save(step);
    let stands = Registered { epoch, floor, head, start, cursor, live, connection, pushes };
    Ok(Reply::Registered(stands))
}

/// The devices of a user.
pub(super) fn list(step: &Step<'_>, user: &UserId) -> Result<Devices, Fatal> {
    Ok(step.get(&DevicesKey { user: user.clone() })?.unwrap_or_default())
}

fn enlist(devices: &mut Devices, name: &DeviceId, shard: &Shard) -> Result<(), Reject> {
    if devices.names.len() >= shard.settings.devices_max as usize {
        return Err(Reject::TooManyDevices);
    }
    if let Err(place) = devices.names.binary_search(name) {
        devices.names.insert(place, name.clone());
    }
    Ok(())
}

fn checked(label: &Label) -> Result<Label, Reject> {
    for (field, text) in [("name", &label.name), ("platform", &label.platform)] {
        if text.len() > LABEL_BYTES_MAX {
            let text = format!("label.{field}: {} bytes, at most {LABEL_BYTES_MAX}", text.len());
            return Err(Reject::Invalid(text));
        }
    }
    Ok(label.clone())
}

/// A new connection of the device: the ones before it end, wherever they are.
fn arrive(
    step: &mut Step<'_>,
    user: &UserId,
    name: &DeviceId,
    device: &mut Device,
    devices: &mut Devices,
    arrival: Arrival,
) -> Result<(), Reject> {
    let logged_out = device.logged_out != UnixMs::default();
    if logged_out && arrival.issued <= device.logged_out && !is(Mutant::ForgetLogOut) {
        return Err(Reject::LoggedOut);
    }
    devices.last_number += 1;
    device.connection = devices.last_number;
    device.connected = true;
    unseat(step, user, name, device.connection, ErrorCode::Displaced);
    Ok(())
}

fn unseat(step: &mut Step<'_>, user: &UserId, name: &DeviceId, below: u64, code: ErrorCode) {
    let (user, device) = (user.clone(), name.clone());
    step.effects.push(Effect::Unseated { user, device, below, code });
}

/// It was heard of; did that change the device?
fn seen(device: &mut Device, shard: &Shard) -> bool {
    let stale = shard.time.get() - device.last_seen.get() >= LAST_SEEN_MS;
    if stale {
        device.last_seen = shard.time;
    }
    stale
}

/// `ForgetDevice`; a device that is not there is forgotten already.
pub(super) fn forget(
    step: &mut Step<'_>,
    shard: &Shard,
    user: &UserId,
    name: &DeviceId,
) -> Result<Reply, Stop> {
    let mut mailbox = Open::of(step, user)?;
    if drop_device(step, user, name, &mut mailbox)? {
        push::reckon(step, shard, user, &mut mailbox)?;
        mailbox.save(step);
    }
    Ok(Reply::Done)
}

/// Removes a device with its sessions, and ends its connections; was it there?
pub(super) fn drop_device(
    step: &mut Step<'_>,
    user: &UserId,
    name: &DeviceId,
    mailbox: &mut Open,
) -> Result<bool, Fatal> {
    let key = DeviceKey { user: user.clone(), device: name.clone() };
    let Some(device) = step.get(&key)? else { return Ok(false) };
    for id in device.ended.iter().copied().chain(device.live) {
        session::forget(step, user, id)?;
    }
    let mut devices = list(step, user)?;
    devices.names.retain(|known| known != name);
    step.put(&DevicesKey { user: user.clone() }, &devices);
    step.delete(&key);
    push::set(&mut mailbox.value, device.push.as_ref(), None);
    unseat(step, user, name, device.connection + 1, ErrorCode::NoDevice);
    Ok(true)
}

/// `LogOut`: its tokens are refused from now on, and it gets no hints; cursor and sessions stay.
pub(super) fn log_out(
    step: &mut Step<'_>,
    shard: &Shard,
    user: &UserId,
    name: &DeviceId,
) -> Result<Reply, Stop> {
    let key = DeviceKey { user: user.clone(), device: name.clone() };
    let mut device = step.get(&key)?.ok_or(Reject::NoDevice)?;
    let mut mailbox = Open::of(step, user)?;
    push::set(&mut mailbox.value, device.push.as_ref(), None);
    device.push = None;
    device.connected = false;
    device.logged_out = device.logged_out.max(shard.time);
    step.put(&key, &device);
    unseat(step, user, name, device.connection + 1, ErrorCode::LoggedOut);
    push::reckon(step, shard, user, &mut mailbox)?;
    mailbox.save(step);
    Ok(Reply::Done)
}

/// `Depart`: what is new is told by a hint from now on.
pub(super) fn depart(
    step: &mut Step<'_>,
    shard: &Shard,
    user: &UserId,
    name: &DeviceId,
    connection: u64,
) -> Result<Reply, Stop> {
    let key = DeviceKey { user: user.clone(), device: name.clone() };
    let found = step.get(&key)?;
    let Some(mut device) = found.filter(|it| it.connected && it.connection == connection) else {
        return Ok(Reply::Done);
    };
    device.connected = false;
    step.put(&key, &device);
    if device.push.is_some() {
        let mut mailbox = Open::of(step, user)?;
        push::reckon(step, shard, user, &mut mailbox)?;
        mailbox.save(step);
    }
    Ok(Reply::Done)
}

/// `ConfirmMany`: what is refused of it is refused alone.
pub(super) fn confirm_many(
    step: &mut Step<'_>,
    shard: &Shard,
    confirmations: &[Confirmation],
) -> Result<Reply, Stop> {
    let many = confirmations.len();
    if many == 0 || many > CONFIRMATIONS_MAX {
        let text = format!("{many} confirmations: 1 to {CONFIRMATIONS_MAX}");
        return Err(Reject::Invalid(text).into());
    }
    let mut outcomes = Vec::with_capacity(many);
    for Confirmation { user, device, epoch, seq } in confirmations {
        let confirmed = check_lives_here(step, shard, Id::User(user.clone()))
            .and_then(|()| confirm(step, shard, (user, device), *epoch, *seq));
        outcomes.push(match confirmed {
            Ok(cursor) => Ok(cursor),
            Err(Stop::Reject(reject)) => Err(reject),
            Err(fatal @ Stop::Fatal(_)) => return Err(fatal),
        });
    }
    Ok(Reply::ConfirmedMany(outcomes))
}

/// `Confirm`: the cursor rises to `seq`, and never goes back in an epoch; where it stands then. A refusal
/// has changed nothing.
pub(super) fn confirm(
    step: &mut Step<'_>,
    shard: &Shard,
    (user, name): (&UserId, &DeviceId),
    epoch: Epoch,
    seq: Seq,
) -> Result<Seq, Stop> {
    let key = DeviceKey { user: user.clone(), device: name.clone() };
    let mut device = step.get(&key)?.ok_or(Reject::NoDevice)?;
    if !device.connected && device.logged_out != UnixMs::default() {
        return Err(Reject::LoggedOut.into());
    }
    let mut mailbox = Open::of(step, user)?;
    let Mailbox { epoch: current, floor, head, .. } = mailbox.value;
    let reset = Reject::Reset { epoch: current, floor, head };
    if epoch != current {
        return Err(reset.into());
    }
    if seq > head {
        let alarm = Alarm::CursorAboveHead { user: user.clone(), seq, head };
        step.effects.push(Effect::Alarm(alarm));
        return Err(reset.into());
    }
    let confirmed = match device.epoch == epoch {
        true => device.cursor.max(seq),
        false => seq,
    };
    let moved = (device.epoch, device.cursor) != (epoch, confirmed);
    device.epoch = epoch;
    device.cursor = confirmed;
    if seen(&mut device, shard) || moved {
        step.put(&key, &device);
    }
    if moved && device.push.is_some() && mailbox.value.due != UnixMs::default() {
        push::reckon(step, shard, user, &mut mailbox)?;
        mailbox.save(step);
    }
    Ok(confirmed)
}
