//! What one connection is sent unasked: a place in the mailbox, and nothing else.
//!
//! ```text
//!   Welcome ──► Live(sent) ◄──page without `more`── Paging ◄── Welcome
//!               └──────────page with `more`───────────►│
//! ```
//!
//! Invariants: a `Deliver` begins right after the last entry sent, and only when a page without
//! `more` or a `Deliver` ended there; of one head there is one `Notice`.

use std::time::Duration;

use tidemark_proto::{Position, v1};
use tidemark_types::{Epoch, Seq, UnixMs};

use crate::metrics;
use crate::session::{Kept, Mailbox};

/// What a connection is sent unasked.
#[derive(Debug)]
pub(crate) struct Delivery {
    epoch: Epoch,
    stage: Stage,
    /// The highest head that a `Notice` told.
    noticed: Seq,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It is asking for pages.
    Paging,
    /// It was sent everything up to here.
    Live(Seq),
}

/// What is to be sent now.
#[derive(Debug, PartialEq)]
pub(crate) enum Push {
    Deliver(v1::Deliver),
    Notice(v1::Notice),
    /// The mailbox has begun a new epoch, and the device's place means nothing.
    Reset(Position),
}

impl Delivery {
    /// The device stands at `start`, and the mailbox at `head`.
    pub(crate) fn at(epoch: Epoch, start: Seq, head: Seq) -> Self {
        let stage = if start < head { Stage::Paging } else { Stage::Live(start) };
        Delivery { epoch, stage, noticed: head }
    }

    /// The epoch in which it counts.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The highest head that the device was told, in its epoch.
    pub(crate) fn noticed(&self) -> (Epoch, Seq) {
        (self.epoch, self.noticed)
    }

    /// A page that ends at `last` goes out.
    pub(crate) fn paged(&mut self, last: Seq, more: bool) {
        self.stage = match self.stage {
            Stage::Paging | Stage::Live(_) if more => Stage::Paging,
            Stage::Paging => Stage::Live(last),
            // A `Deliver` may have gone further while the page was read.
            Stage::Live(sent) => Stage::Live(sent.max(last)),
        };
    }

    /// Is there something to be sent?
    pub(crate) fn is_due(&self, mailbox: &Mailbox) -> bool {
        match (self.stage, mailbox.head()) {
            (_, None) => false,
            (_, Some((epoch, _))) if epoch != self.epoch => epoch > self.epoch,
            (Stage::Paging, _) => false,
            (Stage::Live(sent), Some((_, head))) => {
                head > sent && (head > self.noticed || mailbox.after(sent).is_some())
            }
        }
    }

