//! openraft's own conformance suite, on RocksDB: our log and our state machine.

use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;

use super::*;
use crate::effects::Dispatch;
use crate::raft::log::LogThread;
use crate::raft::machine::Machine;
use crate::raft::types::TypeConfig;
use crate::storage::{LogDb, StateDb};

struct Builder;

/// The thread goes first, so that the database is closed before its folder is removed.
type Guard = (LogThread, TempDir);

impl StoreBuilder<TypeConfig, GroupLog, Machine, Guard> for Builder {
    async fn build(&self) -> Result<(Guard, GroupLog, Machine), StorageError<TypeConfig>> {
        let folder = TempDir::new().expect("a folder");
        let db = LogDb::create(&folder.path().join("log")).expect("a new log");
        let (store, writer) = LogStore::open(db, LogOptions::default()).expect("an empty log");
        let thread = writer.spawn().expect("a thread");
        let log = store.group(group(1));
        log.allow_late_start();
        let state = StateDb::create(&folder.path().join("state")).expect("a new state");
        let machine =
            Machine::open(state, group(1), Arc::new(Dispatch::default())).expect("an empty state");
        Ok(((thread, folder), log, machine))
    }
}

#[test]
fn the_log_store_keeps_openrafts_contract() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let result = runtime.block_on(Suite::test_all(Builder));
    result.expect("the suite passes");
}
