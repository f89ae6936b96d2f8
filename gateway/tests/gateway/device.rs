//! A device, as bare as can be: it says what a test tells it to, and reads when it is told to.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tidemark_env::{Clock, SeededRng};
use tidemark_gateway::checks::Checks;
use tidemark_gateway::config::ChecksConfig;
use tidemark_gateway::connect::{Authenticator, Carrier, Unreadable, Validity};
use tidemark_gateway::devices::{Devices, Parts};
use tidemark_gateway::limits::{Limits, OUTGOING_FRAMES};
use tidemark_proto::v1::server_frame::Frame;
use tidemark_proto::{Failure, frame, v1};
use tidemark_types::{ClientMsgId, DeviceId, ErrorCode, UnixMs, UserId};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use crate::store::Cluster;

/// When tests begin.
const BEGIN: u64 = 1_764_000_000_000;

/// A wall clock that goes with tokio's time.
struct TestClock(Instant);

impl Clock for TestClock {
    fn wall(&self) -> UnixMs {
        UnixMs::new(BEGIN).plus(self.0.elapsed())
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A token is a user's name, a colon, and for how many seconds after the beginning it is good.
struct Tokens(Arc<TestClock>);

impl Authenticator for Tokens {
    fn check(&self, token: &str, user: &UserId, _device: &DeviceId) -> Result<Validity, Failure> {
        let (holder, seconds) =
            token.split_once(':').ok_or_else(|| Failure::new(ErrorCode::Unauthenticated))?;
        let good = Duration::from_secs(seconds.parse().expect("a test's token"));
        let expires = UnixMs::new(BEGIN).plus(good);
        if expires <= self.0.wall() {
            return Err(Failure::new(ErrorCode::TokenExpired));
        }
        match holder == user.as_str() {
            true => Ok(Validity { issued: UnixMs::new(BEGIN), expires }),
            false => Err(Failure::new(ErrorCode::PermissionDenied).message("it is another's")),
        }
    }
}

/// A gateway of the cluster.
pub(crate) fn gateway(cluster: &Arc<Cluster>) -> Arc<Devices> {
    gateway_with(cluster, Limits::default())
}

pub(crate) fn gateway_with(cluster: &Arc<Cluster>, limits: Limits) -> Arc<Devices> {
    gateway_of(cluster, limits, &ChecksConfig::default())
}

/// One with checks of sends.
pub(crate) fn checking(cluster: &Arc<Cluster>, checks: &ChecksConfig) -> Arc<Devices> {
    gateway_of(cluster, Limits::default(), checks)
}

fn gateway_of(cluster: &Arc<Cluster>, limits: Limits, checks: &ChecksConfig) -> Arc<Devices> {
    let clock = Arc::new(TestClock(Instant::now()));
    let rng = SeededRng::new(7);
    let checks = Checks::new(checks, clock.clone(), &rng).expect("they can be made");
    Devices::new(Parts {
        checks,
        store: cluster.seam(),
        authenticator: Arc::new(Tokens(clock.clone())),
        clock,
        rng: Arc::new(rng),
        limits,
    })
}

/// A device's connection.
pub(crate) struct Device {
    pub(crate) frames: Frames,
    pub(crate) received: mpsc::Receiver<Box<v1::ServerFrame>>,
}

/// What takes a device's frames.
pub(crate) enum Frames {
    /// The gateway itself, in paused time.
    Gateway(mpsc::Sender<Result<v1::client_frame::Frame, Unreadable>>),
    /// A carrier's socket, in real time.
    Socket(mpsc::Sender<v1::ClientFrame>),
}

/// A `Hello` of a device without a cursor, which starts at the floor.
pub(crate) fn hello(user: &str, device: &str) -> v1::Hello {
    v1::Hello {
        token: format!("{user}:1000000"),
        user: user.to_owned(),
        device: device.to_owned(),
        start: Some(v1::Start { at: v1::StartAt::Floor.into(), last: 0 }),
        ..Default::default()
    }
}

/// The same with a cursor.
pub(crate) fn hello_at(user: &str, device: &str, epoch: u32, seq_cli: u32) -> v1::Hello {
    v1::Hello { epoch, seq_cli, ..hello(user, device) }
}

/// A send to these users.
pub(crate) fn send(session: u64, n: u64, to: &[&str]) -> v1::Send {
    let id = ClientMsgId::new(UnixMs::new(n), [7; 10]);
    v1::Send {
        session,
        n,
        base: 1,
        to: to.iter().map(|name| v1::Id { kind: 1, name: (*name).to_owned() }).collect(),
        kind: 1,
        body: format!("{session}/{n}").into(),
        client_msg_id: id.as_bytes().to_vec(),
        about: None,
    }
}

impl Device {
    /// A connection on which nothing was said yet.
    pub(crate) fn connect(gateway: &Devices) -> Device {
        Device::try_connect(gateway).expect("the gateway takes it")
    }

    pub(crate) fn try_connect(gateway: &Devices) -> Result<Device, Failure> {
        let (frames, incoming) = mpsc::channel(1);
        let (outgoing, received) = mpsc::channel(OUTGOING_FRAMES);
        gateway.connect(Carrier::Grpc, ReceiverStream::new(incoming).boxed(), outgoing)?;
        Ok(Device { frames: Frames::Gateway(frames), received })
    }

    /// Connects, says `Hello`, and hears the `Welcome`.
    pub(crate) async fn welcomed(gateway: &Devices, hello: v1::Hello) -> (Device, v1::Welcome) {
        let mut device = Device::connect(gateway);
        let welcome = device.greet(hello).await;
        (device, welcome)
    }

    /// Connects and opens its first session.
    pub(crate) async fn with_session(gateway: &Devices, user: &str) -> (Device, u64) {
        let mut device = Device::connect(gateway);
        let session = device.open(user).await;
        (device, session)
    }

    /// Says `Hello`, and hears the `Welcome`.
    pub(crate) async fn greet(&mut self, hello: v1::Hello) -> v1::Welcome {
        self.say(hello).await;
        self.welcome().await
    }

    /// Says `Hello`, and opens a session.
    pub(crate) async fn open(&mut self, user: &str) -> u64 {
        let welcome = self.greet(hello(user, "phone")).await;
        self.say(v1::Open { open_id: vec![9; 16], ends: welcome.live_session }).await;
        match self.hear().await {
            Frame::Opened(v1::Opened { result: Some(v1::opened::Result::Session(n)), .. }) => n,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn say(&self, frame: impl Into<v1::ClientFrame>) {
        let frame = frame.into();
        let said = match &self.frames {
            Frames::Gateway(frames) => {
                frames.send(frame::opened(frame).map_err(Unreadable::from)).await.is_ok()
            }
            Frames::Socket(frames) => frames.send(frame).await.is_ok(),
        };
        assert!(said, "the gateway reads");
    }

    /// What a carrier says of a frame that it cannot read.
    pub(crate) async fn garble(&self, code: ErrorCode) {
        let Frames::Gateway(frames) = &self.frames else { panic!("carriers judge themselves") };
        frames.send(Err(Failure::new(code).into())).await.expect("the gateway reads");
    }

    /// The next frame.
    pub(crate) async fn hear(&mut self) -> Frame {
        self.next().await.expect("the connection lasts")
    }

    /// The next frame, or none when the connection was cut.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        let patience = match self.frames {
            Frames::Gateway(_) => Duration::from_secs(600),
            Frames::Socket(_) => Duration::from_secs(30),
        };
        let frame = tokio::time::timeout(patience, self.received.recv()).await;
        frame.expect("a frame, or the end")?.frame
    }

    /// Says nothing any more; what it hears then.
    pub(crate) async fn half_close(self) -> Option<Frame> {
        let Device { frames, received } = self;
        let (idle, _) = mpsc::channel(1);
        drop(frames);
        Device { frames: Frames::Socket(idle), received }.next().await
    }

    /// Is there no frame for a while?
    pub(crate) async fn hears_nothing(&mut self) -> bool {
        tokio::time::timeout(Duration::from_secs(3), self.received.recv()).await.is_err()
    }

    pub(crate) async fn welcome(&mut self) -> v1::Welcome {
        match self.hear().await {
            Frame::Welcome(welcome) => welcome,
            other => panic!("{other:?}"),
        }
    }

    /// The next frame that is no `Deliver`: a device hears of its own sends as well.
    pub(crate) async fn answer(&mut self) -> Frame {
        loop {
            match self.hear().await {
                Frame::Deliver(_) => {}
                answer => return answer,
            }
        }
    }

    pub(crate) async fn ack(&mut self) -> v1::SendAck {
        match self.answer().await {
            Frame::SendAck(ack) => ack,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn page(&mut self) -> v1::SyncPage {
        match self.hear().await {
            Frame::SyncPage(page) => page,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn error(&mut self) -> (ErrorCode, v1::Error) {
        match self.hear().await {
            Frame::Error(error) => {
                let failure = Failure::from(error.failure.clone().expect("it has one"));
                (failure.code, error)
            }
            other => panic!("{other:?}"),
        }
    }

    /// Takes `Deliver`s until `last` came; their seqs, checked against the gap arithmetic.
    pub(crate) async fn delivered(&mut self, mut received: u32, last: u32) -> Vec<String> {
        let mut texts = Vec::new();
        while received < last {
            let Frame::Deliver(run) = self.hear().await else { panic!("a Deliver comes") };
            assert_eq!(run.prev_seq, received, "no Deliver across a gap");
            for entry in run.decoded().expect("a server encoded it") {
                received += 1;
                assert_eq!(entry.seq, received);
                texts.push(text(&entry));
            }
        }
        texts
    }
}

/// The body of a message.
pub(crate) fn text(entry: &v1::Entry) -> String {
    match &entry.content {
        Some(v1::entry::Content::Message(message)) => {
            String::from_utf8(message.body.to_vec()).expect("a test's text")
        }
        other => panic!("{other:?}"),
    }
}

/// The entries' bodies of a page.
pub(crate) fn texts(page: &v1::SyncPage) -> Vec<String> {
    page.page.as_ref().expect("it has one").entries.iter().map(text).collect()
}
