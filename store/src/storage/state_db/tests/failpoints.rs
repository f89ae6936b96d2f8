//! Crashes while a generation is installed. The named points are global to the process: run as
//! those of the log are (`store/src/raft/log/tests/failpoints.rs`).

use super::*;

/// What a crash left has these pairs at this position, and nothing of another generation.
fn left(crashed: &TempDir, pairs: &[(&[u8], &[u8])], applied: &[u8]) {
    let db = StateDb::open(crashed.path()).expect("it opens");
    holds(&db, A, pairs, applied);
    assert_eq!(rows(&db), pairs.len() + 1, "the pairs and the position");
}

#[test]
#[ignore = "failpoints are global: run it alone"]
fn a_crash_during_an_install_leaves_the_old_state_and_one_after_it_the_new_one() {
    let scenario = fail::FailScenario::setup();
    let (dir, db) = create();
    let state = dir.path().join("state");
    write(&db, A, &[(&[2], b"old"), (&[3], b"old")], b"one");
    let new = staged(&db, A, &[(&[2], b"new")], b"two");
    let [ready, flipped, installed] = [(); 3].map(|()| TempDir::new().expect("a folder"));
    for (point, at) in [("store-install-staged", &ready), ("store-install-flipped", &flipped)] {
        let (state, to) = (state.clone(), at.path().to_owned());
        fail::cfg_callback(point, move || crash(&state, &to)).expect("a point's name");
    }
    db.group(A).install(new).expect("an install");
    scenario.teardown();
    crash(&state, installed.path());

    left(&ready, &[(&[2], b"old"), (&[3], b"old")], b"one");
    // Which generation is live was written, and did not reach the disk.
    left(&flipped, &[(&[2], b"old"), (&[3], b"old")], b"one");
    left(&installed, &[(&[2], b"new")], b"two");
}
