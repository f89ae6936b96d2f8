//! Hints to devices that are away, handed out to gateways (R18): each to one of them at a time, for 30 s.
//!
//! ```text
//!   state: who is due ──► Leases::take ──► a gateway ──► the platform ──► PushSent (a command)
//!                             │                 └── postponed: handed out again later
//!                             └── kept in memory only: a new leader waits until those of the
//!                                 one before it have ended
//! ```
//!
//! What is due stands in the state, found by time, so nothing here has to survive; a hint may be
//! handed out twice, and is never lost. Invariants: there are no more leases than [`LEASES_MAX`]; who
//! is due beyond that waits in the state. A hint that was due when another node led may be leased by
//! that one, so it is not handed out until such a lease has ended; what is due later is, at once.
//!
//! States are read without the table's lock, and only where something is due; a gateway that finds
//! another one at a shard leaves that shard to it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidemark_mutants::{Mutant, is};
use tidemark_store_core::hints::{self, Hint};
use tidemark_store_core::key::DueKey;
use tidemark_store_core::storage::Read;
use tidemark_store_core::{Command, Fatal};
use tidemark_types::{DeviceId, Seq, ShardId, UnixMs, UserId};

use crate::metrics;
use crate::shard::{self, Hosted, Shard};

/// How long a hint is one gateway's.
const LEASE: Duration = Duration::from_secs(30);

/// For how long a leader that hears nobody may go on handing out beside its successor, with a second
/// for their clocks.
const DEAF: Duration = Duration::from_secs(3);

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
pub struct Leases {
    table: Mutex<Table>,
    /// Where each shard is looked at; whoever looks holds its lock.
    places: Mutex<HashMap<ShardId, Arc<Mutex<Place>>>>,
}

#[derive(Default)]
struct Table {
    by_device: HashMap<Name, Lease>,
    /// By when they end, on the monotonic clock.
    ends: BTreeSet<(Duration, Name)>,
}

struct Lease {
    ends: Duration,
    /// Which hint: the device had the one before it then, at this address.
    hint: (UnixMs, u64),
    /// What it tells.
    head: Seq,
}

/// A hint that is over: its lease need not wait for its end.
pub struct Over {
    name: Name,
    of: Of,
}

/// Which of a device's hints: one that told this seq, or any to this version of its token.
enum Of {
    Sent(Seq),
    Dropped(u64),
}

impl Over {
    /// The hint that is over once this command is applied.
    pub fn by(command: &Command) -> Option<Self> {
        let (user, device, of) = match command {
            Command::PushSent { user, device, upto, .. } => (user, device, Of::Sent(*upto)),
            Command::DropPush { user, device, version, .. } => {
                (user, device, Of::Dropped(*version))
            }
            _ => return None,
        };
        Some(Over { name: (user.clone(), device.clone()), of })
    }
}

/// Where a shard is looked at, while this node leads it.
#[derive(Default)]
struct Place {
    /// The term that it is about.
    term: u64,
    /// What the leader before may have leased, for as long as it may be.
    held: Option<Held>,
    /// Users before it are leased.
    after: Option<DueKey>,
}

/// What the leader before may have leased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    /// What was due by then.
    from: UnixMs,
    /// What was due by then, if it is told of nothing but what is older than `from`: a leader that is
    /// cut off has no newer entries.
    deaf: UnixMs,
    /// Its leases have ended by then, on the monotonic clock.
    until: Duration,
}

impl Held {
    fn at(Now { time, clock }: Now) -> Self {
        Held { from: time, deaf: time.plus(DEAF), until: clock + LEASE }
    }

    /// May a user be leased who is due at `at`, and lacks something since `since`?
    fn covers(&self, at: UnixMs, since: UnixMs) -> bool {
        at <= self.from || (at <= self.deaf && since <= self.from)
    }
}

/// When it is: cluster time, and the monotonic clock.
#[derive(Clone, Copy)]
struct Now {
    time: UnixMs,
    clock: Duration,
}

impl Leases {
    /// Hands a device's hint out again after a while.
    pub fn postpone(&self, user: UserId, device: DeviceId, after: Duration, now: Duration) {
        let mut table = self.table.lock();
        let name = (user, device);
        if let Some(&Lease { hint, head, .. }) = table.by_device.get(&name) {
            table.insert(name, Lease { ends: now + after.min(POSTPONE_MAX), hint, head });
        }
    }

