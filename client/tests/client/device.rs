//! What an application sees of a device.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidemark_client::{
    AppError, Config, ConnectionState, Device, DiskStore, Entry, Event, Events, FixedToken,
    Handler, MemoryStore, OpenError, Outcome, Parts, SendError, Store,
};
use tidemark_proto::v1;
use tidemark_types::{ClientMsgId, ErrorCode, Recipient, Seq, UnixMs, UserId};
use tokio::time::{Instant, timeout};

use crate::gateway::{Faults, Shared};

/// Longer than anything here takes, faults and pauses included.
const PATIENCE: Duration = Duration::from_secs(60);

/// An application that remembers which entries it took.
#[derive(Clone, Default)]
struct Taken(Arc<Mutex<Vec<u32>>>);

impl Handler for Taken {
    async fn entry(&self, entry: &Entry) -> Result<(), AppError> {
        self.0.lock().push(entry.seq.get());
        Ok(())
    }
}

fn config(gateways: Vec<String>) -> Config {
    Config::new("alice".parse().expect("legal"), "phone".parse().expect("legal"), gateways)
}

async fn open<S: Store>(config: Config, store: S, taken: &Taken) -> (Device, Events) {
    let parts = Parts::new(store, taken.clone(), FixedToken("jwt".to_owned()));
    Device::open(config, parts).await.expect("it opens")
}

fn bob() -> [Recipient; 1] {
    [Recipient::User("bob".parse().expect("legal"))]
}

async fn until(device: &Device, what: impl FnMut(&tidemark_client::Status) -> bool) {
    let mut watch = device.watch();
    timeout(PATIENCE, watch.wait_for(what)).await.expect("in time").expect("it runs");
}

#[tokio::test]
async fn nothing_is_lost_on_a_bad_network() {
    let shared = Shared::new();
    let gateways = vec![shared.gateway().await, shared.gateway().await];
    *shared.faults.lock() =
        Faults { lose_every: 7, double_every: 5, delay: Duration::from_micros(50), cut_after: 250 };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("device.redb");
    let taken = Taken::default();
    let store = DiskStore::open(&path).expect("a new file");
    let (device, _events) = open(config(gateways.clone()), store, &taken).await;

    let mut sendings = Vec::new();
    for number in 0..400 {
        // None of them ends with the 5 that the server refuses.
        let body = format!("{number:06}.");
        sendings.push(device.send(&bob(), 1, body).await.expect("there is room"));
    }
    for sending in &mut sendings {
        let outcome = timeout(PATIENCE, sending.outcome()).await.expect("in time");
        assert!(matches!(outcome, Ok(Outcome::Accepted(_))), "{outcome:?}");
    }
    let own = shared.server.lock().own();
    assert_eq!(own.len(), 400);
    assert!(own.is_sorted());

    until(&device, |status| status.cursor.get() == 400).await;
    device.close().await;
    assert_eq!(*taken.0.lock(), (1..=400).collect::<Vec<u32>>());

    // It goes on where it was.
    let store = DiskStore::open(&path).expect("the same file");
    let (device, _events) = open(config(gateways), store, &taken).await;
    assert_eq!(device.status().cursor.get(), 400);
    assert_eq!(device.status().outbox_len, 0);
}

#[tokio::test]
async fn what_was_taken_is_marked_as_delivered_if_the_application_wants_it() {
    let shared = Shared::new();
    let gateways = vec![shared.gateway().await];
    for n in 1..=3 {
        let id = ClientMsgId::new(UnixMs::new(n), [7; 10]);
        let client_msg_id = id.as_bytes().to_vec();
        let message = v1::Send { client_msg_id, ..v1::Send::default() };
        shared.server.lock().append("bob", 1, n, &message);
    }
    let config = Config { delivered_marks: true, ..config(gateways) };
    let (device, _events) = open(config, MemoryStore::default(), &Taken::default()).await;
    // One mark for all three, which is an entry of its own, and nobody marks marks.
    until(&device, |status| status.cursor.get() == 4).await;
    let mark = shared.server.lock().mailbox[3].clone();
    let Some(v1::entry::Content::Act(act)) = mark.content else { panic!("{mark:?}") };
    assert_eq!(act.kind(), v1::ActKind::Delivered);
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(shared.server.lock().head(), 4);
    let counts = device.unread().await.expect("it is connected");
    assert_eq!(counts.unread, 3);
    let message = tidemark_client::Place { epoch: device.status().epoch, seq: Seq::new(2) };
    let mut read = device.mark_read(message).await.expect("there is room");
    assert!(matches!(read.outcome().await, Ok(Outcome::Accepted(_))));
    device.close().await;
}

