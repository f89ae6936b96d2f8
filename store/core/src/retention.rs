//! What a mailbox need not keep any longer (R14). The leader asks to find out what to propose; apply
//! asks again, since much may have happened meanwhile.

use std::ops::ControlFlow;

use tidemark_types::{DeviceId, Recipient, Seq, UnixMs};

use crate::devices;
use crate::key::{EntryKey, Key, after};
use crate::read;
use crate::slot::Slot;
use crate::storage::{Fatal, Read};
use crate::value::{Device, Mailbox, Settings, Shard, Value};

/// Entries that one `Retain` looks at.
const LOOK_ENTRIES: usize = 1_000;

/// What may go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Entries up to here.
    pub floor: Seq,
    /// Devices that were not seen for too long.
    pub devices: Vec<DeviceId>,
    /// There may be more than was looked at.
    pub more: bool,
}

/// Judges a mailbox by the time up to which things have expired, which a majority measured (R17).
pub fn judge(state: &dyn Read, shard: &Shard, id: &Recipient) -> Result<Verdict, Fatal> {
    let mailbox = read::mailbox(state, id)?;
    let devices = match id {
        Recipient::User(user) => devices::all(state, user)?,
        Recipient::Group(_) => Vec::new(),
    };
    let now = shard.expired_to;
    let unseen = |device: &Device, window| device.last_seen.plus(window) < now;
    let expired = devices.iter().filter(|(_, it)| unseen(it, shard.settings.device_expiry));
    let expired = expired.map(|(name, _)| name.clone()).collect();
    let eligible = devices.iter().filter(|(_, it)| !unseen(it, shard.settings.eligible));
    let confirmed = eligible.map(|(_, it)| match it.epoch == mailbox.epoch {
        true => it.cursor,
        false => Seq::NONE,
    });
    // Nobody is there who could have confirmed: then nothing counts as confirmed.
    let confirmed = confirmed.min().unwrap_or(Seq::NONE);
    let (floor, more) = old(state, id, &mailbox, |seq, time| {
        is_over(&shard.settings, now, seq <= confirmed, time)
    })?;
    Ok(Verdict { floor, devices: expired, more })
}

/// Is there something for `Retain` to do?
pub fn is_due(state: &dyn Read, shard: &Shard, id: &Recipient) -> Result<bool, Fatal> {
    let Mailbox { floor, swept, .. } = read::mailbox(state, id)?;
    let verdict = judge(state, shard, id)?;
    Ok(swept < floor || floor < verdict.floor || !verdict.devices.is_empty())
}

/// Need an entry of this time not be kept?
fn is_over(settings: &Settings, now: UnixMs, confirmed: bool, time: UnixMs) -> bool {
    time.plus(settings.hard_keep) < now || (confirmed && time.plus(settings.keep) < now)
}

/// The last of a mailbox's oldest entries that are over, and whether more of them may be.
fn old(
    state: &dyn Read,
    id: &Recipient,
    mailbox: &Mailbox,
    is_over: impl Fn(Seq, UnixMs) -> bool,
) -> Result<(Seq, bool), Fatal> {
    let key = |seq| EntryKey { mailbox: id.clone(), seq }.encode();
    let (from, to) = (after(&key(mailbox.floor)), after(&key(mailbox.head)));
    let (mut floor, mut looked, mut stopped) = (mailbox.floor, 0, false);
    let mut broken = None;
    state.scan(&from, &to, &mut |key, value| {
        let found =
            EntryKey::decode(key).and_then(|key| Ok((key.seq, Slot::decode(value)?.time())));
        match found {
            Ok((seq, time)) if is_over(seq, time) => floor = seq,
            Ok(_) => stopped = true,
            Err(error) => {
                broken = Some(error);
                stopped = true;
            }
        }
        looked += 1;
        match stopped || looked == LOOK_ENTRIES {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })?;
    match broken {
        Some(error) => Err(error.into()),
        None => Ok((floor, looked == LOOK_ENTRIES && !stopped)),
    }
}
