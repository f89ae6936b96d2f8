//! What is read comes from memory, from the disk, or from both; never with a gap.

use futures::StreamExt;
use openraft::RaftLogReader;
use openraft::storage::RaftLogStorage;

use super::*;

/// Keeps about three of the entries that these tests append.
const SMALL_TAIL: LogOptions = LogOptions {
    queue_bytes_max: 1 << 20,
    batch_bytes_max: 1 << 20,
    tail_bytes_max: 600,
    read_bytes_max: 400,
};

/// A log of `count` entries, most of which are on disk only.
fn log_of(disk: &Disk, count: u64) -> (LogStore, LogWriter<Disk>, GroupLog) {
    log_of_term(disk, 0, count)
}

fn log_of_term(disk: &Disk, term: u64, count: u64) -> (LogStore, LogWriter<Disk>, GroupLog) {
    let (store, mut writer) = open(disk, SMALL_TAIL);
    let mut log = store.group(group(1));
    append(&mut log, (0..count).map(|index| entry(term, index, 100)).collect());
    writer.step().expect("a good disk");
    (store, writer, log)
}

fn indexes(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.log_id.index).collect()
}

fn all(log: &mut GroupLog) -> Vec<u64> {
    indexes(&now(log.try_get_log_entries(..)).expect("readable"))
}

#[test]
fn a_full_read_joins_disk_and_memory() {
    let disk = Disk::default();
    let (_store, _writer, mut log) = log_of(&disk, 20);
    assert_eq!(all(&mut log), (0..20).collect::<Vec<_>>());
    let some = now(log.try_get_log_entries(15..=18)).expect("readable");
    assert_eq!(indexes(&some), [15, 16, 17, 18]);
    assert!(now(log.try_get_log_entries(20..30)).expect("readable").is_empty());
}

#[test]
fn entries_are_readable_before_they_are_durable() {
    let disk = Disk::default();
    let (_store, _writer, mut log) = log_of(&disk, 20);
    append(&mut log, vec![entry(0, 20, 10_000)]);
    let mut reader = now(log.get_log_reader());
    let last = now(reader.try_get_log_entries(19..)).expect("readable");
    assert_eq!(indexes(&last), [19, 20]);
}

#[test]
fn a_limited_read_stops_at_its_budget_but_never_before_the_first() {
    let disk = Disk::default();
    let (_store, _writer, mut log) = log_of(&disk, 20);
    append(&mut log, vec![entry(0, 20, 10_000)]);
    for (start, end, want) in [(0, 20, 3), (17, 20, 2), (20, 21, 1), (3, 3, 0)] {
        let some = now(log.limited_get_log_entries(start, end)).expect("readable");
        let want: Vec<u64> = (start..start + want).collect();
        assert_eq!(indexes(&some), want, "from {start}");
    }
    now(log.purge(log_id(0, 4))).expect("queued");
    let purged = now(log.limited_get_log_entries(3, 9)).expect("readable");
    assert!(purged.is_empty(), "a later entry would be a hole in the follower's log");
}

#[test]
fn a_stream_gives_all_entries_in_small_reads() {
    let disk = Disk::default();
    let (_store, _writer, mut log) = log_of(&disk, 20);
    let stream = now(log.entries_stream(2..));
    let entries: Vec<_> = now(stream.collect());
    let entries: Result<Vec<Entry>, _> = entries.into_iter().collect();
    assert_eq!(indexes(&entries.expect("readable")), (2..20).collect::<Vec<_>>());
}

#[test]
fn truncated_entries_are_gone_though_the_disk_still_has_them() {
    let disk = Disk::default();
    let (_store, mut writer, mut log) = log_of(&disk, 20);
    now(log.truncate_after(Some(log_id(0, 4)))).expect("queued");
    assert_eq!(all(&mut log), [0, 1, 2, 3, 4]);
    append(&mut log, vec![entry(2, 5, 100), entry(2, 6, 100)]);
    assert_eq!(all(&mut log), [0, 1, 2, 3, 4, 5, 6]);
    writer.step().expect("a good disk");
    let last = now(log.try_get_log_entries(4..)).expect("readable");
    assert_eq!(last[1].log_id, log_id(2, 5));
}

#[test]
fn an_append_that_was_truncated_before_it_was_written_is_not_taken_for_its_successor() {
    let disk = Disk::default();
    let options = LogOptions { tail_bytes_max: 0, batch_bytes_max: 1, ..LogOptions::default() };
    let (store, mut writer) = open(&disk, options);
    let mut log = store.group(group(1));
    append(&mut log, vec![entry(1, 0, 100), entry(1, 1, 100)]);
    now(log.truncate_after(Some(log_id(1, 0)))).expect("queued");
    append(&mut log, vec![entry(2, 1, 100)]);
    for _ in 0..4 {
        let entries = now(log.try_get_log_entries(..)).expect("readable");
        let ids: Vec<_> = entries.iter().map(|entry| entry.log_id).collect();
        assert_eq!(ids, [log_id(1, 0), log_id(2, 1)]);
        writer.step().expect("a good disk");
    }
}