    /// What is to be sent `now`, on the wall clock; the caller sends it, and after a reset asks no more.
    pub(crate) fn take(&mut self, mailbox: &Mailbox, now: UnixMs) -> Option<Push> {
        let position = mailbox.position().filter(|_| self.is_due(mailbox))?;
        let sent = match self.stage {
            Stage::Live(sent) if position.epoch == self.epoch => sent,
            _ => return Some(Push::Reset(position)),
        };
        let Some(entries) = mailbox.after(sent) else {
            self.noticed = position.head;
            metrics::noticed();
            let (epoch, head) = (self.epoch.get(), position.head.get());
            return Some(Push::Notice(v1::Notice { epoch, head }));
        };
        metrics::delivered(entries.len());
        // All that the tail holds fits into one frame.
        let told = |entry: &Kept| {
            if let Some(sent) = entry.sent {
                // Two clocks: the cluster's may be a little ahead of this one.
                let took = now.get().saturating_sub(sent.get());
                metrics::delivered_after(Duration::from_millis(took));
            }
            entry.encoded.clone()
        };
        let entries = entries.map(told).collect();
        // The tail ends at the head.
        self.stage = Stage::Live(position.head);
        let (epoch, prev_seq) = (self.epoch.get(), sent.get());
        Some(Push::Deliver(v1::Deliver { epoch, prev_seq, entries }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::heard::{appended, head, heard, heard_within, registered};

    fn at(start: u32, head: u32) -> Delivery {
        Delivery::at(Epoch::FIRST, Seq::new(start), Seq::new(head))
    }

    fn take(delivery: &mut Delivery, mailbox: &Mailbox) -> String {
        let due = delivery.is_due(mailbox);
        let taken = delivery.take(mailbox, UnixMs::new(1));
        assert_eq!(due, taken.is_some());
        match taken {
            None => "nothing".to_owned(),
            Some(Push::Notice(notice)) => format!("notice {}", notice.head),
            Some(Push::Reset(at)) => format!("reset {}", at.epoch),
            Some(Push::Deliver(run)) => {
                let prev_seq = run.prev_seq;
                let entries = run.decoded().expect("they were encoded");
                let seqs: Vec<_> = entries.iter().map(|entry| entry.seq).collect();
                format!("after {prev_seq} {seqs:?}")
            }
        }
    }

    #[test]
    fn a_device_that_is_up_to_date_gets_what_comes() {
        let mut delivery = at(5, 5);
        let mut mailbox = heard([registered(1, 5)]);
        assert_eq!(take(&mut delivery, &mailbox), "nothing");
        mailbox.hear(&appended(6));
        mailbox.hear(&appended(7));
        assert_eq!(take(&mut delivery, &mailbox), "after 5 [6, 7]");
        assert_eq!(take(&mut delivery, &mailbox), "nothing");
    }

    #[test]
    fn nothing_comes_before_the_last_page() {
        let mut delivery = at(2, 5);
        let mut mailbox = heard([registered(1, 5), appended(6)]);
        assert_eq!(take(&mut delivery, &mailbox), "nothing");
        delivery.paged(Seq::new(4), true);
        assert_eq!(take(&mut delivery, &mailbox), "nothing");
        // Entry 6 came while the last page was read, which ends at 5.
        delivery.paged(Seq::new(5), false);
        assert_eq!(take(&mut delivery, &mailbox), "after 5 [6]");
        // Entry 7 is in the page and in the tail.
        mailbox.hear(&appended(7));
        delivery.paged(Seq::new(7), false);
        assert_eq!(take(&mut delivery, &mailbox), "nothing");
        mailbox.hear(&appended(8));
        assert_eq!(take(&mut delivery, &mailbox), "after 7 [8]");
    }

    #[test]
    fn a_page_behind_what_was_delivered_takes_nothing_back() {
        let mut delivery = at(5, 5);
        let mailbox = heard([registered(1, 5), appended(6)]);
        assert_eq!(take(&mut delivery, &mailbox), "after 5 [6]");
        delivery.paged(Seq::new(5), false);
        assert_eq!(take(&mut delivery, &mailbox), "nothing");
    }

    #[test]
    fn what_is_not_in_the_tail_is_noticed_once() {
        let mut delivery = at(5, 5);
        let mut mailbox = heard([registered(1, 5), head(8)]);
        assert_eq!(take(&mut delivery, &mailbox), "notice 8");
        assert_eq!(take(&mut delivery, &mailbox), "nothing");
        mailbox.hear(&appended(9));
        assert_eq!(take(&mut delivery, &mailbox), "notice 9");
        delivery.paged(Seq::new(8), false);
        assert_eq!(take(&mut delivery, &mailbox), "after 8 [9]");
    }

    #[test]
    fn what_tails_have_no_room_for_is_noticed_and_had_by_pages() {
        let mut delivery = at(5, 5);
        let mut mailbox = heard_within(0, [registered(1, 5), appended(6)]);
        assert_eq!(take(&mut delivery, &mailbox), "notice 6");
        mailbox.hear(&appended(7));
        assert_eq!(take(&mut delivery, &mailbox), "notice 7");
        delivery.paged(Seq::new(7), false);
        assert_eq!(take(&mut delivery, &mailbox), "nothing");
    }

    #[test]
    fn a_new_epoch_ends_it_and_an_old_one_is_stale_news() {
        let mut delivery = at(5, 5);
        assert_eq!(take(&mut delivery, &heard([registered(2, 3)])), "reset 2");
        let mut newer = Delivery::at(Epoch::new(2), Seq::new(1), Seq::new(1));
        assert_eq!(take(&mut newer, &heard([registered(1, 9)])), "nothing");
    }
}