    /// Ends the lease of a hint that is over, unless it is another one's by now.
    pub fn over(&self, Over { name, of }: &Over) {
        let mut table = self.table.lock();
        let Some(lease) = table.by_device.get(name) else { return };
        let same = match of {
            Of::Sent(upto) => lease.head == *upto,
            Of::Dropped(version) => lease.hint.1 == *version,
        };
        if same {
            let ends = lease.ends;
            table.by_device.remove(name);
            table.ends.remove(&(ends, name.clone()));
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
        self.table.lock().end(now);
        let now = Now { time, clock: now };
        let mut taken = Vec::new();
        for (number, shard) in hosted.shards() {
            let Some(term) = shard.group().leads() else { continue };
            let place = self.places.lock().entry(number).or_default().clone();
            let Some(mut place) = place.try_lock() else { continue };
            place.lead(term, now);
            let room = max.saturating_sub(taken.len()).min(self.table.lock().room());
            if room == 0 {
                break;
            }
            let found = place.look(shard, room, now)?;
            self.table.lock().lease(found, now.clock, &mut taken);
        }
        metrics::hints_leased(taken.len(), self.table.lock().by_device.len());
        Ok(taken)
    }
}

impl Place {
    /// The shard is led in this term.
    fn lead(&mut self, term: u64, now: Now) {
        if self.term != term {
            *self = Place { term, held: Some(Held::at(now)), after: None };
        }
        if self.held.is_some_and(|held| held.until <= now.clock) {
            *self = Place { term, ..Place::default() };
        }
    }

    /// Looks for who is due, from where it looked last to where nobody is due any more.
    fn look(&mut self, shard: &Shard, room: usize, now: Now) -> Result<Vec<Hint>, shard::Error> {
        if self.after.is_none() && shard.peek(|state| self.due(state, now, 1))?.is_empty() {
            return Ok(Vec::new());
        }
        let (found, last) = shard.look(|state| self.read(state, room, now))??;
        // Where nobody else is due: begin again with those whose leases have ended meanwhile.
        self.after = last;
        Ok(found)
    }

    fn read(
        &self,
        state: &dyn Read,
        room: usize,
        now: Now,
    ) -> Result<(Vec<Hint>, Option<DueKey>), Fatal> {
        let (mut found, mut last) = (Vec::new(), None);
        for key in self.due(state, now, USERS_PER_LOOK)? {
            if self.is_held(state, &key)? {
                last = Some(key);
                continue;
            }
            let hints = hints::hints(state, &key.user, now.time)?;
            if last.is_some() && found.len() + hints.len() > room {
                break;
            }
            found.extend(hints);
            last = Some(key);
        }
        found.truncate(room);
        Ok((found, last))
    }

    fn is_held(&self, state: &dyn Read, key: &DueKey) -> Result<bool, Fatal> {
        let Some(held) = self.held else { return Ok(false) };
        Ok(hints::since(state, key)?.is_some_and(|since| held.covers(key.at, since)))
    }

    fn due(&self, state: &dyn Read, now: Now, limit: usize) -> Result<Vec<DueKey>, Fatal> {
        match (&self.after, self.held) {
            (None, Some(held)) => hints::due_later(state, held.from, now.time, limit),
            (after, _) => hints::due(state, after.as_ref(), now.time, limit),
        }
    }
}

impl Table {
    /// How many leases there may be more.
    fn room(&self) -> usize {
        LEASES_MAX.saturating_sub(self.by_device.len())
    }

    /// Leases what nobody has, as far as there is room: others may have taken some meanwhile.
    fn lease(&mut self, found: Vec<Hint>, now: Duration, taken: &mut Vec<Hint>) {
        for hint in found {
            let name = (hint.user.clone(), hint.device.clone());
            let which = (hint.pushed_at, hint.token.version);
            let lease = self.by_device.get(&name);
            let free = lease.is_none_or(|lease| lease.hint != which) || is(Mutant::LeaseTwice);
            if free && (lease.is_some() || self.room() > 0) {
                self.insert(name, Lease { ends: now + LEASE, hint: which, head: hint.head });
                taken.push(hint);
            }
        }
    }

