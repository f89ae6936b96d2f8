//! Some changes of a group's state, as one, in memory: found by key, and in key order.
//!
//! ```text
//!   points    what is looked for by itself: heads, sessions …      a hash table
//!   logs      entries, records, acknowledgements by number         a queue for each log
//!   ordered   the rest                                              a tree
//! ```
//!
//! A key costs a hash and no comparison with its neighbours, and an entry goes behind the one before
//! it; their order is only made when somebody asks for it, as whoever writes a layer out does once.

use std::collections::{BTreeMap, VecDeque};
use std::hint::black_box;
use std::ops::{Bound, Range};

use hashbrown::HashTable;
use smallvec::SmallVec;
use tidemark_store_core::key::{self, Collected, KeyBytes, Place};
use tidemark_store_core::{Change, ValueBytes};

use super::touch::touch;

/// What a change takes beside its key and value, by and large.
const CHANGE_BYTES: usize = 96;

/// Numbers that a log's queue may lack in one place; what lies further away goes into the tree.
const GAP_MAX: u64 = 64;

/// Room for the prefixes of logs of users whose names are UUIDs, without a place of its own in memory: the longest
/// is that of acknowledgements.
const PREFIX_BYTES: usize = 47;

/// A key and what became of it.
pub(super) type Pair<'a> = (Collected, Option<&'a ValueBytes>);

/// Some changes, as one.
#[derive(Debug, Default)]
pub(super) struct Layer {
    points: HashTable<Change>,
    logs: HashTable<Log>,
    ordered: BTreeMap<Vec<u8>, Option<ValueBytes>>,
    changes: usize,
    bytes: usize,
}

/// The changes of one log.
#[derive(Debug)]
struct Log {
    prefix: SmallVec<[u8; PREFIX_BYTES]>,
    hash: u64,
    /// The number that `changes` begins with.
    first: u64,
    /// By number; none of a number that is not changed here.
    changes: VecDeque<Option<Option<ValueBytes>>>,
}

impl Layer {
    /// How many keys are changed.
    pub(super) fn len(&self) -> usize {
        self.changes
    }

    /// What they take in memory, by and large.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What became of `key`, if it was changed.
    pub(super) fn get(&self, key: &KeyBytes) -> Option<&Option<ValueBytes>> {
        match key.place() {
            Place::Point => {
                let found = self.points.find(key.hash(), |change| change.key == *key);
                found.map(|change| &change.value)
            }
            Place::Log { prefix, hash, number } => {
                let log = self.logs.find(hash, |log| log.hash == hash && *log.prefix == *prefix);
                log.and_then(|log| log.get(number)).or_else(|| self.ordered.get(&**key))
            }
            Place::Ordered => self.ordered.get(&**key),
        }
    }

    /// Has that come from memory at which a change of `key` looks.
    pub(super) fn touch(&self, key: &KeyBytes) {
        match key.place() {
            Place::Point => {
                self.points.find(key.hash(), |change| {
                    touch(&change.key);
                    black_box(change.value.is_some());
                    false
                });
            }
            Place::Log { hash, .. } => {
                self.logs.find(hash, |log| {
                    touch(&log.prefix);
                    black_box(log.changes.back().is_some_and(Option::is_some));
                    false
                });
            }
            Place::Ordered => {}
        }
    }

    /// The changes of what apply reads often, in no order; their own copies, which keep nothing else in
    /// memory.
    pub(super) fn read_often(&self) -> impl Iterator<Item = Change> {
        let often = self.points.iter().filter(|change| key::is_read_often(&change.key));
        often.map(|Change { key, value }| {
            let value = value.as_deref().map(ValueBytes::copy_of);
            Change { key: key.clone(), value }
        })
    }

    /// Changes a key.
    pub(super) fn insert(&mut self, Change { key, value }: Change) {
        let (len, new) = (key.len(), value.as_ref().map_or(0, |value| value.len()));
        let before = match key.place() {
            Place::Point => {
                let hash = key.hash();
                match self.points.find_mut(hash, |change| change.key == key) {
                    Some(change) => Some(std::mem::replace(&mut change.value, value)),
                    None => {
                        let change = Change { key, value };
                        self.points.insert_unique(hash, change, |change| change.key.hash());
                        None
                    }
                }
            }
            Place::Log { prefix, hash, number } => {
                return self.insert_in_log(prefix, hash, number, value);
            }
            Place::Ordered => self.ordered.insert(key.to_vec(), value),
        };
        self.count(len, new, before);
    }

