//! One load over one peer, from its first connection to its closed books: what `run.rs` does over our
//! own protocol, with the same clock, phases, counts and ledger.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::task::JoinSet;

use crate::body::Bodies;
use crate::ledger::{Ledger, Received};
use crate::lookout::{Lookout, PATIENCE};
use crate::meter::{Counts, Phase};
use crate::pace;
use crate::peers::intake::Read;
use crate::peers::load::{Books, Clients, Desk, Load, Peer};
use crate::peers::post::{Post, Posted};
use crate::report::Measured;

/// How long clients may take to leave once the run is over.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs a load over a peer that is prepared for it.
pub(crate) async fn drive<P: Peer>(
    peer: &mut P,
    name: &'static str,
    load: &Load,
) -> Result<Measured> {
    let lookout = Lookout::new(name, peer.servers().processes());
    let meter = &lookout.meter;
    let desk = Arc::new(Desk { meter: meter.clone(), bodies: Bodies::new(load.body) });
    let Clients { writers, mut readers, connections } = peer.connect(load, &desk).await?;
    let all = (writers.len(), readers.len());
    let mut senders = start(writers, load, &desk)?;
    lookout.pass(load.warmup, "warm-up").await;
    let from = lookout.begin().await;
    lookout.pass(load.measured, "measured").await;
    let to = lookout.end().await;
    meter.enter(Phase::Drain);
    let arrived = lookout.drain(|it| !load.is_read() || it.delivered == it.sent).await;
    meter.enter(Phase::Finish);
    let posted = leave(&mut senders).await;
    let read = leave(&mut readers).await;
    peer.servers().all_run()?;
    let mut ledger = close(&posted, &read, load, &meter.counts());
    if !arrived && ledger.faults.is_empty() {
        ledger.faults.push(format!("nothing arrived for {PATIENCE:?}, and something was missing"));
    }
    let left = (posted.len(), read.len());
    if left != all {
        let (senders, readers) = all;
        let cut = format!("of {senders} senders {} and of {readers} readers {}", left.0, left.1);
        ledger.faults.push(format!("{cut} left in time"));
    }
    if ledger.faults.is_empty() {
        let mut sent = vec![0; load.recipients() as usize];
        for posted in &posted {
            sent.iter_mut().zip(&posted.sent).for_each(|(all, sent)| *all += sent);
        }
        peer.audit(&Books { load, sent: &sent, read: &read }, &mut ledger).await?;
    }
    let acked = to.counts.acked - from.counts.acked;
    let delivered =
        if load.is_read() { to.counts.delivered - from.counts.delivered } else { acked };
    let conditions = load.conditions(connections);
    Ok(Measured { delivered, ledger, ..lookout.measured(conditions, &from, &to, acked) })
}

/// Starts all senders, and the pace where the loop is open.
fn start<W: super::load::Write>(
    writers: Vec<W>,
    load: &Load,
    desk: &Arc<Desk>,
) -> Result<JoinSet<Posted>> {
    let mut senders = JoinSet::new();
    let (queues, due) = pace::queues(writers.len());
    for ((index, writer), due) in (0..).zip(writers).zip(due) {
        let due = load.rate.map(|_| due);
        senders.spawn(Post::new(index, load, writer, due, desk.clone()).run());
    }
    if let Some(rate) = load.rate {
        pace::start(desk.meter.clone(), rate, queues)?;
    }
    Ok(senders)
}

/// What those left behind who left in time; the others are cut off.
async fn leave<T: 'static>(tasks: &mut JoinSet<T>) -> Vec<T> {
    let mut left = Vec::new();
    let all = async {
        while let Some(task) = tasks.join_next().await {
            left.extend(task);
        }
    };
    // Whoever is late is missing in the books.
    let _ = tokio::time::timeout(LEAVE_TIMEOUT, all).await;
    tasks.abort_all();
    left
}

