//! The segments against the simulated disk, across restarts; torn ends, and damage of every kind.

use std::os::unix::fs::MetadataExt as _;

use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;

use super::super::{
    Change, ENTRY_HEAD_BYTES, EntryValue, GroupId, GroupMarks, LogWrite, SimulatedDisk,
};
use super::sectors::{CONTENT, SECTOR};
use super::*;

/// Small, so that a few batches fill one.
const SMALL: usize = 2_000;

/// So large that nothing here fills one.
const LARGE: usize = 256 << 10;

const A: GroupId = GroupId::new(1);

fn folder() -> (TempDir, PathBuf) {
    let dir = TempDir::new().expect("a folder");
    let path = dir.path().join("log");
    (dir, path)
}

fn entry(index: u64, body: &[u8]) -> Change {
    let value = EntryValue { head: [7; ENTRY_HEAD_BYTES], body: Bytes::copy_from_slice(body) };
    Change::Entry { index, value }
}

fn batch(group: GroupId, changes: Vec<Change>) -> LogBatch {
    let writes = changes.into_iter().map(|change| LogWrite { group, change }).collect();
    LogBatch { writes, durable: true }
}

/// A group with all that can be read of it.
type Contents = (GroupId, GroupMarks, Vec<(u64, Bytes)>);

/// Everything that can be read.
fn all(reads: &dyn LogReads) -> Vec<Contents> {
    let groups = reads.groups().expect("readable");
    let read = |group| {
        let entries = reads.entries(group, 0..u64::MAX, usize::MAX).expect("readable");
        (group, reads.marks(group).expect("readable"), entries)
    };
    groups.into_iter().map(read).collect()
}

/// A log with entries 1 to 20 of one group, in one segment.
fn filled(path: &Path) {
    SegmentLog::create(path).expect("a new log");
    let mut log = SegmentLog::open(path, LARGE).expect("it opens");
    for index in 1..=20 {
        log.commit(batch(A, vec![entry(index, &[index as u8; 700])])).expect("written");
    }
}

fn new(path: &Path, segment_bytes: usize) -> SegmentLog {
    SegmentLog::create(path).expect("a new log");
    SegmentLog::open(path, segment_bytes).expect("it opens")
}

fn segment(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let file = segment_path(path, 1);
    let mut bytes = fs::read(&file).expect("a segment");
    change(&mut bytes);
    fs::write(&file, bytes).expect("written");
}

/// Where the records of the first segment begin, and where the last one ends.
fn records(path: &Path) -> Vec<usize> {
    let bytes = fs::read(segment_path(path, 1)).expect("a segment");
    let content = Content::of(1, bytes).expect("marked");
    let mut at = vec![record::SEGMENT_HEAD];
    while let Some(found) = record::at(&content.bytes, 1, *at.last().expect("one")) {
        at.push(found.end);
    }
    at
}

/// Where in its file a segment's content at `at` is.
fn in_file(at: usize) -> usize {
    at / CONTENT * SECTOR + at % CONTENT
}

/// Whole pages that an older segment wrote.
fn old_pages(bytes: usize) -> Vec<u8> {
    let mut pages = Vec::new();
    sectors::seal(&vec![0xA5; bytes / SECTOR * CONTENT], 0, &mut pages);
    pages
}

fn refusal(path: &Path) -> SegmentLogError {
    SegmentLog::open(path, LARGE).err().expect("it refuses")
}

/// What the first segment is refused for, by a node and by an offline look.
fn damage(path: &Path) -> LogDamage {
    let look = SegmentLog::open_read_only(path).err().expect("it refuses");
    match (refusal(path), look) {
        (
            SegmentLogError::Damaged { path: file, damage },
            SegmentLogError::Damaged { damage: seen, .. },
        ) => {
            assert_eq!(file, segment_path(path, 1));
            assert_eq!(damage, seen);
            damage
        }
        refused => panic!("{refused:?}"),
    }
}

fn last(path: &Path) -> u64 {
    let log = SegmentLog::open(path, LARGE).expect("it opens");
    let entries = log.reads().entries(A, 0..u64::MAX, usize::MAX).expect("readable");
    entries.last().expect("some").0
}

/// What a power cut does to a segment.
type Tear<'a> = &'a dyn Fn(&mut Vec<u8>);

