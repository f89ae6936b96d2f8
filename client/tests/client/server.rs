//! A server of one user and one device that keeps the rules of sessions and mailboxes in memory. It
//! panics at a frame that breaks a rule.

use std::collections::{BTreeMap, VecDeque};

use tidemark_proto::v1::client_frame::Frame;
use tidemark_proto::{Detail, Failure, v1};
use tidemark_types::{ErrorCode, Seq, SessionId, UnixMs};

/// What a server does with a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mood {
    Answer,
    /// The frame is lost.
    Lose,
    /// It is done, and the answer lost.
    Forget,
    /// Nothing is done, and said so.
    Refuse(ErrorCode),
}

pub(crate) struct Session {
    base: u64,
    acks: Vec<(bytes::Bytes, v1::SendAck)>,
    ended: bool,
    open_id: Vec<u8>,
}

/// What an entry says that comes from a send.
fn content(send: &v1::Send) -> v1::entry::Content {
    let message = v1::Message {
        client_msg_id: send.client_msg_id.clone(),
        sent_ms: 1,
        body: send.body.to_vec(),
        ..v1::Message::default()
    };
    let Some(about) = send.about else { return v1::entry::Content::Message(message) };
    let key = v1::origin::Key::SessionSend(v1::SessionSend { session: 1, n: about.seq.into() });
    let of = Some(v1::Origin { sender: "bob".to_owned(), key: Some(key) });
    v1::entry::Content::Act(v1::Act { kind: about.kind, of, message: Some(message) })
}

/// The server: one user, one device.
pub(crate) struct Server {
    pub(crate) epoch: u32,
    pub(crate) floor: u32,
    pub(crate) mailbox: Vec<v1::Entry>,
    pub(crate) sessions: BTreeMap<u64, Session>,
    pub(crate) live: u64,
    last_session: u64,
    welcomed: bool,
    /// Delivery goes on after this seq.
    pub(crate) delivered: Option<u32>,
    pub(crate) out: VecDeque<v1::ServerFrame>,
    window: u32,
    page_entries: u32,
}

impl Server {
    /// An empty mailbox, a window of this many sends, and pages of so many entries.
    pub(crate) fn new(window: u32, page_entries: u32) -> Self {
        Server {
            epoch: 1,
            floor: 0,
            mailbox: Vec::new(),
            sessions: BTreeMap::new(),
            live: 0,
            last_session: 0,
            welcomed: false,
            delivered: None,
            out: VecDeque::new(),
            window,
            page_entries,
        }
    }

    /// The connection is gone, and what was on its way.
    pub(crate) fn cut(&mut self) {
        self.out.clear();
        self.welcomed = false;
        self.delivered = None;
    }

    /// Bodies of the messages that this user sent, in order.
    pub(crate) fn own(&self) -> Vec<bytes::Bytes> {
        let own = |entry: &v1::Entry| {
            let v1::entry::Content::Message(message) = entry.content.as_ref()? else { return None };
            (entry.origin.as_ref()?.sender == "alice").then(|| message.body.clone().into())
        };
        self.mailbox.iter().filter_map(own).collect()
    }

    pub(crate) fn head(&self) -> u32 {
        u32::try_from(self.mailbox.len()).expect("a short test")
    }

    pub(crate) fn append(&mut self, sender: &str, session: u64, n: u64, send: &v1::Send) -> u32 {
        let key = v1::origin::Key::SessionSend(v1::SessionSend { session, n });
        let seq = self.head() + 1;
        self.mailbox.push(v1::Entry {
            seq,
            time_ms: 1,
            origin: Some(v1::Origin { sender: sender.to_owned(), key: Some(key) }),
            content: Some(content(send)),
        });
        if let Some(delivered) = self.delivered {
            let entries = &self.mailbox[delivered as usize..];
            let deliver = v1::Deliver::new(self.epoch, delivered, entries);
            self.out.push_back(deliver.into());
            self.delivered = Some(seq);
        }
        seq
    }

