//! Receiving: the gap arithmetic, what waits for the application, and the cursor.
//!
//! ```text
//!    saved, acked       cursor         received             head
//!         │ taken,        │ waits for     │ not here yet      │
//!   ──────┴───────────────┴───────────────┴───────────────────┘
//!           stored before    pending        Sync asks for it
//!           the next Ack
//! ```
//!
//! The application gets one item at a time, in the order of seqs; the cursor moves when it has
//! taken it. Above a bound of what waits nothing is asked for, and what comes is dropped: the
//! mailbox keeps it. Invariants: `cursor <= received`; the cursor is stored before a frame tells
//! it; nothing is passed over but what a gap names.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tidemark_env::Rng;
use tidemark_proto::page::{Page, last_of};
use tidemark_proto::{FieldError, Origin, Position, v1};
use tidemark_types::{Arrival, Epoch, Seq, SeqRange, UserId};

use super::backoff::Backoff;
use super::origins::Origins;
use super::out::Out;
use super::sender::Sender;
use super::{Action, ConnectionState, Status};
use crate::entry::{Content, Entry, Item};
use crate::event::Event;
use crate::outcome::Accepted;
use crate::store::Meta;

/// Items that wait for the application. A frame more may come on top of it: 4 MiB.
const PENDING_MAX: u32 = 4_096;
/// Bytes of them, for the same reason.
const PENDING_BYTES_MAX: usize = 4 << 20;

/// How often the cursor is stored and confirmed: what a crash may hand over twice.
const ACK_INTERVAL: Duration = Duration::from_secs(1);

/// A `Sync` without an answer is asked again after this time.
const SYNC_FIRST: Duration = Duration::from_secs(2);
const SYNC_LONGEST: Duration = Duration::from_secs(30);

/// An item that the handler did not take is handed over again after this time.
const HANDLER_FIRST: Duration = Duration::from_millis(100);
const HANDLER_LONGEST: Duration = Duration::from_secs(30);

/// A run of entries, from a `Deliver` or a page.
struct Run {
    epoch: Epoch,
    prev: Seq,
    last: Seq,
    gap: Option<SeqRange>,
    entries: Vec<v1::Entry>,
}

/// A `Sync` that has no answer yet.
#[derive(Clone, Copy, Debug)]
struct Asked {
    /// 0 for the page that follows a `Welcome`.
    request_id: u64,
    /// Asked again then.
    by: Duration,
    /// Its answer ends the search for the head.
    for_head: bool,
}

/// The receiving half of a device.
pub(super) struct Receiver {
    user: UserId,
    epoch: Epoch,
    /// The last seq that the application has taken.
    cursor: Seq,
    /// What the store holds of it, and what the server was told.
    saved: Seq,
    acked: Seq,
    received: Seq,
    /// The highest seq that this device has heard of.
    head: Seq,
    pending: VecDeque<Item>,
    pending_bytes: usize,
    /// The application has this one in its hands; none of it counts once the mailbox was reset.
    handing: Option<Item>,
    stale: bool,
    hand_at: Option<Duration>,
    closing: bool,
    origins: Origins,
    online: bool,
    /// There is more than was received.
    behind: bool,
    /// The sender wants to be told when everything up to the head has been seen.
    seeking: bool,
    asked: Option<Asked>,
    ask_at: Option<Duration>,
    last_request: u64,
    flush_at: Option<Duration>,
    sync: Backoff,
    handler: Backoff,
    rng: Arc<dyn Rng>,
}

impl Receiver {
    pub(super) fn new(meta: &Meta, rng: Arc<dyn Rng>) -> Self {
        Receiver {
            user: meta.user.clone(),
            epoch: meta.epoch,
            cursor: meta.cursor,
            saved: meta.cursor,
            acked: Seq::NONE,
            received: meta.cursor,
            head: meta.cursor,
            pending: VecDeque::new(),
            pending_bytes: 0,
            handing: None,
            stale: false,
            hand_at: None,
            closing: false,
            origins: Origins::default(),
            online: false,
            behind: false,
            seeking: false,
            asked: None,
            ask_at: None,
            last_request: 0,
            flush_at: None,
            sync: Backoff::new(SYNC_FIRST, SYNC_LONGEST),
            handler: Backoff::new(HANDLER_FIRST, HANDLER_LONGEST),
            rng,
        }
    }

    /// Puts its part into what is stored.
    pub(super) fn save(&mut self, meta: &mut Meta) {
        meta.epoch = self.epoch;
        meta.cursor = self.cursor;
        self.saved = self.cursor;
    }

    /// Its part of a device's status.
    pub(super) fn status(&self) -> Status {
        Status {
            connection: ConnectionState::Waiting,
            epoch: self.epoch,
            cursor: self.cursor,
            received: self.received,
            head: self.head,
            outbox_len: 0,
            unsettled: 0,
            sending_stopped: false,
        }
    }

    /// The cursor for a frame, which confirms it: it is stored with this step.
    pub(super) fn confirm(&mut self, out: &mut Out) -> (Epoch, Seq) {
        if self.cursor != self.saved {
            out.save_meta();
        }
        self.acked = self.cursor;
        self.flush_at = None;
        (self.epoch, self.cursor)
    }

