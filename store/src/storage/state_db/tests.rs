//! The state database alone: generations, snapshots' moments, bounds, refusals.

#[cfg(feature = "failpoints")]
mod failpoints;

use std::ops::ControlFlow;

use proptest::prelude::*;
use tempfile::TempDir;
use tidemark_store_core::key::Kind;
use tidemark_types::ShardId;

use super::*;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

const A: GroupId = GroupId::shard(ShardId::new(0));
const B: GroupId = GroupId::shard(ShardId::new(1));

fn create() -> (TempDir, StateDb) {
    let dir = TempDir::new().expect("a folder");
    let db = StateDb::create(&dir.path().join("state")).expect("a new state");
    (dir, db)
}

/// As after a crash behind a flush: every handle is gone, and nobody closed anything.
fn reopen(dir: &TempDir, db: StateDb) -> StateDb {
    db.flush().expect("a flush");
    drop(db);
    StateDb::open(&dir.path().join("state")).expect("it opens again")
}

/// Copies what a crash leaves: what lies in the state's folder now. A close would flush.
fn crash(state: &Path, to: &Path) {
    for entry in std::fs::read_dir(state).expect("a folder") {
        let entry = entry.expect("a file");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
    }
}

fn write(db: &StateDb, group: GroupId, pairs: &[(&[u8], &[u8])], applied: &[u8]) {
    let pairs = pairs.iter().map(|(key, value)| {
        (KeyBytes::new(key), Some(ValueBytes::copy_of(value)).filter(|value| !value.is_empty()))
    });
    db.group(group).write(pairs.collect(), applied).expect("a write");
}

fn staged(db: &StateDb, group: GroupId, pairs: &[(&[u8], &[u8])], applied: &[u8]) -> Staging {
    let staging = db.stage(group);
    let applied: (&[u8], &[u8]) = (&[Kind::Applied as u8], applied);
    staging.put([applied].into_iter().chain(pairs.iter().copied())).expect("a write");
    staging
}

/// What a crash leaves of it.
fn left_behind(mut staging: Staging) {
    staging.installed = true;
}

fn pairs(view: &dyn Read, from: &[u8], to: &[u8]) -> Pairs {
    let mut pairs = Vec::new();
    let mut visit = |key: &[u8], value: &[u8]| {
        pairs.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    };
    view.scan(from, to, &mut visit).expect("a scan");
    pairs
}

/// A group's pairs and its applied position.
fn state(db: &StateDb, group: GroupId) -> (Pairs, Option<ValueBytes>) {
    let all = |applied, view: &dyn Read| (pairs(view, &[2], &[u8::MAX]), applied);
    db.read(group, all).expect("a read")
}

fn holds(db: &StateDb, group: GroupId, pairs: &[(&[u8], &[u8])], applied: &[u8]) {
    let pairs: Pairs = pairs.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    assert_eq!(state(db, group), (pairs, Some(ValueBytes::copy_of(applied))));
}

/// How many rows there are of any group and generation, all written out.
fn rows(db: &StateDb) -> usize {
    // A database that is only looked at has nothing to write out, and refuses.
    let _ = db.flush();
    let mut rows = db.inner.db.raw_iterator();
    let mut count = 0;
    rows.seek([DATA]);
    while rows.valid() {
        count += 1;
        rows.next();
    }
    count
}

#[test]
fn what_was_written_is_there_with_its_position_after_a_flush() {
    let (dir, db) = create();
    assert_eq!(state(&db, A), (Vec::new(), None));
    write(&db, A, &[(&[2], b"x"), (&[3], b"y")], b"one");
    write(&db, A, &[(&[2], b""), (&[4], b"z")], b"two");
    let db = reopen(&dir, db);
    holds(&db, A, &[(&[3], b"y"), (&[4], b"z")], b"two");
    let group = db.group(A);
    assert_eq!(group.applied().expect("a read"), Some(ValueBytes::copy_of(b"two")));
    assert_eq!(
        group.reader().get(&KeyBytes::new(&[3])).expect("a read"),
        Some(ValueBytes::copy_of(b"y"))
    );
    assert_eq!(group.reader().get(&KeyBytes::new(&[2])).expect("a read"), None);
}

#[test]
fn without_a_flush_an_older_state_is_there_with_its_own_position() {
    let (dir, db) = create();
    write(&db, A, &[(&[2], b"x")], b"one");
    db.flush().expect("a flush");
    write(&db, A, &[(&[2], b"y"), (&[3], b"y")], b"two");
    let crashed = TempDir::new().expect("a folder");
    crash(&dir.path().join("state"), crashed.path());
    holds(&StateDb::open(crashed.path()).expect("it opens"), A, &[(&[2], b"x")], b"one");
    holds(&db, A, &[(&[2], b"y"), (&[3], b"y")], b"two");
}

