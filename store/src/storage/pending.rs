//! What a group has applied and the database does not have yet, in layers.
//!
//! ```text
//!   apply ──► [ oldest … newest ] ──spill──► the database
//!                    ▲ a read sees the newest layer that knows a key, then the database
//! ```
//!
//! A layer that nobody else looks at is changed where it is. One that a reader or a spill holds stays as
//! it is, and a new one goes on top: so a read sees one moment and holds up nobody, as long as it may
//! take. Layers of about the same size are put together, as in a log-structured merge tree (O'Neil et
//! al., 1996), so that there are few.

use std::iter::Peekable;
use std::sync::Arc;

use tidemark_store_core::key::{self, KeyBytes};
use tidemark_store_core::storage::{Visit, scan_over};
use tidemark_store_core::{Change, Read, StorageError, ValueBytes};

use super::layer::{Layer, Pair, Run};

/// The layers of one group, and which of its generations they are over.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// The generation that is read.
    pub(super) live: u32,
    /// The newest one given out since the database was opened.
    pub(super) staged: u32,
    /// How often layers have gone to the database, or were dropped.
    pub(super) spills: u64,
    /// What those that went there last say of what apply reads often; of one key the newest comes last.
    pub(super) last_spilled: Arc<Vec<Change>>,
    /// The oldest first.
    layers: Vec<Arc<Layer>>,
}

impl Pending {
    /// Nothing over this generation.
    pub(super) fn of(live: u32) -> Self {
        Pending { live, staged: live, ..Pending::default() }
    }

    /// Bytes of all layers.
    pub(super) fn bytes(&self) -> usize {
        self.layers.iter().map(|layer| layer.bytes()).sum()
    }

    /// The layers as they are, for as long as one likes.
    pub(super) fn layers(&self) -> Vec<Arc<Layer>> {
        self.layers.clone()
    }

    /// The layers as long as they stay.
    pub(super) fn as_slice(&self) -> &[Arc<Layer>] {
        &self.layers
    }

    /// Adds changes: all of them are seen, or none.
    pub(super) fn write(&mut self, changes: impl IntoIterator<Item = Change>) {
        if self.layers.last_mut().is_none_or(|top| Arc::get_mut(top).is_none()) {
            self.layers.push(Arc::default());
        }
        let top = self.layers.last_mut().and_then(Arc::get_mut).expect("nobody looks at it yet");
        let changes: Vec<_> = changes.into_iter().collect();
        for change in &changes {
            top.touch(&change.key);
        }
        for change in changes {
            top.insert(change);
        }
        self.put_together();
    }

    /// Puts the newest layer into the one below while that is not much larger and nobody looks.
    fn put_together(&mut self) {
        while let [.., below, top] = &mut self.layers[..] {
            if top.len() * 2 < below.len() {
                return;
            }
            let (Some(below), Some(top)) = (Arc::get_mut(below), Arc::get_mut(top)) else { return };
            below.absorb(std::mem::take(top));
            self.layers.pop();
        }
    }

    /// Drops all layers: what they lie over is replaced.
    pub(super) fn clear(&mut self) {
        self.layers.clear();
        self.last_spilled = Arc::default();
        // Nothing that anybody remembers is true any more.
        self.spills += 2;
    }

    /// The oldest `layers` are in the database now.
    pub(super) fn spilled(&mut self, layers: usize) {
        let often = self.layers[..layers].iter().flat_map(|layer| layer.read_often());
        self.last_spilled = Arc::new(often.collect());
        self.layers.drain(..layers);
        self.spills += 1;
    }
}

/// Layers over something else.
pub(super) struct Over<'a, R> {
    pub(super) layers: &'a [Arc<Layer>],
    pub(super) below: R,
}

impl<R: Read> Read for Over<'_, R> {
    fn get(&self, key: &KeyBytes) -> Result<Option<ValueBytes>, StorageError> {
        match self.layers.iter().rev().find_map(|layer| layer.get(key)) {
            Some(change) => Ok(change.clone()),
            None => self.below.get(key),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StorageError> {
        if from >= to {
            return Ok(());
        }
        let mut changes = changes(self.layers, from, to).peekable();
        // A relay reads what was written a moment ago, and again with each batch: there is nothing below.
        let begins = |(key, change): &Pair<'_>| *key.as_slice() == *from && change.is_some();
        if key::is_out_record(from) && changes.peek().is_some_and(begins) {
            return scan_over(&Nothing, changes, (from, to), visit);
        }
        scan_over(&self.below, changes, (from, to), visit)
    }
}

/// No pairs.
struct Nothing;

impl Read for Nothing {
    fn get(&self, _: &KeyBytes) -> Result<Option<ValueBytes>, StorageError> {
        Ok(None)
    }

    fn scan(&self, _: &[u8], _: &[u8], _: &mut Visit<'_>) -> Result<(), StorageError> {
        Ok(())
    }
}

/// What layers, the oldest first, make of the keys from `from` to before `to`, in key order: the newest
/// change of each.
pub(super) fn changes<'a>(layers: &'a [Arc<Layer>], from: &'a [u8], to: &'a [u8]) -> Changes<'a> {
    let runs = layers.iter().rev().flat_map(|layer| layer.range(from, to));
    let mut runs: Vec<_> = runs.map(Iterator::peekable).collect();
    runs.retain_mut(|run| run.peek().is_some());
    Changes { runs }
}

