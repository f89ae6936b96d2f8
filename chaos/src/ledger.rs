//! What was acknowledged against what every replica holds.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;
use tidemark_store::inspect::{Inspector, Report};
use tidemark_store_core::value::{Content, Entry, Origin};
use tidemark_types::{NodeId, Recipient, Seq, UserId};

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
        let mut inspectors = BTreeMap::new();
        let mut reports = Vec::new();
        for node in cluster.ids() {
            let inspector = Inspector::open(&cluster.data_dir(node))?;
            let report = inspector.report(None)?;
            ledger.seq_gaps += report.problems().count();
            inspectors.insert(node, inspector);
            reports.push(report);
        }
        ledger.divergent = divergent(&reports);
        for inspector in inspectors.values() {
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

/// Groups whose state hash or mailboxes differ although all replicas stand at the same index; a
/// replica that stands elsewhere differs as well, since a run ends only when they are level.
fn divergent(reports: &[Report]) -> usize {
    let mut groups = BTreeMap::<&str, Vec<(NodeId, Option<u64>, &str)>>::new();
    for report in reports {
        for group in &report.groups {
            let stands = (report.node, group.at, group.state_hash.as_str());
            groups.entry(&group.group).or_default().push(stands);
        }
    }
    let differ = |replicas: &&Vec<(NodeId, Option<u64>, &str)>| {
        replicas.iter().any(|(_, at, hash)| (at, hash) != (&replicas[0].1, &replicas[0].2))
    };
    groups.values().filter(differ).count()
}
