//! A look at a node that is down: nothing is written, and nothing is believed.
//!
//! The state on disk is an older prefix of what was applied (its WAL is off), so the look replays
//! the node's own log over it, in memory, up to the recorded commit mark or an index of the
//! caller's choice. Replicas are comparable at equal indexes: equal state hashes, equal mailboxes.
//!
//! Every mailbox is checked on the way: its entries must be exactly `floor+1 ..= head`.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;

use serde::{Serialize, Serializer};
use thiserror::Error;
use tidemark_store_core::codec::DecodeError;
use tidemark_store_core::key::{
    ChainKey, EntryKey, HoldersKey, InboundKey, Key, Kind, MailboxKey, OutboundKey, SharedKey,
};
use tidemark_store_core::slot::{Holders, Reference, Slot};
use tidemark_store_core::value::{Chain, Entry, Inbound, Mailbox, Outbound, Shard, Value};
use tidemark_store_core::{Fatal, Layered, Read, Transaction, read};
use tidemark_types::{Epoch, GroupId as Group, NodeId, Recipient, Seq};
use xxhash_rust::xxh3::Xxh3;

use crate::identity::{Identity, IdentityError};
use crate::node::{log_dir, state_dir};
use crate::raft::log::{GroupSummary, RecoverError, survey, visit_entries};
use crate::raft::machine::Applied;
use crate::raft::types::EntryPayload;
use crate::storage::{GroupId, LogReads, SegmentLog, SegmentLogError, StateDb, StateDbError};

/// Why a node cannot be looked at.
#[derive(Debug, Error)]
pub enum InspectError {
    /// The directory is nobody's.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The log's files cannot be opened.
    #[error(transparent)]
    LogFiles(#[from] SegmentLogError),
    /// A group's log is damaged.
    #[error(transparent)]
    Log(#[from] RecoverError),
    /// The state's database cannot be opened or read.
    #[error(transparent)]
    StateDb(#[from] StateDbError),
    /// A group's state or log does not decode, or contradicts itself.
    #[error("{group}: {source}")]
    State {
        /// Which group.
        group: GroupId,
        /// What is wrong.
        source: Fatal,
    },
    /// The index asked for is not between the state on disk and the end of the log.
    #[error("{group}: index {to} cannot be reached, only {from} to {last}")]
    OutOfReach {
        /// Which group.
        group: GroupId,
        /// What was asked for.
        to: u64,
        /// Where the state on disk stands.
        from: u64,
        /// The end of the log.
        last: u64,
    },
}

/// What all replicas of a cluster hold, at the highest index of each group that some replica has
/// recorded as committed: a replica's own record may lag, and its log reaches it.
pub fn level<I: Borrow<Inspector>>(replicas: &[I]) -> Result<Vec<Report>, InspectError> {
    let mut committed = BTreeMap::<GroupId, u64>::new();
    for inspector in replicas.iter().map(Borrow::borrow) {
        for (group, at) in inspector.committed()? {
            let index = committed.entry(group).or_default();
            *index = at.max(*index);
        }
    }
    let at = |inspector: &Inspector| inspector.report(None, |group| committed.get(&group).copied());
    replicas.iter().map(Borrow::borrow).map(at).collect()
}

/// Groups whose state hash or mailboxes differ between replicas at the same index.
pub fn divergent(reports: &[Report]) -> usize {
    let mut groups = BTreeMap::<GroupId, Vec<_>>::new();
    for group in reports.iter().flat_map(|report| &report.groups) {
        let stands = (group.at, &group.state_hash, &group.mailboxes);
        groups.entry(group.group).or_default().push(stands);
    }
    groups.values().filter(|replicas| replicas.iter().any(|one| *one != replicas[0])).count()
}

/// What a node holds.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The node.
    pub node: NodeId,
    /// Its groups.
    pub groups: Vec<GroupReport>,
}

/// What a group holds at one index.
#[derive(Debug, Serialize)]
pub struct GroupReport {
    /// Which group.
    #[serde(serialize_with = "display")]
    pub group: GroupId,
    /// The term of its vote.
    pub term: u64,
    /// The last entry purged from the log.
    pub purged: Option<u64>,
    /// The recorded commit mark; the cluster may have committed more.
    pub committed: Option<u64>,
    /// The last entry of the log.
    pub last: Option<u64>,
    /// Where the state on disk stood before the log was replayed over it.
    pub stored: Option<u64>,
    /// The index at which everything below is true.
    pub at: Option<u64>,
    /// Entries of the log behind that index.
    pub tail: u64,
    /// The state hash, in hex.
    pub state_hash: String,
    /// Its mailboxes, by name.
    pub mailboxes: BTreeMap<String, MailboxReport>,
    /// Its streams to other shards: numbers assigned and acknowledged.
    pub outbound: BTreeMap<u16, (u64, u64)>,
    /// Its streams from other shards: the last number applied.
    pub inbound: BTreeMap<u16, u64>,
    /// Refusals that could not be written into their sender's mailbox (R6).
    pub refusals_unwritable: u64,
    /// Messages dropped because their recipient refuses the sender silently (R6).
    pub blocked_silently: u64,
    /// Copies that nobody got because the gateway's verdict was to drop the message (R2).
    pub dropped: u64,
    /// Entries of groups that a member's mailbox could not take (R10).
    pub group_entries_untaken: u64,
}

fn display<S: Serializer>(group: &GroupId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(group)
}

/// What a mailbox holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MailboxReport {
    /// The life of its log.
    pub epoch: Epoch,
    /// The last seq removed.
    pub floor: Seq,
    /// The last seq assigned.
    pub head: Seq,
    /// Deleted by its owner.
    pub deleted: bool,
    /// XXH3-128 over its entries as they are stored, in hex.
    pub content_hash: String,
    /// What is wrong with it; empty if its entries are exactly `floor+1 ..= head`.
    pub problems: Vec<String>,
}

impl Report {
    /// Everything that is wrong, one line each.
    pub fn problems(&self) -> impl Iterator<Item = String> {
        self.groups.iter().flat_map(|group| {
            group.mailboxes.iter().flat_map(move |(name, mailbox)| {
                let line = move |problem| format!("{} {name}: {problem}", group.group);
                mailbox.problems.iter().map(line)
            })
        })
    }
}

/// Is shown a mailbox with its entries.
pub type Visit<'a> = dyn FnMut(&Recipient, &Mailbox, &[(Seq, Entry)]) + 'a;

/// A node's directory, opened for reading.
pub struct Inspector {
    identity: Identity,
    log: Box<dyn LogReads>,
    state: StateDb,
}

impl Inspector {
    /// Opens the directory of a node that is down.
    pub fn open(data_dir: &Path) -> Result<Self, InspectError> {
        Ok(Inspector {
            identity: Identity::read(data_dir)?,
            log: Box::new(SegmentLog::open_read_only(&log_dir(data_dir))?),
            state: StateDb::open_read_only(&state_dir(data_dir))?,
        })
    }

