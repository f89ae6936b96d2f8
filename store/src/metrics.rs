//! The store's metrics: every name, help text, label and bucket is here and nowhere else.
//!
//! Code elsewhere calls these functions; the raw macros are banned there. Labels are bounded: no
//! user, no group of users, no address.
#![expect(clippy::disallowed_macros, reason = "this is the one place where metrics have names")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use tidemark_types::{NodeId, Seq};

mod gauges;

pub(crate) use gauges::{GroupNow, StateNow, group_now, lag_now, state_now, walked, watched_now};

const LOG_FSYNC_SECONDS: &str = "store_log_fsync_seconds";
const LOG_BATCH_ENTRIES: &str = "store_log_batch_entries";
const LOG_QUEUE_BYTES: &str = "store_log_queue_bytes";
const LOG_QUEUE_BYTES_MAX: &str = "store_log_queue_bytes_max";
const LOG_LAZY_WRITES_TOTAL: &str = "store_log_lazy_writes_total";
const LOG_COLD_READS_TOTAL: &str = "store_log_cold_reads_total";
const LOG_FAILURES_TOTAL: &str = "store_log_failures_total";
const ALARMS_TOTAL: &str = "store_alarms_total";
const PROPOSAL_SECONDS: &str = "store_proposal_seconds";
const PROPOSAL_BATCH_COMMANDS: &str = "store_proposal_batch_commands";
const COMMIT_SECONDS: &str = "store_commit_seconds";
const PROPOSALS_REFUSED_TOTAL: &str = "store_proposals_refused_total";
const APPLY_SECONDS: &str = "store_apply_seconds";
const NEARLY_FULL_APPENDS_TOTAL: &str = "store_nearly_full_appends_total";
const RELAY_BATCH_RECORDS: &str = "store_relay_batch_records";
const RELAY_SECONDS: &str = "store_relay_seconds";
const RELAY_FAILURES_TOTAL: &str = "store_relay_failures_total";
const WATCH_SECONDS: &str = "store_watch_seconds";
const WATCH_STREAMS: &str = "store_watch_streams";
const WATCH_DEGRADED_TOTAL: &str = "store_watch_degraded_total";
const TYPING_DROPPED_TOTAL: &str = "store_typing_dropped_total";
const HINTS_LEASED_TOTAL: &str = "store_hints_leased_total";
const HINTS_OUT: &str = "store_hints_out";
const RETAINED_TOTAL: &str = "store_retention_commands_total";
const MAILBOXES: &str = "store_mailboxes";
const MAILBOX_ENTRIES: &str = "store_mailbox_entries";
const MAILBOX_FLOORS: &str = "store_mailbox_floors";
const SEQS_USED_RATIO: &str = "store_mailbox_seqs_used_ratio";
const CLOCK_TRUSTED: &str = "store_clock_trusted";
const CLOCK_OFFSET_SECONDS: &str = "store_clock_offset_seconds";
const DISK_FREE_BYTES: &str = "store_disk_free_bytes";
const DISK_FREE_BYTES_MIN: &str = "store_disk_free_bytes_min";
const PEER_CONNECTED: &str = "store_peer_connected";
const PEER_RECONNECTS_TOTAL: &str = "store_peer_reconnects_total";
const PEER_FRAMES_TOTAL: &str = "store_peer_frames_sent_total";
const PEER_BATCHES_TOTAL: &str = "store_peer_batches_sent_total";
const SNAPSHOT_SECONDS: &str = "store_snapshot_seconds";
const SNAPSHOT_BYTES_TOTAL: &str = "store_snapshot_received_bytes_total";

/// From a fast local commit to what a failover costs, in seconds.
const LATENCY: [f64; 13] =
    [0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// Histograms and their buckets, for whoever builds the exporter.
///
/// An fsync takes 0.1 ms when the disk is idle and some ms under load; over 100 ms the disk is
/// ill. A batch has one entry when idle and some hundreds under load.
pub const BUCKETS: &[(&str, &[f64])] = &[
    (
        LOG_FSYNC_SECONDS,
        &[0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0],
    ),
    (PROPOSAL_SECONDS, &LATENCY),
    (COMMIT_SECONDS, &LATENCY),
    (RELAY_SECONDS, &LATENCY),
    (WATCH_SECONDS, &LATENCY),
    (APPLY_SECONDS, &LATENCY),
    (SNAPSHOT_SECONDS, &[0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0, 1800.0]),
    (RELAY_BATCH_RECORDS, &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]),
    (PROPOSAL_BATCH_COMMANDS, &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]),
    (LOG_BATCH_ENTRIES, &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0]),
];

/// Tells the exporter what each metric means; once, at start.
pub fn describe() {
    describe_log();
    describe_peers();
    describe_shards();
    describe_relay();
    describe_watch();
    describe_clock();
    describe_hints();
    gauges::describe();
    begin_at_zero();
}

