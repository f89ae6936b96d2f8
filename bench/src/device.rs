//! A light device: the real protocol over a real stream, with nothing stored, so that the servers
//! are measured and not the device. It checks all it receives, and stops at the first thing that
//! the protocol forbids. What a server may refuse for now it asks for again.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use thiserror::Error;
use tidemark_env::{Rng, SystemRng};
use tidemark_proto::v1::{self, server_frame};
use tidemark_proto::{Failure, FieldError};
use tidemark_types::{ClusterId, DeviceId, UserId};
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};

use crate::body::{Bodies, Spoilt};
use crate::inbox::Inbox;
use crate::ledger::{Arrived, Received};
use crate::meter::{Meter, Phase, Pulse, count};
use crate::outbox::Wrong;
use crate::sender::{Due, Sender};
use crate::wire::Wire;

/// How often a device reports its cursor, as the SDK does.
const ACK_EVERY: Duration = Duration::from_secs(1);

/// How long a step of connecting or leaving may take.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a device may take to catch up: a million entries, at a tenth of the pace that is asked for.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(300);

/// Who a device is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// Its number, by which it is spread over connections.
    pub(crate) number: usize,
    /// Its user.
    pub(crate) user: UserId,
    /// Its name.
    pub(crate) device: DeviceId,
    /// Its token.
    pub(crate) token: String,
    /// The cluster it belongs to.
    pub(crate) cluster: ClusterId,
    /// Where it starts in its mailbox: it was never seen before.
    pub(crate) start: v1::StartAt,
}

impl Identity {
    /// What it says first.
    pub(crate) fn hello(&self) -> v1::Hello {
        v1::Hello {
            cluster_id: self.cluster.as_bytes().to_vec(),
            token: self.token.clone(),
            user: self.user.to_string(),
            device: self.device.to_string(),
            epoch: 0,
            seq_cli: 0,
            start: Some(v1::Start { at: self.start.into(), last: 0 }),
            agent: "tidemark-bench".to_owned(),
            label: None,
        }
    }
}

/// What all devices of a run have in common.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) bodies: Arc<Bodies>,
    pub(crate) meter: Arc<Meter>,
    /// They take entries from pages only: of a `Deliver` they learn no more than of a `Notice`.
    pub(crate) pulls: bool,
}