#[test]
fn what_a_power_cut_leaves_of_the_last_record_is_cut_off_and_the_log_goes_on() {
    let (_dir, path) = folder();
    filled(&path);
    let whole = fs::read(segment_path(&path, 1)).expect("a segment");
    let at = records(&path);
    let (from, to) = (at[at.len() - 2], at[at.len() - 1]);
    let (first, last_sector) = (from / CONTENT * SECTOR, (to - 1) / CONTENT * SECTOR);
    assert!(from % CONTENT > 0 && first + SECTOR < last_sector, "it shares a sector, and has more");
    let (shared, end) = (in_file(from)..first + CONTENT, last_sector + SECTOR);
    let old = &old_pages(1 << 12)[..SECTOR];
    let torn: [Tear<'_>; 8] = [
        // A sector of its body was never written, by nobody or by this segment.
        &|bytes| bytes[first + SECTOR..first + 2 * SECTOR].fill(0),
        &|bytes| bytes[first + SECTOR..first + 2 * SECTOR].copy_from_slice(old),
        &|bytes| bytes[last_sector..end].copy_from_slice(old),
        // Its head was not, all but its end was not, nothing was.
        &|bytes| bytes[shared.clone()].fill(0),
        &|bytes| {
            bytes[shared.clone()].fill(0);
            bytes[first + SECTOR..last_sector].fill(0);
        },
        &|bytes| {
            bytes[shared.clone()].fill(0);
            bytes[first + SECTOR..].fill(0);
        },
        // The file ends within it.
        &|bytes| bytes.truncate(last_sector),
        &|bytes| bytes.truncate(last_sector + 100),
    ];
    for (number, tear) in torn.into_iter().enumerate() {
        segment(&path, |bytes| tear(bytes));
        let look = SegmentLog::open_read_only(&path).expect("an offline look takes it as well");
        assert_eq!(look.entries(A, 0..u64::MAX, usize::MAX).expect("readable").len(), 19);
        assert_eq!(last(&path), 19, "{number}");
        assert_eq!(last(&path), 19, "{number}: and it stays so");
        let mut log = SegmentLog::open(&path, LARGE).expect("it opens");
        log.commit(batch(A, vec![entry(20, b"another")])).expect("written");
        drop(log);
        assert_eq!(last(&path), 20);
        fs::write(segment_path(&path, 1), &whole).expect("as before");
    }
}

#[test]
fn a_flipped_bit_refuses_wherever_it_is() {
    let (_dir, path) = folder();
    filled(&path);
    let mut at = records(&path);
    let whole = fs::read(segment_path(&path, 1)).expect("a segment");
    let end = at.pop().expect("one");
    for place in (0..in_file(end)).step_by(7) {
        segment(&path, |bytes| bytes[place] ^= 4);
        let (sector, inside) = (place / SECTOR, place % SECTOR);
        let begins = at.iter().rfind(|at| **at <= sector * CONTENT + inside);
        let expected = match begins {
            _ if inside >= CONTENT => LogDamage::Sector { at: sector },
            None => LogDamage::Head,
            Some(&record::SEGMENT_HEAD) => LogDamage::Checkpoint,
            Some(&at) => LogDamage::Record { at },
        };
        assert_eq!(damage(&path), expected, "{place}");
        fs::write(segment_path(&path, 1), &whole).expect("as before");
    }
    assert_eq!(last(&path), 20);
}

/// Zeros that were written are no hole: with a flipped bit beside them the record is damaged, not torn.
#[test]
fn zeros_in_a_message_do_not_hide_a_flipped_bit() {
    let (_dir, path) = folder();
    let mut log = new(&path, LARGE);
    log.commit(batch(A, vec![entry(1, &[0; 5_000])])).expect("written");
    drop(log);
    let at = records(&path)[1];
    segment(&path, |bytes| bytes[in_file(at + 2_000)] ^= 1);
    assert_eq!(damage(&path), LogDamage::Record { at });
    segment(&path, |bytes| bytes[in_file(at + 2_000)] ^= 1);
    assert_eq!(last(&path), 1);
}