/// What never happened is told as 0, so that its first time is seen to be one.
fn begin_at_zero() {
    for counter in [
        LOG_LAZY_WRITES_TOTAL,
        LOG_COLD_READS_TOTAL,
        LOG_FAILURES_TOTAL,
        PROPOSALS_REFUSED_TOTAL,
        NEARLY_FULL_APPENDS_TOTAL,
        RELAY_FAILURES_TOTAL,
        WATCH_DEGRADED_TOTAL,
        TYPING_DROPPED_TOTAL,
        HINTS_LEASED_TOTAL,
        RETAINED_TOTAL,
        PEER_FRAMES_TOTAL,
        PEER_BATCHES_TOTAL,
        SNAPSHOT_BYTES_TOTAL,
    ] {
        counter!(counter).increment(0);
    }
    for kind in ALARMS {
        counter!(ALARMS_TOTAL, "kind" => kind).increment(0);
    }
    gauge!(SEQS_USED_RATIO).set(0.0);
    gauge!(HINTS_OUT).set(0.0);
}

fn describe_hints() {
    describe_counter!(
        HINTS_LEASED_TOTAL,
        Unit::Count,
        "Hints to devices handed out to gateways; one may be handed out again."
    );
    describe_gauge!(HINTS_OUT, Unit::Count, "Hints that gateways have now.");
    describe_counter!(
        RETAINED_TOTAL,
        Unit::Count,
        "Commands that removed from a mailbox what it need not keep."
    );
    describe_gauge!(
        MAILBOXES,
        Unit::Count,
        "Mailboxes of a group that this node led when it last looked through them."
    );
    describe_gauge!(MAILBOX_ENTRIES, Unit::Count, "Entries that these kept, from floor to head.");
    describe_gauge!(
        MAILBOX_FLOORS,
        Unit::Count,
        "Entries that these no longer kept, up to their floors."
    );
    describe_gauge!(
        SEQS_USED_RATIO,
        Unit::Count,
        "How much of its seqs the mailbox has used that got the highest seq since the start; 1 is full for good."
    );
}

fn describe_relay() {
    describe_histogram!(
        RELAY_BATCH_RECORDS,
        Unit::Count,
        "Records for another shard in one batch, of all streams."
    );
    describe_histogram!(
        RELAY_SECONDS,
        Unit::Seconds,
        "From handing such a batch over to the other shard's answer: committed and applied there."
    );
    describe_counter!(
        RELAY_FAILURES_TOTAL,
        Unit::Count,
        "Batches that another shard did not take; they go again."
    );
}

fn describe_watch() {
    describe_histogram!(
        WATCH_SECONDS,
        Unit::Seconds,
        "How long the oldest of what a gateway is told at once has waited since it was applied."
    );
    describe_gauge!(WATCH_STREAMS, Unit::Count, "Streams on which gateways hear of mailboxes.");
    describe_counter!(
        WATCH_DEGRADED_TOTAL,
        Unit::Count,
        "Entries told to a gateway by their head only: large ones, or the gateway is slow."
    );
    describe_counter!(
        TYPING_DROPPED_TOTAL,
        Unit::Count,
        "Times that somebody types and a gateway was not told, since too much waits for it."
    );
}

fn describe_clock() {
    describe_gauge!(
        CLOCK_TRUSTED,
        Unit::Count,
        "0 once this node's wall clock jumped, until an operator trusts it again."
    );
    describe_gauge!(
        CLOCK_OFFSET_SECONDS,
        Unit::Seconds,
        "This node's wall clock against cluster time, at the last measurement."
    );
}

fn describe_peers() {
    describe_gauge!(
        PEER_CONNECTED,
        Unit::Count,
        "1 while there is a connection to the other node of that number."
    );
    describe_counter!(
        PEER_RECONNECTS_TOTAL,
        Unit::Count,
        "Attempts to connect to another node after the first one, by that node."
    );
    describe_counter!(
        PEER_FRAMES_TOTAL,
        Unit::Count,
        "What groups said to other nodes' groups, requests and answers."
    );
    describe_counter!(
        PEER_BATCHES_TOTAL,
        Unit::Count,
        "Messages to other nodes; frames in one share its cost."
    );
    describe_histogram!(
        SNAPSHOT_SECONDS,
        Unit::Seconds,
        "A group's state received from another node, verified and on disk."
    );
    describe_counter!(
        SNAPSHOT_BYTES_TOTAL,
        Unit::Bytes,
        "State received from other nodes because the log no longer reaches back."
    );
}