/// Why a device stopped before its time.
#[derive(Debug, Error)]
pub(crate) enum Fault {
    /// Frames do not go through.
    #[error("the stream: {0}")]
    Stream(#[from] Failure),
    /// The gateway ended the stream.
    #[error("the gateway has ended the stream")]
    Ended,
    /// More waits to be written than two windows of sends.
    #[error("the gateway does not read: frames pile up")]
    Stuck,
    /// Entries that are missing do not come.
    #[error("it has not caught up in {CATCH_UP_TIMEOUT:?}")]
    Slow,
    /// A frame contradicts itself.
    #[error("a frame: {0}")]
    Frame(#[from] FieldError),
    /// An answer that no server may give.
    #[error("{0}")]
    Answer(#[from] Wrong),
    /// A body is not what was sent.
    #[error("seq {seq}: {spoilt}")]
    Body {
        /// Which entry.
        seq: u32,
        /// What is wrong.
        spoilt: Spoilt,
    },
    /// An entry that nobody here sent.
    #[error("seq {0}: neither its origin nor its content is of this run")]
    Foreign(u32),
    /// A frame that has no place in this load.
    #[error("unexpected: {0}")]
    Unexpected(String),
}

/// A device that is connected.
pub(crate) struct Device {
    identity: Identity,
    wire: Wire,
    inbox: Inbox,
    received: Received,
    sender: Option<Sender>,
    shared: Shared,
    pulse: Pulse,
    phases: watch::Receiver<Phase>,
    tick: Interval,
    /// After so many ticks without a word it says that it is there.
    ping_after: u32,
    silent_ticks: u32,
}

/// What a device leaves behind.
pub(crate) struct Left {
    pub(crate) identity: Identity,
    pub(crate) received: Received,
    pub(crate) sender: Option<Sender>,
    /// The cursor that it reported last.
    pub(crate) cursor: u32,
    pub(crate) fault: Option<Fault>,
}

enum Event {
    Frame(Result<Option<v1::ServerFrame>, Failure>),
    Due(Due),
    Tick,
    Phase(Phase),
}

impl Device {
    /// A device that has said `Hello` and waits to be welcomed.
    pub(crate) async fn welcomed(
        mut wire: Wire,
        identity: Identity,
        shared: Shared,
    ) -> Result<Self> {
        let first = timeout(STEP_TIMEOUT, wire.next()).await.context("no Welcome in time")??;
        let welcome = match first.and_then(|frame| frame.frame) {
            Some(server_frame::Frame::Welcome(welcome)) => welcome,
            other => bail!("{other:?} where a Welcome was due"),
        };
        let ping_after = ping_after(&welcome);
        // Devices of a real population do not tick together.
        let phase = ACK_EVERY.mul_f64(SystemRng.unit());
        let mut tick = interval_at(Instant::now() + phase, ACK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Device {
            identity,
            wire,
            inbox: Inbox::new(&welcome),
            received: Received::default(),
            sender: None,
            phases: shared.meter.phases(),
            shared,
            pulse: Pulse::default(),
            tick,
            ping_after,
            silent_ticks: part_of(ping_after),
        })
    }

    /// Opens the device's first send session: its number.
    pub(crate) async fn open_session(&mut self) -> Result<u64> {
        let mut open_id = [0; 16];
        SystemRng.fill(&mut open_id);
        self.send(v1::Open { open_id: open_id.to_vec(), ends: 0 })?;
        timeout(STEP_TIMEOUT, self.opened()).await.context("no Opened in time")?
    }

    /// The session, once it is there; what the mailbox held already comes before it.
    async fn opened(&mut self) -> Result<u64> {
        use server_frame::Frame;
        loop {
            match self.wire.next().await?.and_then(|frame| frame.frame) {
                Some(Frame::Opened(v1::Opened {
                    result: Some(v1::opened::Result::Session(session)),
                    ..
                })) => return Ok(session),
                Some(page @ (Frame::SyncPage(_) | Frame::Deliver(_) | Frame::Notice(_))) => {
                    self.frame(v1::ServerFrame { frame: Some(page) })?;
                }
                other => bail!("{other:?} where an Opened was due"),
            }
        }
    }

    /// It is to send.
    pub(crate) fn sends(&mut self, sender: Sender) {
        self.sender = Some(sender);
    }

    /// Sends and receives until the run is over, confirms what it received, and leaves.
    pub(crate) async fn run(mut self) -> Left {
        let served = self.serve().await;
        self.end(served).await
    }

    /// Takes what the device has missed, up to `head`, confirms it, and leaves; with the time at which
    /// it had the last entry.
    pub(crate) async fn catch_up(mut self, head: u32) -> (Left, Duration) {
        let caught_up = timeout(CATCH_UP_TIMEOUT, self.take_up_to(head)).await;
        let at = self.shared.meter.now();
        (self.end(caught_up.unwrap_or(Err(Fault::Slow))).await, at)
    }

    async fn take_up_to(&mut self, head: u32) -> Result<(), Fault> {
        while self.inbox.received().get() < head {
            match self.event().await {
                Event::Frame(frame) => self.frame(frame?.ok_or(Fault::Ended)?)?,
                Event::Tick => self.tick()?,
                Event::Due(_) | Event::Phase(_) => {}
            }
        }
        Ok(())
    }

    async fn end(mut self, served: Result<(), Fault>) -> Left {
        let fault = match served {
            Ok(()) => self.leave().await.err(),
            Err(fault) => Some(fault),
        };
        if fault.is_some() {
            self.shared.meter.fault();
        }
        let Device { identity, received, sender, inbox, .. } = self;
        Left { identity, received, sender, cursor: inbox.received().get(), fault }
    }

    async fn serve(&mut self) -> Result<(), Fault> {
        self.fill()?;
        loop {
            match self.event().await {
                Event::Frame(frame) => self.frame(frame?.ok_or(Fault::Ended)?)?,
                Event::Tick => self.tick()?,
                Event::Phase(Phase::Finish) => return Ok(()),
                Event::Phase(Phase::Drain) => self.sender.iter_mut().for_each(Sender::drain),
                Event::Phase(Phase::Run) => {}
                Event::Due(due) => {
                    let sends = self.sender.as_mut().map(|sender| sender.take(due));
                    for send in sends.unwrap_or_default() {
                        self.send(send)?;
                    }
                    self.fill()?;
                }
            }
        }
    }

    async fn event(&mut self) -> Event {
        let Device { wire, sender, tick, phases, .. } = self;
        let due = async {
            match sender {
                Some(sender) => sender.due().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            frame = wire.next() => Event::Frame(frame),
            due = due => Event::Due(due),
            _ = tick.tick() => Event::Tick,
            // The meter outlives its devices, which hold it.
            Ok(()) = phases.changed() => Event::Phase(*phases.borrow_and_update()),
        }
    }

    fn frame(&mut self, frame: v1::ServerFrame) -> Result<(), Fault> {
        use server_frame::Frame;
        // Kinds that this load does not know are passed over, as by every device.
        let Some(frame) = frame.frame else { return Ok(()) };
        match frame {
            Frame::SendAck(ack) => {
                let sender = self.sender.as_mut();
                let sender = sender.ok_or_else(|| Fault::Unexpected(format!("{ack:?}")))?;
                sender.answered(ack)?;
                self.fill()
            }
            Frame::Deliver(run) if self.shared.pulls => {
                self.inbox.noticed(run)?;
                self.sync()
            }
            Frame::Deliver(run) => {
                let entries = self.inbox.deliver(run)?;
                self.entries(entries)
            }
            Frame::SyncPage(page) => {
                let entries = self.inbox.page(page)?;
                self.entries(entries)
            }
            Frame::Notice(notice) => {
                self.inbox.heard_of(notice.epoch, notice.head);
                self.sync()
            }
            Frame::Pong(pong) => {
                self.inbox.heard_of(pong.epoch, pong.seq_svr);
                self.sync()
            }
            Frame::Error(v1::Error { failure, request_id, closing: false, .. }) => {
                let failure = Failure::from(failure.unwrap_or_default());
                // The next tick asks again; a heartbeat is followed by another one.
                if request_id != 0 {
                    self.inbox.refused(request_id);
                }
                if failure.code.is_retryable() { Ok(()) } else { Err(failure.into()) }
            }
            other => Err(Fault::Unexpected(format!("{other:?}"))),
        }
    }

    fn entries(&mut self, entries: impl Iterator<Item = v1::Entry>) -> Result<(), Fault> {
        for entry in entries {
            self.entry(&entry)?;
        }
        self.sync()
    }

    fn entry(&mut self, entry: &v1::Entry) -> Result<(), Fault> {
        let seq = entry.seq;
        if matches!(entry.content, Some(v1::entry::Content::GroupChange(_))) {
            // How the load's own group was made.
            return Ok(());
        }
        let (Some(v1::entry::Content::Message(message)), Some(origin)) =
            (&entry.content, &entry.origin)
        else {
            return Err(Fault::Foreign(seq));
        };
        let read = self.shared.bodies.read(&message.body);
        let stamp = read.map_err(|spoilt| Fault::Body { seq, spoilt })?;
        match &origin.key {
            Some(v1::origin::Key::SessionSend(key)) if key.n == stamp.n => {}
            _ => return Err(Fault::Foreign(seq)),
        }
        let own = self.sender.as_ref().is_some_and(|sender| sender.index == stamp.sender);
        let place = if own { stamp.n } else { stamp.k };
        if self.received.arrived(stamp.sender, place) == Arrived::Again {
            return Ok(());
        }
        if own {
            count(&self.shared.meter.counters.own);
        } else {
            self.shared.meter.arrived(stamp.due, &mut self.pulse);
        }
        Ok(())
    }

    /// A closed loop's sends, as many as may go.
    fn fill(&mut self) -> Result<(), Fault> {
        while let Some(send) = self.sender.as_mut().and_then(Sender::next) {
            self.send(send)?;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Fault> {
        let Some(sync) = self.inbox.sync() else { return Ok(()) };
        count(&self.shared.meter.counters.syncs);
        self.send(sync)
    }

    fn tick(&mut self) -> Result<(), Fault> {
        self.sync()?;
        if let Some(ack) = self.inbox.ack() {
            self.silent_ticks = 0;
            return self.send(ack);
        }
        self.silent_ticks += 1;
        if self.silent_ticks < self.ping_after {
            return Ok(());
        }
        self.silent_ticks = 0;
        self.send(self.inbox.ping())
    }

    fn send(&mut self, frame: impl Into<v1::ClientFrame>) -> Result<(), Fault> {
        self.wire.send(frame.into()).map_err(|_| Fault::Stuck)
    }

    /// Confirms the rest, ends its direction, and waits for the gateway to end the other.
    async fn leave(&mut self) -> Result<(), Fault> {
        if let Some(ack) = self.inbox.ack() {
            self.send(ack)?;
        }
        self.wire.close();
        let ended = async {
            while self.wire.next().await?.is_some() {}
            Ok(())
        };
        timeout(STEP_TIMEOUT, ended).await.unwrap_or(Err(Fault::Stuck))
    }
}

/// After how many ticks without a word a device says that it is there: a third of the time after which
/// it would be cut, as the SDK has it.
fn ping_after(welcome: &v1::Welcome) -> u32 {
    let third = Duration::from_millis((welcome.heartbeat_max_ms / 3).into());
    u32::try_from(third.as_secs() / ACK_EVERY.as_secs()).unwrap_or(u32::MAX).max(1)
}

/// A random number below `ticks`: the heartbeats of devices that came together do not stay together.
fn part_of(ticks: u32) -> u32 {
    u32::try_from(SystemRng.number() % u64::from(ticks)).expect("below a number of 32 bits")
}

#[cfg(test)]
mod tests;
