//! Devices of the SDK through real gateways, while everything between them is killed.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use parking_lot::Mutex;
use tidemark_chaos::build::Build;
use tidemark_chaos::cluster::{Cluster, Member, PATIENCE, Spec};
use tidemark_chaos::ledger::Ledger;
use tidemark_chaos::login::Login;
use tidemark_chaos::phone::{Note, Phone};
use tidemark_chaos::senders::{Acked, users_on};
use tidemark_chaos::{stores, wire};
use tidemark_client::{
    AppError, Config, ConnectionState, Connector, Content, Device, Entry, GrpcConnector, Handler,
    MemoryStore, Outcome, Parts, Sending, Status, Wire,
};
use tidemark_env::{Clock as _, SystemClock};
use tidemark_proto::convert::bytes_of;
use tidemark_proto::{v1, v1::server_frame::Frame};
use tidemark_types::{ClientMsgId, DeviceId, Recipient, Seq, SessionId, ShardId, UnixMs, UserId};
use tokio::sync::mpsc;

const SPEC: Spec = Spec { nodes: 3, shards: 8, gateways: 2, stores: "", build: Build::Release };

/// What one device sends.
const MESSAGES: u32 = 10_000;

/// So many at a time; a fault in the middle of all but the first ones.
const EVERY: u32 = 2_000;

/// Where Alice lives, and Bob.
const SHARDS: [ShardId; 2] = [ShardId::new(0), ShardId::new(1)];

/// Alice and Bob.
async fn users(cluster: &Cluster) -> Result<[UserId; 2]> {
    let client = cluster.client(PATIENCE).await?;
    let on = |shard, name| anyhow::Ok(users_on(&client, shard, name, 1)?.remove(0));
    Ok([on(SHARDS[0], "alice")?, on(SHARDS[1], "bob")?])
}

async fn accepted(sending: &mut Sending) -> Result<()> {
    match tokio::time::timeout(PATIENCE, sending.outcome()).await?? {
        Outcome::Accepted(_) => Ok(()),
        other => bail!("{other:?}"),
    }
}

/// A device that is not always open: its store, and what its application took.
#[derive(Clone, Default)]
struct Laptop {
    store: MemoryStore,
    notes: Arc<Mutex<Vec<Note>>>,
}

impl Laptop {
    /// Opens it where it stopped, at this gateway.
    async fn open(&self, cluster: &Cluster, user: &UserId, gateway: usize) -> Result<Device> {
        let device = DeviceId::new("laptop")?;
        let login = Login::new(&cluster.key(), user, &device)?;
        let config = Config::new(user.clone(), device, vec![cluster.gateway(gateway)?]);
        let parts = Parts::new(self.store.clone(), self.clone(), login);
        let (device, mut events) = Device::open(config, parts).await?;
        tokio::spawn(async move { while events.next().await.is_some() {} });
        Ok(device)
    }
}

impl Handler for Laptop {
    async fn entry(&self, entry: &Entry) -> Result<(), AppError> {
        let Content::Message(message) = &entry.content else {
            return Err(format!("nobody refuses here: {entry:?}").into());
        };
        let (seq, id, body) = (entry.seq, message.client_msg_id, message.body.clone());
        self.notes.lock().push(Note { seq, id, body });
        Ok(())
    }
}

/// Waits until a device stands where it should.
async fn stands(device: &Device, wanted: impl Fn(&Status) -> bool) -> Result<Status> {
    let mut status = device.watch();
    match tokio::time::timeout(PATIENCE, status.wait_for(wanted)).await {
        Ok(found) => Ok(*found.context("the device stopped")?),
        Err(_) => bail!("it stands elsewhere: {:?}", device.status()),
    }
}

/// Waits until a device is connected, to any gateway but `gone`; to which one.
async fn gateway_of(device: &Device, gone: Option<usize>) -> Result<usize> {
    let at = |status: &Status| match status.connection {
        ConnectionState::Online { gateway } => (Some(gateway) != gone).then_some(gateway),
        _ => None,
    };
    let status = stands(device, |status| at(status).is_some()).await?;
    at(&status).context("it was connected")
}

/// Waits until a device's application has taken everything up to `seq`.
async fn has_taken(device: &Device, seq: u32) -> Result<()> {
    stands(device, |status| status.cursor >= Seq::new(seq)).await?;
    Ok(())
}

/// Puts these messages into a device's outbox; `sendings` take what there is to wait for.
async fn send(
    device: &Device,
    to: &UserId,
    numbers: RangeInclusive<u32>,
    sendings: &mpsc::Sender<Sending>,
) -> Result<()> {
    let to = [Recipient::User(to.clone())];
    for number in numbers {
        sendings.send(device.send(&to, 1, format!("message {number}")).await?).await?;
    }
    Ok(())
}