fn describe_shards() {
    describe_histogram!(
        PROPOSAL_SECONDS,
        Unit::Seconds,
        "From a command's place in the queue to its reply: committed by a majority and applied."
    );
    describe_histogram!(
        COMMIT_SECONDS,
        Unit::Seconds,
        "From handing a log entry to Raft to its replies: committed by a majority and applied."
    );
    describe_histogram!(PROPOSAL_BATCH_COMMANDS, Unit::Count, "Commands in one log entry.");
    describe_counter!(
        PROPOSALS_REFUSED_TOTAL,
        Unit::Count,
        "Clients' commands refused because the shard had too much to do, or the disk too little space."
    );
    describe_histogram!(
        APPLY_SECONDS,
        Unit::Seconds,
        "One round of entries applied and written to the state."
    );
    describe_counter!(
        NEARLY_FULL_APPENDS_TOTAL,
        Unit::Count,
        "Entries of mailboxes that have used nine tenths of their seqs; one that has used all is full for good."
    );
    describe_counter!(
        ALARMS_TOTAL,
        Unit::Count,
        "What must never happen, by kind: a client, a peer or a disk is broken. The log says more."
    );
}

fn describe_log() {
    describe_histogram!(
        LOG_FSYNC_SECONDS,
        Unit::Seconds,
        "One durable commit of the raft log, fsync included."
    );
    describe_histogram!(
        LOG_BATCH_ENTRIES,
        Unit::Count,
        "Entries in one durable commit of the raft log, all groups together."
    );
    describe_gauge!(
        LOG_QUEUE_BYTES,
        Unit::Bytes,
        "Operations of all groups on their way to the raft log, the batch being written included."
    );
    describe_gauge!(LOG_QUEUE_BYTES_MAX, Unit::Bytes, "What these may be.");
    describe_counter!(
        LOG_LAZY_WRITES_TOTAL,
        Unit::Count,
        "Commits of the raft log without an fsync: only purges, truncations and commit marks."
    );
    describe_counter!(
        LOG_COLD_READS_TOTAL,
        Unit::Count,
        "Reads of entries that were no longer in memory: a follower or an apply lags behind."
    );
    describe_gauge!(
        DISK_FREE_BYTES,
        Unit::Bytes,
        "Free space on the disk of the data directory. New messages are refused below disk.free_bytes_min."
    );
    describe_gauge!(DISK_FREE_BYTES_MIN, Unit::Bytes, "The setting disk.free_bytes_min.");
    describe_counter!(
        LOG_FAILURES_TOTAL,
        Unit::Count,
        "Failed commits of the raft log. One is enough: the node stops."
    );
}

/// A batch of `entries` was committed to the raft log.
pub(crate) fn log_committed(took: Duration, durable: bool, entries: usize) {
    if durable {
        histogram!(LOG_FSYNC_SECONDS).record(took);
        // Beyond 2^53 entries precision is lost; the queue's bound is far below.
        histogram!(LOG_BATCH_ENTRIES).record(entries as f64);
    } else {
        counter!(LOG_LAZY_WRITES_TOTAL).increment(1);
    }
}

/// The log's queue has this bound.
pub(crate) fn log_queue_max(bytes: usize) {
    gauge!(LOG_QUEUE_BYTES_MAX).set(bytes as f64);
}

/// An operation of `bytes` got room in the log's queue.
pub(crate) fn log_queue_entered(bytes: usize) {
    gauge!(LOG_QUEUE_BYTES).increment(bytes as f64);
}

/// An operation of `bytes` left the log's queue.
pub(crate) fn log_queue_left(bytes: usize) {
    gauge!(LOG_QUEUE_BYTES).decrement(bytes as f64);
}

/// Entries were read from the log's backend because the tail no longer has them.
pub(crate) fn log_read_cold() {
    counter!(LOG_COLD_READS_TOTAL).increment(1);
}

/// A commit of the raft log failed.
pub(crate) fn log_failed() {
    counter!(LOG_FAILURES_TOTAL).increment(1);
}

/// The kinds of what must never happen.
const ALARMS: [&str; 4] = ["wrong_shard", "cursor_above_head", "relay_above_head", "relay_halted"];

/// How often each happened: an exporter does not tell.
static RAISED: [AtomicU64; ALARMS.len()] = [const { AtomicU64::new(0) }; ALARMS.len()];

/// Something of `kind` happened that never must.
pub(crate) fn alarm(kind: &'static str) {
    let known = ALARMS.iter().position(|known| *known == kind);
    debug_assert!(known.is_some(), "{kind} begins at 0 as well");
    if let Some(known) = known {
        RAISED[known].fetch_add(1, Ordering::Relaxed);
    }
    counter!(ALARMS_TOTAL, "kind" => kind).increment(1);
}