#[test]
fn zeros_where_something_was_synced_refuse() {
    let (_dir, path) = folder();
    filled(&path);
    let at = records(&path);
    let sector = (at[9] / CONTENT + 1) * SECTOR;
    segment(&path, |bytes| bytes[sector..sector + SECTOR].fill(0));
    assert_eq!(damage(&path), LogDamage::Record { at: at[9] });
}

#[test]
fn an_older_segment_cannot_be_torn() {
    let (_dir, path) = folder();
    let mut log = new(&path, SMALL);
    for index in 1..=20 {
        log.commit(batch(A, vec![entry(index, &[index as u8; 700])])).expect("written");
    }
    drop(log);
    let at = records(&path);
    let last_record = at[at.len() - 2];
    let next_sector = (last_record / CONTENT + 1) * SECTOR;
    segment(&path, |bytes| bytes.truncate(next_sector));
    assert_eq!(damage(&path), LogDamage::Record { at: last_record });
    segment(&path, |bytes| bytes[in_file(last_record)..next_sector - 8].fill(0));
    let refused = refusal(&path);
    assert!(
        matches!(
            refused,
            SegmentLogError::Damaged {
                damage: LogDamage::Contradiction(Contradiction::Span { .. }),
                ..
            }
        ),
        "{refused}"
    );
}

#[test]
fn files_that_are_missing_or_of_another_format_refuse() {
    let (_dir, path) = folder();
    assert!(matches!(refusal(&path), SegmentLogError::Io { .. }), "there is none");
    filled(&path);
    assert!(matches!(SegmentLog::create(&path), Err(SegmentLogError::Exists { .. })));
    let whole = fs::read(segment_path(&path, 1)).expect("a segment");
    fs::remove_file(segment_path(&path, 1)).expect("removed");
    assert_eq!(damage(&path), LogDamage::Missing);
    fs::write(segment_path(&path, 1), whole).expect("as before");

    let manifest = path.join(manifest::MANIFEST);
    let whole = fs::read(&manifest).expect("it is there");
    fs::remove_file(&manifest).expect("removed");
    assert!(matches!(refusal(&path), SegmentLogError::NoManifest { .. }));
    fs::write(path.join("CURRENT"), "MANIFEST-000004\n").expect("written");
    assert!(matches!(refusal(&path), SegmentLogError::Database { .. }));
    assert!(matches!(SegmentLog::create(&path), Err(SegmentLogError::Database { .. })));
    fs::remove_file(path.join("CURRENT")).expect("removed");
    for at in 0..whole.len() {
        let mut broken = whole.clone();
        broken[at] ^= 1;
        fs::write(&manifest, broken).expect("written");
        assert!(
            matches!(refusal(&path), SegmentLogError::Damaged { damage: LogDamage::Checksum, .. }),
            "{at}"
        );
    }
    fs::write(&manifest, &whole[..20]).expect("written");
    let length = LogDamage::Length { bytes: 20, want: 24 };
    assert!(matches!(refusal(&path), SegmentLogError::Damaged { damage, .. } if damage == length));
    let mut newer = whole.clone();
    newer[8] += 1;
    let crc = crc32fast::hash(&newer[..20]);
    newer[20..].copy_from_slice(&crc.to_le_bytes());
    fs::write(&manifest, newer).expect("written");
    let newer = manifest::FORMAT_VERSION + 1;
    assert!(
        matches!(refusal(&path), SegmentLogError::UnknownFormat { found, .. } if found == newer)
    );
    fs::write(&manifest, whole).expect("as before");
    assert_eq!(last(&path), 20);
}

#[test]
fn only_one_process_opens_it_and_a_look_needs_no_lock() {
    let (_dir, path) = folder();
    filled(&path);
    let open = SegmentLog::open(&path, LARGE).expect("it opens");
    assert!(matches!(refusal(&path), SegmentLogError::InUse { .. }));
    assert!(SegmentLog::open_read_only(&path).is_ok());
    drop(open);
    assert!(SegmentLog::open(&path, LARGE).is_ok());
}

/// What an interrupted change of segments left is nobody's.
#[test]
fn a_segment_that_the_manifest_does_not_name_is_removed() {
    let (_dir, path) = folder();
    filled(&path);
    // A new file, and an old one whose name was changed.
    for left in [b"TIDE".to_vec(), fs::read(segment_path(&path, 1)).expect("a segment")] {
        fs::write(segment_path(&path, 2), left).expect("written");
        assert_eq!(last(&path), 20);
        assert!(!segment_path(&path, 2).exists());
    }
}