    fn reset(&self) -> v1::ServerFrame {
        v1::Reset { epoch: self.epoch, floor: self.floor, head: self.head() }.into()
    }

    fn page(&mut self, request_id: u64, from: u32) -> v1::ServerFrame {
        let prev = from.max(self.floor);
        let last = self.head().min(prev + self.page_entries);
        let more = last < self.head();
        self.delivered = (!more).then_some(last);
        let page = v1::Page {
            epoch: self.epoch,
            floor: self.floor,
            head: self.head(),
            gap: (from < prev).then_some(v1::Gap { from: from + 1, to: prev }),
            prev_seq: prev,
            entries: self.mailbox[prev as usize..last as usize].to_vec(),
            more,
        };
        v1::SyncPage { request_id, page: Some(page) }.into()
    }

    pub(crate) fn serve(&mut self, frame: Frame, mood: Mood) {
        let before = self.out.len();
        match (frame, mood) {
            (_, Mood::Lose) => {}
            (Frame::Send(send), Mood::Refuse(code)) => {
                let session = SessionId::new(send.session).expect("the device knows it");
                self.out.push_back(v1::SendAck::failed(session, send.n, Failure::new(code)).into());
            }
            (Frame::Open(open), Mood::Refuse(code)) => {
                let result = Some(v1::opened::Result::Failure(Failure::new(code).into()));
                self.out.push_back(v1::Opened { open_id: open.open_id, result }.into());
            }
            (frame, _) => self.answer(frame),
        }
        if matches!(mood, Mood::Forget) {
            self.out.truncate(before);
        }
    }

    fn answer(&mut self, frame: Frame) {
        match frame {
            Frame::Hello(hello) => self.hello(&hello),
            _ if !self.welcomed => panic!("a frame before the welcome"),
            Frame::Open(open) => {
                let result = Some(self.open(&open));
                self.out.push_back(v1::Opened { open_id: open.open_id, result }.into());
            }
            Frame::Send(send) => {
                let ack = self.send(&send);
                self.out.push_back(ack.into());
            }
            Frame::Sync(sync) if self.impossible(sync.epoch, sync.seq_cli) => {
                self.out.push_back(self.reset());
            }
            Frame::Sync(sync) => {
                let page = self.page(sync.request_id, sync.seq_cli);
                self.out.push_back(page);
            }
            Frame::Ack(ack) if self.impossible(ack.epoch, ack.seq) => {
                self.out.push_back(self.reset());
            }
            Frame::Ping(ping) if self.impossible(ping.epoch, ping.seq_cli) => {
                self.out.push_back(self.reset());
            }
            Frame::Ping(ping) => {
                let (epoch, seq_svr) = (self.epoch, self.head());
                let pong = v1::Pong { nonce: ping.nonce, epoch, seq_svr, server_time_ms: 1 };
                self.out.push_back(pong.into());
            }
            Frame::Unread(v1::Unread { request_id }) => {
                let counts = v1::UnreadCounts { unread: 3, ..v1::UnreadCounts::default() };
                self.out.push_back(v1::UnreadReply { request_id, counts: Some(counts) }.into());
            }
            Frame::Presence(v1::Presence { request_id, .. }) => {
                let status = Some(v1::PresenceStatus { online: true, last_seen_ms: 1 });
                self.out.push_back(v1::PresenceReply { request_id, status }.into());
            }
            Frame::WatchPresence(watch) if watch.users.len() > 2 => {
                let failure = Failure::new(ErrorCode::Invalid).message("two at most");
                let (failure, frame) = (Some(failure.into()), Frame::WATCH_PRESENCE);
                self.out.push_back(v1::Error { failure, frame, ..v1::Error::default() }.into());
            }
            // All are there.
            Frame::WatchPresence(watch) => {
                for user in watch.users {
                    let status = Some(v1::PresenceStatus { online: true, last_seen_ms: 1 });
                    self.out.push_back(v1::PresenceChange { user, status }.into());
                }
            }
            // It comes back, as if the other one typed.
            Frame::Typing(typing) => self.out.push_back(typing.into()),
            Frame::Ack(_) | Frame::Status(_) => {}
        }
    }