/// How often each kind happened since the process started.
pub(crate) fn alarms() -> impl Iterator<Item = (&'static str, u64)> {
    let raised = RAISED.iter().map(|raised| raised.load(Ordering::Relaxed));
    ALARMS.into_iter().zip(raised)
}

/// A command was answered after this long.
pub(crate) fn proposal_answered(took: Duration) {
    histogram!(PROPOSAL_SECONDS).record(took);
}

/// A batch of this many commands was handed to Raft.
pub(crate) fn proposal_batch(commands: usize) {
    histogram!(PROPOSAL_BATCH_COMMANDS).record(commands as f64);
}

/// A log entry's replies came this long after it was handed to Raft.
pub(crate) fn committed(took: Duration) {
    histogram!(COMMIT_SECONDS).record(took);
}

/// A client's command was refused for lack of room.
pub(crate) fn proposal_refused() {
    counter!(PROPOSALS_REFUSED_TOTAL).increment(1);
}

/// A round of entries was applied and written.
pub(crate) fn applied(took: Duration) {
    histogram!(APPLY_SECONDS).record(took);
}

/// A mailbox that has used nine tenths of its seqs got an entry.
pub(crate) fn nearly_full_append() {
    counter!(NEARLY_FULL_APPENDS_TOTAL).increment(1);
}

/// The highest seq that was given since the start.
pub(crate) fn seq_highest(seq: Seq) {
    gauge!(SEQS_USED_RATIO).set(f64::from(seq.get()) / f64::from(Seq::MAX.get()));
}

/// So much of the disk is free, and so much has to be for new messages.
pub(crate) fn disk_free(bytes: u64, min: u64) {
    gauge!(DISK_FREE_BYTES).set(bytes as f64);
    gauge!(DISK_FREE_BYTES_MIN).set(min as f64);
}

/// A connection to another node was made, or ended.
pub(crate) fn peer_connected(node: NodeId, connected: bool) {
    gauge!(PEER_CONNECTED, "peer" => node.to_string()).set(f64::from(u8::from(connected)));
}

/// `peer` is dialed again.
pub(crate) fn peer_reconnect(peer: NodeId) {
    counter!(PEER_RECONNECTS_TOTAL, "peer" => peer.to_string()).increment(1);
}

/// A message of `frames` left for another node.
pub(crate) fn peer_batch_sent(frames: usize) {
    counter!(PEER_FRAMES_TOTAL).increment(frames as u64);
    counter!(PEER_BATCHES_TOTAL).increment(1);
}

/// A snapshot of this many bytes was received.
pub(crate) fn snapshot_received(bytes: usize, took: Duration) {
    histogram!(SNAPSHOT_SECONDS).record(took);
    counter!(SNAPSHOT_BYTES_TOTAL).increment(bytes as u64);
}

/// A batch of this many records left for another shard.
pub(crate) fn relay_batch(records: usize) {
    histogram!(RELAY_BATCH_RECORDS).record(records as f64);
}

/// Another shard answered a batch after this long.
pub(crate) fn relay_answered(took: Duration) {
    histogram!(RELAY_SECONDS).record(took);
}

/// Another shard did not take a batch.
pub(crate) fn relay_failed() {
    counter!(RELAY_FAILURES_TOTAL).increment(1);
}

/// This node's wall clock counts, or no longer.
pub(crate) fn clock_trusted(trusted: bool) {
    gauge!(CLOCK_TRUSTED).set(f64::from(u8::from(trusted)));
}

/// This node's wall clock is so far ahead of cluster time, in milliseconds.
pub(crate) fn clock_offset(ms: i128) {
    gauge!(CLOCK_OFFSET_SECONDS).set(ms as f64 / 1000.0);
}

/// A gateway's stream began, or ended.
pub(crate) fn watch_stream(began: bool) {
    gauge!(WATCH_STREAMS).increment(if began { 1.0 } else { -1.0 });
}

/// A gateway is told what has waited for so long.
pub(crate) fn watch_told(after: Duration) {
    histogram!(WATCH_SECONDS).record(after);
}

/// That somebody types was not told to a gateway, for whom too much waits.
pub(crate) fn typing_dropped() {
    counter!(TYPING_DROPPED_TOTAL).increment(1);
}

/// An entry was told to a gateway by its head only.
pub(crate) fn watch_degraded() {
    counter!(WATCH_DEGRADED_TOTAL).increment(1);
}

/// Hints were handed out; so many are out now.
pub fn hints_leased(leased: usize, out: usize) {
    counter!(HINTS_LEASED_TOTAL).increment(leased as u64);
    gauge!(HINTS_OUT).set(out as f64);
}

/// A mailbox was told to keep no more than it must.
pub fn retained() {
    counter!(RETAINED_TOTAL).increment(1);
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_manual_lists_what_is_measured() {
        tidemark_process::hold_metrics_table("store", super::describe);
    }
}