    /// Changes what stands under a number of the log with this prefix, whose hash is `hash`.
    fn insert_in_log(&mut self, prefix: &[u8], hash: u64, number: u64, value: Option<ValueBytes>) {
        let log = match self.logs.find_mut(hash, |log| log.hash == hash && *log.prefix == *prefix) {
            Some(log) => log,
            None => {
                let log = Log::new(prefix, hash, number);
                self.logs.insert_unique(hash, log, |log| log.hash).into_mut()
            }
        };
        let (len, new) = (key::len_in_log(prefix), value.as_ref().map(|value| value.len()));
        let before = match log.reaches(number) {
            true => log.insert(number, value),
            false => self.ordered.insert(key::in_log(prefix, number).to_vec(), value),
        };
        match before {
            Some(Some(before)) if new.is_none() => {
                // Written once, here, and nowhere else: now it never was.
                self.bytes -= len + CHANGE_BYTES + before.len();
                self.changes -= 1;
                self.forget(prefix, hash, number);
            }
            before => self.count(len, new.unwrap_or(0), before),
        }
    }

    /// Counts a change of a key of `len` bytes to a value of `new` bytes.
    fn count(&mut self, len: usize, new: usize, before: Option<Option<ValueBytes>>) {
        match before {
            Some(before) => self.bytes -= before.as_ref().map_or(0, |value| value.len()),
            None => {
                self.changes += 1;
                self.bytes += len + CHANGE_BYTES;
            }
        }
        self.bytes += new;
    }

    /// As if a log's key had never been changed.
    fn forget(&mut self, prefix: &[u8], hash: u64, number: u64) {
        if self.ordered.remove(&*key::in_log(prefix, number)).is_some() {
            return;
        }
        if let Ok(mut found) =
            self.logs.find_entry(hash, |log| log.hash == hash && *log.prefix == *prefix)
        {
            found.get_mut().forget(number);
            if found.get().changes.is_empty() {
                found.remove();
            }
        }
    }

    /// Adds a newer layer's changes.
    pub(super) fn absorb(&mut self, newer: Layer) {
        for change in newer.points {
            self.insert(change);
        }
        for Log { prefix, hash, first, changes } in newer.logs {
            for (number, change) in (first..).zip(changes) {
                if let Some(value) = change {
                    self.insert_in_log(&prefix, hash, number, value);
                }
            }
        }
        for (key, value) in newer.ordered {
            self.insert(Change { key: KeyBytes::new(&key), value });
        }
    }

    /// The changes of keys from `from` to before `to`, in key order.
    pub(super) fn range<'a>(&'a self, from: &'a [u8], to: &'a [u8]) -> Vec<Run<'a>> {
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        let ordered = Run::Ordered(self.ordered.range::<[u8], _>(bounds));
        if let Some((prefix, numbers)) = key::log_range(from, to) {
            let hash = KeyBytes::hash_of_log(prefix);
            let log = self.logs.find(hash, |log| log.hash == hash && *log.prefix == *prefix);
            let log = log.map(|log| Run::Log(log.range(numbers)));
            return log.into_iter().chain([ordered]).collect();
        }
        let all = self.points.iter().map(Part::Point).chain(self.logs.iter().map(Part::Log));
        let parts = sorted(all.filter(|part| part.is_within(from, to)));
        vec![Run::Parts(Parts { parts: parts.into_iter(), log: None, from, to }), ordered]
    }
}

impl Log {
    fn new(prefix: &[u8], hash: u64, first: u64) -> Self {
        Log { prefix: prefix.into(), hash, first, changes: VecDeque::new() }
    }

    fn end(&self) -> u64 {
        self.first + self.changes.len() as u64
    }

    fn get(&self, number: u64) -> Option<&Option<ValueBytes>> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.changes.get(at)?.as_ref()
    }

    /// Is that number in the queue, or near enough to either end?
    fn reaches(&self, number: u64) -> bool {
        let from = self.first.saturating_sub(GAP_MAX);
        (from..self.end().saturating_add(GAP_MAX)).contains(&number)
    }

    fn insert(&mut self, number: u64, value: Option<ValueBytes>) -> Option<Option<ValueBytes>> {
        if number == self.end() {
            // By far the most often.
            self.changes.push_back(Some(value));
            return None;
        }
        while number < self.first {
            self.changes.push_front(None);
            self.first -= 1;
        }
        while number >= self.end() {
            self.changes.push_back(None);
        }
        self.changes[(number - self.first) as usize].replace(value)
    }

    fn forget(&mut self, number: u64) {
        if let Some(at) = number.checked_sub(self.first) {
            self.changes[at as usize] = None;
        }
        while let Some(None) = self.changes.front() {
            self.changes.pop_front();
            self.first += 1;
        }
    }

    fn range(&self, numbers: Range<u64>) -> Numbers<'_> {
        let next = numbers.start.max(self.first);
        Numbers { log: self, next, end: numbers.end.min(self.end()) }
    }
}

