//! Hints to devices, handed out to gateways (R18): each to one of them at a time, for 30 s.
//!
//! ```text
//!   state: who is due ──► Leases::take ──► a gateway ──► the platform ──► PushSent (a command)
//!                             │                 └── postponed: handed out again later
//!                             └── kept in memory only: a new leader hands out anew
//! ```
//!
//! What is due stands in the state, found by time, so nothing here has to survive; a hint may be
//! handed out twice, and is never lost. Invariant: there are no more leases than [`LEASES_MAX`]; who
//! is due beyond that waits in the state.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use parking_lot::Mutex;
use tidemark_store_core::Fatal;
use tidemark_store_core::hints::{self, Hint};
use tidemark_store_core::key::DueKey;
use tidemark_types::{DeviceId, ShardId, UnixMs, UserId};

use crate::metrics;
use crate::shard::{self, Hosted, Shard};

/// How long a hint is one gateway's.
const LEASE: Duration = Duration::from_secs(30);

/// Leases of a node at a time.
const LEASES_MAX: usize = 16_384;

/// The longest that a gateway may postpone a hint.
const POSTPONE_MAX: Duration = Duration::from_secs(3_600);

/// Users that one look takes from the state.
const USERS_PER_LOOK: usize = 256;

/// A device, as leases name it.
type Name = (UserId, DeviceId);

/// Who has which hints, on one node.
#[derive(Default)]
pub struct Leases(Mutex<Table>);

#[derive(Default)]
struct Table {
    by_device: HashMap<Name, Lease>,
    /// By when they end, on the monotonic clock.
    ends: BTreeSet<(Duration, Name)>,
    /// Where to go on looking in each shard: users before it are leased.
    looked: HashMap<ShardId, DueKey>,
}

struct Lease {
    ends: Duration,
    /// Which hint: the device had the one before it then, at this address.
    hint: (UnixMs, u64),
}

impl Leases {
    /// Hands a device's hint out again after a while.
    pub fn postpone(&self, user: UserId, device: DeviceId, after: Duration, now: Duration) {
        let mut table = self.0.lock();
        let name = (user, device);
        if let Some(hint) = table.by_device.get(&name).map(|lease| lease.hint) {
            table.insert(name, hint, now + after.min(POSTPONE_MAX));
        }
    }

    /// Takes up to `max` hints of shards that this node leads; `time` is cluster time, `now` the
    /// monotonic clock.
    ///
    /// # Errors
    /// If a state cannot be read.
    pub fn take(
        &self,
        hosted: &Hosted,
        max: usize,
        time: UnixMs,
        now: Duration,
    ) -> Result<Vec<Hint>, shard::Error> {
        let mut table = self.0.lock();
        table.end(now);
        let mut taken = Vec::new();
        for (number, shard) in hosted.shards() {
            if shard.group().is_leader() {
                table.look(number, shard, (max, time, now), &mut taken)?;
            } else {
                table.looked.remove(&number);
            }
        }
        metrics::hints_leased(taken.len(), table.by_device.len());
        Ok(taken)
    }
}

impl Table {
    /// Looks for who is due in a shard, from where it looked last to where nobody is due any more.
    fn look(
        &mut self,
        number: ShardId,
        shard: &Shard,
        (max, time, now): (usize, UnixMs, Duration),
        taken: &mut Vec<Hint>,
    ) -> Result<(), shard::Error> {
        let room = max.saturating_sub(taken.len()).min(LEASES_MAX - self.by_device.len());
        if room == 0 {
            return Ok(());
        }
        let after = self.looked.get(&number).cloned();
        let (found, last) = shard.look(|state| {
            let due = hints::due(state, after.as_ref(), time, USERS_PER_LOOK)?;
            let mut found = Vec::new();
            let mut last = None;
            for key in due {
                if found.len() >= room {
                    return Ok((found, last));
                }
                found.extend(hints::hints(state, &key.user, time)?);
                last = Some(key);
            }
            Ok::<_, Fatal>((found, last))
        })??;
        match last {
            Some(last) => self.looked.insert(number, last),
            // Nobody else is due: begin again with those whose leases have ended meanwhile.
            None => self.looked.remove(&number),
        };
        for hint in found {
            let name = (hint.user.clone(), hint.device.clone());
            let which = (hint.pushed_at, hint.token.version);
            if self.by_device.get(&name).is_none_or(|lease| lease.hint != which) {
                self.insert(name, which, now + LEASE);
                taken.push(hint);
            }
        }
        Ok(())
    }

    fn insert(&mut self, name: Name, hint: (UnixMs, u64), ends: Duration) {
        if let Some(before) = self.by_device.insert(name.clone(), Lease { ends, hint }) {
            self.ends.remove(&(before.ends, name.clone()));
        }
        self.ends.insert((ends, name));
    }

    /// Forgets leases that have ended.
    fn end(&mut self, now: Duration) {
        while let Some((ends, name)) = self.ends.pop_first() {
            if ends > now {
                self.ends.insert((ends, name));
                return;
            }
            self.by_device.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn name(device: &str) -> Name {
        ("alice".parse().expect("legal"), device.parse().expect("legal"))
    }

    #[test]
    fn a_lease_ends_by_time_or_with_its_hint_and_can_be_moved() {
        let leases = Leases::default();
        let hint = (UnixMs::new(1), 7);
        leases.0.lock().insert(name("phone"), hint, LEASE);
        leases.0.lock().insert(name("tablet"), hint, LEASE);
        let (user, device) = name("tablet");
        leases.postpone(user, device, 90 * SECOND, SECOND);
        let (user, device) = name("nobody's");
        leases.postpone(user, device, SECOND, SECOND);
        let mut table = leases.0.lock();
        table.end(LEASE - SECOND);
        assert_eq!((table.by_device.len(), table.ends.len()), (2, 2));
        table.end(LEASE);
        assert_eq!(table.by_device.keys().collect::<Vec<_>>(), [&name("tablet")]);
        table.end(91 * SECOND);
        assert_eq!((table.by_device.len(), table.ends.len()), (0, 0));
    }

    #[test]
    fn nobody_postpones_for_ever() {
        let leases = Leases::default();
        leases.0.lock().insert(name("phone"), (UnixMs::new(1), 7), LEASE);
        let (user, device) = name("phone");
        leases.postpone(user, device, Duration::MAX, SECOND);
        leases.0.lock().end(POSTPONE_MAX + SECOND);
        assert!(leases.0.lock().by_device.is_empty());
    }
}
