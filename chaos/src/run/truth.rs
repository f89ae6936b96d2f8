//! What every replica holds in the end, read from its own files.

use std::collections::BTreeMap;

use anyhow::Result;
use tidemark_checker::Event;
use tidemark_checker::history::{Copy, Digest, Group, Node, User};
use tidemark_store::inspect::{self, InspectError, Inspector, Report};
use tidemark_store_core::value::{Content, Entry, Mailbox, Outgoing};
use tidemark_types::{NodeId, Recipient, Seq};

use crate::acts::is_talker;
use crate::cluster::{Cluster, Member};
use crate::groups;
use crate::notes::Notes;
use crate::words;

/// Reads every node's files into the history; the nodes must be down. A node that cannot be read is
/// left out; whether all of them were read. If every replica was at rest at these entries, by group,
/// each that can be opened must still reach them, or the run is violated.
pub(super) fn read(
    cluster: &Cluster,
    rested: Option<&BTreeMap<u32, u64>>,
    notes: &Notes,
) -> Result<bool> {
    let mut replicas = Vec::new();
    for node in cluster.ids() {
        match Inspector::open(&cluster.data_dir(node)) {
            Ok(inspector) => replicas.push((node, inspector)),
            Err(error) => eprintln!("node {node} cannot be read: {error}"),
        }
    }
    let (chosen, reports) = level(&replicas);
    for (node, inspector) in replicas.iter().filter(|(node, _)| !chosen.contains(node)) {
        eprintln!("node {node} is left out");
        if rested.is_some_and(|rested| !reaches(inspector, rested)) {
            notes.amount(&Member::Node(*node), "replicas that do not reach the others", 1, 0);
        }
    }
    let read = replicas.into_iter().filter(|(node, _)| chosen.contains(node));
    let (nodes, inspectors): (Vec<_>, Vec<_>) = read.unzip();
    if !nodes.is_empty() {
        write_down(&nodes, &inspectors, &reports, notes)?;
    }
    Ok(nodes.len() == cluster.ids().len())
}

/// Can its log be replayed up to there? Its state may be further on.
fn reaches(inspector: &Inspector, rested: &BTreeMap<u32, u64>) -> bool {
    match inspector.report(None, |group| rested.get(&group.get()).copied()) {
        Ok(_) => true,
        Err(InspectError::OutOfReach { to, from, .. }) => from > to,
        Err(_) => false,
    }
}

/// Brings replicas to one level: which, and what they hold there. Those that cannot reach it, or whose
/// log contradicts their state, are left out: as few as possible, and of as many those that hold less.
fn level(replicas: &[(NodeId, Inspector)]) -> (Vec<NodeId>, Vec<Report>) {
    let everyone = (1_u32 << replicas.len()) - 1;
    let is_in = |set: u32, at: usize| set >> at & 1 == 1;
    let try_set = |set: u32| {
        let chosen = replicas.iter().enumerate().filter(|(at, _)| is_in(set, *at));
        let chosen: Vec<&Inspector> = chosen.map(|(_, (_, inspector))| inspector).collect();
        let reports = inspect::level(&chosen);
        reports.inspect_err(|error| eprintln!("not all replicas agree: {error}")).ok()
    };
    let held = |reports: &Vec<Report>| {
        reports[0].groups.iter().map(|group| group.at.unwrap_or_default()).sum::<u64>()
    };
    let found = (1..=everyone.count_ones()).rev().find_map(|size| {
        let sets = (1..=everyone).filter(|set| set.count_ones() == size);
        let levelled = sets.filter_map(|set| Some((set, try_set(set)?)));
        levelled.max_by_key(|(_, reports)| held(reports))
    });
    let (set, reports) = found.unwrap_or_default();
    let chosen = replicas.iter().enumerate().filter(|(at, _)| is_in(set, *at));
    (chosen.map(|(_, (node, _))| *node).collect(), reports)
}

/// Reads what these nodes left into the history; all of them must be readable.
pub fn read_from(replicas: Vec<(NodeId, Inspector)>, notes: &Notes) -> Result<()> {
    let (nodes, inspectors): (Vec<NodeId>, Vec<Inspector>) = replicas.into_iter().unzip();
    let reports = inspect::level(&inspectors)?;
    write_down(&nodes, &inspectors, &reports, notes)
}