/// Runs as one.
pub(super) struct Changes<'a> {
    /// The newest first, each with something left.
    runs: Vec<Peekable<Run<'a>>>,
}

impl<'a> Iterator for Changes<'a> {
    type Item = Pair<'a>;

    fn next(&mut self) -> Option<Pair<'a>> {
        if let [only] = &mut self.runs[..] {
            return only.next();
        }
        let keys = self.runs.iter_mut().filter_map(|run| run.peek().map(|(key, _)| key));
        let least = keys.min()?.clone();
        let mut newest = None;
        for run in &mut self.runs {
            let pair = run.next_if(|(key, _)| *key == least);
            newest = newest.or(pair);
        }
        self.runs.retain_mut(|run| run.peek().is_some());
        newest
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ops::ControlFlow;

    use proptest::prelude::*;
    use tidemark_store_core::Writes;
    use tidemark_store_core::key::{
        AckKey, BlockKey, Collected, EntryKey, Key, MailboxKey, OutRecordKey,
    };
    use tidemark_store_core::memory::MemoryState;
    use tidemark_store_core::value::OutSeq;
    use tidemark_types::{Recipient, Seq, SessionId, ShardId, UserId};

    use super::*;

    /// What names begin with: no first bytes of keys tell them apart.
    const COMMON: &str = "somebody-of-a-large-company-";

    fn pairs(state: &dyn Read) -> Vec<(Vec<u8>, Vec<u8>)> {
        between(state, &[0], &[u8::MAX])
    }

    fn between(state: &dyn Read, from: &[u8], to: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut pairs = Vec::new();
        let mut visit = |key: &[u8], value: &[u8]| {
            pairs.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        };
        state.scan(from, to, &mut visit).expect("memory");
        pairs
    }

    /// Keys of all three places: heads, entries of three mailboxes, acknowledgements, an outbox, and blocks.
    fn key(number: u8) -> KeyBytes {
        let user = |number: u8| UserId::new(format!("{COMMON}{number}")).expect("a name");
        let mailbox = |number: u8| Recipient::User(user(number % 3));
        match number {
            0..6 => MailboxKey { mailbox: mailbox(number) }.encode(),
            6..24 => {
                let seq = Seq::new(u32::from(number / 3) * if number < 20 { 1 } else { 40 });
                EntryKey { mailbox: mailbox(number), seq }.encode()
            }
            24..32 => {
                let session = SessionId::new(1).expect("not 0");
                AckKey { user: user(number % 2), session, n: number.into() }.encode()
            }
            32..40 => OutRecordKey { shard: ShardId::new(1), out_seq: OutSeq::new(number.into()) }
                .encode(),
            _ => BlockKey { user: user(0), sender: user(number) }.encode(),
        }
    }

    /// Some are in place, others are not.
    fn bytes(value: u8) -> ValueBytes {
        vec![value; [1, 38, 39, 100][usize::from(value % 4)]].into()
    }

    /// What may follow on a state: keys of logs are written once, and deleted once; an outbox's in order.
    fn legal(number: u8, value: Option<u8>, model: &MemoryState, gone: &mut BTreeSet<u8>) -> bool {
        if !(6..40).contains(&number) {
            return true;
        }
        let is_there = |number| model.get(&key(number)).expect("memory").is_some();
        let was_there = |number| is_there(number) || gone.contains(&number);
        let is_there = is_there(number);
        match value {
            Some(_) if number >= 32 => !(number..40).any(was_there),
            Some(_) => !was_there(number),
            None => is_there && gone.insert(number),
        }
    }

