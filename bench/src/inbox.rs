//! The receiving half of a light device: the gap arithmetic of `docs/protocol.md`, and the cursor.
//! Pure. What the device's application does with an entry is the caller's: it takes them at once,
//! so that the cursor is what was received.
//!
//! Invariant: entries come out once, in the order of seqs, without a hole.

use tidemark_proto::{FieldError, page, v1};
use tidemark_types::{Arrival, Seq};

/// Where a device stands in its mailbox.
#[derive(Debug)]
pub(crate) struct Inbox {
    epoch: u32,
    received: Seq,
    /// What the server was told.
    acked: Seq,
    /// The highest head heard of.
    head: Seq,
    /// The `Sync` that has no answer yet.
    asked: Option<u64>,
    requests: u64,
}

impl Inbox {
    /// The server's answer to this device's `Hello`.
    pub(crate) fn new(welcome: &v1::Welcome) -> Self {
        let start = Seq::new(welcome.start);
        let head = Seq::new(welcome.seq_svr);
        // A page comes unasked when something is missing.
        let asked = (start < head).then_some(0);
        Inbox { epoch: welcome.epoch, received: start, acked: start, head, asked, requests: 0 }
    }

    /// The last seq received.
    pub(crate) fn received(&self) -> Seq {
        self.received
    }

    /// Entries came: those that are new.
    pub(crate) fn deliver(
        &mut self,
        run: v1::Deliver,
    ) -> Result<impl Iterator<Item = v1::Entry> + use<>, FieldError> {
        self.run(run.epoch, run.prev_seq, run.decoded()?)
    }

    /// Entries came to a device that takes none but those of pages: it has heard of them.
    pub(crate) fn noticed(&mut self, run: v1::Deliver) -> Result<(), FieldError> {
        let (epoch, prev) = (run.epoch, Seq::new(run.prev_seq));
        let last = page::last_of(prev, &run.decoded()?)?;
        self.heard_of(epoch, last.get());
        Ok(())
    }

    /// A page came: those of its entries that are new.
    pub(crate) fn page(
        &mut self,
        sync_page: v1::SyncPage,
    ) -> Result<impl Iterator<Item = v1::Entry> + use<>, FieldError> {
        if self.asked == Some(sync_page.request_id) {
            self.asked = None;
        }
        let page = sync_page.page.unwrap_or_default();
        self.heard_of(page.epoch, page.head);
        self.run(page.epoch, page.prev_seq, page.entries)
    }

    /// The mailbox has grown to here.
    pub(crate) fn heard_of(&mut self, epoch: u32, head: u32) {
        if epoch == self.epoch {
            self.head = self.head.max(Seq::new(head));
        }
    }

    /// A `Sync` was refused for now.
    pub(crate) fn refused(&mut self, request_id: u64) {
        if self.asked == Some(request_id) {
            self.asked = None;
        }
    }

    /// The `Sync` to send now, if entries are missing and none is under way.
    pub(crate) fn sync(&mut self) -> Option<v1::Sync> {
        if self.asked.is_some() || self.head <= self.received {
            return None;
        }
        self.requests += 1;
        self.asked = Some(self.requests);
        let seq_cli = self.received.get();
        Some(v1::Sync { request_id: self.requests, epoch: self.epoch, seq_cli, limit: 0 })
    }

    /// The cursor to report, if it moved since the last time.
    pub(crate) fn ack(&mut self) -> Option<v1::Ack> {
        if self.acked == self.received {
            return None;
        }
        self.acked = self.received;
        Some(v1::Ack { epoch: self.epoch, seq: self.acked.get() })
    }

    /// A heartbeat.
    pub(crate) fn ping(&self) -> v1::Ping {
        v1::Ping { nonce: 0, epoch: self.epoch, seq_cli: self.received.get() }
    }