    /// Looks at what a node left elsewhere.
    pub fn of(identity: Identity, log: Box<dyn LogReads>, state: StateDb) -> Self {
        Inspector { identity, log, state }
    }

    /// All groups, each at the index that `to` says, or else at its recorded commit mark.
    pub fn report(
        &self,
        only: Option<GroupId>,
        to: impl Fn(GroupId) -> Option<u64>,
    ) -> Result<Report, InspectError> {
        let groups = survey(&*self.log)?;
        let groups = groups.iter().filter(|log| only.is_none_or(|only| only == log.group));
        let groups = groups.map(|log| {
            self.replayed(log, to(log.group), |position, view| report(log, position, view))?
                .map_err(|source| InspectError::State { group: log.group, source })
        });
        Ok(Report { node: self.identity.node, groups: groups.collect::<Result<_, _>>()? })
    }

    /// The entries of a mailbox, wherever it is, as [`Self::report`] finds them.
    pub fn entries(
        &self,
        mailbox: &Recipient,
        to: Option<u64>,
    ) -> Result<Vec<(Seq, Entry)>, InspectError> {
        let group = GroupId::shard(self.identity.shards().shard_of(&mailbox.id()));
        let Some(log) = survey(&*self.log)?.into_iter().find(|log| log.group == group) else {
            return Ok(Vec::new());
        };
        self.replayed(&log, to, |_, view| entries(view, mailbox))?
            .map_err(|source| InspectError::State { group, source })
    }

    /// Shows every mailbox of a group with its entries, one after the other, at the index that `to`
    /// says.
    pub fn visit(
        &self,
        group: GroupId,
        to: Option<u64>,
        visit: &mut Visit<'_>,
    ) -> Result<(), InspectError> {
        let Some(log) = survey(&*self.log)?.into_iter().find(|log| log.group == group) else {
            return Ok(());
        };
        let looked = self.replayed(&log, to, |_, view| {
            for (MailboxKey { mailbox }, value) in all::<MailboxKey>(view)? {
                visit(&mailbox, &value, &entries(view, &mailbox)?);
            }
            Ok(())
        });
        looked?.map_err(|source| InspectError::State { group, source })
    }