/// A group whose every entry is needed until the next one is there.
struct Lonely {
    log: SegmentLog,
    index: u64,
}

impl Lonely {
    fn write_until(&mut self, is_done: impl Fn(&SegmentLog) -> bool) {
        while !is_done(&self.log) {
            self.index += 1;
            assert!(self.index < 1_000, "it never comes");
            let range = self.index - 1..self.index;
            let purge = Change::Purge { range, mark: Bytes::from_static(b"mark") };
            self.log.commit(batch(A, vec![entry(self.index, &[7; 300]), purge])).expect("written");
        }
    }
}

fn inode(path: &Path, number: u32) -> u64 {
    fs::metadata(segment_path(path, number)).expect("a segment").ino()
}

#[test]
fn a_file_that_is_not_needed_becomes_a_later_segments() {
    let (_dir, path) = folder();
    let mut lonely = Lonely { log: new(&path, SMALL), index: 0 };
    // Open, so that no new file has its number.
    let (_open, first) =
        (File::open(segment_path(&path, 1)).expect("it is there"), inode(&path, 1));
    lonely.write_until(|log| log.newest.number == 4);
    assert!(
        (2..=4).any(|number| segment_path(&path, number).exists() && inode(&path, number) == first)
    );
    lonely.write_until(|log| log.newest.number == 30);
    let files = fs::read_dir(&path).expect("a folder").count();
    assert!(files <= SPARES + 4, "{files}: the newest, the manifest, and the lock as well");
    let index = lonely.index;
    drop(lonely);
    assert_eq!(last(&path), index);
}

#[test]
fn a_file_that_is_read_from_is_not_written_over() {
    let (_dir, path) = folder();
    let mut lonely = Lonely { log: new(&path, SMALL), index: 0 };
    let first = File::open(segment_path(&path, 1)).expect("it is there");
    let before = sectors::read_at(&first, 1, 0..record::SEGMENT_HEAD).expect("readable");
    let (read, _in_use) =
        (inode(&path, 1), lonely.log.reads.index.read().segments[&1].in_use.clone());
    lonely.write_until(|log| log.newest.number == 9);
    let numbers = 1..=9;
    let files = numbers.filter(|number| segment_path(&path, *number).exists());
    assert!(files.clone().count() > 1);
    assert!(files.into_iter().all(|number| inode(&path, number) != read));
    assert_eq!(sectors::read_at(&first, 1, 0..record::SEGMENT_HEAD).expect("readable"), before);
}

/// A manifest that is older than the segments would have what was acknowledged removed.
#[test]
fn a_segment_that_was_written_to_and_is_not_named_refuses() {
    let (_dir, path) = folder();
    let mut log = new(&path, SMALL);
    let first = fs::read(path.join(manifest::MANIFEST)).expect("a manifest");
    let mut index = 1;
    while !segment_path(&path, 2).exists() {
        log.commit(batch(A, vec![entry(index, &[1; 300])])).expect("written");
        index += 1;
    }
    for index in index..index + 2 {
        log.commit(batch(A, vec![entry(index, &[1; 300])])).expect("written");
    }
    drop(log);
    let right = fs::read(path.join(manifest::MANIFEST)).expect("a manifest");
    fs::write(path.join(manifest::MANIFEST), first).expect("written");
    let unnamed = |refusal: &SegmentLogError| {
        matches!(refusal, SegmentLogError::Damaged { damage: LogDamage::Unnamed, .. })
    };
    assert!(unnamed(&refusal(&path)));
    fs::write(path.join(manifest::MANIFEST), right).expect("as before");
    assert_eq!(last(&path), index + 1);
}

/// As where the disk was full, so that there was no next segment.
#[test]
fn a_start_lets_go_of_what_is_not_needed() {
    let (_dir, path) = folder();
    let mut log = new(&path, SMALL);
    for index in 1..100 {
        log.commit(batch(A, vec![entry(index, &[1; 300])])).expect("written");
    }
    let purge = Change::Purge { range: 1..99, mark: Bytes::from_static(b"mark") };
    log.commit(batch(A, vec![purge])).expect("written");
    drop(log);
    assert!(segment_path(&path, 1).exists());
    assert_eq!(last(&path), 99);
    assert!(!segment_path(&path, 1).exists());
    assert_eq!(last(&path), 99);
}

