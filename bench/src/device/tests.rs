//! A device against a gateway that the test plays: what is right passes, and each thing that is not
//! is found.

use futures::StreamExt;
use tidemark_proto::v1::client_frame::Frame;
use tidemark_types::{ErrorCode, Seq, SessionId, UnixMs};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

use super::*;
use crate::body::Stamp;
use crate::sender::{Aim, Correspondents, Load};

const SESSION: u64 = 1;

/// When a gateway cuts a device that is silent: none of these tests lasts so long.
const HEARTBEAT_MAX_MS: u32 = 3_600_000;

/// Who sends what the device receives.
const SENDER: u32 = 7;

/// What a gateway sends that it must not.
type Spoil = fn(&Gate) -> v1::Deliver;

/// The gateway's side of a device's stream.
struct Gate {
    meter: Arc<Meter>,
    bodies: Arc<Bodies>,
    frames: mpsc::Receiver<v1::ClientFrame>,
    answers: mpsc::Sender<Result<v1::ServerFrame, Failure>>,
    device: Option<JoinHandle<Left>>,
}

impl Gate {
    /// A device is connected and runs; it keeps `in_flight` sends under way, if any.
    async fn open(in_flight: usize) -> Self {
        Gate::open_for(in_flight, false).await
    }

    /// The same, of a device that may take entries from pages only.
    async fn open_for(in_flight: usize, pulls: bool) -> Self {
        let (gate, device) = Gate::connected(in_flight, pulls).await;
        Gate { device: Some(tokio::spawn(device.run())), ..gate }
    }

    /// A device that is connected, and does not run yet.
    async fn connected(in_flight: usize, pulls: bool) -> (Self, Device) {
        let (meter, bodies) = (Arc::new(Meter::new()), Arc::new(Bodies::new(64)));
        let (outgoing, frames) = mpsc::channel(64);
        let (answers, incoming) = mpsc::channel(64);
        let wire = Wire::new(outgoing, ReceiverStream::new(incoming).boxed());
        let user = UserId::new("alice").expect("a name");
        let identity = Identity {
            number: 0,
            user: user.clone(),
            device: DeviceId::new("d").expect("a name"),
            token: String::new(),
            cluster: ClusterId::from_bytes([0; 16]).expect("any bytes"),
            start: v1::StartAt::Floor,
        };
        let welcome =
            v1::Welcome { epoch: 1, heartbeat_max_ms: HEARTBEAT_MAX_MS, ..Default::default() };
        answers.send(Ok(welcome.into())).await.expect("room");
        let shared = Shared { bodies: bodies.clone(), meter: meter.clone(), pulls };
        let device = Device::welcomed(wire, identity, shared).await;
        let mut device = device.expect("it is welcome");
        if in_flight > 0 {
            let to = Correspondents { all: [user].into(), mine: vec![0], aim: Aim::One };
            let load = Load::Closed(in_flight);
            device.sends(Sender::new(0, SESSION, to, load, bodies.clone(), meter.clone()));
        }
        (Gate { meter, bodies, frames, answers, device: None }, device)
    }

    async fn say(&self, frame: impl Into<v1::ServerFrame>) {
        self.answers.send(Ok(frame.into())).await.expect("the device listens");
    }

    /// The device's next frame.
    async fn heard(&mut self) -> Frame {
        let frame = self.frames.recv().await.expect("the device speaks");
        frame.frame.expect("of some kind")
    }

    /// The numbers of the sends that come next, so many.
    async fn sends(&mut self, count: usize) -> Vec<(u64, u64)> {
        let mut sends = Vec::new();
        while sends.len() < count {
            match self.heard().await {
                Frame::Send(send) => sends.push((send.n, send.base)),
                other => panic!("{other:?} where a send was due"),
            }
        }
        sends
    }

    async fn accept(&self, n: u64) {
        let session = SessionId::new(SESSION).expect("not 0");
        let seq = Seq::new(u32::try_from(n).expect("small"));
        self.say(v1::SendAck::accepted(session, n, seq, UnixMs::new(1))).await;
    }

    async fn refuse(&self, n: u64, code: ErrorCode) {
        let session = SessionId::new(SESSION).expect("not 0");
        self.say(v1::SendAck::failed(session, n, Failure::new(code))).await;
    }

    /// Message `k` as entry `seq`.
    fn entry(&self, seq: u32, k: u64) -> v1::Entry {
        let stamp = Stamp { sender: SENDER, n: k, k, due: Duration::ZERO };
        let body = self.bodies.write(&stamp);
        let key = v1::origin::Key::SessionSend(v1::SessionSend { session: SESSION, n: k });
        let origin = Some(v1::Origin { sender: "bob".to_owned(), key: Some(key) });
        let message = v1::Message { body: body.into(), ..Default::default() };
        let content = Some(v1::entry::Content::Message(message));
        v1::Entry { seq, time_ms: 1, origin, content }
    }

