//! Real files: reopened, torn, and damaged.

use std::fs;
use std::path::{Path, PathBuf};

use openraft::RaftLogReader;
use openraft::storage::RaftLogStorage;
use tempfile::TempDir;

use super::*;
use crate::raft::log::{RecoverError, survey};
use crate::storage::SegmentLog;

/// Writes entries one commit each, a vote and a commit mark, and goes away without a shutdown.
fn fill(path: &Path, entries: std::ops::Range<u64>) {
    let opened = LogStore::open(segments(path), LogOptions::default());
    let (store, mut writer) = opened.expect("an intact log");
    let mut log = store.group(group(7));
    let saving = save_vote(log.clone(), vote(4, 2));
    for index in entries {
        append(&mut log, vec![entry(4, index, 200)]);
        assert!(writer.step().expect("a good disk"));
    }
    now(saving).expect("saved");
    now(log.save_committed(Some(log_id(4, 1)))).expect("queued");
    assert!(writer.step().expect("a good disk"));
}

fn reopen(path: &Path) -> Result<(LogStore, LogWriter<SegmentLog>), String> {
    let log = SegmentLog::open(path, 2_000).map_err(|error| error.to_string())?;
    LogStore::open(log, LogOptions::default()).map_err(|error| error.to_string())
}

/// The files of the log, the oldest first.
fn files(path: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(path).expect("a folder").flatten().map(|file| file.path());
    let mut files: Vec<PathBuf> =
        files.filter(|file| file.extension().is_some_and(|found| found == "log")).collect();
    files.sort();
    files
}

fn newest(path: &Path) -> PathBuf {
    files(path).pop().expect("a segment")
}

#[test]
fn a_reopened_log_is_as_it_was() {
    let folder = TempDir::new().expect("a folder");
    let path = create_segments(folder.path());
    fill(&path, 0..10);
    fill(&path, 10..20);
    let (store, mut writer) = reopen(&path).expect("an intact log");
    assert_eq!(store.groups(), [group(7)]);
    let mut log = store.group(group(7));
    assert_eq!(now(log.read_vote()).ok(), Some(Some(vote(4, 2))));
    assert_eq!(now(log.read_committed()).ok(), Some(Some(log_id(4, 1))));
    let entries = now(log.try_get_log_entries(..)).expect("readable");
    assert_eq!(entries, (0..20).map(|index| entry(4, index, 200)).collect::<Vec<_>>());
    now(log.purge(log_id(4, 4))).expect("queued");
    now(log.truncate_after(Some(log_id(4, 17)))).expect("queued");
    assert!(writer.step().expect("a good disk"));
    drop((store, writer, log));
    let summary = survey(&SegmentLog::open_read_only(&path).expect("intact")).expect("intact");
    assert_eq!(summary.len(), 1);
    assert_eq!(summary[0].purged, Some(log_id(4, 4)));
    assert_eq!(summary[0].last, Some(log_id(4, 17)));
    assert_eq!(summary[0].entries, 13);
}

#[test]
fn looking_at_a_log_changes_nothing() {
    let folder = TempDir::new().expect("a folder");
    let path = create_segments(folder.path());
    fill(&path, 0..10);
    let look = || {
        let files = fs::read_dir(&path).expect("a folder").flatten();
        let mut files: Vec<_> = files
            .map(|file| (file.file_name(), fs::read(file.path()).expect("readable")))
            .collect();
        files.sort();
        files
    };
    let before = look();
    let summary = survey(&SegmentLog::open_read_only(&path).expect("intact")).expect("intact");
    assert_eq!(summary[0].entries, 10);
    assert!(look() == before, "the folder has changed");
}

#[test]
fn a_torn_tail_opens_without_its_last_record() {
    let folder = TempDir::new().expect("a folder");
    let path = create_segments(folder.path());
    fill(&path, 0..10);
    let newest = newest(&path);
    let whole = SegmentLog::written(&newest).expect("a segment");
    // The last record is the commit mark, the one before the last entry: tear both.
    let torn = fs::OpenOptions::new().write(true).open(&newest).expect("a file");
    torn.set_len(whole as u64 - 100).expect("shorter");
    drop(torn);
    let (store, _writer) = reopen(&path).expect("a torn tail is no damage");
    let entries = now(store.group(group(7)).try_get_log_entries(..)).expect("readable");
    assert_eq!(entries.len(), 9);
}