    /// The server said where the mailbox stands. False when it contradicts what the device said.
    pub(super) fn welcome(&mut self, now: Duration, welcome: &v1::Welcome, out: &mut Out) -> bool {
        let (epoch, start) = (Epoch::new(welcome.epoch), Seq::new(welcome.start));
        if self.epoch == Epoch::NONE && epoch != Epoch::NONE {
            self.epoch = epoch;
            self.cursor = start;
            self.received = start;
            self.acked = start;
            out.save_meta();
        }
        if self.epoch != epoch || start > self.received {
            return false;
        }
        self.heard_of(Seq::new(welcome.seq_svr));
        self.online = true;
        self.sync.reset();
        self.ask_at = None;
        self.asked = None;
        if start < Seq::new(welcome.seq_svr) {
            self.wait_for_page(now, 0);
        }
        true
    }

    pub(super) fn offline(&mut self) {
        self.online = false;
        self.asked = None;
        self.ask_at = None;
        self.seeking = false;
    }

    /// New entries.
    pub(super) fn deliver(
        &mut self,
        deliver: v1::Deliver,
        sender: &mut Sender,
        out: &mut Out,
    ) -> Result<(), FieldError> {
        let prev = Seq::new(deliver.prev_seq);
        let epoch = Epoch::new(deliver.epoch);
        let (entries, last) = deliver
            .decoded()
            .and_then(|entries| last_of(prev, &entries).map(|last| (entries, last)))
            .map_err(|error| error.within("deliver"))?;
        self.run(Run { epoch, prev, last, gap: None, entries }, sender, out);
        Ok(())
    }

    /// The answer to a `Sync`, or what follows a `Welcome`.
    pub(super) fn page(
        &mut self,
        sync: v1::SyncPage,
        sender: &mut Sender,
        out: &mut Out,
    ) -> Result<(), FieldError> {
        let request_id = sync.request_id;
        let Page { prev, last, gap, page } = Page::try_from(sync)?;
        let asked = self.asked.take_if(|asked| asked.request_id == request_id);
        if asked.is_some() {
            self.sync.reset();
        }
        let epoch = Epoch::new(page.epoch);
        if epoch != self.epoch {
            return Ok(());
        }
        let (head, more) = (Seq::new(page.head), page.more);
        self.run(Run { epoch, prev, last, gap, entries: page.entries }, sender, out);
        self.behind |= more;
        self.heard_of(head);
        if asked.is_some_and(|asked| asked.for_head) && !more && self.received >= head {
            self.seeking = false;
            sender.searched(out);
        }
        Ok(())
    }

    /// The mailbox has grown, or a `Pong` told its head.
    pub(super) fn notice(&mut self, epoch: Epoch, head: Seq) {
        if epoch == self.epoch {
            self.heard_of(head);
            self.behind |= head > self.received;
        }
    }

    /// The device's cursor is not this mailbox's. False when the reset is an answer to something
    /// that was said before the last one.
    pub(super) fn reset(&mut self, position: Position, out: &mut Out) -> bool {
        let Position { epoch, floor, head } = position;
        if epoch == Epoch::NONE || (epoch == self.epoch && self.received <= head) {
            return false;
        }
        tracing::warn!(%epoch, %floor, "the mailbox was reset");
        self.origins.reset(head);
        self.epoch = epoch;
        self.cursor = floor;
        self.received = floor;
        self.acked = floor;
        self.head = head;
        self.pending.clear();
        self.pending_bytes = 0;
        self.stale = self.handing.is_some();
        self.asked = None;
        self.behind = false;
        self.flush_at = None;
        out.save_meta();
        out.event(Event::Reset { epoch, floor });
        true
    }

    /// A `Sync` was refused: it is asked again.
    pub(super) fn refused(&mut self, now: Duration, request_id: u64, hint: Option<Duration>) {
        if self.asked.take_if(|asked| asked.request_id == request_id).is_some() {
            self.behind = true;
            self.ask_at = Some(now + hint.unwrap_or_else(|| self.sync.pause(&*self.rng)));
        }
    }

    /// Everything up to the head is wanted: the sender looks for its sends.
    pub(super) fn seek(&mut self) {
        self.seeking = true;
    }

    /// The application has taken what it was given, or has not.
    pub(super) fn handled(&mut self, now: Duration, result: Result<(), String>, out: &mut Out) {
        let Some(item) = self.handing.take() else { return };
        match result {
            Ok(()) => {
                self.handler.reset();
                let stale = std::mem::take(&mut self.stale);
                self.origins.took(&item, stale);
                if !stale {
                    self.advance(now);
                }
            }
            Err(error) => {
                self.stale = false;
                let retry_in = self.handler.grow();
                self.hand_at = Some(now + retry_in);
                out.event(Event::HandlerFailed { seq: item.last(), error, retry_in });
            }
        }
    }

    /// Hands nothing over any more.
    pub(super) fn close(&mut self) {
        self.closing = true;
    }

