//! What was said against what is there: in the devices' notebooks, and on every replica.

use std::collections::HashMap;
use std::fmt;

use anyhow::Result;
use tidemark_store::inspect::{self, Inspector};
use tidemark_store_core::value::Content;
use tidemark_types::{ClientMsgId, Recipient, Seq};

use crate::cluster::Cluster;
use crate::notebook::Notebook;
use crate::talk::{Message, Talk};

/// The account of the talk.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// Messages that were put into an outbox.
    sent: usize,
    /// Those that were acknowledged.
    acked: usize,
    /// Copies in the notebooks of every other device that must have them.
    delivered: usize,
    /// Copies that are missing, or not what was sent.
    lost: usize,
    /// Copies that are there more than once.
    duplicated: usize,
    /// Copies of one device's messages in another order than sent.
    out_of_order: usize,
    /// Seqs that a notebook or a replica's mailbox skips, and replicas that differ.
    seq_gaps: usize,
    failovers: usize,
    max_pause_ms: u128,
}

/// A mailbox as a notebook or a replica holds it: every copy with its seq.
type Copies = Vec<(Seq, ClientMsgId, Vec<u8>)>;

impl Ledger {
    /// Reads the notebooks, and every store's files; the stores must be down.
    pub(crate) fn read(cluster: &Cluster, talk: &Talk) -> Result<Self> {
        let mut ledger = Ledger {
            sent: talk.messages.len(),
            acked: talk.messages.iter().filter(|message| message.acked).count(),
            failovers: talk.failovers,
            max_pause_ms: talk.max_pause.as_millis(),
            ..Ledger::default()
        };
        for (device, path) in talk.notebooks.iter().enumerate() {
            let notes = Notebook::read(path)?.into_iter();
            let copies: Copies = notes.map(|n| (n.seq, n.id, n.body.into_bytes())).collect();
            let others = |message: &&Message| message.device != device;
            ledger.delivered += ledger.count(talk, &copies, others);
        }
        let replicas = cluster.data_dirs().into_iter().map(|dir| Inspector::open(&dir));
        let replicas = replicas.collect::<Result<Vec<_>, _>>()?;
        for replica in &replicas {
            ledger.replica(talk, replica)?;
        }
        let reports = inspect::level(&replicas)?;
        ledger.seq_gaps += reports.iter().map(|report| report.problems().count()).sum::<usize>();
        ledger.seq_gaps += inspect::divergent(&reports);
        Ok(ledger)
    }

    /// Is nothing wrong?
    pub(crate) fn is_clean(&self) -> bool {
        let wrong = [self.lost, self.duplicated, self.out_of_order, self.seq_gaps];
        let complete = self.acked == self.sent && self.delivered == self.sent * 3;
        wrong == [0; 4] && complete && self.failovers == 1
    }

    /// Counts both users' mailboxes on one replica.
    fn replica(&mut self, talk: &Talk, replica: &Inspector) -> Result<()> {
        for user in &talk.users {
            let mut copies = Copies::new();
            for (seq, entry) in replica.entries(&Recipient::User(user.clone()), None)? {
                if let Content::Message { message, .. } = entry.content {
                    copies.push((seq, message.client_msg_id, message.body.to_vec()));
                }
            }
            self.count(talk, &copies, |_| true);
        }
        Ok(())
    }

    /// Looks for each of the `wanted` messages among copies; how many are there.
    fn count(&mut self, talk: &Talk, copies: &Copies, wanted: impl Fn(&&Message) -> bool) -> usize {
        let mut places = HashMap::<ClientMsgId, Vec<usize>>::new();
        for (place, (seq, id, _)) in copies.iter().enumerate() {
            places.entry(*id).or_default().push(place);
            self.seq_gaps += usize::from(u32::try_from(place + 1) != Ok(seq.get()));
        }
        let mut found = 0;
        let mut last = HashMap::<usize, usize>::new();
        for message in talk.messages.iter().filter(|message| message.acked).filter(wanted) {
            let here = places.get(&message.id).map_or(&[][..], Vec::as_slice);
            let right = |place: &&usize| copies[**place].2 == message.body.as_bytes();
            match here.iter().find(right) {
                Some(place) => {
                    found += 1;
                    let before = last.insert(message.device, *place);
                    self.out_of_order += usize::from(before > Some(*place));
                }
                None => self.lost += 1,
            }
            self.duplicated += here.len().saturating_sub(1);
        }
        found
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ledger { sent, acked, delivered, lost, duplicated, out_of_order, .. } = self;
        let Ledger { seq_gaps, failovers, max_pause_ms, .. } = self;
        write!(
            f,
            "ledger: sent={sent} acked={acked} delivered={delivered} lost={lost} \
             duplicated={duplicated} out_of_order={out_of_order} seq_gaps={seq_gaps} \
             failovers={failovers} max_pause_ms={max_pause_ms}"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidemark_types::{UnixMs, UserId};

    use super::*;

    fn id(number: u8) -> ClientMsgId {
        ClientMsgId::new(UnixMs::new(1_800_000_000_000), [number; 10])
    }

    /// Two devices send four messages in turn.
    fn talk() -> Talk {
        let users = ["alice", "bob"].map(|user| UserId::new(user).expect("a name"));
        let message = |number: u8| {
            let (id, body) = (id(number), format!("message {number}"));
            Message { id, body, device: usize::from(number % 2), acked: true }
        };
        let messages = (0..4).map(message).collect();
        Talk { users, messages, notebooks: Vec::new(), failovers: 1, max_pause: Duration::ZERO }
    }

    /// A mailbox that holds these messages, in this order.
    fn mailbox(numbers: &[u8]) -> Copies {
        let seqs = (1..).map(Seq::new);
        let copy = |(seq, number): (Seq, &u8)| {
            (seq, id(*number), format!("message {number}").into_bytes())
        };
        seqs.zip(numbers).map(copy).collect()
    }

    fn account(copies: &Copies) -> Ledger {
        let mut ledger = Ledger::default();
        let delivered = ledger.count(&talk(), copies, |_| true);
        Ledger { delivered, ..ledger }
    }

    #[test]
    fn each_mistake_shows_in_its_own_figure() {
        let right = Ledger { delivered: 4, ..Ledger::default() };
        assert_eq!(account(&mailbox(&[0, 1, 2, 3])), right);

        let lost = Ledger { delivered: 3, lost: 1, ..right };
        assert_eq!(account(&mailbox(&[0, 1, 3])), lost);
        let mut altered = mailbox(&[0, 1, 2, 3]);
        altered[2].2.push(b'!');
        assert_eq!(account(&altered), lost);

        let doubled = Ledger { duplicated: 1, ..right };
        assert_eq!(account(&mailbox(&[0, 1, 1, 2, 3])), doubled);

        let swapped = Ledger { out_of_order: 1, ..right };
        assert_eq!(account(&mailbox(&[2, 1, 0, 3])), swapped);

        let mut gap = mailbox(&[0, 1, 2, 3]);
        gap[3].0 = Seq::new(5);
        assert_eq!(account(&gap), Ledger { seq_gaps: 1, ..right });
    }
}
