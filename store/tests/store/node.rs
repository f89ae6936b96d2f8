//! One node in this process: what was acknowledged is there, after restarts and under overload.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use tempfile::TempDir;
use tidemark_env::{Clock, ManualClock, SystemClock, SystemRng, TcpConnector};
use tidemark_store::config::StoreConfig;
use tidemark_store::identity::IdentityError;
use tidemark_store::node::{Node, NodeError, log_dir, state_dir};
use tidemark_store::raft::network::{Acceptor, Me, Peers};
use tidemark_store::shard;
use tidemark_store_core::value::{Chain, ClusterMap, Content, NodeAddress, Settings, Verdict};
use tidemark_store_core::{Command, Reply};
use tidemark_types::{
    ClusterId, Epoch, Id, NodeId, Recipient, Seq, ShardCount, ShardId, UnixMs, UserId,
};

use crate::device::{Device, device, verdict};
use crate::look;

const ME: NodeId = NodeId::new(1);
const SHARDS: u16 = 4;
const DEADLINE: Duration = Duration::from_secs(60);

/// A configuration whose groups elect themselves soon: nothing here tests timers.
pub(crate) fn config(data_dir: &Path) -> StoreConfig {
    let mut config = StoreConfig { data_dir: data_dir.to_owned(), ..StoreConfig::default() };
    config.raft.heartbeat_ms = 50;
    config.raft.election_timeout_min_ms = 100;
    config.raft.election_timeout_max_ms = 150;
    config
}

pub(crate) fn create(config: &StoreConfig) -> Result<(), NodeError> {
    create_with(config, Settings::default())
}

/// Everything that was sent has arrived.
pub(crate) async fn settled(node: &Node) {
    look::drained(node).await.unwrap();
}

pub(crate) fn create_with(config: &StoreConfig, settings: Settings) -> Result<(), NodeError> {
    let cluster = ClusterId::from_bytes([7; 16]).unwrap();
    let address = NodeAddress { grpc: config.grpc.to_string() };
    let shards = ShardCount::new(SHARDS).unwrap();
    let map = ClusterMap::new(cluster, shards, [(ME, address)].into(), settings);
    Node::create(&config.data_dir, ME, map).map(drop)
}

async fn try_start(config: &StoreConfig, clock: Arc<dyn Clock>) -> Result<Arc<Node>, NodeError> {
    let cluster = ClusterId::from_bytes([7; 16]).unwrap();
    let me = Me { cluster, node: ME };
    let peers = Peers::new(me, Arc::new(TcpConnector));
    let acceptor = Acceptor::new(peers.clone());
    Node::start(config, peers, &acceptor, clock, Arc::new(SystemRng)).await
}

