//! What a leader does unasked for mailboxes and devices: hints to be sent (R18), and what need not be
//! kept (R14).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempfile::TempDir;
use tidemark_env::SystemClock;
use tidemark_store::node::{Node, log_dir, state_dir};
use tidemark_store_core::command::Start;
use tidemark_store_core::hints::Hint;
use tidemark_store_core::value::{PushTarget, Settings};
use tidemark_store_core::{Command, Reply, hints, read};
use tidemark_types::{DeviceId, Epoch, Id, Recipient, Seq, UserId};

use crate::device::{Device, device};
use crate::node::{self, config, create_with, send, serving, stop, user};

const DEADLINE: Duration = Duration::from_secs(60);

/// How long a hint is one gateway's.
const LEASE: Duration = Duration::from_secs(30);

/// For longer than this no leader goes on beside its successor.
const DEAF: Duration = Duration::from_secs(4);

/// One that has a token for hints, and is not connected.
async fn away(node: &Node, user: &UserId, name: &DeviceId) {
    let (user, device) = (user.clone(), name.clone());
    let start = Start::Floor;
    let register = Command::RegisterDevice {
        user: user.clone(),
        device: device.clone(),
        start,
        arrival: None,
        label: None,
    };
    node.propose(register).await.unwrap();
    let target = PushTarget { provider: "log".to_owned(), target: name.to_string() };
    let set = Command::SetPush { user, device, target: Some(target) };
    assert_eq!(node.propose(set).await.unwrap(), Reply::Done);
}

/// Leases hints until there are so many.
async fn leased(node: &Node, count: usize) -> Vec<Hint> {
    let (started, mut hints) = (Instant::now(), Vec::new());
    while hints.len() < count {
        assert!(started.elapsed() < DEADLINE, "{} of {count}", hints.len());
        hints.extend(node.lease_hints(count).unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    hints
}

/// The floor of a user's mailbox.
fn floor(node: &Node, user: &UserId) -> Seq {
    let shard = node.hosted().shard(node.shard_number(&Id::User(user.clone()))).unwrap();
    let id = Recipient::User(user.clone());
    shard.look(|state| read::mailbox(state, &id)).unwrap().unwrap().floor
}

/// Waits until so much of a user's mailbox is gone.
async fn removed(node: &Node, user: &UserId, upto: Seq) {
    let started = Instant::now();
    while floor(node, user) < upto {
        assert!(started.elapsed() < DEADLINE, "nothing goes");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The files below a folder in which these bytes are. One that goes meanwhile has none.
fn files_with(folder: &Path, bytes: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, bytes));
        } else if fs::read(&path).is_ok_and(|read| read.windows(bytes.len()).any(|it| it == bytes))
        {
            found.push(path);
        }
    }
    found
}

