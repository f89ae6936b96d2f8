//! What stands as it stands: gauges that are set when somebody scrapes, and cost nothing before.
#![expect(clippy::disallowed_macros, reason = "as in the module above")]

use metrics::{Unit, describe_gauge, gauge};
use tidemark_types::NodeId;

use super::{MAILBOX_ENTRIES, MAILBOX_FLOORS, MAILBOXES};

const GROUP_LEADS: &str = "store_group_leads";
const GROUP_TERM: &str = "store_group_term";
const GROUP_LAST_ENTRY: &str = "store_group_last_entry";
const GROUP_APPLIED_ENTRY: &str = "store_group_applied_entry";
const GROUP_SNAPSHOT_ENTRY: &str = "store_group_snapshot_entry";
const GROUP_PURGED_ENTRY: &str = "store_group_purged_entry";
const REPLICATION_LAG: &str = "store_replication_lag_entries";
const OUTBOX_BYTES: &str = "store_outbox_bytes";
const OUTBOX_BYTES_MAX: &str = "store_outbox_bytes_max";
const PROPOSALS_BYTES: &str = "store_proposals_bytes";
const PROPOSALS_BYTES_MAX: &str = "store_proposals_bytes_max";
const MAILBOXES_WATCHED: &str = "store_mailboxes_watched";
const STATE_BYTES: &str = "store_state_bytes";
const STATE_PENDING_BYTES: &str = "store_state_pending_bytes";
const STATE_PENDING_BYTES_MAX: &str = "store_state_pending_bytes_max";
const STATE_COMPACTION_BYTES: &str = "store_state_compaction_pending_bytes";
const STATE_COMPACTIONS: &str = "store_state_compactions_running";

pub(super) fn describe() {
    describe_groups();
    describe_queues();
    describe_state();
}

fn describe_groups() {
    describe_gauge!(GROUP_LEADS, Unit::Count, "1 where this node leads the group, 0 elsewhere.");
    describe_gauge!(
        GROUP_TERM,
        Unit::Count,
        "The term of the group's vote; each election makes a new one."
    );
    describe_gauge!(GROUP_LAST_ENTRY, Unit::Count, "The last entry of the group's log here.");
    describe_gauge!(GROUP_APPLIED_ENTRY, Unit::Count, "The last entry that is applied here.");
    describe_gauge!(
        GROUP_SNAPSHOT_ENTRY,
        Unit::Count,
        "Up to where the state on disk has the log's entries."
    );
    describe_gauge!(
        GROUP_PURGED_ENTRY,
        Unit::Count,
        "The last entry that is no longer in the log: a node that lacks it gets the whole state."
    );
    describe_gauge!(
        REPLICATION_LAG,
        Unit::Count,
        "Entries of a group that this node leads and another one lacks, by that node."
    );
}

fn describe_queues() {
    describe_gauge!(
        OUTBOX_BYTES,
        Unit::Bytes,
        "What waits in a group that this node leads for the shard that most waits for."
    );
    describe_gauge!(OUTBOX_BYTES_MAX, Unit::Bytes, "What may wait for each shard.");
    describe_gauge!(
        PROPOSALS_BYTES,
        Unit::Bytes,
        "Commands of a group that wait or are under way, by class: of clients, or the cluster's own."
    );
    describe_gauge!(PROPOSALS_BYTES_MAX, Unit::Bytes, "What these may be in each group, by class.");
    describe_gauge!(
        MAILBOXES_WATCHED,
        Unit::Count,
        "Mailboxes that gateways hear of from this node, each once for every gateway."
    );
}

fn describe_state() {
    describe_gauge!(STATE_BYTES, Unit::Bytes, "Files of the state's database.");
    describe_gauge!(
        STATE_PENDING_BYTES,
        Unit::Bytes,
        "State that is in memory and not written out; the log has it."
    );
    describe_gauge!(STATE_PENDING_BYTES_MAX, Unit::Bytes, "From here on appliers wait for it.");
    describe_gauge!(
        STATE_COMPACTION_BYTES,
        Unit::Bytes,
        "What compactions of the state's database have to rewrite, as it estimates."
    );
    describe_gauge!(STATE_COMPACTIONS, Unit::Count, "Compactions that run.");
}

/// How a group stands on this node.
pub(crate) struct GroupNow {
    pub(crate) leads: bool,
    pub(crate) term: u64,
    pub(crate) last: Option<u64>,
    pub(crate) applied: Option<u64>,
    pub(crate) snapshot: Option<u64>,
    pub(crate) purged: Option<u64>,
    /// What waits for the shard that most waits for.
    pub(crate) outbox: u64,
    pub(crate) outbox_max: u64,
    /// Bytes of proposals, and how many there may be, by class.
    pub(crate) proposals: Vec<(&'static str, usize, usize)>,
}

/// A group stands so.
pub(crate) fn group_now(group: &str, now: &GroupNow) {
    let entry = |name: &'static str, entry: Option<u64>| {
        gauge!(name, "group" => group.to_owned()).set(entry.unwrap_or_default() as f64);
    };
    gauge!(GROUP_LEADS, "group" => group.to_owned()).set(f64::from(u8::from(now.leads)));
    entry(GROUP_TERM, Some(now.term));
    entry(GROUP_LAST_ENTRY, now.last);
    entry(GROUP_APPLIED_ENTRY, now.applied);
    entry(GROUP_SNAPSHOT_ENTRY, now.snapshot);
    entry(GROUP_PURGED_ENTRY, now.purged);
    gauge!(OUTBOX_BYTES, "group" => group.to_owned()).set(now.outbox as f64);
    gauge!(OUTBOX_BYTES_MAX).set(now.outbox_max as f64);
    for (class, bytes, max) in &now.proposals {
        gauge!(PROPOSALS_BYTES, "group" => group.to_owned(), "class" => *class).set(*bytes as f64);
        gauge!(PROPOSALS_BYTES_MAX, "class" => *class).set(*max as f64);
    }
}

/// Another node's replica of a group lacks so many entries, as its leader here knows; 0 where it does
/// not lead.
pub(crate) fn lag_now(group: &str, node: NodeId, entries: u64) {
    gauge!(REPLICATION_LAG, "group" => group.to_owned(), "peer" => node.to_string())
        .set(entries as f64);
}

/// Gateways hear of so many mailboxes.
pub(crate) fn watched_now(mailboxes: usize) {
    gauge!(MAILBOXES_WATCHED).set(mailboxes as f64);
}

/// A group's mailboxes were looked through: how many there are, and what they keep and no longer keep.
pub(crate) fn walked(group: &str, mailboxes: u64, entries: u64, floors: u64) {
    for (name, value) in
        [(MAILBOXES, mailboxes), (MAILBOX_ENTRIES, entries), (MAILBOX_FLOORS, floors)]
    {
        gauge!(name, "group" => group.to_owned()).set(value as f64);
    }
}

/// How the state's database stands.
pub(crate) struct StateNow {
    pub(crate) bytes: u64,
    pub(crate) pending: usize,
    pub(crate) pending_max: usize,
    pub(crate) compaction: u64,
    pub(crate) compactions: u64,
}

/// The state's database stands so.
pub(crate) fn state_now(now: &StateNow) {
    gauge!(STATE_BYTES).set(now.bytes as f64);
    gauge!(STATE_PENDING_BYTES).set(now.pending as f64);
    gauge!(STATE_PENDING_BYTES_MAX).set(now.pending_max as f64);
    gauge!(STATE_COMPACTION_BYTES).set(now.compaction as f64);
    gauge!(STATE_COMPACTIONS).set(now.compactions as f64);
}