#[test]
fn zeros_behind_the_last_record_are_no_damage() {
    let folder = TempDir::new().expect("a folder");
    let path = create_segments(folder.path());
    fill(&path, 0..10);
    let newest = newest(&path);
    let mut bytes = fs::read(&newest).expect("readable");
    // Space that was allocated ahead of what was written.
    bytes.resize(bytes.len() + 4096, 0);
    fs::write(&newest, bytes).expect("writable");
    let (store, _writer) = reopen(&path).expect("no damage");
    let entries = now(store.group(group(7)).try_get_log_entries(..)).expect("readable");
    assert_eq!(entries.len(), 10);
}

#[test]
fn damage_in_an_older_segment_refuses() {
    let folder = TempDir::new().expect("a folder");
    let path = create_segments(folder.path());
    fill(&path, 0..20);
    let segments = files(&path);
    assert!(segments.len() > 2, "{segments:?}");
    refuses_with_a_flipped_bit(&path, &segments[0]);
}

#[test]
fn damage_in_the_middle_of_the_newest_segment_refuses() {
    let folder = TempDir::new().expect("a folder");
    let path = create_segments(folder.path());
    fill(&path, 0..20);
    refuses_with_a_flipped_bit(&path, &newest(&path));
}

fn refuses_with_a_flipped_bit(path: &Path, file: &Path) {
    let mut bytes = fs::read(file).expect("readable");
    let middle = SegmentLog::written(file).expect("a segment") / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).expect("writable");
    let refused = reopen(path).err().expect("a flipped bit must not open");
    assert!(refused.contains("is damaged"), "{refused}");
}

/// A disk with entries 0 to 9 of term 2, durable, with their vote and a commit mark.
fn lying_disk() -> Disk {
    let disk = Disk::default();
    let (store, mut writer) = open(&disk, LogOptions::default());
    let mut log = store.group(group(7));
    let saving = save_vote(log.clone(), vote(2, 2));
    append(&mut log, (0..10).map(|index| entry(2, index, 10)).collect());
    now(log.save_committed(Some(log_id(2, 9)))).expect("queued");
    assert!(writer.step().expect("a good disk"));
    now(saving).expect("saved");
    disk
}

fn refusal(disk: &Disk) -> RecoverError {
    match LogStore::open(disk.clone(), LogOptions::default()) {
        Ok(_) => panic!("a damaged log was opened"),
        Err(error) => error,
    }
}

#[test]
fn a_missing_entry_refuses_and_is_named() {
    for (index, next) in [(0, 1), (5, 6)] {
        let disk = lying_disk();
        disk.lose_entry(group(7), index);
        let refused = refusal(&disk);
        assert!(
            matches!(refused, RecoverError::Hole { expected, found, .. } if (expected, found) == (index, next)),
            "{refused}"
        );
    }
}

#[test]
fn committed_entries_missing_at_the_end_refuse() {
    let disk = lying_disk();
    disk.lose_entry(group(7), 9);
    let refused = refusal(&disk);
    assert!(matches!(refused, RecoverError::CommittedLost { committed: 9, .. }), "{refused}");
}

/// A mark beyond the log comes with a snapshot, and is not kept: after a crash before the purge the
/// log would not reach it.
#[test]
fn a_commit_mark_beyond_the_log_is_not_kept() {
    let disk = Disk::default();
    let (store, mut writer) = open(&disk, LogOptions::default());
    let mut log = store.group(group(7));
    now(log.save_committed(Some(log_id(2, 9)))).expect("taken");
    let _ = writer.step().expect("a good disk");
    assert_eq!(now(log.read_committed()).expect("readable"), None);
    assert!(LogStore::open(disk, LogOptions::default()).is_ok());
}

#[test]
fn a_lost_vote_refuses() {
    let disk = lying_disk();
    disk.lose_vote(group(7));
    let refused = refusal(&disk);
    assert!(matches!(refused, RecoverError::VoteLags { term: 2, vote: 0, .. }), "{refused}");
}