#[tokio::test]
async fn what_passes_by_is_said_and_heard() {
    let shared = Shared::new();
    let gateways = vec![shared.gateway().await];
    let config = config(gateways);
    let (device, mut events) = open(config, MemoryStore::default(), &Taken::default()).await;
    until(&device, |status| matches!(status.connection, ConnectionState::Online { .. })).await;
    let bob = "bob".parse().expect("legal");
    device.typing(&bob, true).await;
    let heard = loop {
        match timeout(PATIENCE, events.next()).await.expect("in time").expect("it runs") {
            Event::Typing { by, typing } => break (by, typing),
            _ => continue,
        }
    };
    assert_eq!(heard, (bob.clone(), true));
    let status = device.presence(&bob).await.expect("it is connected");
    assert!(status.online);
    device.close().await;
}

/// The next event about those who are watched.
async fn presence(events: &mut Events) -> Event {
    loop {
        match timeout(PATIENCE, events.next()).await.expect("in time").expect("it runs") {
            told @ (Event::Presence { .. } | Event::PresenceRefused { .. }) => return told,
            _ => continue,
        }
    }
}

#[tokio::test]
async fn who_is_watched_is_watched_on_every_connection() {
    let shared = Shared::new();
    let gateways = vec![shared.gateway().await];
    let config = config(gateways);
    let (device, mut events) = open(config, MemoryStore::default(), &Taken::default()).await;
    let users = |names: &[&str]| -> Vec<UserId> {
        names.iter().map(|name| name.parse().expect("legal")).collect()
    };
    let there = |name: &str| Event::Presence {
        user: name.parse().expect("legal"),
        online: true,
        last_seen: UnixMs::new(1),
    };
    // Whether it is connected by now or not.
    device.watch_presence(&users(&["bob"])).await;
    assert_eq!(presence(&mut events).await, there("bob"));
    device.watch_presence(&users(&["bob", "carol"])).await;
    assert_eq!(presence(&mut events).await, there("bob"));
    assert_eq!(presence(&mut events).await, there("carol"));
    shared.say(v1::GoAway { reconnect_after_ms: 1, ..v1::GoAway::default() });
    assert_eq!(presence(&mut events).await, there("bob"), "the next connection knows it too");
    assert_eq!(presence(&mut events).await, there("carol"));
    device.watch_presence(&users(&["bob", "carol", "dave"])).await;
    let message = "two at most".to_owned();
    assert_eq!(presence(&mut events).await, Event::PresenceRefused { message });
    device.close().await;
}

#[tokio::test]
async fn a_refusal_is_told_apart_from_what_is_not_taken() {
    let shared = Shared::new();
    let gateways = vec![shared.gateway().await];
    let (device, _events) = open(config(gateways), MemoryStore::default(), &Taken::default()).await;
    let mut refused = device.send(&bob(), 1, "5").await.expect("there is room");
    assert_eq!(refused.outcome().await, Ok(Outcome::Refused(ErrorCode::Blocked)));
    let nobody = device.send(&[], 1, "x").await;
    assert!(
        matches!(nobody, Err(SendError::Invalid(error)) if error.code() == ErrorCode::BadRecipient)
    );
}

#[tokio::test]
async fn an_outcome_that_was_taken_is_not_told_again() {
    let shared = Shared::new();
    let gateways = vec![shared.gateway().await];
    let store = MemoryStore::default();
    // By chance the device used to see first that it should close.
    for _ in 0..20 {
        let config = config(gateways.clone());
        let (device, _events) = open(config, store.clone(), &Taken::default()).await;
        let mut sending = device.send(&bob(), 1, "x").await.expect("there is room");
        assert!(matches!(sending.outcome().await, Ok(Outcome::Accepted(_))));
        device.close().await;
        assert!(store.saved().outcomes.is_empty(), "nothing is left to tell");
    }
}

/// A process that dies: its runtime goes, and with it everything that is not durable.
fn run_and_die(path: &Path, gateway: &str, sends: usize) {
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(async {
        let store = DiskStore::open(path).expect("a file");
        let config = config(vec![gateway.to_owned()]);
        let (device, _events) = open(config, store, &Taken::default()).await;
        for number in 0..sends {
            device.send(&bob(), 1, format!("{number:06}.")).await.expect("there is room");
        }
    });
}

#[test]
fn sends_survive_the_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("device.redb");
    // Nobody listens there.
    run_and_die(&path, "127.0.0.1:1", 20);
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(async {
        let shared = Shared::new();
        let config = config(vec![shared.gateway().await]);
        let store = DiskStore::open(&path).expect("the file of the dead");
        let (device, mut events) = open(config, store, &Taken::default()).await;
        let mut outcomes = 0;
        while outcomes < 20 {
            if let Some(Event::Outcome(settled)) =
                timeout(PATIENCE, events.next()).await.expect("in time")
            {
                assert!(matches!(settled.outcome, Outcome::Accepted(_)));
                outcomes += 1;
            }
        }
        assert_eq!(shared.server.lock().own().len(), 20);
        device.close().await;
        while let Some(event) = events.next().await {
            assert!(!matches!(event, Event::Outcome(_)), "an outcome comes once");
        }
    });
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(async {
        let config = Config {
            user: "mallory".parse().expect("legal"),
            ..config(vec!["127.0.0.1:1".to_owned()])
        };
        let store = DiskStore::open(&path).expect("the file is there");
        let parts = Parts::new(store, Taken::default(), FixedToken(String::new()));
        assert!(matches!(Device::open(config, parts).await, Err(OpenError::Foreign(_))));
    });
}

