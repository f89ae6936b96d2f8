//! The log store against openraft's conformance suite, crashes, failures and damage.

mod crash;
mod damage;
#[cfg(feature = "failpoints")]
mod failpoints;
mod group_commit;
mod reads;
mod suite;

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::FutureExt;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::vote::RaftLeaderId;
use tokio::sync::oneshot;

use super::codec::log_id;
use super::{GroupLog, LogOptions, LogStore, LogWriter};
use crate::raft::types::{Entry, EntryPayload, GroupId, LeaderId, Payload, TypeConfig, Vote};
use crate::storage::{SegmentLog, SimulatedDisk as Disk};

type Flushed = oneshot::Receiver<io::Result<()>>;

fn group(number: u32) -> GroupId {
    GroupId::new(number)
}

/// An entry whose content says where it belongs.
fn entry(term: u64, index: u64, bytes: usize) -> Entry {
    let mut body = vec![0xa5; bytes];
    let mark = term.to_be_bytes();
    let at = bytes.min(mark.len());
    body[..at].copy_from_slice(&mark[..at]);
    Entry { log_id: log_id(term, index), payload: EntryPayload::Normal(Payload(Bytes::from(body))) }
}

fn vote(term: u64, replica: u64) -> Vote {
    Vote { leader_id: LeaderId::new(term, replica), committed: false }
}

/// Creates a log in files; where.
fn create_segments(folder: &Path) -> PathBuf {
    let path = folder.join("log");
    SegmentLog::create(&path).expect("a new log");
    path
}

/// Opens a log in files so short that a test fills several of them.
fn segments(path: &Path) -> SegmentLog {
    SegmentLog::open(path, 2_000).expect("an intact log")
}

fn open(disk: &Disk, options: LogOptions) -> (LogStore, LogWriter<Disk>) {
    disk.note_commits();
    LogStore::open(disk.clone(), options).expect("an intact disk")
}

/// Runs a future that must not wait for anything.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("nothing to wait for")
}

/// A callback for an append, and where it is heard.
fn callback() -> (IOFlushed<TypeConfig>, Flushed) {
    let (sender, receiver) = TypeConfig::oneshot();
    (IOFlushed::signal(sender), receiver)
}

/// Appends without waiting for the disk.
fn append(log: &mut GroupLog, entries: Vec<Entry>) -> Flushed {
    let (flushed, receiver) = callback();
    now(log.append(entries, flushed)).expect("in order");
    receiver
}

/// Queues a vote, and waits for the disk.
fn save_vote(mut log: GroupLog, vote: Vote) -> impl Future<Output = io::Result<()>> + Unpin {
    let mut saving = Box::pin(async move { log.save_vote(&vote).await });
    assert!(saving.as_mut().now_or_never().is_none(), "it is not on disk yet");
    saving
}

/// What a callback has said by now.
fn said(flushed: &mut Flushed) -> Option<Result<(), io::ErrorKind>> {
    let said = flushed.try_recv().ok()?;
    Some(said.map_err(|error| error.kind()))
}
