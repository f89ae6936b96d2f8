//! What a leader stamps that has not measured cluster time yet (R17).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidemark_env::ManualClock;
use tidemark_store_core::command::{Draft, Judged, Send, Start};
use tidemark_store_core::value::{Settings, Verdict};
use tidemark_store_core::{Command, Reply, read};
use tidemark_types::{
    ClientMsgId, ContentHash, DeviceId, OpenId, Recipient, Seq, SessionId, ShardCount, ShardId,
    UnixMs, UserId, routing,
};

use super::succession::patient;
use super::{Cluster, cluster_id};
use crate::config::StoreConfig;
use crate::shard::{Error, Shard, Surroundings, TIMELESS_MAX};
use crate::space::Space;
use crate::time::ClusterTime;

/// Entries are kept for so long, whoever confirmed them.
const KEPT: Duration = Duration::from_secs(24 * 3_600);
const MONTH: Duration = Duration::from_secs(30 * 24 * 3_600);

fn alice() -> UserId {
    UserId::new("alice").unwrap()
}

fn device() -> DeviceId {
    DeviceId::new("phone").unwrap()
}

/// A shard that three nodes have, on its leader, by a clock that stands still.
struct Rig {
    cluster: Cluster,
    clock: Arc<ManualClock>,
    around: Surroundings,
    shard: Shard,
    session: SessionId,
}

impl Rig {
    /// Alice has a session; cluster time was measured.
    async fn start() -> Self {
        let cluster = Cluster::start_with(1, &patient()).await;
        let leader = cluster.leader(0).await;
        let clock = Arc::new(ManualClock::at(UnixMs::new(1_700_000_000_000)));
        let config = StoreConfig::default();
        let around = Surroundings {
            state: cluster.nodes[leader].state.clone(),
            shards: ShardCount::new(1).unwrap(),
            time: ClusterTime::new(clock.clone()),
            space: Space::of(&std::env::temp_dir(), &config.disk).unwrap(),
            clock: clock.clone(),
            config,
        };
        around.time.settle(vec![], 1);
        let shard = Shard::start(ShardId::new(0), cluster.group(leader, 0).clone(), &around);
        let init = Command::Init {
            cluster: cluster_id(),
            shard: ShardId::new(0),
            shards: around.shards,
            hash_version: routing::HASH_VERSION,
            settings: Settings { keep: KEPT, hard_keep: KEPT, ..Settings::default() },
        };
        assert_eq!(shard.propose(init).await.unwrap(), Reply::Done);
        let (user, device) = (alice(), device());
        let register = Command::RegisterDevice {
            user: user.clone(),
            device: device.clone(),
            start: Start::Floor,
            arrival: None,
            label: None,
        };
        shard.propose(register).await.unwrap();
        let open_id = OpenId::from_bytes([1; 16]).unwrap();
        let open = Command::Open { user, device, open_id, ends: None };
        let Reply::Opened { session } = shard.propose(open).await.unwrap() else {
            panic!("no session")
        };
        Rig { cluster, clock, around, shard, session }
    }

    /// The node ends, is down for so long, and leads again; no clock has been asked yet.
    async fn restart_after(&mut self, down: Duration) {
        self.shard.stop().await;
        self.clock.advance(down);
        self.around.time = ClusterTime::new(self.clock.clone());
        let group = self.shard.group().clone();
        self.shard = Shard::start(ShardId::new(0), group, &self.around);
    }

    /// Alice writes to herself; when that was accepted, by the log.
    async fn send(&self, n: u64) -> Result<UnixMs, Error> {
        let (to, body) = (vec![Recipient::User(alice())], Bytes::from_static(b"late"));
        let content = ContentHash::of(&to, 1, &body);
        let client_msg_id = ClientMsgId::new(UnixMs::new(n), [0; 10]);
        let draft = Draft { to, kind: 1, client_msg_id, body, act: None };
        let send = Command::Send(Send {
            user: alice(),
            device: device(),
            session: self.session,
            n,
            base: 1,
            content,
            judged: Judged::Allow(draft),
        });
        match self.shard.propose(send).await? {
            Reply::Sent(Verdict::Accepted { time, .. }) => Ok(time),
            other => panic!("{other:?}"),
        }
    }

    /// Removes what need not be kept by now; what is the last one that has gone.
    async fn floor_by(&self, now: UnixMs) -> Seq {
        self.shard.propose(Command::Expire { now }).await.unwrap();
        let mailbox = Recipient::User(alice());
        self.shard.propose(Command::Retain { mailbox: mailbox.clone() }).await.unwrap();
        self.shard.look(|state| read::mailbox(state, &mailbox)).unwrap().unwrap().floor
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_after_a_long_downtime_is_kept_as_long_as_anything() {
    let mut rig = Rig::start().await;
    rig.send(1).await.unwrap();
    rig.restart_after(MONTH).await;
    let refused = rig.send(2).await;
    assert!(matches!(refused, Err(Error::NoTime)), "{refused:?}");
    rig.around.time.settle(vec![], 1);
    let now = rig.around.time.now().unwrap();
    assert_eq!(rig.send(2).await.unwrap(), now);
    assert_eq!(rig.floor_by(now).await, Seq::new(1), "a month old, and new");
    rig.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_for_whom_no_majority_is_trusted_goes_on_with_the_time_of_the_log() {
    let mut rig = Rig::start().await;
    let before = rig.send(1).await.unwrap();
    rig.restart_after(MONTH).await;
    rig.around.time.settle(vec![], 3);
    assert!(matches!(rig.send(2).await, Err(Error::NoTime)));
    rig.clock.advance(TIMELESS_MAX - Duration::from_millis(1));
    assert!(matches!(rig.send(2).await, Err(Error::NoTime)));
    rig.clock.advance(Duration::from_millis(1));
    assert_eq!(rig.send(2).await.unwrap(), before);
    assert_eq!(rig.send(3).await.unwrap(), before);
    rig.cluster.stop().await;
}
