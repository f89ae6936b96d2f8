//! The books: what was acknowledged against what arrived, for every sender and recipient. One
//! message that is lost, doubled or out of order voids a run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// Faults that people are shown: the others most likely say the same.
const FAULTS_SHOWN: usize = 5;

/// What one sender's messages are known by at one recipient: 1, 2, 3 … in the order sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stream {
    last: u64,
    missing: BTreeSet<u64>,
}

/// How a message arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrived {
    /// Right after the one before it.
    InOrder,
    /// For the first time, before or after one that it should not have overtaken.
    OutOfOrder,
    /// Again.
    Again,
}

impl Stream {
    /// Message `k` arrived.
    pub(crate) fn arrived(&mut self, k: u64) -> Arrived {
        if k > self.last {
            let in_order = k == self.last + 1;
            self.missing.extend(self.last + 1..k);
            self.last = k;
            return if in_order { Arrived::InOrder } else { Arrived::OutOfOrder };
        }
        if self.missing.remove(&k) { Arrived::OutOfOrder } else { Arrived::Again }
    }

    /// The highest one that arrived, 0 for none.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// How many of the messages up to `sent` did not arrive.
    pub(crate) fn lost(&self, sent: u64) -> u64 {
        sent.saturating_sub(self.last) + self.missing.len() as u64
    }
}

/// What one recipient got, by sender.
#[derive(Debug, Default)]
pub(crate) struct Received {
    streams: BTreeMap<u32, Stream>,
    /// Messages that arrived again.
    pub(crate) duplicated: u64,
    /// Messages that arrived out of order.
    pub(crate) out_of_order: u64,
}

impl Received {
    /// Message `k` of `sender` arrived.
    pub(crate) fn arrived(&mut self, sender: u32, k: u64) -> Arrived {
        let arrived = self.streams.entry(sender).or_default().arrived(k);
        match arrived {
            Arrived::InOrder => {}
            Arrived::OutOfOrder => self.out_of_order += 1,
            Arrived::Again => self.duplicated += 1,
        }
        arrived
    }

    /// How many of `sent` messages of `sender` did not arrive.
    pub(crate) fn lost(&self, sender: u32, sent: u64) -> u64 {
        self.streams.get(&sender).map_or(sent, |stream| stream.lost(sent))
    }
}

/// The books of a run, closed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ledger {
    /// Messages sent.
    pub(crate) sent: u64,
    /// Messages acknowledged, their seqs in the order of their numbers.
    pub(crate) acked: u64,
    /// Copies in recipients' hands, or in the mailboxes of those who are offline.
    pub(crate) delivered: u64,
    /// Copies in the hands of the senders' own devices.
    pub(crate) own: u64,
    /// Copies that the servers know to be confirmed, of those delivered to devices.
    pub(crate) confirmed: u64,
    /// Acknowledged, and not where they belong.
    pub(crate) lost: u64,
    /// Twice where they belong once.
    pub(crate) duplicated: u64,
    /// Not in the order sent.
    pub(crate) out_of_order: u64,
    /// Delivered, and not known to be confirmed in the end.
    pub(crate) unconfirmed: u64,
    /// Anything else that the protocol forbids, in words; the first of each device.
    pub(crate) faults: Vec<String>,
}

impl Ledger {
    /// Is everything right?
    pub(crate) fn is_clean(&self) -> bool {
        let wrong = self.lost + self.duplicated + self.out_of_order + self.unconfirmed;
        wrong == 0 && self.faults.is_empty() && self.sent == self.acked && self.sent > 0
    }
}

impl AddAssign for Ledger {
    fn add_assign(&mut self, other: Ledger) {
        self.sent += other.sent;
        self.acked += other.acked;
        self.delivered += other.delivered;
        self.own += other.own;
        self.confirmed += other.confirmed;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.out_of_order += other.out_of_order;
        self.unconfirmed += other.unconfirmed;
        self.faults.extend(other.faults);
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ledger { sent, acked, delivered, own, confirmed, .. } = self;
        let Ledger { lost, duplicated, out_of_order, unconfirmed, faults, .. } = self;
        write!(f, "ledger: sent={sent} acked={acked} delivered={delivered} own={own} ")?;
        write!(f, "confirmed={confirmed} lost={lost} duplicated={duplicated} ")?;
        write!(f, "out_of_order={out_of_order} unconfirmed={unconfirmed} faults={}", faults.len())?;
        faults.iter().take(FAULTS_SHOWN).try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(arrivals: &[u64]) -> (Stream, Vec<Arrived>) {
        let mut stream = Stream::default();
        let arrived = arrivals.iter().map(|k| stream.arrived(*k)).collect();
        (stream, arrived)
    }

    #[test]
    fn what_comes_in_order_is_whole() {
        let (stream, arrived) = stream(&[1, 2, 3]);
        assert!(arrived.iter().all(|arrived| *arrived == Arrived::InOrder));
        assert_eq!((stream.lost(3), stream.lost(5)), (0, 2));
    }

    #[test]
    fn one_that_was_overtaken_is_not_lost_and_not_in_order() {
        let (stream, arrived) = stream(&[1, 3, 2, 4]);
        let late = Arrived::OutOfOrder;
        assert_eq!(arrived, [Arrived::InOrder, late, late, Arrived::InOrder]);
        assert_eq!(stream.lost(4), 0);
    }

    #[test]
    fn a_hole_is_a_loss_and_a_repetition_is_seen() {
        let (mut holed, _) = stream(&[1, 4]);
        assert_eq!(holed.lost(4), 2);
        assert_eq!(holed.arrived(4), Arrived::Again);
        assert_eq!(holed.arrived(1), Arrived::Again);
        assert_eq!(holed.arrived(2), Arrived::OutOfOrder);
        assert_eq!(holed.lost(4), 1);
    }

    #[test]
    fn each_kind_of_wrong_spoils_the_ledger() {
        let clean = Ledger { sent: 2, acked: 2, delivered: 2, own: 2, ..Ledger::default() };
        assert!(clean.is_clean());
        assert!(!Ledger::default().is_clean(), "a run without messages proves nothing");
        for spoil in [
            |ledger: &mut Ledger| ledger.lost = 1,
            |ledger: &mut Ledger| ledger.duplicated = 1,
            |ledger: &mut Ledger| ledger.out_of_order = 1,
            |ledger: &mut Ledger| ledger.unconfirmed = 1,
            |ledger: &mut Ledger| ledger.acked = 1,
            |ledger: &mut Ledger| ledger.faults.push("x".to_owned()),
        ] {
            let mut ledger = clean.clone();
            spoil(&mut ledger);
            assert!(!ledger.is_clean(), "{ledger}");
        }
    }

    #[test]
    fn senders_are_told_apart() {
        let mut received = Received::default();
        for (sender, k) in [(0, 1), (1, 1), (0, 2), (0, 2), (1, 3)] {
            received.arrived(sender, k);
        }
        assert_eq!((received.duplicated, received.out_of_order), (1, 1));
        assert_eq!((received.lost(0, 2), received.lost(1, 3), received.lost(2, 4)), (0, 1, 4));
    }
}