/// What writers and readers say.
fn close(posted: &[Posted], read: &[Read], load: &Load, counts: &Counts) -> Ledger {
    let Counts { sent, acked, delivered, .. } = *counts;
    let mut ledger = Ledger { sent, acked, delivered, ..Ledger::default() };
    let faults = posted.iter().map(|posted| (format!("sender {}", posted.sender), &posted.fault));
    let faults = faults.chain(read.iter().map(|read| ("a reader".to_owned(), &read.fault)));
    for (who, fault) in faults {
        ledger.faults.extend(fault.as_ref().map(|fault| format!("{who}: {fault}")));
    }
    if !load.is_read() {
        return ledger;
    }
    let received: BTreeMap<u32, &Received> = read
        .iter()
        .flat_map(|read| read.by_recipient.iter().map(|(to, received)| (*to, received)))
        .collect();
    for received in received.values() {
        ledger.duplicated += received.duplicated;
        ledger.out_of_order += received.out_of_order;
    }
    for posted in posted {
        let sent = (0..).zip(&posted.sent).filter(|(_, sent)| **sent > 0);
        ledger.lost += sent
            .map(|(to, sent)| received.get(&to).map_or(*sent, |it| it.lost(posted.sender, *sent)))
            .sum::<u64>();
    }
    ledger
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::load::{Fault, Work};

    fn load(work: Work) -> Load {
        let second = Duration::from_secs(1);
        Load {
            work,
            senders: 2,
            in_flight: 1,
            rate: None,
            connections: 1,
            body: 64,
            warmup: second,
            measured: second,
            threads: 2,
        }
    }

    /// Two users who sent each other three messages, and what they read of it.
    fn closed(work: Work, spoil: impl Fn(&mut [Read], &mut [Posted])) -> Ledger {
        let posted = |sender: u32, sent| Posted { sender, sent, fault: None };
        let mut all_posted = [posted(0, vec![0, 3]), posted(1, vec![3, 0])];
        let mut read = Read::default();
        for (to, from) in [(0, 1), (1, 0)] {
            let mut received = Received::default();
            for k in 1..=3 {
                received.arrived(from, k);
            }
            read.by_recipient.insert(to, received);
        }
        let mut all_read = [read];
        spoil(&mut all_read, &mut all_posted);
        let counts = Counts { sent: 6, acked: 6, delivered: 6, ..Counts::default() };
        close(&all_posted, &all_read, &load(work), &counts)
    }

    #[test]
    fn books_of_a_load_without_a_flaw_are_clean() {
        let ledger = closed(Work::Inboxes, |_, _| {});
        assert!(ledger.is_clean(), "{ledger}");
    }

    #[test]
    fn what_a_reader_lacks_is_lost_and_what_it_has_twice_is_doubled() {
        let lost = closed(Work::Inboxes, |_, posted| posted[0].sent[1] = 5);
        assert_eq!((lost.lost, lost.is_clean()), (2, false));
        let none = closed(Work::Inboxes, |read, _| drop(read[0].by_recipient.remove(&1)));
        assert_eq!(none.lost, 3);
        let twice = closed(Work::Inboxes, |read, _| {
            let received = read[0].by_recipient.get_mut(&1).expect("it reads for both");
            received.arrived(0, 2);
        });
        assert_eq!((twice.duplicated, twice.is_clean()), (1, false));
    }

    #[test]
    fn nobody_misses_what_nobody_reads() {
        let ledger = closed(Work::Stored { users: 2 }, |read, _| read[0].by_recipient.clear());
        assert!(ledger.is_clean(), "{ledger}");
    }

    #[test]
    fn a_fault_of_either_half_is_in_the_ledger() {
        let ledger = closed(Work::Inboxes, |read, posted| {
            read[0].fault = Some(Fault::read("cut"));
            posted[1].fault = Some(Fault::ack("late"));
        });
        assert_eq!(ledger.faults, ["sender 1: no acknowledgement: late", "a reader: reading: cut"]);
    }
}
