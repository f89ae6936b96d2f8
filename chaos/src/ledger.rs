//! What was acknowledged against what every replica holds.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;
use tidemark_store::inspect::{self, Inspector};
use tidemark_store_core::value::{Content, Entry, Origin};
use tidemark_types::{Recipient, Seq, UserId};

use crate::cluster::Cluster;
use crate::senders::Acked;

/// The account of a run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Sends that were acknowledged.
    pub acked: usize,
    /// Copies that are where they must be, sender's and recipients', on every replica.
    pub found: usize,
    /// Refusals that the sender's mailbox tells in place of a copy, on every replica.
    pub refused: usize,
    /// Refusals that no sender's mailbox tells, since it could not take them (R6), on every replica.
    pub refusals_unwritable: u64,
    /// Copies that silent recipients dropped (R6), on every replica.
    pub blocked_silently: u64,
    /// Copies that a gateway's verdict dropped (R2), on every replica.
    pub dropped: u64,
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
    /// `refusing` are the recipients who refuse everything: a refusal is there in place of a copy.
    pub fn of(cluster: &Cluster, acked: &[Acked], refusing: &[UserId]) -> Result<Self> {
        let mut ledger = Ledger { acked: acked.len(), ..Ledger::default() };
        let open = |node| Inspector::open(&cluster.data_dir(node));
        let inspectors = cluster.ids().into_iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let reports = inspect::level(&inspectors)?;
        ledger.seq_gaps = reports.iter().map(|report| report.problems().count()).sum();
        ledger.divergent = inspect::divergent(&reports);
        for group in reports.iter().flat_map(|report| &report.groups) {
            ledger.refusals_unwritable += group.refusals_unwritable;
            ledger.blocked_silently += group.blocked_silently;
            ledger.dropped += group.dropped;
        }
        for inspector in &inspectors {
            ledger.count(inspector, acked, refusing)?;
        }
        Ok(ledger)
    }

    /// Is nothing wrong?
    pub fn is_clean(&self) -> bool {
        let Ledger { lost, duplicated, out_of_order, seq_gaps, divergent, .. } = self;
        [lost, duplicated, out_of_order, seq_gaps, divergent].iter().all(|count| **count == 0)
    }

    fn count(&mut self, inspector: &Inspector, acked: &[Acked], refusing: &[UserId]) -> Result<()> {
        let mut mailboxes = BTreeMap::<UserId, Vec<(Seq, Entry)>>::new();
        for user in acked.iter().flat_map(|ack| [&ack.sender].into_iter().chain(&ack.to)) {
            if !mailboxes.contains_key(user) {
                let entries = inspector.entries(&Recipient::User(user.clone()), None)?;
                mailboxes.insert(user.clone(), entries);
            }
        }
        let places: BTreeMap<&UserId, Places<'_>> =
            mailboxes.iter().map(|(user, entries)| (user, Places::of(entries))).collect();
        for ack in acked {
            let origin =
                Origin::Session { sender: ack.sender.clone(), session: ack.session, n: ack.n };
            let own = places[&ack.sender].of_origin(&origin);
            let right = own.iter().filter(|(seq, entry)| *seq == ack.seq && says(entry, ack));
            self.tally(right.count(), own.iter().filter(|copy| is_message(copy.1)).count());
            for to in &ack.to {
                let copies = places[to].of_origin(&origin);
                if refusing.contains(to) {
                    let told = own.iter().filter(|(_, entry)| refuses(entry, to)).count();
                    self.refused += told.min(1);
                    self.lost += usize::from(told == 0);
                    self.duplicated += copies.len() + told.saturating_sub(1);
                } else {
                    let right = copies.iter().filter(|(_, entry)| says(entry, ack)).count();
                    self.tally(right, copies.len());
                }
            }
        }
        self.out_of_order += places.values().map(|places| places.out_of_order).sum::<usize>();
        Ok(())
    }

    /// One copy must be there: `right` are, of `all` of this send.
    fn tally(&mut self, right: usize, all: usize) {
        self.found += right.min(1);
        self.lost += usize::from(right == 0);
        self.duplicated += all.saturating_sub(1);
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ledger { acked, found, refused, refusals_unwritable, blocked_silently, .. } = self;
        let Ledger { dropped, lost, duplicated, out_of_order, seq_gaps, divergent, .. } = self;
        write!(
            f,
            "ledger: acked={acked} found={found} refused={refused} \
             refusals_unwritable={refusals_unwritable} blocked_silently={blocked_silently} \
             dropped={dropped} lost={lost} duplicated={duplicated} out_of_order={out_of_order} \
             seq_gaps={seq_gaps} divergent={divergent}"
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
            if let (Origin::Session { sender, session, n }, true) =
                (&entry.origin, is_message(entry))
            {
                let before = last.insert((sender, session), *n);
                out_of_order += usize::from(before > Some(*n));
            }
        }
        Places { copies, out_of_order }
    }

    fn of_origin(&self, origin: &Origin) -> &[(Seq, &'a Entry)] {
        self.copies.get(origin).map_or(&[], Vec::as_slice)
    }
}

fn is_message(entry: &Entry) -> bool {
    matches!(entry.content, Content::Message { .. })
}

fn refuses(entry: &Entry, by: &UserId) -> bool {
    matches!(&entry.content, Content::Refused { recipient: Recipient::User(user), .. } if user == by)
}

fn says(entry: &Entry, ack: &Acked) -> bool {
    matches!(&entry.content, Content::Message { message, .. } if message.body == ack.body)
}