    fn insert(&mut self, name: Name, lease: Lease) {
        let ends = lease.ends;
        if let Some(before) = self.by_device.insert(name.clone(), lease) {
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
    use tidemark_store_core::value::{PushTarget, PushToken};
    use tidemark_types::Epoch;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn name(device: &str) -> Name {
        ("alice".parse().expect("legal"), device.parse().expect("legal"))
    }

    fn lease() -> Lease {
        Lease { ends: LEASE, hint: (UnixMs::new(1), 7), head: Seq::new(3) }
    }

    #[test]
    fn what_is_over_makes_room_and_what_is_another_hint_stays() {
        let leases = Leases::default();
        let over = |command: Command| {
            leases.over(&Over::by(&command).expect("it ends a hint"));
            leases.table.lock().by_device.len()
        };
        let (user, device) = name("phone");
        let sent = |upto| Command::PushSent {
            user: user.clone(),
            device: device.clone(),
            epoch: Epoch::FIRST,
            upto: Seq::new(upto),
        };
        let dropped = |version| Command::DropPush {
            user: user.clone(),
            device: device.clone(),
            version,
            since: None,
        };
        leases.table.lock().insert(name("phone"), lease());
        assert_eq!((over(sent(2)), over(dropped(6))), (1, 1));
        assert_eq!((over(sent(3)), over(sent(3))), (0, 0));
        leases.table.lock().insert(name("phone"), lease());
        assert_eq!(over(dropped(7)), 0);
        assert!(leases.table.lock().ends.is_empty());
        assert!(Over::by(&Command::ForgetDevice { user, device }).is_none());
    }

    #[test]
    fn a_lease_ends_by_time_or_with_its_hint_and_can_be_moved() {
        let leases = Leases::default();
        leases.table.lock().insert(name("phone"), lease());
        leases.table.lock().insert(name("tablet"), lease());
        let (user, device) = name("tablet");
        leases.postpone(user, device, 90 * SECOND, SECOND);
        let (user, device) = name("nobody's");
        leases.postpone(user, device, SECOND, SECOND);
        let mut table = leases.table.lock();
        table.end(LEASE - SECOND);
        assert_eq!((table.by_device.len(), table.ends.len()), (2, 2));
        table.end(LEASE);
        assert_eq!(table.by_device.keys().collect::<Vec<_>>(), [&name("tablet")]);
        table.end(91 * SECOND);
        assert_eq!((table.by_device.len(), table.ends.len()), (0, 0));
    }

    #[test]
    fn what_was_due_under_another_leader_waits_for_its_leases_and_nothing_else_does() {
        let at = |time, clock| Now { time: UnixMs::new(time), clock };
        let mut place = Place::default();
        place.lead(3, at(100_000, SECOND));
        let held = Held::at(at(100_000, SECOND));
        assert_eq!((place.term, place.held), (3, Some(held)));
        place.lead(3, at(125_000, LEASE));
        assert_eq!((place.term, place.held), (3, Some(held)));
        place.lead(3, at(130_000, SECOND + LEASE));
        assert_eq!((place.term, place.held), (3, None));
        place.lead(5, at(140_000, 2 * LEASE));
        assert_eq!((place.term, place.held), (5, Some(Held::at(at(140_000, 2 * LEASE)))));

        let covers = |at, since| held.covers(UnixMs::new(at), UnixMs::new(since));
        assert!(covers(99_000, 90_000));
        assert!(covers(102_000, 92_000), "a leader that is cut off goes on for a while");
        assert!(!covers(102_000, 101_000), "but not with what it does not have");
        assert!(!covers(104_000, 94_000));
    }

    #[test]
    fn there_are_never_more_leases_than_there_may_be() {
        let hint = |number: usize, pushed_at| Hint {
            user: UserId::new(format!("user-{number}")).expect("legal"),
            device: "phone".parse().expect("legal"),
            token: token(),
            epoch: Epoch::FIRST,
            head: Seq::new(1),
            pushed_at: UnixMs::new(pushed_at),
        };
        let mut table = Table::default();
        let mut taken = Vec::new();
        table.lease((0..LEASES_MAX + 9).map(|it| hint(it, 0)).collect(), SECOND, &mut taken);
        assert_eq!((taken.len(), table.by_device.len(), table.room()), (LEASES_MAX, LEASES_MAX, 0));
        taken.clear();
        // The same hint is somebody's; the next one of the same device is not.
        table.lease(vec![hint(0, 0), hint(1, 7), hint(LEASES_MAX, 0)], SECOND, &mut taken);
        assert_eq!(taken, [hint(1, 7)]);
        table.end(SECOND + LEASE);
        assert_eq!(table.room(), LEASES_MAX);
    }

    fn token() -> PushToken {
        let target = PushTarget { provider: "log".to_owned(), target: "x".to_owned() };
        PushToken { target, version: 1, registered: UnixMs::new(1) }
    }

    #[test]
    fn nobody_postpones_for_ever() {
        let leases = Leases::default();
        leases.table.lock().insert(name("phone"), lease());
        let (user, device) = name("phone");
        leases.postpone(user, device, Duration::MAX, SECOND);
        leases.table.lock().end(POSTPONE_MAX + SECOND);
        assert!(leases.table.lock().by_device.is_empty());
    }
}