    /// These messages as the mailbox's first entries.
    fn entries(&self, ks: &[u64]) -> Vec<v1::Entry> {
        (1..).zip(ks).map(|(seq, k)| self.entry(seq, *k)).collect()
    }

    /// The same, as they are delivered.
    fn run(&self, ks: &[u64]) -> v1::Deliver {
        v1::Deliver::new(1, 0, &self.entries(ks))
    }

    /// What the device leaves behind, and the cursor that it told last.
    async fn close(mut self) -> (Left, Option<u32>) {
        // It stands still once it has read everything.
        tokio::time::sleep(Duration::from_millis(10)).await;
        self.meter.enter(Phase::Finish);
        let mut told = None;
        while let Some(frame) = self.frames.recv().await {
            if let Some(Frame::Ack(ack)) = frame.frame {
                told = Some(ack.seq);
            }
        }
        drop(self.answers);
        (self.device.expect("it runs").await.expect("it does not panic"), told)
    }

    /// Why the device stopped.
    async fn fault(self) -> String {
        let meter = self.meter.clone();
        let (left, _) = self.close().await;
        assert_eq!(meter.is_faulty(), left.fault.is_some());
        left.fault.map(|fault| fault.to_string()).unwrap_or_default()
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_in_order_is_counted_and_confirmed() {
    let gate = Gate::open(0).await;
    gate.say(gate.run(&[1, 2, 3])).await;
    let meter = gate.meter.clone();
    let (left, told) = gate.close().await;
    assert!(left.fault.is_none());
    assert_eq!((left.cursor, told), (3, Some(3)));
    let Received { duplicated, out_of_order, .. } = left.received;
    assert_eq!((duplicated, out_of_order, left.received.lost(SENDER, 3)), (0, 0, 0));
    assert_eq!(meter.counts().delivered, 3);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_lost_doubled_or_late_is_found() {
    for (ks, found) in [([1, 2, 4], (1, 0, 1)), ([1, 2, 2], (2, 1, 0)), ([2, 1, 3], (1, 0, 2))] {
        let gate = Gate::open(0).await;
        gate.say(gate.run(&ks)).await;
        let (left, _) = gate.close().await;
        let Received { duplicated, out_of_order, .. } = left.received;
        assert_eq!((left.received.lost(SENDER, 4), duplicated, out_of_order), found, "{ks:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_no_gateway_may_send_stops_the_device() {
    let holed = |gate: &Gate| {
        let mut run = gate.run(&[1, 2, 3]);
        run.entries.remove(1);
        run
    };
    let spoilt = |gate: &Gate| {
        let mut entry = gate.entry(1, 1);
        if let Some(v1::entry::Content::Message(message)) = &mut entry.content {
            message.body.truncate(40);
        }
        v1::Deliver::new(1, 0, &[entry])
    };
    let foreign = |gate: &Gate| {
        let entry = v1::Entry { origin: None, ..gate.entry(1, 1) };
        v1::Deliver::new(1, 0, &[entry])
    };
    let cases: [(Spoil, &str); 3] = [
        (holed, "a frame: entries[1].seq"),
        (spoilt, "seq 1: a body of 40 bytes is not what was sent"),
        (foreign, "seq 1: neither its origin"),
    ];
    for (spoil, named) in cases {
        let gate = Gate::open(0).await;
        gate.say(spoil(&gate)).await;
        let fault = gate.fault().await;
        assert!(fault.starts_with(named), "{fault}");
    }
    let gate = Gate::open(0).await;
    gate.accept(1).await;
    assert!(gate.fault().await.starts_with("unexpected: SendAck"));
    let gate = Gate::open(1).await;
    gate.accept(2).await;
    assert!(gate.fault().await.starts_with("n 2 is acknowledged"));
}

#[tokio::test(start_paused = true)]
async fn what_is_only_noticed_is_asked_for() {
    let mut gate = Gate::open(0).await;
    gate.say(v1::Notice { epoch: 1, head: 2 }).await;
    let Frame::Sync(sync) = gate.heard().await else { panic!("a Sync was due") };
    assert_eq!((sync.request_id, sync.seq_cli), (1, 0));
    let entries = gate.entries(&[1, 2]);
    let page = Some(v1::Page { epoch: 1, head: 2, entries, ..Default::default() });
    gate.say(v1::SyncPage { request_id: 1, page }).await;
    let (left, told) = gate.close().await;
    assert_eq!((left.cursor, told, left.received.lost(SENDER, 2)), (2, Some(2), 0));
}

#[tokio::test(start_paused = true)]
async fn a_device_that_pulls_asks_for_what_it_was_sent() {
    let mut gate = Gate::open_for(0, true).await;
    gate.say(gate.run(&[1, 2])).await;
    let Frame::Sync(sync) = gate.heard().await else { panic!("a Sync was due") };
    assert_eq!((sync.request_id, sync.seq_cli, gate.meter.counts().delivered), (1, 0, 0));
    let entries = gate.entries(&[1, 2]);
    let page = Some(v1::Page { epoch: 1, head: 2, entries, ..Default::default() });
    gate.say(v1::SyncPage { request_id: 1, page }).await;
    let (left, told) = gate.close().await;
    assert_eq!((left.cursor, told, left.received.lost(SENDER, 2)), (2, Some(2), 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_now_does_no_harm() {
    let gate = Gate::open(0).await;
    let refusal = |code, closing| {
        let failure = Some(Failure::new(code).into());
        v1::Error { failure, closing, ..Default::default() }
    };
    gate.say(refusal(ErrorCode::Unavailable, false)).await;
    gate.say(gate.run(&[1])).await;
    let (left, _) = gate.close().await;
    assert!(left.fault.is_none());
    assert_eq!(left.cursor, 1);
    for (code, closing) in [(ErrorCode::Invalid, false), (ErrorCode::Unavailable, true)] {
        let gate = Gate::open(0).await;
        gate.say(refusal(code, closing)).await;
        assert!(!gate.fault().await.is_empty(), "{code:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_that_has_caught_up_confirms_and_leaves() {
    let (mut gate, device) = Gate::connected(0, false).await;
    let device = tokio::spawn(device.catch_up(3));
    gate.say(gate.run(&[1, 2])).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(!device.is_finished(), "entry 3 is missing");
    gate.say(v1::Deliver::new(1, 2, &[gate.entry(3, 3)])).await;
    let mut told = 0;
    while let Some(frame) = gate.frames.recv().await {
        if let Some(Frame::Ack(ack)) = frame.frame {
            told = ack.seq;
        }
    }
    let ended = gate.meter.now();
    tokio::time::sleep(Duration::from_millis(10)).await;
    drop(gate.answers);
    let (left, at) = device.await.expect("it does not panic");
    assert!(left.fault.is_none());
    assert_eq!((left.cursor, told, left.received.lost(SENDER, 3)), (3, 3, 0));
    assert!(at <= ended, "what comes after the last entry is not counted");
}

#[test]
fn a_device_is_heard_three_times_before_it_would_be_cut() {
    let after =
        |heartbeat_max_ms| ping_after(&v1::Welcome { heartbeat_max_ms, ..Default::default() });
    assert_eq!([after(180_000), after(3_000), after(0)], [60, 1, 1]);
    assert!((0..100).all(|_| part_of(60) < 60));
    assert_eq!(part_of(1), 0);
}

#[tokio::test(start_paused = true)]
async fn a_closed_loop_sends_for_each_acknowledgement_and_stops_when_told() {
    let mut gate = Gate::open(2).await;
    assert_eq!(gate.sends(2).await, [(1, 1), (2, 1)]);
    gate.accept(2).await;
    assert_eq!(gate.sends(1).await, [(3, 1)]);
    gate.accept(1).await;
    assert_eq!(gate.sends(1).await, [(4, 3)]);
    gate.meter.enter(Phase::Drain);
    // The device has heard of it once it stands still.
    tokio::time::sleep(Duration::from_millis(10)).await;
    gate.accept(3).await;
    gate.accept(4).await;
    let meter = gate.meter.clone();
    let (left, _) = gate.close().await;
    assert!(left.fault.is_none());
    assert!(meter.all_senders_are_done());
    assert_eq!((meter.counts().sent, meter.counts().acked), (4, 4));
}

#[tokio::test(start_paused = true)]
async fn sends_that_were_not_taken_go_again_in_order() {
    let mut gate = Gate::open(3).await;
    assert_eq!(gate.sends(3).await.len(), 3);
    gate.accept(1).await;
    assert_eq!(gate.sends(1).await, [(4, 2)]);
    for (n, code) in
        [(2, ErrorCode::Overloaded), (3, ErrorCode::OutOfOrder), (4, ErrorCode::OutOfOrder)]
    {
        gate.refuse(n, code).await;
    }
    assert_eq!(gate.sends(3).await, [(2, 2), (3, 2), (4, 2)]);
    assert_eq!(gate.meter.counts().resends, 1);
}