/// Starts a node, and waits until it takes requests.
pub(crate) async fn serving(
    config: &StoreConfig,
    clock: Arc<dyn Clock>,
) -> Result<Arc<Node>, String> {
    let node = try_start(config, clock).await.map_err(|error| error.to_string())?;
    let started = Instant::now();
    while let Err(reason) = node.readiness() {
        if started.elapsed() > DEADLINE {
            return Err(reason);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(node)
}

/// Stops a node, and waits until nobody holds it or its directory any more.
pub(crate) async fn stop(node: Arc<Node>) -> Result<(), NodeError> {
    let stopped = node.shut_down().await;
    let held = Arc::downgrade(&node);
    drop(node);
    let started = Instant::now();
    while held.strong_count() > 0 {
        assert!(started.elapsed() < DEADLINE, "somebody holds the node");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stopped
}

pub(crate) async fn start(config: &StoreConfig) -> Arc<Node> {
    serving(config, Arc::new(SystemClock::new())).await.unwrap()
}

/// Creates a node in an empty directory, and starts it.
pub(crate) async fn start_new(config: &StoreConfig) -> Arc<Node> {
    create(config).unwrap();
    start(config).await
}

/// The wall clock stands still, so that two nodes can apply batches of the same time.
async fn start_stopped(config: &StoreConfig) -> Arc<Node> {
    serving(config, Arc::new(ManualClock::at(UnixMs::new(1_800_000_000_000)))).await.unwrap()
}

pub(crate) async fn refusal(config: &StoreConfig) -> NodeError {
    let started = try_start(config, Arc::new(SystemClock::new())).await;
    started.err().expect("it must not start")
}

pub(crate) fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

/// Three users: the second lives in the first one's shard, the third does not.
pub(crate) fn users() -> [UserId; 3] {
    let shards = ShardCount::new(SHARDS).unwrap();
    let shard_of = |user: &UserId| shards.shard_of(&Id::User(user.clone()));
    let alice = user("alice");
    let others = || (0..).map(|at| user(&format!("user-{at}")));
    let near = others().find(|other| shard_of(other) == shard_of(&alice)).unwrap();
    let far = others().find(|other| shard_of(other) != shard_of(&alice)).unwrap();
    [alice, near, far]
}

/// What a test sends as number `n`.
pub(crate) fn send(from: &Device, n: u64, to: &[UserId]) -> Command {
    let to = to.iter().cloned().map(Recipient::User).collect();
    from.send(n, 1, to, Bytes::from(format!("message {n}")))
}

async fn hashes(node: &Node) -> Vec<(Option<u64>, Chain)> {
    join_all(node.hosted().shards().map(|(_, shard)| look::hash(shard))).await
}

/// Sends `count` messages from the first user to the other two, and returns the verdicts.
async fn send_all(node: &Node, alice: &Device, to: &[UserId], count: u64) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for n in 1..=count {
        verdicts.push(verdict(node.propose(send(alice, n, to)).await).unwrap());
    }
    verdicts
}

/// Checks that the sends of `send_all` are where they belong, each once and in order.
async fn check(node: &Node, names: &[UserId; 3], verdicts: &[Verdict]) {
    look::drained(node).await.unwrap();
    let own = look::entries(node, &names[0]).await;
    let copies = [look::entries(node, &names[1]).await, look::entries(node, &names[2]).await];
    assert_eq!(own.len(), verdicts.len());
    for copies in &copies {
        assert_eq!(copies.len(), verdicts.len());
    }
    for (at, verdict) in verdicts.iter().enumerate() {
        let (seq, entry) = &own[at];
        assert_eq!(*verdict, Verdict::Accepted { seq: *seq, time: entry.time });
        let Content::Message { message, .. } = &entry.content else { panic!("{entry:?}") };
        assert_eq!(message.body, format!("message {}", at + 1));
        for copies in &copies {
            let (_, copy) = &copies[at];
            assert_eq!(copy.origin, entry.origin);
            let content = Content::Message { message: message.clone(), outgoing: None };
            assert_eq!(copy.content, content);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_there_after_a_restart_and_a_retry_gets_the_same_verdict() {
    let dir = TempDir::new().unwrap();
    let config = config(dir.path());
    let names = users();
    let node = start_new(&config).await;
    let alice = Device::open(&node, &names[0], [1; 16]).await.unwrap();
    let verdicts = send_all(&node, &alice, &names[1..], 150).await;
    check(&node, &names, &verdicts).await;
    let before = hashes(&node).await;
    stop(node).await.unwrap();

    let node = start(&config).await;
    check(&node, &names, &verdicts).await;
    for (n, sent) in (1..).zip(&verdicts) {
        let retried = verdict(node.propose(send(&alice, n, &names[1..])).await);
        assert_eq!(retried.as_ref(), Ok(sent));
    }
    check(&node, &names, &verdicts).await;
    for ((was, _), (is, _)) in before.into_iter().zip(hashes(&node).await) {
        assert!(is > was, "a restart goes on behind what was applied: {was:?}, {is:?}");
    }
    stop(node).await.unwrap();
}

/// The copy of a running node's directory is what kill -9 leaves: the log, and of the state only
/// what happened to be flushed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaying_the_log_gives_the_state_hash_of_a_node_that_stopped_cleanly() {
    let dir = TempDir::new().unwrap();
    let [kept, copied] = ["kept", "copied"].map(|name| config(&dir.path().join(name)));
    let names = users();
    create(&kept).unwrap();
    let node = start_stopped(&kept).await;
    let alice = Device::open(&node, &names[0], [1; 16]).await.unwrap();
    let verdicts = send_all(&node, &alice, &names[1..], 100).await;
    look::drained(&node).await.unwrap();
    copy(&kept.data_dir, &copied.data_dir);
    stop(node).await.unwrap();

    // Both go on with the same entries at the same time.
    let [kept, copied] = [start_stopped(&kept).await, start_stopped(&copied).await];
    check(&copied, &names, &verdicts).await;
    assert_eq!(hashes(&kept).await, hashes(&copied).await);
    stop(kept).await.unwrap();
    stop(copied).await.unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_starts_on_a_log_that_was_purged() {
    let dir = TempDir::new().unwrap();
    let mut config = config(dir.path());
    config.raft.snapshot_entries = 20;
    config.raft.keep_entries = 10;
    let names = users();
    let mut purged = 0;
    let mut node = start_new(&config).await;
    let alice = Device::open(&node, &names[0], [1; 16]).await.unwrap();
    let verdicts = send_all(&node, &alice, &names[1..], 200).await;
    for _ in 0..2 {
        let shard = look::home(&node, &names[0]);
        let deadline = Instant::now() + DEADLINE;
        while shard.group().status().purged.is_none_or(|index| index < 100) {
            assert!(Instant::now() < deadline, "not purged: {:?}", shard.group().status());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let status = shard.group().status();
        assert!(status.purged >= Some(purged), "{status:?}");
        assert!(status.purged <= status.snapshot, "{status:?}");
        purged = status.purged.unwrap();
        check(&node, &names, &verdicts).await;
        let retried = verdict(node.propose(send(&alice, 200, &names[1..])).await);
        assert_eq!(retried.as_ref(), Ok(&verdicts[199]));
        stop(node).await.unwrap();
        node = start(&config).await;
    }
    check(&node, &names, &verdicts).await;
    stop(node).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_directory_refuses_with_its_own_error() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| config(&dir.path().join(name));
    let missing = |error| matches!(error, NodeError::Identity(IdentityError::Missing(_)));

    let empty = at("empty");
    assert!(missing(refusal(&empty).await), "there is nothing");
    fs::create_dir(&empty.data_dir).unwrap();
    assert!(missing(refusal(&empty).await), "the folder is empty");

    let foreign = at("foreign");
    fs::create_dir(&foreign.data_dir).unwrap();
    fs::write(foreign.data_dir.join("holiday.jpg"), b"beach").unwrap();
    assert!(missing(refusal(&foreign).await), "it is somebody's");
    let claimed = create(&foreign).expect_err("it is somebody's");
    assert!(matches!(claimed, NodeError::Identity(IdentityError::NotEmpty(_))), "{claimed}");

    let other = at("other");
    create(&other).unwrap();
    let identity = other.data_dir.join("identity.json");
    let text = fs::read_to_string(&identity).unwrap();
    assert!(text.contains("\"format\": 1"), "{text}");
    fs::write(&identity, text.replace("\"format\": 1", "\"format\": 2")).unwrap();
    let refused = refusal(&other).await;
    assert!(
        matches!(refused, NodeError::Identity(IdentityError::Damaged { .. })),
        "another format: {refused}"
    );

    let forgetful = at("forgetful");
    create(&forgetful).unwrap();
    fs::remove_dir_all(log_dir(&forgetful.data_dir)).unwrap();
    for _ in 0..2 {
        let refused = refusal(&forgetful).await;
        assert!(matches!(refused, NodeError::LogFiles(_)), "the log is lost: {refused}");
    }

    let stateless = at("stateless");
    create(&stateless).unwrap();
    fs::remove_dir_all(state_dir(&stateless.data_dir)).unwrap();
    for _ in 0..2 {
        let refused = refusal(&stateless).await;
        assert!(matches!(refused, NodeError::State(_)), "the state is lost: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_has_one_node_at_a_time() {
    let dir = TempDir::new().unwrap();
    let config = config(dir.path());
    let node = start_new(&config).await;
    let refused = refusal(&config).await;
    assert!(matches!(refused, NodeError::LogFiles(_)), "{refused}");
    stop(node).await.unwrap();
    stop(start(&config).await).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overload_refuses_clients_without_effect_and_lets_the_clusters_own_commands_pass() {
    const SENDERS: u16 = 64;
    let dir = TempDir::new().unwrap();
    let mut config = config(dir.path());
    config.proposals.client_bytes_max = 1_500;
    let node = start_new(&config).await;
    let mut devices = Vec::new();
    for at in 0..SENDERS {
        let open_id = [u8::try_from(at).unwrap(); 16];
        let user = user(&format!("sender-{at}"));
        devices.push(Device::open(&node, &user, open_id).await.unwrap());
    }

    let to = [user("sender-0")];
    let sends = join_all(devices.iter().map(|device| node.propose(send(device, 1, &to))));
    let confirms = join_all(devices.iter().map(|sender| {
        let user = sender.user.clone();
        let (epoch, seq) = (Epoch::FIRST, Seq::NONE);
        node.propose(Command::Confirm { user, device: device(), epoch, seq })
    }));
    let (sent, confirmed) = tokio::join!(sends, confirms);
    for reply in confirmed {
        assert!(matches!(reply, Ok(Reply::Confirmed { .. })), "{reply:?}");
    }
    let mut refused = 0;
    for (device, reply) in devices.iter().zip(sent) {
        let own = look::entries(&node, &device.user).await;
        let own = own.iter().filter(|(_, entry)| entry.origin.sender() == &device.user);
        let own: Vec<_> = own.map(|(seq, entry)| (*seq, entry.time)).collect();
        match reply {
            Err(shard::Error::Overloaded { retry_after }) => {
                refused += 1;
                assert!(retry_after > Duration::ZERO);
                assert_eq!(own, [], "{}: a refusal had an effect", device.user);
            }
            other => {
                let Ok(Verdict::Accepted { seq, time }) = verdict(other) else {
                    panic!("{}: neither taken nor refused", device.user);
                };
                assert_eq!(own, [(seq, time)]);
            }
        }
    }
    assert!(refused > 0, "nobody was refused: the room is too large for this test");
    assert!(refused < SENDERS, "everybody was refused");

    // What was refused is taken later under the same number.
    for device in &devices {
        verdict(node.propose(send(device, 1, &to)).await).unwrap();
    }
    stop(node).await.unwrap();
}

/// One thread for all tasks: what one of them queues without a pause is seen together.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_nobody_waits_for_is_committed_with_what_somebody_waits_for() {
    let dir = TempDir::new().unwrap();
    let config = config(dir.path());
    let node = start_new(&config).await;
    let phone = Device::open(&node, &user("alice"), [1; 16]).await.unwrap();
    let here = node.clone();
    let task = tokio::spawn(async move {
        let home = look::home(&here, &phone.user);
        let applied = || home.group().applied().expect("a device is open").index();
        let confirm = || {
            let (user, epoch, seq) = (phone.user.clone(), Epoch::FIRST, Seq::NONE);
            home.enqueue(Command::Confirm { user, device: device(), epoch, seq }).unwrap()
        };

        let (before, began) = (applied(), Instant::now());
        assert!(matches!(confirm().reply().await, Ok(Reply::Confirmed { .. })));
        assert!(began.elapsed() > Duration::from_millis(90), "it did not wait for others");
        assert_eq!(applied(), before + 1);

        let confirms = [confirm(), confirm()];
        let sent = home.enqueue(send(&phone, 1, std::slice::from_ref(&phone.user))).unwrap();
        verdict(sent.reply().await).unwrap();
        for confirmed in confirms {
            assert!(matches!(confirmed.reply().await, Ok(Reply::Confirmed { .. })));
        }
        assert_eq!(applied(), before + 2, "they did not share an entry");
    });
    task.await.unwrap();
    stop(node).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_at_the_wrong_shard_has_no_effect() {
    let dir = TempDir::new().unwrap();
    let config = config(dir.path());
    let node = start_new(&config).await;
    let alice = user("alice");
    let home = ShardCount::new(SHARDS).unwrap().shard_of(&Id::User(alice.clone()));
    let wrong = ShardId::new((home.get() + 1) % SHARDS);
    let (_, shard) = node.hosted().shards().find(|(id, _)| *id == wrong).unwrap();
    let refused = shard.propose(Command::DeleteMailbox { user: alice.clone() }).await.unwrap();
    let Reply::Rejected(reject) = refused else { panic!("{refused:?}") };
    assert_eq!(reject.code(), tidemark_types::ErrorCode::WrongShard);
    assert!(!look::mailbox(&node, &alice).await.deleted);
    stop(node).await.unwrap();
}
