//! The shard itself: who it is, its settings, and what expires in it (R17).

use tidemark_types::{ClusterId, ShardCount, ShardId, UnixMs};

use super::session;
use crate::key::{AllocatedKey, DeviceKey, IdleKey, Key, SentKey};
use crate::reply::{Reject, Reply};
use crate::storage::Fatal;
use crate::transaction::{Step, Stop};
use crate::value::{Session, Settings, Shard};

/// Things of each sort that one `Expire` removes; the reply says whether there are more.
const EXPIRE_MAX: usize = 1_000;

/// Cluster, shard, number of shards, hash version: what `Init` fixes for ever.
type Identity = (ClusterId, ShardId, ShardCount, u8);

/// `Init`; the same one again changes nothing.
pub(super) fn init(
    step: &Step<'_>,
    shard: &mut Option<Shard>,
    identity: Identity,
    settings: &Settings,
) -> Result<Reply, Stop> {
    let (cluster, number, shards, hash_version) = identity;
    if number.get() >= shards.get() {
        return Err(Reject::Invalid(format!("shard {number} of {shards}")).into());
    }
    if hash_version != tidemark_types::routing::HASH_VERSION {
        return Err(Reject::Invalid(format!("hash version {hash_version}")).into());
    }
    match shard {
        Some(known)
            if identity == (known.cluster, known.shard, known.shards, known.hash_version) =>
        {
            Ok(Reply::Done)
        }
        Some(_) => Err(Reject::Invalid("the shard is another one already".to_owned()).into()),
        None => {
            check(settings)?;
            *shard = Some(Shard {
                cluster,
                shard: number,
                shards,
                hash_version,
                settings: settings.clone(),
                time: step.batch_time(),
                expired_to: UnixMs::default(),
                dedup_floor: UnixMs::default(),
                allocate_floor: UnixMs::default(),
                refusals_unwritable: 0,
                blocked_silently: 0,
                dropped: 0,
                group_entries_untaken: 0,
            });
            Ok(Reply::Done)
        }
    }
}

/// `Configure`.
pub(super) fn configure(shard: &mut Shard, settings: &Settings) -> Result<Reply, Stop> {
    check(settings)?;
    shard.settings = settings.clone();
    Ok(Reply::Done)
}

fn check(settings: &Settings) -> Result<(), Reject> {
    settings.check().map_err(|reason| Reject::Invalid(format!("settings.{reason}")))
}

/// `Expire`. Floors only rise, whatever becomes of the windows.
pub(super) fn expire(step: &mut Step<'_>, shard: &mut Shard, now: UnixMs) -> Result<Reply, Stop> {
    let now = now.max(shard.expired_to);
    let Settings { session_idle, dedup_window, allocate_window, .. } = shard.settings;
    shard.expired_to = now;
    shard.dedup_floor = shard.dedup_floor.max(now.minus(dedup_window));
    shard.allocate_floor = shard.allocate_floor.max(now.minus(allocate_window));

    let sessions = expire_sessions(step, now.minus(session_idle))?;
    let sends = drop_ids::<SentKey>(step, shard.dedup_floor)?;
    let allocations = drop_ids::<AllocatedKey>(step, shard.allocate_floor)?;
    let more = [sessions, sends, allocations].contains(&EXPIRE_MAX);
    Ok(Reply::Expired { more })
}

/// Removes sessions whose last use lies on a day before `before`'s; how many.
fn expire_sessions(step: &mut Step<'_>, before: UnixMs) -> Result<usize, Fatal> {
    let (from, _) = IdleKey::KIND.range();
    let mut to = from.to_vec();
    to.extend(session::day(before).to_be_bytes());
    let due: Vec<IdleKey> = step.keys(&from, &to, EXPIRE_MAX)?;
    for IdleKey { user, session, .. } in &due {
        let Session { device, .. } = session::forget(step, user, *session)?;
        let owner = DeviceKey { user: user.clone(), device };
        if let Some(mut device) = step.get(&owner)? {
            device.live = device.live.filter(|live| live != session);
            device.ended.retain(|ended| ended != session);
            step.put(&owner, &device);
        }
    }
    Ok(due.len())
}

/// Removes keys that begin with a message id made before `before`; how many.
fn drop_ids<K: Key>(step: &mut Step<'_>, before: UnixMs) -> Result<usize, Fatal> {
    let (from, _) = K::KIND.range();
    let mut to = from.to_vec();
    // An id's first 48 bits are its creation time, so older ids sort before this.
    to.extend(&before.get().to_be_bytes()[2..]);
    let due: Vec<K> = step.keys(&from, &to, EXPIRE_MAX)?;
    for key in &due {
        step.delete(key);
    }
    Ok(due.len())
}
