//! C1: a mailbox is dense on every replica. C2: replicas hold the same.
//!
//! The entries of one replica are known, and the digests of all: where a digest is the same, so
//! are the entries. Every node has a replica of every mailbox.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tidemark_types::Seq;

use super::book::Book;
use super::findings::{Clue, Findings};
use super::mailbox::Mailbox;
use crate::history::{Copy, Event, Group, Node, User};
use crate::report::Code;

/// Compares what replicas hold in the end.
pub(super) fn check(book: &Book, findings: &mut Findings) {
    let replicas = book.mailboxes.values().flat_map(|mailbox| &mailbox.replicas);
    let nodes: BTreeSet<Node> = replicas.map(|replica| replica.node).collect();
    for (user, mailbox) in book.mailboxes.iter().filter(|(_, mailbox)| mailbox.is_read()) {
        let seqs = mailbox.entries.iter().map(|(seq, _)| *seq);
        dense(*user, None, (mailbox.floor(), mailbox.head()), seqs, findings);
        same(*user, mailbox, &nodes, findings);
    }
}

/// Is each seq after the floor up to the head there, once, and no other?
fn dense(
    user: User,
    node: Option<Node>,
    (floor, head): (Seq, Seq),
    seqs: impl Iterator<Item = Seq>,
    findings: &mut Findings,
) {
    let place = node.map(|node| format!(" on {node}")).unwrap_or_default();
    let mut last = floor;
    for seq in seqs {
        let clues = [Clue::Mailbox(user), Clue::Entry(user, last), Clue::Entry(user, seq)];
        if seq <= last || seq > head {
            let reason =
                format_args!("{user}{place}: {seq} stands after {last}, the head is {head}");
            findings.add(Code::C1, Some(user), &clues, reason);
            continue;
        }
        let missing = seq.since(last) - 1;
        if missing > 0 {
            findings.counts.seq_gaps += u64::from(missing);
            let reason = format_args!("{user}{place}: nothing between {last} and {seq}");
            findings.add(Code::C1, Some(user), &clues, reason);
        }
        last = seq;
    }
    if last < head {
        findings.counts.seq_gaps += u64::from(head.since(last));
        let clues = [Clue::Mailbox(user), Clue::Entry(user, last)];
        let reason = format_args!("{user}{place}: nothing after {last}, the head is {head}");
        findings.add(Code::C1, Some(user), &clues, reason);
    }
}

/// Do all replicas say what the known entries say? If not, the entries of each are compared.
fn same(user: User, mailbox: &Mailbox, nodes: &BTreeSet<Node>, findings: &mut Findings) {
    let (floor, head, digest) = (mailbox.floor(), mailbox.head(), mailbox.digest.value());
    let replicas = &mailbox.replicas;
    let differs = replicas
        .iter()
        .find(|replica| (replica.floor, replica.head, replica.digest) != (floor, head, digest));
    let lacks = |node: &&Node| !replicas.iter().any(|replica| replica.node == **node);
    let differs = differs.map(|replica| replica.node).or(nodes.iter().find(lacks).copied());
    let Some(differs) = differs else { return };
    findings.counts.divergent_replicas += 1;
    let mut clues = vec![Clue::Mailbox(user)];
    clues.extend(first_difference(mailbox).map(|seq| Clue::Entry(user, seq)));
    let reason = format_args!("{user}: {} does not hold what another replica does", differs);
    findings.add(Code::C2, Some(user), &clues, reason);

    let mut seqs = BTreeMap::<Node, Vec<Seq>>::new();
    for (seq, node) in mailbox.copies.keys() {
        seqs.entry(*node).or_default().push(*seq);
    }
    for replica in &mailbox.replicas {
        if let Some(seqs) = seqs.remove(&replica.node).filter(|_| replica.digest != digest) {
            let ends = (replica.floor, replica.head);
            dense(user, Some(replica.node), ends, seqs.into_iter(), findings);
        }
    }
}

/// The first seq that not all replicas have, or not the same.
fn first_difference(mailbox: &Mailbox) -> Option<Seq> {
    let mut by_seq = BTreeMap::<Seq, Vec<&Copy>>::new();
    for ((seq, _), copy) in &mailbox.copies {
        by_seq.entry(*seq).or_default().push(copy);
    }
    let whole = |copies: &[&Copy]| {
        copies.len() == mailbox.replicas.len() && copies.iter().all(|copy| *copy == copies[0])
    };
    by_seq.into_iter().find(|(_, copies)| !whole(copies)).map(|(seq, _)| seq)
}

/// The state hashes read during the run: at one index of a group there is one.
#[derive(Debug, Default)]
pub(super) struct Hashes(HashMap<(Group, u64), (Node, u128)>);

impl Hashes {
    pub(super) fn take(&mut self, event: &Event, findings: &mut Findings) {
        let Event::StateHash { node, group, index, hash, .. } = event else { return };
        let (first, known) = *self.0.entry((*group, *index)).or_insert((*node, *hash));
        if known != *hash {
            findings.counts.divergent_replicas += 1;
            let reason = format_args!("{group}: after entry {index}, {node} differs from {first}");
            findings.add(Code::C2, None, &[Clue::Hash(*group, *index)], reason);
        }
    }
}