fn write_down(
    nodes: &[NodeId],
    inspectors: &[Inspector],
    reports: &[Report],
    notes: &Notes,
) -> Result<()> {
    for report in reports {
        hashes(report, notes)?;
    }
    for group in &reports[0].groups {
        let mut digests = BTreeMap::<User, Vec<u64>>::new();
        for (at, (node, inspector)) in nodes.iter().zip(inspectors).enumerate() {
            visit(inspector, group.group, group.at, &mut |user, mailbox, copies, dropped| {
                let digest = Digest::of(copies.iter().map(|(seq, copy)| (*seq, copy))).value();
                digests.entry(user).or_default().push(digest);
                let (node, floor, head) = (Node(node.get()), mailbox.floor, mailbox.head);
                notes.note(|_| Event::Mailbox { node, user, floor, head, digest });
                for (seq, copy) in copies.iter().filter(|_| at == 0) {
                    notes.note(|_| Event::Entry { user, seq: *seq, copy: *copy });
                }
                for seq in dropped.iter().filter(|_| at == 0) {
                    notes.note(|_| Event::Dropped { user, seq: *seq });
                }
            })?;
        }
        let same = |digests: &Vec<u64>| {
            digests.len() == nodes.len() && digests.iter().all(|digest| *digest == digests[0])
        };
        digests.retain(|_, digests| !same(digests));
        for (node, inspector) in nodes.iter().zip(inspectors).filter(|_| !digests.is_empty()) {
            visit(inspector, group.group, group.at, &mut |user, _, copies, _| {
                for (seq, copy) in copies.iter().filter(|_| digests.contains_key(&user)) {
                    let (node, seq, copy) = (Node(node.get()), *seq, *copy);
                    notes.note(|_| Event::ReplicaEntry { node, user, seq, copy });
                }
            })?;
        }
    }
    Ok(())
}

fn hashes(report: &Report, notes: &Notes) -> Result<()> {
    for group in &report.groups {
        let hash = u128::from_str_radix(&group.state_hash, 16)?;
        let (node, group, index) =
            (Node(report.node.get()), Group(group.group.get()), group.at.unwrap_or_default());
        notes.note(|at| Event::StateHash { at, node, group, index, hash });
    }
    Ok(())
}

type Show<'a> = dyn FnMut(User, &Mailbox, &[(Seq, Copy)], &[Seq]) + 'a;

/// Shows the mailboxes of a group in the history's words, and where in them messages were dropped.
fn visit(
    inspector: &Inspector,
    group: tidemark_store::storage::GroupId,
    to: Option<u64>,
    show: &mut Show<'_>,
) -> Result<()> {
    let mut failed = None;
    inspector.visit(group, to, &mut |mailbox, value, entries: &[(Seq, Entry)]| {
        let copies = entries.iter().map(|(seq, entry)| Ok((*seq, words::held(entry)?)));
        // Those of groups, of their members and of who talks are judged by themselves.
        let Some(user) = owner(mailbox) else { return };
        let shown = user.and_then(|user| {
            let copies = copies.collect::<Result<Vec<_>>>()?;
            let dropped = entries.iter().filter(|(_, entry)| was_dropped(entry));
            let dropped: Vec<Seq> = dropped.map(|(seq, _)| *seq).collect();
            show(user, value, &copies, &dropped);
            Ok(())
        });
        if let Err(error) = shown {
            failed.get_or_insert(error);
        }
    })?;
    failed.map_or(Ok(()), Err)
}

/// Is it its owner's message, which a gateway's verdict dropped?
fn was_dropped(entry: &Entry) -> bool {
    matches!(
        &entry.content,
        Content::Message { outgoing: Some(Outgoing { dropped: true, .. }), .. }
    )
}

fn owner(mailbox: &Recipient) -> Option<Result<User>> {
    match mailbox {
        Recipient::User(name) if groups::is_member(name) || is_talker(name) => None,
        Recipient::User(name) => Some(words::user(name)),
        Recipient::Group(_) => None,
    }
}
