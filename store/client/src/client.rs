//! Routes calls to leaders, and repeats them until they are answered or the deadline passes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidemark_env::{Clock, Rng};
use tidemark_proto::Failure;
use tidemark_proto::store::v1::{
    MapRequest, StatusRequest, StatusResponse, TransferLeaderRequest, request, response,
};
use tidemark_store_core::read::{Answer, Query};
use tidemark_store_core::value::{ClusterMap, Value};
use tidemark_store_core::{Command, Reply};
use tidemark_types::{ErrorCode, Id, NodeId, ShardId};

use crate::error::{Attempt, Error};
use crate::link::{Answered, Link, channel, store_client};

/// One attempt; a leader that does not answer in this time has most likely lost its majority.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

/// The first pause after an attempt that failed, doubled up to the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(10);
const PAUSE_LONGEST: Duration = Duration::from_millis(500);

/// How to reach the cluster.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Store nodes, as `host:port`; any of them tells the map.
    pub endpoints: Vec<String>,
    /// How long a call may take in all.
    pub deadline: Duration,
}

/// A client of the store; a cheap handle.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    map: ClusterMap,
    deadline: Duration,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    /// Who led each shard when last heard of.
    leaders: Mutex<HashMap<ShardId, NodeId>>,
    links: tokio::sync::Mutex<HashMap<NodeId, Arc<Link>>>,
}

impl Client {
    /// Asks the endpoints for the cluster's map until one tells it, or the deadline passes.
    pub async fn connect(
        config: ClientConfig,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
    ) -> Result<Self, Error> {
        let started = clock.monotonic();
        let mut reason = "no endpoint is given".to_owned();
        let mut pause = PAUSE_FIRST;
        while clock.monotonic() - started < config.deadline {
            for endpoint in &config.endpoints {
                match fetch_map(endpoint).await {
                    Ok(map) => {
                        let inner = Inner {
                            map,
                            deadline: config.deadline,
                            clock,
                            rng,
                            leaders: Mutex::default(),
                            links: tokio::sync::Mutex::default(),
                        };
                        return Ok(Client { inner: Arc::new(inner) });
                    }
                    Err(error) => reason = format!("{endpoint}: {error}"),
                }
            }
            if config.endpoints.is_empty() {
                break;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_LONGEST);
        }
        Err(Error::Unavailable(reason))
    }

    /// The cluster's map, as it was when this client connected.
    pub fn map(&self) -> &ClusterMap {
        &self.inner.map
    }

    /// The shard on which `id` lives.
    pub fn shard_of(&self, id: &Id) -> ShardId {
        self.inner.map.shard_count().expect("checked when the map was fetched").shard_of(id)
    }

    /// Proposes a command where its id lives, until there is a reply or the deadline passes.
    ///
    /// # Panics
    /// If the command has no id: those are the cluster's own.
    pub async fn command(&self, command: &Command) -> Result<Reply, Error> {
        let id = command.routed_by().expect("a client's command has an id");
        let what = request::What::Command(command.encode());
        match self.call(self.shard_of(&id), what).await? {
            response::What::Reply(bytes) => {
                Reply::decode(&bytes).map_err(|error| Error::BadAnswer(error.to_string()))
            }
            other => Err(Error::BadAnswer(format!("{other:?} to a command"))),
        }
    }

    /// Asks the leader of the shard that can answer, not staler than when this was called.
    pub async fn query(&self, query: &Query) -> Result<Answer, Error> {
        let what = request::What::Query(query.encode().into());
        match self.call(self.shard_of(&query.routed_by()), what).await? {
            response::What::Answer(bytes) => {
                Answer::decode(&bytes).map_err(|error| Error::BadAnswer(error.to_string()))
            }
            other => Err(Error::BadAnswer(format!("{other:?} to a query"))),
        }
    }

    /// How the groups stand, as `node` sees them.
    pub async fn status(&self, node: NodeId) -> Result<StatusResponse, Error> {
        let mut client = store_client(channel(self.address(node)?).map_err(unavailable)?);
        let request = client.status(StatusRequest {});
        match tokio::time::timeout(ATTEMPT_TIMEOUT, request).await {
            Ok(Ok(status)) => Ok(status.into_inner()),
            Ok(Err(status)) => Err(Error::Unavailable(status.message().to_owned())),
            Err(_) => Err(Error::Unavailable(format!("node {node} does not answer"))),
        }
    }

    /// Moves a group's leadership from `from` to `to`; the term in which it leads then.
    pub async fn transfer_leader(
        &self,
        group: u32,
        from: NodeId,
        to: NodeId,
    ) -> Result<u64, Error> {
        let mut client = store_client(channel(self.address(from)?).map_err(unavailable)?);
        let request = client.transfer_leader(TransferLeaderRequest { group, to: to.get() });
        match tokio::time::timeout(self.inner.deadline, request).await {
            Ok(Ok(done)) => Ok(done.into_inner().term),
            Ok(Err(status)) => Err(Error::Unavailable(status.message().to_owned())),
            Err(_) => Err(Error::Unknown(format!("node {from} does not answer"))),
        }
    }