#[tokio::test]
async fn a_full_outbox_pushes_back() {
    let config = Config { outbox_entries_max: 2, ..config(vec!["127.0.0.1:1".to_owned()]) };
    let store = MemoryStore::default();
    let (device, _events) = open(config.clone(), store.clone(), &Taken::default()).await;
    for _ in 0..2 {
        device.try_send(&bob(), 1, "x").await.expect("there is room");
    }
    assert!(matches!(device.try_send(&bob(), 1, "x").await, Err(SendError::Full)));
    let to = bob();
    let waiting = device.send(&to, 1, "x");
    assert!(timeout(Duration::from_millis(100), waiting).await.is_err(), "it waits");
    device.close().await;
    assert!(matches!(device.send(&bob(), 1, "x").await, Err(SendError::Closed)));
    assert_eq!(device.status().connection, ConnectionState::Stopped);

    // With a gateway there is room again, once the outcomes of the earlier run are taken.
    let shared = Shared::new();
    let config = Config { gateways: vec![shared.gateway().await], ..config };
    let (device, mut events) = open(config, store, &Taken::default()).await;
    tokio::spawn(async move { while events.next().await.is_some() {} });
    let sending = timeout(PATIENCE, device.send(&bob(), 1, "x")).await.expect("in time");
    assert!(matches!(sending.expect("there is room").outcome().await, Ok(Outcome::Accepted(_))));
    assert_eq!(shared.server.lock().own().len(), 3);
}

/// An application with a bug.
struct Panics;

impl Handler for Panics {
    async fn entry(&self, _: &Entry) -> Result<(), AppError> {
        panic!("a bug");
    }
}

#[tokio::test]
async fn a_handler_that_panics_leaves_nobody_waiting() {
    let shared = Shared::new();
    let config = Config { outbox_entries_max: 1, ..config(vec![shared.gateway().await]) };
    let parts = Parts::new(MemoryStore::default(), Panics, FixedToken("jwt".to_owned()));
    let (device, _events) = Device::open(config, parts).await.expect("it opens");
    // Its own copy is the entry; its outcome, which is not taken, holds the only place.
    let _held = device.try_send(&bob(), 1, "x").await.expect("there is room");
    let sent = timeout(PATIENCE, device.send(&bob(), 1, "x")).await.expect("in time");
    assert!(matches!(sent, Err(SendError::Closed)));
    until(&device, |status| status.connection == ConnectionState::Stopped).await;
}

#[tokio::test]
async fn a_draining_gateway_is_left() {
    let shared = Shared::new();
    let gateways = vec![shared.gateway().await, shared.gateway().await];
    let (device, mut events) =
        open(config(gateways), MemoryStore::default(), &Taken::default()).await;
    let mut seen = Vec::new();
    while seen.len() < 3 {
        match timeout(PATIENCE, events.next()).await.expect("in time").expect("it runs") {
            Event::Connected { gateway } => {
                seen.push(gateway);
                shared.say(v1::GoAway {
                    reconnect_after_ms: 10,
                    close_after_ms: 1_000,
                    ..v1::GoAway::default()
                });
            }
            other => panic!("nothing was lost: {other:?}"),
        }
    }
    assert_ne!(seen[0], seen[1]);
    assert_eq!(seen[0], seen[2]);
    let mut sending = device.send(&bob(), 1, "x").await.expect("there is room");
    assert!(matches!(sending.outcome().await, Ok(Outcome::Accepted(_))));
}

/// Not a benchmark: it prints what this machine does, and proves that nothing is slow by design.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_device_sends_many() {
    const SENDS: u32 = 20_000;
    let shared = Shared::new();
    let gateways = vec![shared.gateway().await];
    let taken = Taken::default();
    let (device, _events) = open(config(gateways), MemoryStore::default(), &taken).await;
    let started = Instant::now();
    let senders = (0..64).map(|_| {
        let device = device.clone();
        tokio::spawn(async move {
            for _ in 0..SENDS / 64 {
                let mut sending = device.send(&bob(), 1, "x").await.expect("there is room");
                sending.outcome().await.expect("it runs");
            }
        })
    });
    futures::future::join_all(senders).await;
    let sent = SENDS / 64 * 64;
    until(&device, |status| status.cursor.get() == sent).await;
    let seconds = started.elapsed().as_secs_f64();
    println!("{:.0} sends a second, each taken as an entry as well", f64::from(sent) / seconds);
    assert_eq!(*taken.0.lock(), (1..=sent).collect::<Vec<u32>>());
}
