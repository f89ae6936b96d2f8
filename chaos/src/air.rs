//! What lies between devices and gateways: frames get lost, connections break, devices stop reading.
//!
//! ```text
//!   device ── Ack? ──► [ air ] ──► GrpcConnector ──► gateway
//!          ◄─ SendAck? Deliver? ── held back for devices that do not read
//! ```
//!
//! Sits in the SDK's seam for carriers, so it knows frames where a network knows packets: TCP hides
//! the loss of a packet, nobody hides the loss of a frame. Frames that are not lost keep their
//! order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tidemark_client::{Connector, GrpcConnector, OUTGOING_FRAMES, Wire};
use tidemark_env::{Rng, SeededRng};
use tidemark_proto::v1::{self, client_frame, server_frame};
use tokio::sync::{mpsc, watch};

/// The air of a run; a cheap handle.
#[derive(Clone)]
pub struct Air(Arc<Inner>);

struct Inner {
    /// Of a thousand frames of each kind that can get lost, so many do.
    loss: AtomicU32,
    lost: Lost<AtomicU64>,
    /// How often all connections to a gateway were cut, by its address.
    cuts: watch::Sender<Cuts>,
    broken: AtomicU64,
    made: AtomicU64,
    /// Send frames, on their way to a gateway.
    sends: AtomicU64,
    /// Slow devices do not read, and their applications take this long for an entry.
    deaf: watch::Sender<bool>,
    slowness: AtomicU64,
    rng: SeededRng,
}

/// The last cut, and of which gateway.
#[derive(Clone, Debug, Default)]
struct Cuts {
    number: u64,
    gateway: String,
}

/// Frames that got lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost<N = u64> {
    /// A send's verdict, on its way to the device.
    pub send_acks: N,
    /// New entries, on their way to the device.
    pub delivers: N,
    /// A cursor, on its way to the gateway.
    pub acks: N,
}

impl Air {
    /// Clear air.
    pub fn new(seed: u64) -> Self {
        Air(Arc::new(Inner {
            loss: AtomicU32::new(0),
            lost: Lost::default(),
            cuts: watch::Sender::default(),
            broken: AtomicU64::new(0),
            made: AtomicU64::new(0),
            sends: AtomicU64::new(0),
            deaf: watch::Sender::default(),
            slowness: AtomicU64::new(0),
            rng: SeededRng::new(seed),
        }))
    }

    /// Of a thousand SendAck, Deliver and Ack frames, so many get lost from now on.
    pub fn lose(&self, of_thousand: u32) {
        self.0.loss.store(of_thousand, Ordering::Relaxed);
    }

    /// What got lost so far.
    pub fn lost(&self) -> Lost {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Lost { send_acks, delivers, acks } = &self.0.lost;
        Lost { send_acks: get(send_acks), delivers: get(delivers), acks: get(acks) }
    }

    /// Cuts all connections to a gateway at once.
    pub fn cut(&self, gateway: &str) {
        self.0.cuts.send_modify(|cuts| {
            *cuts = Cuts { number: cuts.number + 1, gateway: gateway.to_owned() };
        });
    }

    /// Connections that were cut, and that were made, so far.
    pub fn connections(&self) -> (u64, u64) {
        (self.0.broken.load(Ordering::Relaxed), self.0.made.load(Ordering::Relaxed))
    }

    /// Send frames on their way to gateways, so far: a send that is tried again is another one.
    pub fn sends(&self) -> u64 {
        self.0.sends.load(Ordering::Relaxed)
    }

    /// From now on slow devices do not read, or read again.
    pub fn deafen(&self, deaf: bool) {
        self.0.deaf.send_replace(deaf);
    }

    /// From now on a slow device's application takes this long for an entry.
    pub fn slow_down(&self, entry: Duration) {
        let nanos = u64::try_from(entry.as_nanos()).unwrap_or(u64::MAX);
        self.0.slowness.store(nanos, Ordering::Relaxed);
    }

    /// How long a slow device's application takes for an entry.
    pub fn slowness(&self) -> Duration {
        Duration::from_nanos(self.0.slowness.load(Ordering::Relaxed))
    }

    /// Are slow devices slow now?
    pub fn is_heavy(&self) -> bool {
        *self.0.deaf.borrow() || !self.slowness().is_zero()
    }

