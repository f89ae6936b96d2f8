//! openraft's own conformance suite: our log, on files and on the simulated disk, and our state
//! machine.

use std::path::Path;
use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;

use super::*;
use crate::effects::Dispatch;
use crate::raft::log::LogThread;
use crate::raft::machine::Machine;
use crate::raft::types::TypeConfig;
use crate::storage::{LogBackend, StateDb};

/// Creates the log's disk in a folder.
struct Builder<B>(fn(&Path) -> B);

/// The thread goes first, so that the log is closed before its folder is removed.
type Guard = (LogThread, TempDir);

impl<B: LogBackend> StoreBuilder<TypeConfig, GroupLog, Machine, Guard> for Builder<B> {
    async fn build(&self) -> Result<(Guard, GroupLog, Machine), StorageError<TypeConfig>> {
        let folder = TempDir::new().expect("a folder");
        let disk = (self.0)(folder.path());
        let (store, writer) = LogStore::open(disk, LogOptions::default()).expect("an empty log");
        let thread = writer.spawn().expect("a thread");
        let log = store.group(group(1));
        log.allow_late_start();
        let state = StateDb::create(&folder.path().join("state")).expect("a new state");
        let machine =
            Machine::open(state, group(1), Arc::new(Dispatch::default())).expect("an empty state");
        Ok(((thread, folder), log, machine))
    }
}

fn keeps_openrafts_contract<B: LogBackend>(create: fn(&Path) -> B) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let result = runtime.block_on(Suite::test_all(Builder(create)));
    result.expect("the suite passes");
}

#[test]
fn the_log_store_keeps_openrafts_contract() {
    keeps_openrafts_contract(|folder| segments(&create_segments(folder)));
}

#[test]
fn on_the_simulated_disk_it_keeps_the_same_contract() {
    keeps_openrafts_contract(|_| Disk::default());
}