/// A second fsync may succeed without having written what the first one failed to.
#[test]
fn after_one_failure_nothing_is_taken() {
    let (_dir, path) = folder();
    let mut log = new(&path, SMALL);
    let far = entry(9, b"behind nothing");
    log.commit(batch(A, vec![entry(1, b"first"), far])).expect_err("there is a hole before it");
    log.commit(batch(A, vec![entry(2, b"second")])).expect_err("it has failed");
}

#[test]
fn an_empty_batch_is_no_error() {
    let (_dir, path) = folder();
    new(&path, SMALL).commit(LogBatch::default()).expect("nothing to do");
}

#[test]
fn a_group_that_writes_seldom_does_not_keep_all_segments() {
    let (_dir, path) = folder();
    let mut log = new(&path, SMALL);
    let (seldom, often) = (GroupId::new(1), GroupId::new(2));
    // More than is copied at once.
    let kept = (1..10).map(|index| entry(index, &[7; SMALL / 10])).collect();
    log.commit(batch(seldom, kept)).expect("written");
    for index in 1..500 {
        log.commit(batch(often, vec![entry(index, &[0; 300])])).expect("written");
        let purge = Change::Purge { range: index..index + 1, mark: Bytes::from_static(b"mark") };
        log.commit(batch(often, vec![purge])).expect("written");
    }
    let files = fs::read_dir(&path).expect("a folder").count();
    // Eight times what is needed, and what is more than files.
    assert!(files <= SEGMENTS_FEW + COPIED_PART + 4, "{files}");
    let is = all(&*log.reads());
    drop(log);
    let log = SegmentLog::open(&path, SMALL).expect("it opens");
    assert_eq!(all(&*log.reads()), is);
    assert_eq!(log.reads().entries(seldom, 0..99, usize::MAX).expect("readable").len(), 9);
}

/// What a group may do next, which only the model knows exactly.
#[derive(Clone, Debug)]
enum Act {
    Vote(u8),
    Committed(u8),
    Append(u8, u16),
    Truncate(u8),
    Purge(u8),
    Reopen,
}

