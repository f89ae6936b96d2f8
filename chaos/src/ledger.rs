//! What was acknowledged against what every replica holds.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;
use tidemark_store::inspect::{Inspector, Report};
use tidemark_store::storage::GroupId;
use tidemark_store_core::value::{Content, Entry, Origin};
use tidemark_types::{Recipient, Seq, UserId};

use crate::cluster::Cluster;
use crate::senders::Acked;

/// The account of a run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Sends that were acknowledged.
    pub acked: usize,
    /// Copies that are where they must be, sender's and recipient's, on every replica.
    pub found: usize,
    /// Copies that are missing, or not what was acknowledged.
    pub lost: usize,
    /// Copies that are there more than once.
    pub duplicated: usize,
    /// Copies of one session that a mailbox holds in another order than sent.
    pub out_of_order: usize,
    /// Mailboxes whose entries are not exactly floor+1 to head.
    pub seq_gaps: usize,
    /// Groups whose replicas differ at the same index.
    pub divergent: usize,
}

impl Ledger {
    /// Reads every node's files; the nodes must be down.
    pub fn of(cluster: &Cluster, acked: &[Acked]) -> Result<Self> {
        let mut ledger = Ledger { acked: acked.len(), ..Ledger::default() };
        let open = |node| Inspector::open(&cluster.data_dir(node));
        let inspectors = cluster.ids().into_iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let reports = inspectors.iter().map(|inspector| inspector.report(|_| None));
        let reports = reports.collect::<Result<Vec<_>, _>>()?;
        let committed = highest_committed(&reports);
        let level =
            |inspector: &Inspector| inspector.report(|group| committed.get(&group).copied());
        let reports = inspectors.iter().map(level).collect::<Result<Vec<_>, _>>()?;
        ledger.seq_gaps = reports.iter().map(|report| report.problems().count()).sum();
        ledger.divergent = divergent(&reports);
        for inspector in &inspectors {
            ledger.count(inspector, acked)?;
        }
        Ok(ledger)
    }

    /// Is nothing wrong?
    pub fn is_clean(&self) -> bool {
        let Ledger { lost, duplicated, out_of_order, seq_gaps, divergent, .. } = self;
        [lost, duplicated, out_of_order, seq_gaps, divergent].iter().all(|count| **count == 0)
    }

    fn count(&mut self, inspector: &Inspector, acked: &[Acked]) -> Result<()> {
        let mut mailboxes = BTreeMap::<UserId, Vec<(Seq, Entry)>>::new();
        for ack in acked {
            for user in [&ack.sender, &ack.to] {
                if !mailboxes.contains_key(user) {
                    let entries = inspector.entries(&Recipient::User(user.clone()), None)?;
                    mailboxes.insert(user.clone(), entries);
                }
            }
        }
        let places: BTreeMap<&UserId, Places<'_>> =
            mailboxes.iter().map(|(user, entries)| (user, Places::of(entries))).collect();
        for ack in acked {
            let origin =
                Origin::Session { sender: ack.sender.clone(), session: ack.session, n: ack.n };
            for (user, seq) in [(&ack.sender, Some(ack.seq)), (&ack.to, None)] {
                let copies = places[user].copies.get(&origin).map_or(&[][..], Vec::as_slice);
                let right = |copy: &&(Seq, &Entry)| {
                    seq.is_none_or(|seq| copy.0 == seq) && says(copy.1, ack)
                };
                match copies.iter().filter(right).count() {
                    0 => self.lost += 1,
                    _ => self.found += 1,
                }
                self.duplicated += copies.len().saturating_sub(1);
            }
        }
        self.out_of_order += places.values().map(|places| places.out_of_order).sum::<usize>();
        Ok(())
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ledger { acked, found, lost, duplicated, out_of_order, seq_gaps, divergent } = self;
        write!(
            f,
            "ledger: acked={acked} found={found} lost={lost} duplicated={duplicated} \
             out_of_order={out_of_order} seq_gaps={seq_gaps} divergent={divergent}"
        )
    }
}

/// Where a mailbox holds the copies of each send.
struct Places<'a> {
    copies: BTreeMap<Origin, Vec<(Seq, &'a Entry)>>,
    out_of_order: usize,
}

impl<'a> Places<'a> {
    fn of(entries: &'a [(Seq, Entry)]) -> Self {
        let mut copies = BTreeMap::<Origin, Vec<(Seq, &Entry)>>::new();
        let mut last = BTreeMap::new();
        let mut out_of_order = 0;
        for (seq, entry) in entries {
            copies.entry(entry.origin.clone()).or_default().push((*seq, entry));
            if let Origin::Session { sender, session, n } = &entry.origin {
                let before = last.insert((sender, session), *n);
                out_of_order += usize::from(before > Some(*n));
            }
        }
        Places { copies, out_of_order }
    }
}

fn says(entry: &Entry, ack: &Acked) -> bool {
    matches!(&entry.content, Content::Message { message, .. } if message.body == ack.body)
}

/// The highest index of each group that some replica has recorded as committed: a replica's own
/// record may lag, the log of all of them reaches it.
fn highest_committed(reports: &[Report]) -> BTreeMap<GroupId, u64> {
    let mut highest = BTreeMap::new();
    for group in reports.iter().flat_map(|report| &report.groups) {
        let index = highest.entry(group.group).or_default();
        *index = group.at.unwrap_or_default().max(*index);
    }
    highest
}

/// Groups whose state hash or mailboxes differ between replicas at the same index.
fn divergent(reports: &[Report]) -> usize {
    let mut groups = BTreeMap::<GroupId, Vec<_>>::new();
    for group in reports.iter().flat_map(|report| &report.groups) {
        let stands = (group.at, &group.state_hash, &group.mailboxes);
        groups.entry(group.group).or_default().push(stands);
    }
    groups.values().filter(|replicas| replicas.iter().any(|one| *one != replicas[0])).count()
}