/// Is there nothing to lease for a while?
async fn nothing_is_due(node: &Node) -> bool {
    tokio::time::sleep(Duration::from_secs(1)).await;
    node.lease_hints(100).unwrap().is_empty() && node.lease_hints(100).unwrap().is_empty()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hint_is_handed_out_once_until_it_was_sent_and_again_when_it_was_not() {
    let dir = TempDir::new().unwrap();
    let config = config(&dir.path().join("data"));
    let settings = Settings { push_every: Duration::ZERO, ..Settings::default() };
    create_with(&config, settings).unwrap();
    let node = serving(&config, Arc::new(SystemClock::new())).await.unwrap();
    let alice = Device::open(&node, &user("alice"), [1; 16]).await.unwrap();
    let users: Vec<UserId> = (0..20).map(|at| user(&format!("reader-{at}"))).collect();
    let tablet = DeviceId::new("tablet").unwrap();
    for user in &users {
        away(&node, user, &device()).await;
        away(&node, user, &tablet).await;
    }
    assert_eq!(node.lease_hints(100).unwrap(), []);
    tokio::time::sleep(DEAF).await;
    // A burst: one hint for each device, of the newest head, whatever asks for more.
    for n in 1..=5 {
        node.propose(send(&alice, n, &users)).await.unwrap();
    }
    node::settled(&node).await;
    let hints = leased(&node, 40).await;
    assert!(nothing_is_due(&node).await);
    assert!(
        hints
            .iter()
            .all(|hint| hint.epoch == Epoch::FIRST
                && hint.token.target.target == hint.device.as_str())
    );
    let newest = hints.iter().filter(|hint| hint.head == Seq::new(5)).count();
    assert_eq!(newest, 40, "everything had arrived before they were asked for");

    // What was sent is over, what was postponed comes again, and the rest is still somebody's.
    let (sent, rest) = hints.split_at(20);
    for Hint { user, device, epoch, head, .. } in sent.iter().cloned() {
        let sent = Command::PushSent { user, device, epoch, upto: head };
        assert_eq!(node.propose(sent).await.unwrap(), Reply::Done);
    }
    node.postpone_hint(rest[0].user.clone(), rest[0].device.clone(), Duration::ZERO);
    assert_eq!(leased(&node, 1).await, rest[..1]);
    assert!(nothing_is_due(&node).await);

    // A message after a hint makes a new one for the same device; others are leased still.
    node.propose(send(&alice, 6, &users)).await.unwrap();
    node::settled(&node).await;
    let again = leased(&node, 20).await;
    let name = |hint: &Hint| (hint.user.clone(), hint.device.clone());
    let mut names: Vec<_> = again.iter().map(name).collect();
    let mut wanted: Vec<_> = sent.iter().map(name).collect();
    names.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(names, wanted);

    // Leases are not kept, but their gateways may still have them: a node that starts anew hands out
    // whatever was not sent once they have ended, and what is due since then at once.
    stop(node).await.unwrap();
    let node = serving(&config, Arc::new(SystemClock::new())).await.unwrap();
    let started = Instant::now();
    node::settled(&node).await;
    assert!(nothing_is_due(&node).await);
    tokio::time::sleep(DEAF).await;
    let late = user("late");
    away(&node, &late, &device()).await;
    node.propose(send(&alice, 7, std::slice::from_ref(&late))).await.unwrap();
    node::settled(&node).await;
    assert_eq!(leased(&node, 1).await[0].user, late);
    assert!(started.elapsed() < LEASE);
    assert_eq!(leased(&node, 40).await.len(), 40);
    assert!(started.elapsed() >= LEASE);
    stop(node).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_need_not_be_kept_goes_by_itself_and_nothing_else() {
    let dir = TempDir::new().unwrap();
    let mut config = config(&dir.path().join("data"));
    config.retention.expire_every_ms = 200;
    config.retention.walk_every_ms = 200;
    let settings = Settings { keep: Duration::from_secs(1), ..Settings::default() };
    create_with(&config, settings).unwrap();
    let node = serving(&config, Arc::new(SystemClock::new())).await.unwrap();
    let alice = Device::open(&node, &user("alice"), [1; 16]).await.unwrap();
    let (bob, carol) = (user("bob"), user("carol"));
    Device::open(&node, &bob, [2; 16]).await.unwrap();
    for n in 1..=10 {
        let to = [bob.clone(), carol.clone()].map(Recipient::User).to_vec();
        node.propose(alice.send(n, n, to, Bytes::from_static(b"gone"))).await.unwrap();
    }
    node::settled(&node).await;
    let (epoch, seq) = (Epoch::FIRST, Seq::new(7));
    let confirm = Command::Confirm { user: bob.clone(), device: device(), epoch, seq };
    node.propose(confirm).await.unwrap();
    removed(&node, &bob, seq).await;
    // Another second of walks: what nobody confirmed stays, and so do mailboxes without a device.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let floors = [&bob, &carol, &alice.user].map(|user| floor(&node, user));
    assert_eq!(floors, [seq, Seq::NONE, Seq::NONE]);
    let shard = node.hosted().shard(node.shard_number(&Id::User(bob.clone()))).unwrap();
    let looked =
        shard.look(|state| hints::hints(state, &bob, tidemark_types::UnixMs::new(u64::MAX)));
    assert_eq!(looked.unwrap().unwrap(), []);
    stop(node).await.unwrap();
}

/// What the messages say that are to go: nothing that compression would change.
const SECRET: &[u8] = b"\xc3\x91\x07\xfe\x5a\x18\xe4\x2d\xb0\x6f\x83\x3c\xd9\x75\xaa\x1e";

/// Removed, a body is still in the log and in the state's files: in the log until so many entries of the
/// shard have followed as are kept, in the state's files until these are merged. Then it is nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_removed_is_in_no_file_once_others_have_followed() {
    let dir = TempDir::new().unwrap();
    let mut config = config(&dir.path().join("data"));
    config.retention.expire_every_ms = 100;
    config.retention.walk_every_ms = 200;
    (config.raft.snapshot_entries, config.raft.keep_entries) = (100, 50);
    config.raft.segment_bytes = 16 << 10;
    let settings = Settings { keep: Duration::from_secs(1), ..Settings::default() };
    create_with(&config, settings).unwrap();
    let node = serving(&config, Arc::new(SystemClock::new())).await.unwrap();
    let users: Vec<UserId> = (0..12).map(|at| user(&format!("user-{at}"))).collect();
    let mut devices = Vec::new();
    for (user, id) in users.iter().zip(1..) {
        devices.push(Device::open(&node, user, [id; 16]).await.unwrap());
    }
    let to: Vec<Recipient> = users.iter().cloned().map(Recipient::User).collect();
    let mut sent = 0;
    let mut send_to_all = async |body: &'static [u8]| {
        sent += 1;
        let send = devices[0].send(sent, sent, to.clone(), Bytes::from_static(body));
        node.propose(send).await.unwrap();
        Seq::new(u32::try_from(sent).unwrap())
    };
    let mut last = Seq::NONE;
    for _ in 0..10 {
        last = send_to_all(SECRET).await;
    }
    node::settled(&node).await;
    let (log, state) = (log_dir(&config.data_dir), state_dir(&config.data_dir));
    assert!(!files_with(&log, SECRET).is_empty(), "it was never written as it is");
    for _ in 0..200 {
        send_to_all(b"nothing").await;
    }
    node::settled(&node).await;
    assert!(!files_with(&state, SECRET).is_empty(), "the state is not written out");

    for user in &users {
        let (user, device, epoch) = (user.clone(), device(), Epoch::FIRST);
        node.propose(Command::Confirm { user, device, epoch, seq: last }).await.unwrap();
    }
    for user in &users {
        removed(&node, user, last).await;
    }
    let started = Instant::now();
    loop {
        for _ in 0..50 {
            send_to_all(b"nothing").await;
        }
        let found = files_with(&config.data_dir, SECRET);
        if found.is_empty() {
            break;
        }
        assert!(started.elapsed() < DEADLINE, "it is still in {found:?}");
    }
    stop(node).await.unwrap();
}