    /// A carrier through this air; `slow` devices are those that may stop reading.
    pub fn connector(&self, slow: bool) -> AirConnector {
        AirConnector { air: self.clone(), slow }
    }

    fn loses(&self, lost: &AtomicU64) -> bool {
        let loss = self.0.loss.load(Ordering::Relaxed);
        let loses = loss > 0 && self.0.rng.number() % 1_000 < u64::from(loss);
        lost.fetch_add(u64::from(loses), Ordering::Relaxed);
        loses
    }

    fn loses_outgoing(&self, frame: &v1::ClientFrame) -> bool {
        let ack = matches!(frame.frame, Some(client_frame::Frame::Ack(_)));
        ack && self.loses(&self.0.lost.acks)
    }

    fn loses_incoming(&self, frame: &v1::ServerFrame) -> bool {
        match frame.frame {
            Some(server_frame::Frame::SendAck(_)) => self.loses(&self.0.lost.send_acks),
            Some(server_frame::Frame::Deliver(_)) => self.loses(&self.0.lost.delivers),
            _ => false,
        }
    }
}

/// gRPC through the air.
pub struct AirConnector {
    air: Air,
    slow: bool,
}

impl Connector for AirConnector {
    async fn connect(&self, gateway: &str) -> Result<Wire, String> {
        let cuts = self.air.0.cuts.subscribe();
        let seen = cuts.borrow().number;
        let Wire { outgoing, incoming } = GrpcConnector::default().connect(gateway).await?;
        self.air.0.made.fetch_add(1, Ordering::Relaxed);
        let (from_device, frames) = mpsc::channel(OUTGOING_FRAMES);
        tokio::spawn(carry(self.air.clone(), frames, outgoing));
        let (air, gateway) = (self.air.clone(), gateway.to_owned());
        let deaf = air.0.deaf.subscribe();
        let heard = Heard { air, gateway, cuts, seen, deaf, incoming };
        let slow = self.slow;
        let incoming = stream::unfold(Some(heard), move |heard| next(heard, slow));
        Ok(Wire { outgoing: from_device, incoming: incoming.boxed() })
    }
}

/// Carries the device's frames to the gateway, until either is gone.
async fn carry(
    air: Air,
    mut from_device: mpsc::Receiver<v1::ClientFrame>,
    outgoing: mpsc::Sender<v1::ClientFrame>,
) {
    while let Some(frame) = from_device.recv().await {
        let is_send = matches!(frame.frame, Some(client_frame::Frame::Send(_)));
        air.0.sends.fetch_add(u64::from(is_send), Ordering::Relaxed);
        if !air.loses_outgoing(&frame) && outgoing.send(frame).await.is_err() {
            return;
        }
    }
}

/// The direction from a gateway to a device.
struct Heard {
    air: Air,
    gateway: String,
    cuts: watch::Receiver<Cuts>,
    /// The last cut before it was made.
    seen: u64,
    deaf: watch::Receiver<bool>,
    incoming: BoxStream<'static, Result<v1::ServerFrame, String>>,
}

type Next = Option<(Result<v1::ServerFrame, String>, Option<Heard>)>;

/// The next frame that gets through; after the connection's end nothing.
async fn next(heard: Option<Heard>, slow: bool) -> Next {
    let mut heard = heard?;
    loop {
        let Heard { air, gateway, cuts, seen, deaf, incoming } = &mut heard;
        let frame = async {
            if slow {
                // The other end lives as long as this air.
                let _ = deaf.wait_for(|deaf| !deaf).await;
            }
            incoming.next().await
        };
        let cut = async {
            let ours = |cuts: &Cuts| cuts.number > *seen && cuts.gateway == *gateway;
            cuts.wait_for(ours).await.map(drop)
        };
        let frame = tokio::select! {
            _ = cut => {
                air.0.broken.fetch_add(1, Ordering::Relaxed);
                return Some((Err("the connection was cut".to_owned()), None));
            }
            frame = frame => frame?,
        };
        let lost = matches!(&frame, Ok(frame) if air.loses_incoming(frame));
        if !lost {
            return Some((frame, Some(heard)));
        }
    }
}
