//! Many groups, one fsync; and the end after a failed one.

use openraft::RaftLogReader;
use openraft::storage::RaftLogStorage;

use super::*;
use crate::raft::log::Failure;
use crate::storage::Change;

#[test]
fn appends_of_all_groups_become_one_commit() {
    let disk = Disk::default();
    let (store, mut writer) = open(&disk, LogOptions::default());
    let mut flushed = Vec::new();
    for index in 0..5 {
        for number in 0..20 {
            let mut log = store.group(group(number));
            flushed.push(append(&mut log, vec![entry(1, index, 100)]));
        }
    }
    assert!(flushed.iter_mut().all(|flushed| said(flushed).is_none()));
    assert_eq!(disk.commits().len(), 0);
    assert!(writer.step().expect("a good disk"));
    assert!(flushed.iter_mut().all(|flushed| said(flushed) == Some(Ok(()))));
    let commits = disk.commits();
    assert_eq!(commits.len(), 1);
    assert!(commits[0].durable);
    assert_eq!(commits[0].writes.len(), 100);
    assert!(!writer.step().expect("nothing to do"));
}

#[test]
fn acknowledgements_follow_the_queue_batch_by_batch() {
    let disk = Disk::default();
    // An append of 1000 bytes closes a batch.
    let options = LogOptions { batch_bytes_max: 500, ..LogOptions::default() };
    let (store, mut writer) = open(&disk, options);
    let mut flushed = Vec::new();
    for index in 0..3 {
        for number in 0..2 {
            let mut log = store.group(group(number));
            flushed.push(append(&mut log, vec![entry(1, index, 1000)]));
        }
    }
    for done in 1..=flushed.len() {
        assert!(writer.step().expect("a good disk"));
        assert_eq!(said(&mut flushed[done - 1]), Some(Ok(())));
        assert!(flushed[done..].iter_mut().all(|flushed| said(flushed).is_none()));
    }
    for number in 0..2 {
        let of_group = disk.commits().into_iter().flat_map(|batch| batch.writes);
        let of_group = of_group.filter(|write| write.group == group(number));
        let indexes: Vec<u64> = of_group
            .filter_map(|write| match write.change {
                Change::Entry { index, .. } => Some(index),
                _ => None,
            })
            .collect();
        assert_eq!(indexes, [0, 1, 2]);
    }
}

#[test]
fn a_vote_is_durable_behind_what_was_queued_before_it() {
    let disk = Disk::default();
    let (store, mut writer) = open(&disk, LogOptions::default());
    let mut log = store.group(group(1));
    let mut flushed = append(&mut log, vec![entry(0, 0, 10)]);
    let saving = save_vote(log.clone(), vote(3, 1));
    assert_eq!(now(log.read_vote()).ok(), Some(None));
    assert!(writer.step().expect("a good disk"));
    assert_eq!(said(&mut flushed), Some(Ok(())));
    now(saving).expect("saved");
    assert_eq!(now(log.read_vote()).ok(), Some(Some(vote(3, 1))));
    let (reopened, _writer) = open(&disk.after_power_cut(0), LogOptions::default());
    let mut log = reopened.group(group(1));
    assert!(now(log.save_vote(&vote(2, 9))).is_err(), "an older vote");
    assert!(now(log.save_vote(&vote(3, 2))).is_err(), "another vote of this term");
}

#[test]
fn lazy_operations_need_no_fsync_of_their_own() {
    let disk = Disk::default();
    let (store, mut writer) = open(&disk, LogOptions::default());
    let mut log = store.group(group(1));
    append(&mut log, (0..4).map(|index| entry(0, index, 10)).collect());
    assert!(writer.step().expect("a good disk"));
    now(log.save_committed(Some(log_id(0, 2)))).expect("queued");
    now(log.purge(log_id(0, 1))).expect("queued");
    now(log.truncate_after(Some(log_id(0, 2)))).expect("queued");
    assert!(writer.step().expect("a good disk"));
    let durable: Vec<bool> = disk.commits().iter().map(|batch| batch.durable).collect();
    assert_eq!(durable, [true, false]);
}

#[test]
fn nothing_is_acknowledged_after_a_failed_commit() {
    let disk = Disk::default();
    disk.fail_at(1);
    let options = LogOptions { batch_bytes_max: 500, ..LogOptions::default() };
    let (store, mut writer) = open(&disk, options);
    let failed = store.failed();
    let mut log = store.group(group(1));
    let mut flushed: Vec<Flushed> =
        (0..3).map(|index| append(&mut log, vec![entry(0, index, 1000)])).collect();
    let saving = save_vote(store.group(group(2)), vote(1, 1));
    writer.step().expect("the first commit is good");
    assert!(failed.borrow().is_none());
    writer.step().expect_err("the second is not");
    assert_eq!(said(&mut flushed[0]), Some(Ok(())));
    for flushed in &mut flushed[1..] {
        assert_eq!(said(flushed), Some(Err(io::ErrorKind::StorageFull)));
    }
    assert!(now(saving).is_err());
    assert!(matches!(&*failed.borrow(), Some(Failure::Io(_))));
    let (late, mut receiver) = callback();
    let late = now(log.append([entry(0, 3, 10)], late));
    assert_eq!(late.map_err(|error| error.kind()), Err(io::ErrorKind::StorageFull));
    assert!(said(&mut receiver).is_none());
    assert!(!writer.step().expect("nothing is left"));
    assert_eq!(disk.commits().len(), 1, "nothing is retried");
}

#[test]
fn a_writer_that_goes_away_fails_the_log() {
    let (store, writer) = open(&Disk::default(), LogOptions::default());
    let mut log = store.group(group(1));
    let mut flushed = append(&mut log, vec![entry(0, 0, 10)]);
    drop(writer);
    assert_eq!(said(&mut flushed), Some(Err(io::ErrorKind::BrokenPipe)));
    assert!(matches!(&*store.failed().borrow(), Some(Failure::WriterGone)));
}

#[test]
fn a_full_queue_makes_senders_wait_until_the_disk_has_caught_up() {
    let options = LogOptions { queue_bytes_max: 2_000, ..LogOptions::default() };
    let (store, mut writer) = open(&Disk::default(), options);
    let mut log = store.group(group(1));
    append(&mut log, vec![entry(0, 0, 1_500)]);
    let mut other = store.group(group(2));
    let (flushed, _receiver) = callback();
    // Larger than the whole queue: it gets all of it, alone.
    let mut waiting = Box::pin(other.append([entry(0, 0, 5_000)], flushed));
    assert!(waiting.as_mut().now_or_never().is_none());
    writer.step().expect("a good disk");
    now(waiting).expect("room");
}

#[test]
fn shutting_down_writes_what_is_queued_and_takes_no_more() {
    let disk = Disk::default();
    let (store, writer) = open(&disk, LogOptions::default());
    let mut log = store.group(group(1));
    let mut flushed = append(&mut log, vec![entry(0, 0, 10)]);
    let thread = writer.spawn().expect("a thread");
    thread.shut_down().expect("drained");
    assert_eq!(said(&mut flushed), Some(Ok(())));
    let (late, _receiver) = callback();
    assert!(now(log.append([entry(0, 1, 10)], late)).is_err());
    assert!(store.failed().borrow().is_none(), "a shutdown is no failure");
    let (reopened, _writer) = open(&disk.after_power_cut(0), LogOptions::default());
    assert_eq!(reopened.groups(), [group(1)]);
}