    /// Is an item in the application's hands?
    pub(super) fn is_handing(&self) -> bool {
        self.handing.is_some()
    }

    /// Goes on: the next item for the application, and the next `Sync`.
    pub(super) fn pump(&mut self, now: Duration, out: &mut Out) {
        self.hand(now, out);
        let wanted = self.behind || self.seeking;
        if !self.online || !wanted || self.asked.is_some() || self.ask_at.is_some() {
            return;
        }
        // Half empty before more is asked for, so that the pages are worth a question.
        let room = PENDING_MAX.saturating_sub(self.pending_len());
        if room < PENDING_MAX / 2 || self.pending_bytes > PENDING_BYTES_MAX / 2 {
            return;
        }
        self.last_request += 1;
        self.wait_for_page(now, self.last_request);
        self.behind = false;
        out.frame(v1::Sync {
            request_id: self.last_request,
            epoch: self.epoch.get(),
            seq_cli: self.received.get(),
            limit: room,
        });
    }

    /// Stores and confirms the cursor, when it has moved.
    pub(super) fn flush(&mut self, out: &mut Out) {
        self.flush_at = None;
        if self.cursor != self.saved {
            out.save_meta();
        }
        if self.online && self.cursor > self.acked {
            let (epoch, seq) = self.confirm(out);
            out.frame(v1::Ack { epoch: epoch.get(), seq: seq.get() });
        }
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let asked = self.asked.map(|asked| asked.by);
        [asked, self.ask_at, self.flush_at, self.hand_at].into_iter().flatten().min()
    }

    pub(super) fn tick(&mut self, now: Duration, out: &mut Out) {
        let due = |at: &mut Duration| *at <= now;
        self.ask_at.take_if(due);
        self.hand_at.take_if(due);
        if self.asked.take_if(|asked| asked.by <= now).is_some() {
            self.behind = true;
        }
        if self.flush_at.take_if(due).is_some() {
            self.flush(out);
        }
    }

    /// The gap arithmetic of docs/protocol.md.
    fn run(&mut self, run: Run, sender: &mut Sender, out: &mut Out) {
        if run.epoch != self.epoch || run.epoch == Epoch::NONE {
            return;
        }
        self.heard_of(run.last);
        if self.pending_len() >= PENDING_MAX || self.pending_bytes >= PENDING_BYTES_MAX {
            self.behind |= run.last > self.received;
            return;
        }
        let gap = run.gap.and_then(|gap| SeqRange::missing(self.received, gap.last()));
        if let Some(gap) = gap {
            out.event(Event::Gap(gap));
            self.keep(Item::Gap(gap));
        }
        match Arrival::judge(self.received, run.prev, run.last) {
            Arrival::Drop => {}
            Arrival::Sync => self.behind = true,
            Arrival::Apply => {
                let known = self.received.since(run.prev) as usize;
                for raw in run.entries.into_iter().skip(known) {
                    let entry = Entry::read(self.epoch, raw);
                    self.settle(&entry, sender, out);
                    self.keep(Item::Entry(Arc::new(entry)));
                }
            }
        }
    }

    fn keep(&mut self, item: Item) {
        self.received = item.last();
        self.pending_bytes += item.bytes();
        self.pending.push_back(item);
    }

    /// This device's own copy settles its send.
    fn settle(&self, entry: &Entry, sender: &mut Sender, out: &mut Out) {
        let Some(Origin::Session { sender: user, session, n }) = &entry.origin else { return };
        let message = match &entry.content {
            Content::Message(message) => message,
            Content::Act(act) => &act.message,
            Content::Refused { .. } | Content::Group(_) | Content::Unknown(_) => return,
        };
        if *user == self.user {
            // What the acknowledgement says: a send to a group has no seq there.
            let seq = message.group_seq.is_none().then_some(entry.seq);
            let accepted = Accepted { seq, time: message.sent };
            sender.own_copy((*session, *n), message.client_msg_id, accepted, out);
        }
    }

    fn hand(&mut self, now: Duration, out: &mut Out) {
        if self.closing || self.handing.is_some() || self.hand_at.is_some() {
            return;
        }
        while let Some(item) = self.pending.front() {
            if !self.origins.knows(item) {
                self.handing = Some(item.clone());
                out.action(Action::Hand(item.clone()));
                return;
            }
            self.advance(now);
        }
    }

    /// The first pending item is done with.
    fn advance(&mut self, now: Duration) {
        let item = self.pending.pop_front().expect("what was handed over is the first");
        self.pending_bytes -= item.bytes();
        self.cursor = item.last();
        self.flush_at.get_or_insert(now + ACK_INTERVAL);
    }

    fn heard_of(&mut self, head: Seq) {
        self.head = self.head.max(head);
    }

    fn pending_len(&self) -> u32 {
        u32::try_from(self.pending.len()).unwrap_or(u32::MAX)
    }

    fn wait_for_page(&mut self, now: Duration, request_id: u64) {
        let by = now + self.sync.grow();
        self.asked = Some(Asked { request_id, by, for_head: self.seeking });
    }
}