#[test]
fn a_generation_that_was_not_installed_is_gone_after_a_restart() {
    let (dir, db) = create();
    write(&db, A, &[(&[2], b"old")], b"one");
    left_behind(staged(&db, A, &[(&[9], b"new")], b"two"));
    holds(&db, A, &[(&[2], b"old")], b"one");
    assert_eq!(rows(&db), 4, "a pair and a position, and both staged");
    let db = reopen(&dir, db);
    holds(&db, A, &[(&[2], b"old")], b"one");
    assert_eq!(rows(&db), 2);
}

#[test]
fn an_installed_generation_is_the_state_and_the_old_one_is_gone() {
    let (dir, db) = create();
    write(&db, A, &[(&[2], b"old"), (&[3], b"old")], b"one");
    write(&db, B, &[(&[2], b"other")], b"b");
    let mut group = db.group(A);
    let new = staged(&db, A, &[(&[2], b"new")], b"nine");
    assert_eq!(new.applied().expect("a read"), Some(ValueBytes::copy_of(b"nine")));
    group.install(new).expect("an install");
    holds(&db, A, &[(&[2], b"new")], b"nine");
    // Its owner goes on in the new one.
    let more = [(KeyBytes::new(&[5]), Some(ValueBytes::copy_of(b"more")))];
    group.write(Writes::from_iter(more), b"ten").expect("a write");
    drop(group);
    let check = |db: &StateDb| {
        holds(db, A, &[(&[2], b"new"), (&[5], b"more")], b"ten");
        holds(db, B, &[(&[2], b"other")], b"b");
        assert_eq!(rows(db), 5);
    };
    check(&db);
    check(&reopen(&dir, db));
}

#[test]
fn an_install_that_was_given_up_leaves_nothing_to_the_next_one() {
    let (_dir, db) = create();
    drop(staged(&db, A, &[(&[2], b"first"), (&[3], b"first")], b"one"));
    assert_eq!(rows(&db), 0);
    // Given up only after the next one has begun.
    let first = staged(&db, A, &[(&[4], b"first")], b"one");
    let second = staged(&db, A, &[(&[2], b"second")], b"two");
    drop(first);
    db.group(A).install(second).expect("an install");
    holds(&db, A, &[(&[2], b"second")], b"two");
}

#[test]
fn a_read_sees_one_moment_also_while_its_generation_is_replaced() {
    let (_dir, db) = create();
    write(&db, A, &[(&[2], b"old"), (&[3], b"old")], b"one");
    db.read(A, |applied, view| {
        write(&db, A, &[(&[2], b"newer")], b"two");
        let new = staged(&db, A, &[(&[7], b"new")], b"three");
        db.group(A).install(new).expect("an install");
        let old: Pairs = vec![(vec![2], b"old".to_vec()), (vec![3], b"old".to_vec())];
        assert_eq!(pairs(view, &[2], &[u8::MAX]), old);
        assert_eq!(view.get(&KeyBytes::new(&[7])).expect("a read"), None);
        assert_eq!(applied, Some(ValueBytes::copy_of(b"one")));
    })
    .expect("a read");
    holds(&db, A, &[(&[7], b"new")], b"three");
}

#[test]
#[should_panic(expected = "a generation belongs to one group")]
fn a_generation_of_another_group_is_not_installed() {
    let (_dir, db) = create();
    let staging = staged(&db, B, &[(&[2], b"new")], b"one");
    let _ = db.group(A).install(staging);
}

#[test]
fn a_state_is_neither_created_where_one_was_nor_opened_where_none_is() {
    let (dir, db) = create();
    drop(db);
    let path = dir.path().join("state");
    assert!(matches!(StateDb::create(&path), Err(StateDbError::Rocks { .. })));
    let nowhere = dir.path().join("nowhere");
    assert!(matches!(StateDb::open(&nowhere), Err(StateDbError::Rocks { .. })));
    assert!(matches!(StateDb::open_read_only(&nowhere), Err(StateDbError::Rocks { .. })));
}

#[test]
fn another_format_or_none_refuses() {
    let of = |version: u32| version.to_be_bytes().to_vec();
    let (older, newer) = (of(FORMAT_VERSION - 1), of(FORMAT_VERSION + 1));
    let longer = [of(FORMAT_VERSION), vec![0]].concat();
    for found in [None, Some(vec![]), Some(older), Some(newer), Some(longer)] {
        let (dir, db) = create();
        let mut batch = WriteBatch::default();
        match &found {
            Some(bytes) => batch.put(FORMAT_KEY, bytes),
            None => batch.delete(FORMAT_KEY),
        }
        db.write(Step::Stage, batch).expect("a write");
        db.flush().expect("a flush");
        drop(db);
        let path = dir.path().join("state");
        for opened in [StateDb::open(&path), StateDb::open_read_only(&path)] {
            let refused = opened.err().expect("it refuses");
            let StateDbError::Format { found: is, .. } = &refused else { panic!("{refused}") };
            assert_eq!(*is, found);
        }
    }
}

