//! What a seed stands for: the cluster, its load, its timers and its faults.

use std::time::Duration;

use tidemark_env::{Rng, SeededRng};
use tidemark_store_core::value::Settings;
use tidemark_types::NodeId;

/// Gateways.
pub const GATEWAYS: usize = 2;
/// Hosts on which devices run.
pub const PHONES: usize = 3;
/// Devices of each user.
pub const DEVICES: u8 = 2;

/// A run that is accepted for less shows too little.
pub const ACCEPTED_MIN: u64 = 1_000;
/// The same for faults with an effect.
pub const FAULTS_MIN: usize = 3;

/// Entries are kept so long where none is to go: longer than a run, and not as long as the furthest that
/// one wrong clock is ahead.
pub const KEEP_LONG: Duration = Duration::from_secs(20 * 24 * 3_600);
/// That far, in milliseconds.
pub const FAR_AHEAD_MS: i64 = 30 * 24 * 3_600 * 1_000;

const _: () = assert!(KEEP_LONG.as_millis() < FAR_AHEAD_MS as u128);

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What everything else is drawn from.
    pub seed: u64,
    /// Store nodes.
    pub stores: u64,
    /// Shards.
    pub shards: u16,
    /// Users.
    pub users: u32,
    /// How long they write, and faults befall the cluster.
    pub load: Duration,
    /// Between two sends of a user, on average.
    pub send_every: Duration,
    /// Sends of a user without an outcome, at most.
    pub open_max: usize,
    /// How often a user writes as one does who has nothing to say for a while: from 0 to 1.
    pub quiet: f64,
    /// The slowest message of a healthy network.
    pub latency_max: Duration,
    /// A healthy disk's fsync takes so long.
    pub fsync: Duration,
    /// Raft's heartbeat.
    pub heartbeat_ms: u64,
    /// Raft's least election timeout.
    pub election_ms: u64,
    /// Entries between two snapshots.
    pub snapshot_entries: u64,
    /// Entries kept behind a snapshot.
    pub keep_entries: u64,
    /// Entries of a mailbox that are kept.
    pub mailbox_entries_max: u32,
    /// How long entries are kept, whoever confirmed them.
    pub keep: Duration,
    /// Records that each shard's feed keeps, 0 for no feed.
    pub feed_records_max: u32,
    /// A gateway cuts a device that is silent for so long.
    pub silence_ms: u64,
    /// Between two faults, on average.
    pub calm: Duration,
    /// Disks acknowledge what they have not written: the control, which must be noticed.
    pub lying_disks: bool,
    /// Dispatchers say that they have sent what they have not: another control.
    pub lost_hints: bool,
    /// Crash points are those of votes only: for what is seldom reached.
    pub votes: bool,
    /// Every other fault is a clock that is far ahead, of which entries must not go: likewise.
    pub clocks: bool,
}

/// Draws of a seed.
pub struct Dice(SeededRng);

impl Dice {
    /// The draws of `seed` for one purpose.
    pub fn new(seed: u64, purpose: u64) -> Self {
        Dice(SeededRng::new(seed ^ purpose.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// A number from `from` to `to`, both included.
    pub fn between(&self, from: u64, to: u64) -> u64 {
        from + self.0.number() % (to - from + 1)
    }

    /// A time in milliseconds, both ends included.
    pub fn ms(&self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.between(from, to))
    }

    /// One of them.
    pub fn of<T: Copy>(&self, these: &[T]) -> T {
        let at = usize::try_from(self.0.number() % these.len() as u64);
        these[at.expect("an index")]
    }

    /// True so often, from 0 to 1.
    pub fn chance(&self, often: f64) -> bool {
        self.0.unit() < often
    }

    /// A number of 64 bits.
    pub fn number(&self) -> u64 {
        self.0.number()
    }
}

impl Plan {
    /// What `seed` stands for.
    pub fn of(seed: u64) -> Self {
        let dice = Dice::new(seed, 1);
        let users = u32::try_from(dice.between(6, 12)).expect("small");
        let heartbeat_ms = dice.of(&[50, 100, 200]);
        // All users together, a second: enough for the run to show something, whatever fails.
        let rate = dice.between(45, 80);
        Plan {
            seed,
            shards: u16::try_from(dice.between(2, 8)).expect("small"),
            users,
            load: dice.ms(30_000, 40_000),
            send_every: Duration::from_secs(1) * users / u32::try_from(rate).expect("small"),
            open_max: dice.of(&[8, 32, 128]),
            quiet: dice.of(&[0.0, 0.1, 0.3]),
            latency_max: dice.ms(1, 15),
            fsync: dice.ms(0, 8),
            heartbeat_ms,
            election_ms: heartbeat_ms * dice.between(4, 8),
            snapshot_entries: dice.of(&[50, 100, 250, 1_000, 50_000]),
            keep_entries: dice.of(&[0, 0, 20, 100, 1_000]),
            mailbox_entries_max: dice.of(&[1_000_000, 1_000_000, 1_000_000, 150]),
            silence_ms: dice.of(&[7_000, 15_000]),
            calm: dice.ms(500, 3_000),
            stores: dice.of(&[3, 3, 3, 5]),
            keep: dice.of(&[KEEP_LONG, KEEP_LONG, KEEP_LONG, Duration::from_secs(8)]),
            feed_records_max: dice.of(&[1_000_000, 1_000_000, 200, 0]),
            lying_disks: false,
            lost_hints: false,
            votes: false,
            clocks: false,
        }
    }

    /// The same, with clocks that are far ahead beside all else, and nothing that may be removed.
    pub fn with_clocks(self) -> Self {
        let mailbox_entries_max = Settings::default().mailbox_entries_max;
        Plan { clocks: true, keep: KEEP_LONG, mailbox_entries_max, ..self }
    }

    /// Does every mailbox keep all its entries?
    pub fn keeps_all(&self) -> bool {
        self.keep == KEEP_LONG
            && self.mailbox_entries_max >= Settings::default().mailbox_entries_max
    }

    /// All store nodes.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        (1..=self.stores).map(NodeId::new)
    }
}