    fn impossible(&self, epoch: u32, seq: u32) -> bool {
        epoch != self.epoch || seq > self.head()
    }

    fn hello(&mut self, hello: &v1::Hello) {
        let start = if hello.epoch == 0 { self.floor } else { hello.seq_cli };
        if hello.epoch != 0 && self.impossible(hello.epoch, start) {
            return self.out.push_back(self.reset());
        }
        self.welcomed = true;
        self.delivered = (start == self.head()).then_some(start);
        let welcome = v1::Welcome {
            cluster_id: vec![7; 16],
            epoch: self.epoch,
            seq_svr: self.head(),
            floor: self.floor,
            start,
            send_window: self.window,
            send_window_bytes: 1 << 20,
            heartbeat_max_ms: 3_000,
            live_session: self.live,
            ..v1::Welcome::default()
        };
        self.out.push_back(welcome.into());
        if start < self.head() {
            let page = self.page(0, start);
            self.out.push_back(page);
        }
    }

    fn open(&mut self, open: &v1::Open) -> v1::opened::Result {
        if self.live != 0 && self.sessions[&self.live].open_id == open.open_id {
            return v1::opened::Result::Session(self.live);
        }
        if open.ends != self.live {
            let live = Detail::Live(SessionId::new(self.live).ok());
            let stale = Failure::new(ErrorCode::Stale).detail(live);
            return v1::opened::Result::Failure(stale.into());
        }
        self.replace(open.open_id.clone());
        v1::opened::Result::Session(self.live)
    }

    pub(crate) fn replace(&mut self, open_id: Vec<u8>) {
        if let Some(live) = self.sessions.get_mut(&self.live) {
            live.ended = true;
        }
        self.last_session += 1;
        self.live = self.last_session;
        self.sessions
            .insert(self.live, Session { base: 1, acks: Vec::new(), ended: false, open_id });
    }

    fn send(&mut self, send: &v1::Send) -> v1::SendAck {
        let id = SessionId::new(send.session).expect("the device knows it");
        let failed = |failure| v1::SendAck::failed(id, send.n, failure);
        assert!(send.session <= self.last_session, "INVALID: never opened");
        let Some(session) = self.sessions.get_mut(&send.session) else {
            return failed(Failure::new(ErrorCode::SessionExpired));
        };
        let last_n = session.acks.len() as u64;
        let base = session.base.max(send.base);
        assert!(1 <= send.base && send.base <= send.n && base <= last_n + 1, "INVALID: {send:?}");
        if send.n < base {
            return failed(Failure::new(ErrorCode::Settled));
        }
        if send.n <= last_n {
            let (body, ack) = &session.acks[usize::try_from(send.n).expect("short") - 1];
            assert_eq!(body, &send.body, "CONFLICT");
            return ack.clone();
        }
        if session.ended {
            let detail = Detail::LastN(last_n);
            return failed(Failure::new(ErrorCode::SessionEnded).detail(detail));
        }
        if send.n > last_n + 1 {
            let detail = Detail::Expected(last_n + 1);
            return failed(Failure::new(ErrorCode::OutOfOrder).detail(detail));
        }
        assert!(send.n - base < u64::from(self.window), "WINDOW_FULL");
        session.base = base;
        // The fifth of each ten is refused for good.
        let ack = if send.body.ends_with(b"5") {
            failed(Failure::new(ErrorCode::Blocked))
        } else {
            let seq = self.append("alice", send.session, send.n, send);
            v1::SendAck::accepted(id, send.n, Seq::new(seq), UnixMs::new(1))
        };
        let session = self.sessions.get_mut(&send.session).expect("found above");
        session.acks.push((send.body.clone(), ack.clone()));
        ack
    }
}
