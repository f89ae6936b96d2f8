//! The feed: what happened in a shard, in the order in which it did, for back ends that follow
//! (R20). Where the setting `feed_records_max` is 0 there is none, and nothing is written.
//!
//! ```text
//!   apply of a command ── changed keys ──► FeedRecord n+1, in the same writes
//!                                              │ the newest feed_records_max are kept
//!   reader at n ◄── gap, records n+1 … head, each entry as its mailbox holds it now
//! ```
//!
//! A record is made from the keys that a command has written, so that nothing that was changed can
//! be missing, and it is numbered, so that a reader knows what it lacks. It holds no bodies: an
//! entry stands in its mailbox, and is read there, in one view of the state, while it is kept.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use tidemark_mutants::{Mutant, is};
use tidemark_types::{DeviceId, Epoch, Recipient, Seq, UnixMs, UserId};

use crate::key::{DeviceKey, EntryKey, FeedKey, FeedRecordKey, Key, after};
use crate::read::{PageLimits, get, pairs};
use crate::slot;
use crate::storage::{Change, Fatal, Read};
use crate::transaction::Step;
use crate::value::{Content, Device, Entry, Value};

/// Records that one record removes below the oldest that is kept: more than one, so that a backlog
/// shrinks.
const SWEEP_PER_RECORD: NonZeroU32 = NonZeroU32::new(2).expect("not 0");

/// How a shard's feed stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feed {
    /// The number of the newest record, 0 for none.
    pub head: u64,
    /// The highest number that is not there any more.
    pub floor: u64,
}

/// What one command changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedRecord {
    /// The shard's time.
    pub time: UnixMs,
    /// At least one; each key once.
    pub changes: Vec<FeedChange>,
}

/// Something that changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FeedChange {
    /// A user's mailbox, or the log of a group, has a new entry.
    Entry {
        /// Which mailbox.
        mailbox: Recipient,
        /// The entry's seq.
        seq: Seq,
    },
    /// A device stands like this from now on.
    Device {
        /// Its owner.
        user: UserId,
        /// Its name.
        device: DeviceId,
        /// The epoch in which its cursor counts.
        epoch: Epoch,
        /// The last seq that it confirmed.
        cursor: Seq,
        /// Does it have a connection?
        connected: bool,
        /// When it was logged out, or 0.
        logged_out: UnixMs,
    },
    /// A device was forgotten.
    Forgotten {
        /// Its owner.
        user: UserId,
        /// Its name.
        device: DeviceId,
    },
}

impl FeedChange {
    /// What a change of a key tells; nothing, if it is none of those that are told.
    fn of(Change { key, value }: &Change) -> Result<Option<Self>, Fatal> {
        const ENTRY: u8 = EntryKey::KIND as u8;
        const DEVICE: u8 = DeviceKey::KIND as u8;
        Ok(match (key.first(), value) {
            (Some(&ENTRY), Some(_)) => {
                let EntryKey { mailbox, seq } = EntryKey::decode(key)?;
                Some(FeedChange::Entry { mailbox, seq })
            }
            (Some(&DEVICE), value) => {
                let DeviceKey { user, device } = DeviceKey::decode(key)?;
                Some(match value {
                    None => FeedChange::Forgotten { user, device },
                    Some(value) => {
                        let Device { epoch, cursor, connected, logged_out, .. } =
                            Device::decode(value)?;
                        FeedChange::Device { user, device, epoch, cursor, connected, logged_out }
                    }
                })
            }
            _ => None,
        })
    }
}

/// Writes down what a command changed, as the next record, and removes some that are too many.
pub(crate) fn record<'c>(
    changed: impl Iterator<Item = &'c Change>,
    time: UnixMs,
    records_max: NonZeroU32,
) -> Result<Option<Recorded>, Fatal> {
    let changes = changed.filter_map(|change| FeedChange::of(change).transpose());
    let changes: BTreeSet<FeedChange> = changes.collect::<Result<_, _>>()?;
    let told_max = if is(Mutant::FeedTellsOne) { 1 } else { usize::MAX };
    let changes: Vec<FeedChange> = changes.into_iter().take(told_max).collect();
    Ok((!changes.is_empty())
        .then(|| Recorded { record: FeedRecord { time, changes }, records_max }))
}

/// A record that was made and is not written yet.
pub(crate) struct Recorded {
    record: FeedRecord,
    records_max: NonZeroU32,
}

impl Recorded {
    /// Writes it.
    pub(crate) fn write(self, step: &mut Step<'_>) -> Result<(), Fatal> {
        let mut feed = step.get(&FeedKey {})?.unwrap_or_default();
        feed.head += 1;
        step.put(&FeedRecordKey { number: feed.head }, &self.record);
        let oldest = feed.head.saturating_sub(self.records_max.get().into());
        let swept = oldest.min(feed.floor + u64::from(SWEEP_PER_RECORD.get()));
        for number in feed.floor + 1..=swept {
            step.delete(&FeedRecordKey { number });
        }
        feed.floor = feed.floor.max(swept);
        step.put(&FeedKey {}, &feed);
        Ok(())
    }
}

/// Some records of a feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedPage {
    /// How the feed stands. What the reader lacks up to its floor is gone for good.
    pub feed: Feed,
    /// The records after the reader's number, or after the floor, without a hole.
    pub records: Vec<(u64, FeedRecord)>,
    /// The entries that the records tell of, in their order. One is left out where its mailbox no
    /// longer keeps it, where it is a member's copy of a group's entry, which the group's log tells,
    /// and where one record alone tells of more than a page takes.
    pub entries: Vec<Option<Entry>>,
}

/// How the feed stands.
pub fn stands(state: &dyn Read) -> Result<Feed, Fatal> {
    Ok(get(state, &FeedKey {})?.unwrap_or_default())
}

/// The records after `after`, as many as `limits` allow.
pub fn page(state: &dyn Read, after_number: u64, limits: PageLimits) -> Result<FeedPage, Fatal> {
    let feed = stands(state)?;
    let first = after_number.max(feed.floor).saturating_add(1);
    let from = FeedRecordKey { number: first }.encode();
    let to = after(&FeedRecordKey { number: u64::MAX }.encode());
    let mut records = Vec::new();
    let mut entries = Vec::new();
    let mut bytes = 0;
    for (FeedRecordKey { number }, record) in pairs::<FeedRecordKey>(state, &from, &to, limits)? {
        if number != first + records.len() as u64 {
            let text = format!("feed: record {number} follows {}", number - 1);
            return Err(Fatal::Corrupt(text));
        }
        for change in &record.changes {
            let FeedChange::Entry { mailbox, seq } = change else { continue };
            let entry = match bytes < limits.bytes {
                true => told(state, mailbox, *seq)?,
                false => None,
            };
            bytes += entry.as_ref().map_or(0, |(_, bytes)| *bytes);
            entries.push(entry.map(|(entry, _)| entry));
        }
        records.push((number, record));
        if bytes >= limits.bytes {
            break;
        }
    }
    Ok(FeedPage { feed, records, entries })
}

/// An entry that is told with its record, and how many bytes it has.
fn told(state: &dyn Read, mailbox: &Recipient, seq: Seq) -> Result<Option<(Entry, usize)>, Fatal> {
    let found = slot::entry(state, mailbox, seq)?;
    let copied = |entry: &Entry| {
        matches!((mailbox, &entry.content), (Recipient::User(_), Content::Group(_)))
    };
    Ok(found.filter(|(entry, _)| !copied(entry)))
}