#[test]
fn a_broken_generation_or_key_refuses_by_name() {
    let broken: [(&[u8], &str); 2] = [(&generation_key(A), "a generation"), (&[DATA, 0], "a key")];
    for (key, name) in broken {
        let (dir, db) = create();
        write(&db, A, &[(&[2], b"x")], b"one");
        let mut batch = WriteBatch::default();
        batch.put(key, [1, 2]);
        db.write(Step::Stage, batch).expect("a write");
        db.flush().expect("a flush");
        drop(db);
        let refused = StateDb::open(&dir.path().join("state")).err().expect("it refuses");
        let StateDbError::Malformed { what, .. } = refused else { panic!("{refused}") };
        assert_eq!(what, name);
    }
}

#[test]
fn a_look_at_a_state_writes_nothing() {
    let (dir, db) = create();
    write(&db, A, &[(&[2], b"x")], b"one");
    left_behind(staged(&db, A, &[], b"leftover"));
    db.flush().expect("a flush");
    drop(db);
    let path = dir.path().join("state");
    let look = StateDb::open_read_only(&path).expect("it opens");
    holds(&look, A, &[(&[2], b"x")], b"one");
    assert_eq!(rows(&look), 3, "the leftover is its node's to remove");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// Neighbours in number and generation, and keys of all bytes: nothing leaks.
    #[test]
    fn a_scan_stays_within_its_group_and_bounds(
        keys in proptest::collection::btree_set(proptest::collection::vec(2u8..=254, 1..4), 1..20),
        from in proptest::collection::vec(2u8..=254, 1..3),
        to in proptest::collection::vec(2u8..=254, 0..3),
    ) {
        let (_dir, db) = create();
        let groups = [0, 1, 255, 256, u32::MAX - 1, u32::MAX].map(GroupId::new);
        for group in groups {
            let name = group.to_string();
            let all: Vec<_> = keys.iter().map(|key| (&key[..], name.as_bytes())).collect();
            write(&db, group, &all, name.as_bytes());
            let key = &keys.first().expect("one")[..];
            left_behind(staged(&db, group, &[(key, b"staged")], b"staged"));
        }
        for group in groups {
            let name = group.to_string().into_bytes();
            let wanted = keys.iter().filter(|key| from <= **key && **key < to);
            let wanted: Pairs = wanted.map(|key| (key.clone(), name.clone())).collect();
            let (by_snapshot, applied) =
                db.read(group, |applied, view| (pairs(view, &from, &to), applied)).expect("a read");
            prop_assert_eq!(&by_snapshot, &wanted);
            prop_assert_eq!(applied.as_deref(), Some(name.as_ref()));
            let live = db.group(group);
            prop_assert_eq!(pairs(&live.reader(), &from, &to), wanted);
        }
    }
}

/// A power cut between RocksDB's taking a file in and its removing the first name of it.
#[test]
fn what_is_written_out_never_lands_in_a_part_of_the_database() {
    let (dir, db) = create();
    write(&db, A, &[(b"\x10a", b"1")], b"1");
    let folder = dir.path().join("state");
    let db = reopen(&dir, db);
    let table =
        std::fs::read_dir(&folder).expect("a folder").map(|file| file.expect("a file").path());
    let table = table.filter(|path| path.extension().is_some_and(|extension| extension == "sst"));
    for (number, table) in table.enumerate() {
        std::fs::hard_link(table, spill_file::path(&folder, number)).expect("a link");
    }
    drop(db);
    let db = StateDb::open(&folder).expect("it opens");
    for value in [b"22", b"33"] {
        write(&db, A, &[(b"\x10b", value)], b"2");
        db.flush().expect("a flush");
    }
    let db = reopen(&dir, db);
    let both = [(b"\x10a".to_vec(), b"1".to_vec()), (b"\x10b".to_vec(), b"33".to_vec())];
    db.read(A, |_, view| assert_eq!(pairs(view, b"\x10", b"\x11"), both)).expect("readable");
    let left =
        std::fs::read_dir(&folder).expect("a folder").map(|file| file.expect("a file").file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with("spill")).collect();
    assert_eq!(left, Vec::<std::ffi::OsString>::new());
}