/// Some numbers of a log, in order.
pub(super) struct Numbers<'a> {
    log: &'a Log,
    next: u64,
    end: u64,
}

impl<'a> Iterator for Numbers<'a> {
    type Item = Pair<'a>;

    fn next(&mut self) -> Option<Pair<'a>> {
        while self.next < self.end {
            let number = self.next;
            self.next += 1;
            if let Some(change) = self.log.get(number) {
                return Some((key::in_log(&self.log.prefix, number), change.as_ref()));
            }
        }
        None
    }
}

/// A key, or all keys of a log: none of another one's lie in between.
enum Part<'a> {
    Point(&'a Change),
    Log(&'a Log),
}

impl Part<'_> {
    fn begin(&self) -> &[u8] {
        match self {
            Part::Point(change) => &change.key,
            Part::Log(log) => &log.prefix,
        }
    }

    /// May a key of it lie from `from` to before `to`?
    fn is_within(&self, from: &[u8], to: &[u8]) -> bool {
        let begin = self.begin();
        let reaches = match self {
            Part::Point(_) => from <= begin,
            Part::Log(_) => from <= begin || from.starts_with(begin),
        };
        reaches && begin < to
    }
}

/// In key order. Their first bytes say it of nearly all, and are compared without a look at the keys, each of
/// which lies elsewhere.
fn sorted<'a>(parts: impl Iterator<Item = Part<'a>>) -> Vec<Part<'a>> {
    let mut parts: Vec<_> = parts.map(|part| (lead(part.begin()), part)).collect();
    parts.sort_unstable_by(|(lead, part), (other_lead, other)| {
        lead.cmp(other_lead).then_with(|| part.begin().cmp(other.begin()))
    });
    parts.into_iter().map(|(_, part)| part).collect()
}

/// The first bytes of a key, as a number that is not larger than that of a larger key.
fn lead(key: &[u8]) -> u128 {
    let mut first = [0; size_of::<u128>()];
    let len = key.len().min(first.len());
    first[..len].copy_from_slice(&key[..len]);
    u128::from_be_bytes(first)
}

/// Points and logs in key order.
pub(super) struct Parts<'a> {
    parts: std::vec::IntoIter<Part<'a>>,
    /// The log that is being gone through, and whether all of it is wanted.
    log: Option<(Numbers<'a>, bool)>,
    from: &'a [u8],
    to: &'a [u8],
}

impl<'a> Iterator for Parts<'a> {
    type Item = Pair<'a>;

    fn next(&mut self) -> Option<Pair<'a>> {
        loop {
            if let Some((numbers, all)) = &mut self.log
                && let Some(pair) = numbers.next()
            {
                match *all || self.from <= &*pair.0 && &*pair.0 < self.to {
                    true => return Some(pair),
                    false => continue,
                }
            }
            match self.parts.next()? {
                Part::Point(change) => {
                    return Some((Collected::from_slice(&change.key), change.value.as_ref()));
                }
                Part::Log(log) => {
                    let cut =
                        [self.from, self.to].iter().any(|bound| bound.starts_with(&log.prefix));
                    self.log = Some((log.range(0..u64::MAX), !cut));
                }
            }
        }
    }
}

/// Changes of a layer in key order; no two runs of one layer have a key in common.
pub(super) enum Run<'a> {
    Log(Numbers<'a>),
    Ordered(std::collections::btree_map::Range<'a, Vec<u8>, Option<ValueBytes>>),
    Parts(Parts<'a>),
}

impl<'a> Iterator for Run<'a> {
    type Item = Pair<'a>;

    fn next(&mut self) -> Option<Pair<'a>> {
        match self {
            Run::Log(numbers) => numbers.next(),
            Run::Ordered(range) => {
                range.next().map(|(key, value)| (Collected::from_slice(key), value.as_ref()))
            }
            Run::Parts(parts) => parts.next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// As keys with much in common have it, and short ones.
        #[test]
        fn a_larger_key_has_no_smaller_lead(
            mut keys in proptest::collection::vec(proptest::collection::vec(0..3u8, 0..20), 2),
        ) {
            keys.sort();
            prop_assert!(lead(&keys[0]) <= lead(&keys[1]));
        }
    }
}