    /// Up to where each group is committed as far as this node knows.
    fn committed(&self) -> Result<Vec<(GroupId, u64)>, InspectError> {
        let groups = survey(&*self.log)?;
        let groups = groups.iter().map(|log| {
            let position = self
                .state
                .read(log.group, |applied, _| Position::find(log, applied.as_deref(), None))??;
            Ok((log.group, position.at.unwrap_or_default()))
        });
        groups.collect()
    }

    /// Lets `look` see the group's state with its log replayed over it.
    fn replayed<T>(
        &self,
        log: &GroupSummary,
        to: Option<u64>,
        look: impl FnOnce(Position, &dyn Read) -> T,
    ) -> Result<T, InspectError> {
        let group = log.group;
        let fatal = |source| InspectError::State { group, source };
        self.state.read(group, |applied, view| {
            let position = Position::find(log, applied.as_deref(), to)?;
            let mut transaction = Transaction::new(view);
            let mut failed = None;
            visit_entries(&*self.log, group, |entry| {
                let next = position.covers(entry.log_id.index) && failed.is_none();
                if let (true, EntryPayload::Normal(payload)) = (next, entry.payload) {
                    failed = transaction.apply(&payload.0).err();
                }
            })?;
            match failed {
                Some(source) => Err(fatal(source)),
                None => {
                    let writes = transaction.finish();
                    Ok(look(position, &Layered { base: view, writes: &writes }))
                }
            }
        })?
    }
}

/// From where to where the log is replayed.
#[derive(Clone, Copy)]
struct Position {
    stored: Option<u64>,
    at: Option<u64>,
}

impl Position {
    /// Of a group whose state says that it has applied this much.
    fn find(
        log: &GroupSummary,
        applied: Option<&[u8]>,
        to: Option<u64>,
    ) -> Result<Self, InspectError> {
        let applied = Applied::decode(applied)
            .map_err(|error| InspectError::State { group: log.group, source: error.into() })?;
        let stored = applied.last.map(|id| id.index);
        let recorded = log.committed.map(|id| id.index).max(stored);
        let at = to.or(recorded);
        let last = log.last.map(|id| id.index).max(stored);
        if at < stored || at > last {
            return Err(InspectError::OutOfReach {
                group: log.group,
                to: at.unwrap_or_default(),
                from: stored.unwrap_or_default(),
                last: last.unwrap_or_default(),
            });
        }
        Ok(Position { stored, at })
    }