fn act() -> impl Strategy<Value = (u8, Act)> {
    let act = prop_oneof![
        1 => any::<u8>().prop_map(Act::Vote),
        1 => any::<u8>().prop_map(Act::Committed),
        8 => (1..4u8, 0..900u16).prop_map(|(count, bytes)| Act::Append(count, bytes)),
        1 => (0..4u8).prop_map(Act::Truncate),
        3 => (0..6u8).prop_map(Act::Purge),
        1 => Just(Act::Reopen),
    ];
    (0..3u8, act)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Any changes and restarts, over many small segments: all that is read is what the simulated disk says.
    #[test]
    fn segments_hold_what_the_simulated_disk_holds(
        acts in proptest::collection::vec(act(), 1..120),
    ) {
        let (_dir, path) = folder();
        let mut log = new(&path, SMALL);
        let mut model = SimulatedDisk::default();
        // Of each group the first entry that may be there, and the one after the last.
        let mut spans = [1..1u64, 1..1, 1..1];
        for (number, act) in acts {
            let group = GroupId::new(number.into());
            let span = &mut spans[usize::from(number)];
            let mark = |byte: u8| Bytes::from(vec![byte; 20]);
            let changes = match act {
                Act::Vote(byte) => vec![Change::Vote(mark(byte))],
                Act::Committed(byte) => vec![Change::Committed(mark(byte))],
                Act::Append(count, bytes) => {
                    let from = span.end;
                    span.end += u64::from(count);
                    (from..span.end).map(|at| entry(at, &vec![at as u8; bytes.into()])).collect()
                }
                Act::Truncate(count) => {
                    let from = span.end.saturating_sub(count.into()).max(span.start);
                    let range = from..span.end;
                    span.end = from;
                    vec![Change::Truncate { range }]
                }
                Act::Purge(count) => {
                    let range = span.start..(span.start + u64::from(count)).min(span.end);
                    span.start = range.end;
                    vec![Change::Purge { mark: mark(range.end as u8), range }]
                }
                Act::Reopen => {
                    drop(log);
                    let look = SegmentLog::open_read_only(&path).expect("it opens");
                    prop_assert_eq!(all(&look), all(&*model.reads()));
                    log = SegmentLog::open(&path, SMALL).expect("it opens");
                    continue;
                }
            };
            model.commit(batch(group, changes.clone())).expect("in memory");
            log.commit(batch(group, changes)).expect("written");
            prop_assert_eq!(all(&*log.reads()), all(&*model.reads()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    /// Of what was not synced any sectors reach the disk, each as it was after any of the commits, and the
    /// file is as long as it likes: all that was synced is there, and a first part of the rest.
    #[test]
    fn a_power_cut_leaves_what_was_synced_and_a_first_part_of_the_rest(
        synced in 0..5u64,
        pending in proptest::collection::vec(0..2_500usize, 1..5),
        versions in proptest::collection::vec(any::<prop::sample::Index>(), 32),
        length in any::<prop::sample::Index>(),
        behind in 0..3usize,
    ) {
        let (_dir, path) = folder();
        let mut log = new(&path, LARGE);
        // Messages of zeros among them, of which whole sectors may be missing.
        let body = |index: u64, bytes: usize| vec![(index % 3) as u8; bytes];
        for index in 1..=synced {
            log.commit(batch(A, vec![entry(index, &body(index, 900))])).expect("written");
        }
        let file = segment_path(&path, 1);
        let mut start = fs::read(&file).expect("a segment");
        let end = sectors::file_len(records(&path).pop().expect("one")) as usize;
        match behind {
            // The file grows, is filled with zeros, or an older segment's.
            0 => start.truncate(end),
            1 => {}
            _ => start.splice(end.., old_pages(LARGE)).for_each(drop),
        }
        fs::write(&file, &start).expect("written");
        let mut images = vec![fs::read(&file).expect("a segment")];
        for (index, bytes) in (synced + 1..).zip(&pending) {
            let lazy = LogBatch { durable: false, ..batch(A, vec![entry(index, &body(index, *bytes))]) };
            log.commit(lazy).expect("written");
            images.push(fs::read(&file).expect("a segment"));
        }
        drop(log);
        let (kept, whole) = (images[0].len(), images[images.len() - 1].len());
        let mut left = vec![0; whole.next_multiple_of(SECTOR)];
        for (number, sector) in left.chunks_mut(SECTOR).enumerate() {
            let image = versions[number % versions.len()].get(&images);
            let there = image.get(SECTOR * number..).unwrap_or_default();
            let bytes = there.len().min(SECTOR);
            sector[..bytes].copy_from_slice(&there[..bytes]);
        }
        left.truncate(kept + length.index(whole - kept + 1));
        fs::write(&file, left).expect("written");

        let look = SegmentLog::open_read_only(&path).expect("a power cut is no damage");
        let seen = all(&look);
        let mut log = SegmentLog::open(&path, LARGE).expect("a power cut is no damage");
        prop_assert_eq!(seen, all(&*log.reads()));
        let found = log.reads().entries(A, 0..u64::MAX, usize::MAX).expect("readable");
        let upto = found.len() as u64;
        prop_assert!(upto >= synced, "{upto} of {synced}");
        for ((index, found), expected) in found.iter().zip(1..) {
            let bytes = match expected <= synced {
                true => 900,
                false => pending[(expected - synced - 1) as usize],
            };
            prop_assert_eq!(*index, expected);
            prop_assert_eq!(&found[ENTRY_HEAD_BYTES..], &body(expected, bytes));
        }
        log.commit(batch(A, vec![entry(upto + 1, b"goes on")])).expect("written");
        drop(log);
        prop_assert_eq!(last(&path), upto + 1);
    }
}

#[test]
fn only_the_lack_of_room_is_passed_over_while_a_segment_is_filled() {
    use rustix::io::Errno;
    for (errno, passes) in [
        (Errno::NOSPC, true),
        (Errno::DQUOT, true),
        (Errno::OPNOTSUPP, true),
        (Errno::IO, false),
        (Errno::ROFS, false),
    ] {
        assert_eq!(newest::is_no_room(&errno.into()), passes, "{errno}");
    }
}