    fn run(
        &mut self,
        epoch: u32,
        prev: u32,
        entries: Vec<v1::Entry>,
    ) -> Result<impl Iterator<Item = v1::Entry> + use<>, FieldError> {
        let (known, prev) = (self.received, Seq::new(prev));
        let last = page::last_of(prev, &entries)?;
        let arrival = Arrival::judge(known, prev, last);
        let applies = epoch == self.epoch && arrival == Arrival::Apply;
        if applies {
            self.received = last;
        }
        if epoch == self.epoch {
            self.head = self.head.max(last);
        }
        let new = move |entry: &v1::Entry| applies && Seq::new(entry.seq) > known;
        Ok(entries.into_iter().filter(new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: u32, seq_svr: u32) -> Inbox {
        Inbox::new(&v1::Welcome { epoch: 1, start, seq_svr, ..Default::default() })
    }

    fn entries(seqs: impl IntoIterator<Item = u32>) -> Vec<v1::Entry> {
        seqs.into_iter().map(|seq| v1::Entry { seq, ..Default::default() }).collect()
    }

    fn deliver(
        inbox: &mut Inbox,
        epoch: u32,
        prev_seq: u32,
        seqs: &[u32],
    ) -> Result<Vec<u32>, FieldError> {
        let run = v1::Deliver::new(epoch, prev_seq, &entries(seqs.iter().copied()));
        Ok(inbox.deliver(run)?.map(|entry| entry.seq).collect())
    }

    #[test]
    fn entries_come_out_once_and_in_order() {
        let mut inbox = at(0, 0);
        assert_eq!(deliver(&mut inbox, 1, 0, &[1, 2]), Ok(vec![1, 2]));
        assert_eq!(deliver(&mut inbox, 1, 1, &[2, 3]), Ok(vec![3]));
        assert_eq!(deliver(&mut inbox, 1, 0, &[1, 2, 3]), Ok(vec![]));
        assert_eq!(deliver(&mut inbox, 2, 3, &[4]), Ok(vec![]));
        assert_eq!(inbox.sync(), None);
        assert_eq!(inbox.ack(), Some(v1::Ack { epoch: 1, seq: 3 }));
        assert_eq!(inbox.ack(), None);
    }

    #[test]
    fn a_hole_in_a_run_is_a_broken_server() {
        assert!(deliver(&mut at(0, 0), 1, 0, &[1, 3]).is_err());
        assert!(deliver(&mut at(0, 0), 1, 0, &[2, 1]).is_err());
    }

    #[test]
    fn what_is_missing_is_asked_for_once() {
        let mut inbox = at(0, 0);
        assert_eq!(deliver(&mut inbox, 1, 2, &[3]), Ok(vec![]));
        let sync = inbox.sync().expect("1 and 2 are missing");
        assert_eq!((sync.request_id, sync.seq_cli), (1, 0));
        assert_eq!(inbox.sync(), None);
        let page = v1::Page { epoch: 1, head: 5, entries: entries(1..=3), ..Default::default() };
        let page = v1::SyncPage { request_id: 1, page: Some(page) };
        assert_eq!(inbox.page(page).expect("contiguous").count(), 3);
        assert_eq!(inbox.sync().expect("4 and 5 are missing").seq_cli, 3);
        inbox.refused(2);
        assert_eq!(inbox.sync().expect("again").request_id, 3);
    }

    #[test]
    fn what_came_to_a_device_that_pulls_is_asked_for_and_taken_from_the_page() {
        let mut inbox = at(0, 0);
        let run = v1::Deliver::new(1, 0, &entries(1..=2));
        inbox.noticed(run).expect("contiguous");
        assert_eq!(inbox.received(), Seq::NONE);
        assert_eq!(inbox.sync().expect("1 and 2 are missing").seq_cli, 0);
        // One more comes while the page is on its way.
        let run = v1::Deliver::new(1, 2, &entries(3..=3));
        inbox.noticed(run).expect("contiguous");
        let page = v1::Page { epoch: 1, head: 2, entries: entries(1..=2), ..Default::default() };
        let page = v1::SyncPage { request_id: 1, page: Some(page) };
        assert_eq!(inbox.page(page).expect("contiguous").count(), 2);
        assert_eq!(inbox.sync().expect("3 is missing").seq_cli, 2);
        let holed = v1::Deliver::new(1, 3, &entries([4, 6]));
        assert!(inbox.noticed(holed).is_err());
    }

    #[test]
    fn the_first_page_comes_unasked() {
        let mut inbox = at(0, 2);
        assert_eq!(inbox.sync(), None);
        let page = v1::Page { epoch: 1, head: 2, entries: entries(1..=2), ..Default::default() };
        let page = v1::SyncPage { request_id: 0, page: Some(page) };
        assert_eq!(inbox.page(page).expect("contiguous").count(), 2);
        inbox.heard_of(1, 3);
        assert_eq!(inbox.sync().expect("3 is missing").seq_cli, 2);
    }
}