/// Whom the fault with this number strikes.
async fn victims(cluster: &Cluster, sender: &Device, number: u32) -> Result<Vec<Member>> {
    let client = cluster.client(PATIENCE).await?;
    let leader = stores::leader(&client, SHARDS[1]).await?;
    let follower = cluster.ids().into_iter().find(|node| *node != leader);
    Ok(match number {
        1 => vec![leader.into()],
        2 => follower.into_iter().map(Member::from).collect(),
        3 => vec![Member::Gateway(gateway_of(sender, None).await?)],
        _ => cluster.ids().into_iter().map(Member::from).collect(),
    })
}

/// Kills these once the sender has its own copies up to `seq`, and lets them come back.
async fn fault(cluster: &mut Cluster, victims: &[Member], sender: &Device, seq: u32) -> Result<()> {
    has_taken(sender, seq).await?;
    for victim in victims {
        cluster.kill(*victim)?;
    }
    // Long enough for an election, where one is to be had.
    tokio::time::sleep(Duration::from_secs(2)).await;
    if let [Member::Gateway(killed)] = victims {
        gateway_of(sender, Some(*killed)).await?;
    }
    cluster.start_members(victims.iter().copied()).await?;
    println!("killed and back: {victims:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_messages_reach_devices_that_are_there_and_one_that_was_away() -> Result<()> {
    let mut cluster = Cluster::start(SPEC).await?;
    let [alice, bob] = users(&cluster).await?;
    let sender = Phone::open(&cluster, &alice, "phone", &[0, 1]).await?;
    let far = 1 - gateway_of(&sender.device, None).await?;
    let there = Phone::open(&cluster, &bob, "phone", &[far]).await?;
    let laptop = Laptop::default();
    let away = laptop.open(&cluster, &bob, far).await?;
    // Outcomes are taken as they come: those that are not fill the outbox.
    let (sendings, mut sent) = mpsc::channel::<Sending>(256);
    let outcomes = tokio::spawn(async move {
        let mut ids = Vec::new();
        while let Some(mut sending) = sent.recv().await {
            accepted(&mut sending).await?;
            ids.push(sending.client_msg_id());
        }
        anyhow::Ok(ids)
    });
    send(&sender.device, &bob, 1..=EVERY, &sendings).await?;
    has_taken(&away, EVERY).await?;
    away.close().await;
    for number in 1..MESSAGES / EVERY {
        let before = number * EVERY;
        let victims = victims(&cluster, &sender.device, number).await?;
        tokio::try_join!(
            send(&sender.device, &bob, before + 1..=before + EVERY, &sendings),
            fault(&mut cluster, &victims, &sender.device, before + EVERY / 10),
        )?;
    }
    drop(sendings);
    let sent: Vec<ClientMsgId> = outcomes.await??;
    there.has_all_to(MESSAGES).await?;
    sender.has_all_to(MESSAGES).await?;
    // Its gateway was killed, so this is the other one.
    let far = 1 - gateway_of(&sender.device, None).await?;
    let back = laptop.open(&cluster, &bob, far).await?;
    has_taken(&back, MESSAGES).await?;
    back.close().await;

    for notes in [sender.notes(), there.notes(), laptop.notes.lock().clone()] {
        ensure!(notes.iter().map(|note| note.seq.get()).eq(1..=MESSAGES), "a hole");
        ensure!(notes.iter().map(|note| note.id).eq(sent.iter().copied()), "another order");
        let bodies = (1..=MESSAGES).map(|n| format!("message {n}").into_bytes());
        ensure!(notes.iter().map(|note| note.body.to_vec()).eq(bodies), "another content");
    }
    for phone in [sender, there] {
        phone.device.close().await;
        ensure!(phone.is_settled(), "the outbox is not empty");
    }
    let client = cluster.client(PATIENCE).await?;
    stores::settled(&client).await?;
    cluster.kill_stores()?;
    let report = Ledger::of(&cluster, &[], &[])?;
    assert_eq!((report.seq_gaps, report.divergent), (0, 0), "{report}");
    Ok(())
}

/// A device without the SDK: it can be made to do what the SDK never does.
struct Raw {
    wire: Wire,
}

impl Raw {
    /// Says hello; the live session after the welcome.
    async fn hello(cluster: &Cluster, gateway: usize, user: &UserId) -> Result<(Self, u64)> {
        let wire = GrpcConnector::default().connect(&cluster.gateway(gateway)?).await;
        let mut raw = Raw { wire: wire.map_err(anyhow::Error::msg)? };
        let device = DeviceId::new("phone")?;
        let hello = v1::Hello {
            token: Login::new(&cluster.key(), user, &device)?.sign(),
            user: user.to_string(),
            device: device.to_string(),
            start: Some(v1::Start { at: v1::StartAt::Head.into(), last: 0 }),
            ..v1::Hello::default()
        };
        raw.send(hello).await?;
        match raw.next().await? {
            Frame::Welcome(welcome) => Ok((raw, welcome.live_session)),
            other => bail!("{other:?}"),
        }
    }

    /// Opens its first session.
    async fn open(&mut self) -> Result<u64> {
        self.send(v1::Open { open_id: vec![7; 16], ends: 0 }).await?;
        loop {
            if let Frame::Opened(opened) = self.next().await? {
                match opened.result {
                    Some(v1::opened::Result::Session(session)) => break Ok(session),
                    other => bail!("{other:?}"),
                }
            }
        }
    }

    async fn send(&self, frame: impl Into<v1::ClientFrame>) -> Result<()> {
        Ok(self.wire.outgoing.send(frame.into()).await?)
    }

    async fn next(&mut self) -> Result<Frame> {
        let frame = tokio::time::timeout(PATIENCE, self.wire.incoming.next()).await?;
        let frame = frame.transpose().map_err(anyhow::Error::msg)?;
        match frame.and_then(|frame| frame.frame) {
            Some(frame) => Ok(frame),
            None => bail!("the stream ended"),
        }
    }

    /// The next acknowledgement, or none if the device sits elsewhere by now; other frames are passed over.
    async fn ack(&mut self) -> Result<Option<v1::SendAck>> {
        loop {
            match self.next().await? {
                Frame::SendAck(ack) => return Ok(Some(ack)),
                Frame::Error(v1::Error { failure: Some(failure), closing: true, .. }) => {
                    ensure!(failure.code() == v1::ErrorCode::Displaced, "{failure:?}");
                    return Ok(None);
                }
                _ => {}
            }
        }
    }
}

/// A back end's way to a gateway.
fn back_end(cluster: &Cluster, gateway: usize) -> Result<wire::Wire> {
    wire::Wire::new(&cluster.gateway(gateway)?, &Login::service(&cluster.key())?.sign())
}

/// Nobody displaces a back end: the gateway that held its send answers it once it goes on.
async fn held_for_a_back_end(cluster: &Cluster, from: &UserId, to: &UserId) -> Result<()> {
    let (first, second) = (back_end(cluster, 0)?, back_end(cluster, 1)?);
    let id = ClientMsgId::new(SystemClock::new().wall(), [2; 10]);
    let to = [Recipient::User(to.clone())];
    let send = async |gateway: &wire::Wire| gateway.send(from, id, &to, 1, "once".into()).await;
    cluster.pause(Member::Gateway(0))?;
    let through_second = async {
        let seq = send(&second).await?;
        cluster.resume(Member::Gateway(0))?;
        anyhow::Ok(seq)
    };
    let through_first = async { Ok(send(&first).await?) };
    let (through_first, through_second) = tokio::try_join!(through_first, through_second)?;
    assert_eq!(through_first, through_second);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_send_that_one_gateway_holds_gets_the_same_ack_through_another() -> Result<()> {
    let mut cluster = Cluster::start(SPEC).await?;
    let [alice, bob] = users(&cluster).await?;
    let (mut first, live) = Raw::hello(&cluster, 0, &alice).await?;
    assert_eq!(live, 0);
    let session = first.open().await?;
    let id = ClientMsgId::new(UnixMs::new(1_800_000_000_000), [1; 10]);
    let send = v1::Send {
        session,
        n: 1,
        base: 1,
        to: vec![v1::Id::from(&Recipient::User(bob.clone()))],
        kind: 1,
        body: "once".into(),
        client_msg_id: bytes_of(id.as_bytes()),
        about: None,
    };

    // The first gateway has the send in its hands, and does nothing.
    cluster.pause(Member::Gateway(0))?;
    first.send(send.clone()).await?;
    let (mut second, live) = Raw::hello(&cluster, 1, &alice).await?;
    assert_eq!(live, session);
    second.send(send.clone()).await?;
    let ack = second.ack().await?.context("nobody took its seat")?;
    cluster.resume(Member::Gateway(0))?;
    // It finds the send and that the device has gone elsewhere, in no order.
    if let Some(late) = first.ack().await? {
        assert_eq!(late, ack);
    }
    // The device comes back, as if it had not heard.
    let (mut back, live) = Raw::hello(&cluster, 0, &alice).await?;
    assert_eq!(live, session);
    back.send(send.clone()).await?;
    assert_eq!(back.ack().await?.context("nobody took its seat")?, ack);
    let Some(v1::send_ack::Result::Accepted(accepted)) = &ack.result else { bail!("{ack:?}") };
    held_for_a_back_end(&cluster, &alice, &bob).await?;

    let reader = Phone::open(&cluster, &bob, "phone", &[0, 1]).await?;
    reader.has_all_to(2).await?;
    reader.device.close().await;
    stores::settled(&cluster.client(PATIENCE).await?).await?;
    assert_eq!(back_end(&cluster, 0)?.head(&bob).await?, Seq::new(2), "each was taken once");
    cluster.kill_stores()?;
    let acked = Acked {
        sender: alice,
        session: SessionId::new(session)?,
        n: 1,
        to: vec![bob],
        seq: Seq::new(accepted.seq),
        body: send.body,
        at: Instant::now(),
    };
    let ledger = Ledger::of(&cluster, &[acked], &[])?;
    assert_eq!(ledger.found, 2 * cluster.ids().len(), "{ledger}");
    assert!(ledger.is_clean(), "{ledger}");
    Ok(())
}