    proptest! {
        /// Writes, looks that last, and spills of what was there a while ago, in any order: what is
        /// read is what one map would hold, and a look stays as it was.
        #[test]
        fn layers_read_as_one_map_and_a_look_stays_as_it_was(
            steps in proptest::collection::vec(
                (0..6u8, proptest::collection::btree_map(0..48u8, any::<Option<u8>>(), 0..8)), 1..60,
            ),
        ) {
            let mut database = MemoryState::default();
            let mut model = MemoryState::default();
            let mut pending = Pending::default();
            let mut gone = BTreeSet::new();
            let mut looks = Vec::new();
            for (kind, changes) in steps {
                match kind {
                    0 => looks.push((pending.layers(), pairs(&model))),
                    1 => drop(looks.pop()),
                    2 => {
                        // Looks at the database below are RocksDB's snapshots: not here.
                        looks.clear();
                        let layers = pending.layers();
                        let all = super::changes(&layers, &[0], &[u8::MAX]);
                        let all: Vec<_> = all.collect();
                        prop_assert!(all.is_sorted_by(|one, next| one.0 < next.0));
                        let all = all.into_iter();
                        database.write(
                            all.map(|(key, value)| (KeyBytes::new(&key), value.cloned())).collect(),
                        );
                        pending.spilled(layers.len());
                        prop_assert_eq!(pending.bytes(), 0);
                    }
                    _ => {
                        let mut writes = Writes::default();
                        for (number, value) in changes {
                            if legal(number, value, &model, &mut gone) {
                                writes.insert(key(number), value.map(bytes));
                            }
                        }
                        model.write(writes.clone());
                        pending.write(writes);
                    }
                }
                let layers = pending.layers();
                let now = Over { layers: &layers, below: &database };
                prop_assert_eq!(pairs(&now), pairs(&model));
                for number in 0..48 {
                    let is = now.get(&key(number)).expect("memory");
                    prop_assert_eq!(is, model.get(&key(number)).expect("memory"));
                    let mut bounds = [key(number), key(number.saturating_add(9))];
                    bounds.sort_unstable_by(|one, other| one.cmp(other));
                    let [from, to] = &bounds;
                    prop_assert_eq!(between(&now, from, to), between(&model, from, to));
                }
                for (layers, then) in &looks {
                    prop_assert_eq!(&pairs(&Over { layers, below: &database }), then);
                }
            }
        }
    }

    #[test]
    fn what_nobody_looks_at_is_one_layer_and_counts_its_bytes() {
        let mut pending = Pending::default();
        let write = |pending: &mut Pending, number: u8, value: &'static [u8]| {
            let value = Some(ValueBytes::copy_of(value));
            pending.write([Change { key: key(number), value }]);
        };
        let numbers = [0, 1, 2, 41, 42, 43, 44, 45];
        write(&mut pending, 0, b"ten bytes.");
        let one = pending.bytes();
        for number in numbers {
            write(&mut pending, number, b"ten bytes.");
            write(&mut pending, number, b"2b");
        }
        assert_eq!(pending.layers.len(), 1);
        let all = numbers.map(|number| one - key(0).len() - 8 + key(number).len());
        assert_eq!(pending.bytes(), all.into_iter().sum::<usize>());
        let look = pending.layers();
        write(&mut pending, 1, b"x");
        assert_eq!(pending.layers.len(), 2, "the look keeps the first");
        drop(look);
        for number in numbers {
            write(&mut pending, number, b"y");
        }
        assert_eq!(pending.layers.len(), 1, "put together again");
    }

    /// Nobody may look here.
    struct Closed;

    impl Read for Closed {
        fn get(&self, key: &KeyBytes) -> Result<Option<ValueBytes>, StorageError> {
            panic!("{key:?} is asked for")
        }

        fn scan(&self, from: &[u8], _: &[u8], _: &mut Visit<'_>) -> Result<(), StorageError> {
            panic!("what comes from {from:?} on is asked for")
        }
    }

    #[test]
    fn an_outbox_of_which_the_first_record_is_here_is_read_here() {
        let mut pending = Pending::default();
        for number in 33..36 {
            pending
                .write([Change { key: key(number), value: Some(ValueBytes::copy_of(b"record")) }]);
        }
        let layers = pending.layers();
        let now = Over { layers: &layers, below: Closed };
        assert_eq!(between(&now, &key(34), &key(39)).len(), 2);
        let missing = std::panic::catch_unwind(|| between(&now, &key(32), &key(39)));
        missing.expect_err("32 may lie below");
    }

    #[test]
    fn what_was_written_and_deleted_before_anybody_saw_it_is_no_change() {
        let mut pending = Pending::default();
        for number in 24..32 {
            pending.write([Change { key: key(number), value: Some(ValueBytes::copy_of(b"ack")) }]);
        }
        for number in 24..31 {
            pending.write([Change { key: key(number), value: None }]);
        }
        let layers = pending.layers();
        let left: Vec<_> = changes(&layers, &[0], &[u8::MAX]).collect();
        assert_eq!(left, [(Collected::from_slice(&key(31)), Some(&ValueBytes::copy_of(b"ack")))]);
        pending.write([Change { key: key(31), value: None }]);
        let layers = pending.layers();
        let above = changes(&layers[1..], &[0], &[u8::MAX]);
        assert_eq!(above.map(|(_, value)| value).collect::<Vec<_>>(), [None], "a look has seen it");
    }
}