    fn covers(self, index: u64) -> bool {
        Some(index) > self.stored && Some(index) <= self.at
    }
}

fn report(log: &GroupSummary, position: Position, view: &dyn Read) -> Result<GroupReport, Fatal> {
    let last = log.last.map(|id| id.index);
    let chain = view.get(&ChainKey {}.encode())?;
    let chain = chain.map(|bytes| Chain::decode(&bytes)).transpose()?.unwrap_or_default();
    let outbound = all::<OutboundKey>(view)?.into_iter();
    let outbound = outbound
        .map(|(key, Outbound { head, trim, .. })| (key.shard.get(), (head.get(), trim.get())));
    let inbound = all::<InboundKey>(view)?.into_iter();
    let inbound = inbound.map(|(key, Inbound { in_seq })| (key.shard.get(), in_seq.get()));
    // Only a shard counts; the control group delivers nothing.
    let shard = read::shard(view)?;
    let counted = |count: fn(&Shard) -> u64| shard.as_ref().map_or(0, count);
    Ok(GroupReport {
        group: log.group,
        term: log.vote.map_or(0, |vote| vote.leader_id.term),
        purged: log.purged.map(|id| id.index),
        committed: log.committed.map(|id| id.index),
        last,
        stored: position.stored,
        at: position.at,
        tail: last.map_or(0, |last| last.saturating_sub(position.at.unwrap_or_default())),
        state_hash: format!("{:032x}", chain.hash),
        mailboxes: mailboxes(view)?,
        outbound: outbound.collect(),
        inbound: inbound.collect(),
        refusals_unwritable: counted(|shard| shard.refusals_unwritable),
        blocked_silently: counted(|shard| shard.blocked_silently),
        dropped: counted(|shard| shard.dropped),
        group_entries_untaken: counted(|shard| shard.group_entries_untaken),
    })
}

/// Every key of a kind, with its value.
fn all<K: Key>(view: &dyn Read) -> Result<Vec<(K, K::Value)>, Fatal> {
    let (from, to) = K::KIND.range();
    let mut found = Vec::new();
    view.scan(&from, &to, &mut |key, value| {
        found.push(K::decode(key).and_then(|key| Ok((key, K::Value::decode(value)?))));
        ControlFlow::Continue(())
    })?;
    Ok(found.into_iter().collect::<Result<_, _>>()?)
}

/// All mailboxes, with every entry read and checked.
fn mailboxes(view: &dyn Read) -> Result<BTreeMap<String, MailboxReport>, Fatal> {
    let mut checks = BTreeMap::new();
    for (MailboxKey { mailbox }, value) in all::<MailboxKey>(view)? {
        checks.insert(
            mailbox,
            Check { last: value.floor, value, hash: Xxh3::new(), problems: vec![] },
        );
    }
    let (from, to) = Kind::Slot.range();
    let (mut strangers, mut references) = (BTreeMap::new(), BTreeMap::new());
    let mut failed = None;
    view.scan(&from, &to, &mut |key, value| {
        match EntryKey::decode(key).and_then(|key| Ok((key, Slot::decode(value)?))) {
            Ok((EntryKey { mailbox, seq }, slot)) => {
                if let Slot::Shared(Reference { group, seq, .. }) = slot {
                    *references.entry((group, seq)).or_default() += 1;
                }
                match checks.get_mut(&mailbox) {
                    Some(check) => check.entry(seq, value),
                    None => *strangers.entry(mailbox).or_insert(0) += 1,
                }
            }
            Err(error) => failed = Some(error),
        }
        if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    if let Some((mailbox, count)) = strangers.first_key_value() {
        return Err(Fatal::Corrupt(format!("{mailbox} has {count} entries and no mailbox")));
    }
    shared(view, references)?;
    Ok(checks.into_iter().map(|(id, check)| (id.to_string(), check.finish())).collect())
}

/// Every shared entry must be there for just as many references as there are.
fn shared(view: &dyn Read, mut references: BTreeMap<(Group, Seq), u32>) -> Result<(), Fatal> {
    let corrupt = |group, seq, text: String| {
        Err(Fatal::Corrupt(format!("group {group}: the shared entry {seq} {text}")))
    };
    let mut kept: BTreeSet<SharedKey> =
        all::<SharedKey>(view)?.into_iter().map(|(key, _)| key).collect();
    for (HoldersKey { group, seq }, Holders { references: counted, .. }) in all::<HoldersKey>(view)?
    {
        let found = references.remove(&(group.clone(), seq)).unwrap_or_default();
        if found != counted {
            let text = format!("has {found} references, and {counted} are counted");
            return corrupt(group, seq, text);
        }
        if !kept.remove(&SharedKey { group: group.clone(), seq }) {
            return corrupt(group, seq, "is missing".to_owned());
        }
    }
    let uncounted = references.into_keys().chain(kept.into_iter().map(|key| (key.group, key.seq)));
    match { uncounted }.next() {
        Some((group, seq)) => corrupt(group, seq, "is not counted".to_owned()),
        None => Ok(()),
    }
}

/// Follows a mailbox's entries in order.
struct Check {
    value: Mailbox,
    last: Seq,
    hash: Xxh3,
    problems: Vec<String>,
}

impl Check {
    fn entry(&mut self, seq: Seq, value: &[u8]) {
        let Mailbox { floor, swept, .. } = self.value;
        if seq <= floor {
            if seq <= swept {
                self.problems.push(format!("entry {seq} is there and was removed"));
            }
            return;
        }
        if self.last.next() != Some(seq) {
            self.problems.push(format!("entry {seq} follows entry {}", self.last));
        }
        self.last = seq;
        self.hash.update(&(value.len() as u64).to_le_bytes());
        self.hash.update(value);
    }

    fn finish(mut self) -> MailboxReport {
        let Mailbox { epoch, floor, head, deleted, .. } = self.value;
        if self.last != head {
            self.problems.push(format!("its head is {head} and its last entry {}", self.last));
        }
        let content_hash = format!("{:032x}", self.hash.digest128());
        MailboxReport { epoch, floor, head, deleted, content_hash, problems: self.problems }
    }
}

fn entries(view: &dyn Read, mailbox: &Recipient) -> Result<Vec<(Seq, Entry)>, Fatal> {
    let key = |seq| EntryKey { mailbox: mailbox.clone(), seq }.encode();
    let to = tidemark_store_core::key::after(&key(Seq::MAX));
    let mut found = Vec::new();
    view.scan(&key(Seq::NONE), &to, &mut |key, value| {
        let slot = EntryKey::decode(key).and_then(|key| Ok((key.seq, Slot::decode(value)?)));
        found.push(slot);
        ControlFlow::Continue(())
    })?;
    let entry = |slot: Result<(Seq, Slot), DecodeError>| {
        let (seq, slot) = slot?;
        Ok((seq, slot.entry(view)?))
    };
    found.into_iter().map(entry).collect()
}