    async fn call(&self, shard: ShardId, what: request::What) -> Result<Answered, Error> {
        let started = self.inner.clock.monotonic();
        let mut pause = PAUSE_FIRST;
        let mut unknown = None;
        let mut tried = 0;
        loop {
            let node = self.candidate(shard, tried);
            let failed = match self.attempt(node, shard, what.clone()).await {
                Ok(answered) => {
                    self.inner.leaders.lock().insert(shard, node);
                    return Ok(answered);
                }
                Err(failed) => failed,
            };
            self.inner.leaders.lock().remove(&shard);
            tried += 1;
            let mut wait = self.jittered(pause);
            let reason = match failed {
                Attempt::NotSent(reason) => reason,
                Attempt::Lost(reason) => unknown.insert(reason).clone(),
                Attempt::Failed(Failure { code, message, retry_after, leader, .. }) => {
                    if !code.is_retryable() {
                        // A refusal of this attempt says nothing of an earlier one (R3).
                        return Err(match unknown {
                            Some(reason) if !code.is_final() => Error::Unknown(reason),
                            _ => Error::Refused { code, message },
                        });
                    }
                    if code == ErrorCode::Unknown {
                        unknown = Some(message.clone());
                    }
                    if let Some(leader) = leader.and_then(|address| self.node_at(&address)) {
                        self.inner.leaders.lock().insert(shard, leader);
                        wait = Duration::ZERO;
                    }
                    wait = retry_after.unwrap_or(wait);
                    message
                }
            };
            if self.inner.clock.monotonic() - started + wait > self.inner.deadline {
                return Err(match unknown {
                    Some(reason) => Error::Unknown(reason),
                    None => Error::Unavailable(reason),
                });
            }
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(PAUSE_LONGEST);
        }
    }

    /// The leader when last heard of; else the preferred node, then the other replicas in turn.
    fn candidate(&self, shard: ShardId, tried: usize) -> NodeId {
        if let Some(leader) = self.inner.leaders.lock().get(&shard) {
            return *leader;
        }
        let placement = &self.inner.map.shards[usize::from(shard.get())];
        let others = placement.replicas.values().filter(|node| **node != placement.preferred);
        let all: Vec<NodeId> = [placement.preferred].into_iter().chain(others.copied()).collect();
        all[tried % all.len()]
    }

    async fn attempt(
        &self,
        node: NodeId,
        shard: ShardId,
        what: request::What,
    ) -> Result<Answered, Attempt> {
        let attempt = async {
            let link = self.link(node).await?;
            match link.request(shard.get(), what).await? {
                response::What::Failure(failure) => Err(Attempt::Failed(failure.into())),
                answered => Ok(answered),
            }
        };
        let lost = |_| Attempt::Lost(format!("node {node} does not answer"));
        tokio::time::timeout(ATTEMPT_TIMEOUT, attempt).await.map_err(lost)?
    }

    async fn link(&self, node: NodeId) -> Result<Arc<Link>, Attempt> {
        let mut links = self.inner.links.lock().await;
        match links.get(&node).filter(|link| link.is_open()) {
            Some(link) => Ok(link.clone()),
            None => {
                let address =
                    self.address(node).map_err(|error| Attempt::NotSent(error.to_string()))?;
                let link = Arc::new(Link::open(address, self.inner.map.cluster).await?);
                links.insert(node, link.clone());
                Ok(link)
            }
        }
    }

    fn address(&self, node: NodeId) -> Result<&str, Error> {
        let found = self.inner.map.nodes.get(&node).map(|node| node.grpc.as_str());
        found.ok_or_else(|| Error::Unavailable(format!("node {node} is not in the map")))
    }

    fn node_at(&self, address: &str) -> Option<NodeId> {
        let mut nodes = self.inner.map.nodes.iter();
        nodes.find(|(_, node)| node.grpc == address).map(|(id, _)| *id)
    }

    /// Between half and all of `pause`, so that many clients do not come back at once.
    fn jittered(&self, pause: Duration) -> Duration {
        pause.mul_f64(0.5 + 0.5 * self.inner.rng.unit())
    }
}

async fn fetch_map(endpoint: &str) -> Result<ClusterMap, String> {
    let channel = channel(endpoint).map_err(|error| format!("{error:?}"))?;
    let mut client = store_client(channel);
    let answer = tokio::time::timeout(ATTEMPT_TIMEOUT, client.map(MapRequest {})).await;
    let answer = answer.map_err(|_| "no answer".to_owned())?;
    let map = answer.map_err(|status| status.message().to_owned())?.into_inner().map;
    let map = ClusterMap::decode(&map).map_err(|error| error.to_string())?;
    match map.shard_count() {
        Some(_) => Ok(map),
        None => Err("its map has no legal number of shards".to_owned()),
    }
}

fn unavailable(attempt: Attempt) -> Error {
    Error::Unavailable(format!("{attempt:?}"))
}