#[test]
fn purging_moves_the_start_even_beyond_the_end() {
    let disk = Disk::default();
    let (_store, _writer, mut log) = log_of(&disk, 5);
    now(log.purge(log_id(0, 2))).expect("queued");
    now(log.purge(log_id(0, 1))).expect("nothing to do");
    assert_eq!(all(&mut log), [3, 4]);
    now(log.purge(log_id(3, 50))).expect("queued");
    assert!(all(&mut log).is_empty());
    let state = now(log.get_log_state()).expect("known");
    assert_eq!(state.last_purged_log_id, Some(log_id(3, 50)));
    assert_eq!(state.last_log_id, Some(log_id(3, 50)));
    append(&mut log, vec![entry(3, 51, 10)]);
    assert_eq!(all(&mut log), [51]);
}

#[test]
fn requests_that_would_break_the_log_are_refused() {
    let disk = Disk::default();
    let (_store, _writer, mut log) = log_of(&disk, 5);
    let mut refused = |entries: Vec<Entry>| {
        let (flushed, _receiver) = callback();
        now(log.append(entries, flushed)).is_err()
    };
    assert!(refused(vec![entry(0, 6, 1)]), "a hole");
    assert!(refused(vec![entry(0, 4, 1)]), "there already");
    assert!(refused(vec![entry(2, 5, 1), entry(1, 6, 1)]), "a term that falls");
    now(log.purge(log_id(0, 2))).expect("queued");
    assert!(now(log.truncate_after(Some(log_id(0, 1)))).is_err(), "into what is purged");
    assert!(now(log.truncate_after(Some(log_id(9, 3)))).is_err(), "behind an unknown entry");
    assert_eq!(all(&mut log), [3, 4], "all or nothing");
}

#[test]
fn a_read_during_which_the_log_changes_shows_one_log() {
    let disk = Disk::default();
    let (_store, _writer, mut log) = log_of(&disk, 20);
    let mut other = log.clone();
    disk.during_read(move || {
        now(other.truncate_after(Some(log_id(0, 4)))).expect("queued");
        append(&mut other, vec![entry(2, 5, 100)]);
    });
    let entries = now(log.try_get_log_entries(..)).expect("readable");
    assert_eq!(indexes(&entries), [0, 1, 2, 3, 4, 5]);
    assert_eq!(entries[5].log_id, log_id(2, 5));
    let mut other = log.clone();
    disk.during_read(move || now(other.purge(log_id(0, 2))).expect("queued"));
    assert_eq!(all(&mut log), [3, 4, 5]);
}

#[test]
fn an_entry_lost_on_disk_is_an_error_not_a_short_read() {
    let disk = Disk::default();
    let (_store, _writer, mut log) = log_of(&disk, 20);
    disk.lose_entry(group(1), 5);
    assert!(now(log.try_get_log_entries(3..8)).is_err());
    assert!(now(log.limited_get_log_entries(5, 8)).is_err());
    let entries: Vec<_> = now(now(log.entries_stream(0..)).collect());
    let good = entries.iter().take_while(|entry| entry.is_ok()).count();
    assert!((1..=5).contains(&good));
    assert_eq!(entries.len(), good + 1, "the error ends it");
}

#[test]
fn a_log_that_begins_anew_does_so_in_one_step() {
    let disk = Disk::default();
    let options = LogOptions { batch_bytes_max: 1, ..LogOptions::default() };
    let (store, mut writer) = open(&disk, options);
    let mut log = store.group(group(1));
    append(&mut log, (0..10).map(|index| entry(5, index, 100)).collect());
    now(log.save_committed(Some(log_id(5, 9)))).expect("queued");
    while writer.step().expect("a good disk") {}
    now(log.catch_up(Some(log_id(6, 20)))).expect("queued");
    // A crash behind the first commit: the log opens, and begins behind the state.
    assert!(writer.step().expect("a good disk"));
    let (reopened, _writer) = open(&disk.after_power_cut(usize::MAX), options);
    assert_eq!(reopened.group(group(1)).purged(), Some(log_id(6, 20)));
}

/// What a fallen leader left is behind what was applied since, whatever its terms are.
#[test]
fn a_log_without_the_applied_entry_begins_anew_behind_it() {
    for (applied, purged) in [
        (None, None),
        (Some(log_id(5, 3)), None),
        (Some(log_id(5, 9)), None),
        // Already purged.
        (Some(log_id(5, 1)), Some(log_id(5, 2))),
    ] {
        let disk = Disk::default();
        let (_store, _writer, mut log) = log_of_term(&disk, 5, 10);
        if let Some(upto) = purged {
            now(log.purge(upto)).expect("queued");
        }
        let before = all(&mut log);
        now(log.catch_up(applied)).expect("nothing to do");
        assert_eq!(all(&mut log), before, "{applied:?}");
    }
    // Ahead of it, and another entry in the same place, of a lower and of a higher term.
    for applied in [log_id(4, 20), log_id(6, 20), log_id(4, 9), log_id(6, 9), log_id(6, 3)] {
        for purged in [None, Some(log_id(5, 1))] {
            let disk = Disk::default();
            let (_store, _writer, mut log) = log_of_term(&disk, 5, 10);
            if let Some(upto) = purged {
                now(log.purge(upto)).expect("queued");
            }
            now(log.catch_up(Some(applied))).expect("queued");
            let state = now(log.get_log_state()).expect("readable");
            assert_eq!(state.last_log_id, Some(applied));
            assert_eq!(state.last_purged_log_id, Some(applied));
            append(&mut log, vec![entry(7, applied.index + 1, 100)]);
            assert_eq!(all(&mut log), [applied.index + 1]);
        }
    }
}
