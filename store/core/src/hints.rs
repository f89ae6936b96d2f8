//! Which devices are to get a hint, and when (R18). Apply asks when to look next, and the leader, at
//! that time, whom to wake.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidemark_types::{DeviceId, Epoch, Recipient, Seq, UnixMs, UserId};

use crate::codec::{self, DecodeError};
use crate::devices;
use crate::key::{DueKey, Key};
use crate::read::{self, PageLimits};
use crate::storage::{Fatal, Read};
use crate::value::{Device, Mailbox, PushToken, Settings};

/// A device that is to be woken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hint {
    /// Its owner.
    pub user: UserId,
    /// The device.
    pub device: DeviceId,
    /// Where its platform finds it.
    pub token: PushToken,
    /// The epoch in which `head` counts.
    pub epoch: Epoch,
    /// The newest seq, of which it is told.
    pub head: Seq,
    /// Log time of the hint before this one: another time makes this another hint.
    pub pushed_at: UnixMs,
}

impl Hint {
    const VERSION: u8 = 1;

    /// Its bytes, as a leader hands it to a gateway.
    pub fn encode(&self) -> Bytes {
        codec::encode(Self::VERSION, self).into()
    }

    /// The hint with these bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode("Hint", Self::VERSION, bytes)
    }
}

/// The users whose devices are to be looked at by `now`, the longest due first, after `after`.
pub fn due(
    state: &dyn Read,
    after: Option<&DueKey>,
    now: UnixMs,
    limit: usize,
) -> Result<Vec<DueKey>, Fatal> {
    let from = match after {
        Some(key) => crate::key::after(&key.encode()),
        None => DueKey::KIND.range().0.to_vec(),
    };
    between(state, from, now, limit)
}

/// The same, of those who are to be looked at later than `than`.
pub fn due_later(
    state: &dyn Read,
    than: UnixMs,
    now: UnixMs,
    limit: usize,
) -> Result<Vec<DueKey>, Fatal> {
    between(state, beyond(than), now, limit)
}

/// Since when the user lacks what it is to be told under this key; none if it is told meanwhile.
pub fn since(state: &dyn Read, key: &DueKey) -> Result<Option<UnixMs>, Fatal> {
    Ok(read::get(state, key)?.map(|due| due.since))
}

/// Where the keys begin that are later than a time.
fn beyond(time: UnixMs) -> Vec<u8> {
    let mut from = DueKey::KIND.range().0.to_vec();
    from.extend(time.get().saturating_add(1).to_be_bytes());
    from
}

fn between(
    state: &dyn Read,
    from: Vec<u8>,
    now: UnixMs,
    limit: usize,
) -> Result<Vec<DueKey>, Fatal> {
    let to = beyond(now);
    if from >= to {
        return Ok(Vec::new());
    }
    let limits = PageLimits { entries: limit, bytes: usize::MAX };
    let found = read::pairs::<DueKey>(state, &from, &to, limits)?;
    Ok(found.into_iter().map(|(key, _)| key).collect())
}

/// The user's devices that are to be woken by `now`.
pub fn hints(state: &dyn Read, user: &UserId, now: UnixMs) -> Result<Vec<Hint>, Fatal> {
    let mailbox = read::mailbox(state, &Recipient::User(user.clone()))?;
    let Some(shard) = read::shard(state)? else { return Ok(Vec::new()) };
    let key = DueKey { at: mailbox.due, user: user.clone() };
    let Some(due) = read::get(state, &key)? else { return Ok(Vec::new()) };
    let mut hints = Vec::new();
    for (name, device) in devices::all(state, user)? {
        let at = wakes(&device, &shard.settings, &mailbox, due.since);
        let Device { push, pushed_at, .. } = device;
        if let Some(token) = push.filter(|_| at.is_some_and(|at| at <= now)) {
            let Mailbox { epoch, head, .. } = mailbox;
            hints.push(Hint { user: user.clone(), device: name, token, epoch, head, pushed_at });
        }
    }
    Ok(hints)
}

/// When the first of the user's devices is to be woken.
pub(crate) fn next(
    state: &dyn Read,
    settings: &Settings,
    user: &UserId,
    mailbox: &Mailbox,
    since: UnixMs,
) -> Result<Option<UnixMs>, Fatal> {
    if mailbox.pushes == 0 {
        return Ok(None);
    }
    let devices = devices::all(state, user)?;
    Ok(devices.iter().filter_map(|(_, it)| wakes(it, settings, mailbox, since)).min())
}

/// When a device is to be woken: it lacks entries since `since`, and was told of none of them.
fn wakes(device: &Device, settings: &Settings, mailbox: &Mailbox, since: UnixMs) -> Option<UnixMs> {
    let told = match device.epoch == mailbox.epoch {
        true => device.cursor.max(device.pushed_upto),
        false => Seq::NONE,
    };
    if device.push.is_none() || told >= mailbox.head {
        return None;
    }
    let patience = if device.connected { settings.push_after } else { Default::default() };
    let again = match device.pushed_at == UnixMs::default() {
        true => UnixMs::default(),
        false => device.pushed_at.plus(settings.push_every),
    };
    Some(since.plus(patience).max(again))
}
