//! The named points at which a test makes a commit fail. They are global to the process, so this
//! test runs alone:
//! `cargo test --release --workspace --features tidemark-store/failpoints --lib failpoints -- --ignored`

use super::*;
use crate::raft::log::Failure;

#[test]
#[ignore = "failpoints are global: run it alone"]
fn a_failpoint_around_the_commit_fails_the_log() {
    for (point, commits) in [("store_log_before_commit", 0), ("store_log_after_commit", 1)] {
        let scenario = fail::FailScenario::setup();
        let disk = Disk::default();
        let (store, mut writer) = open(&disk, LogOptions::default());
        let mut log = store.group(group(1));
        let mut flushed = append(&mut log, vec![entry(0, 0, 10)]);
        fail::cfg(point, "return(broken)").expect("a known action");
        writer.step().expect_err("the failpoint is on");
        assert!(matches!(said(&mut flushed), Some(Err(_))), "{point}");
        assert!(matches!(&*store.failed().borrow(), Some(Failure::Io(_))));
        assert_eq!(disk.commits().len(), commits, "{point}");
        scenario.teardown();
    }
}
