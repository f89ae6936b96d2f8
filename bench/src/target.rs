//! The cluster that is measured, as its `cluster.json` describes it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tidemark_env::{Clock, SystemClock, SystemRng};
use tidemark_proto::store::v1::StatusResponse;
use tidemark_store_client::{Client, ClientConfig};
use tidemark_token::{Claims, Role, SigningKey};
use tidemark_types::routing::ShardCount;
use tidemark_types::{ClusterId, DeviceId, UserId};

use crate::process::Process;

/// How long a token is good: longer than a run.
const TOKEN_VALID: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a call to the stores may take.
const STORE_DEADLINE: Duration = Duration::from_secs(10);

/// A running cluster.
pub(crate) struct Target {
    /// The gateway that the load goes through: its gRPC port.
    pub(crate) gateway: String,
    /// And its HTTP port.
    pub(crate) gateway_http: String,
    /// Its processes, as far as they are on this machine and known.
    pub(crate) processes: Vec<Process>,
    pub(crate) shards: ShardCount,
    pub(crate) cluster: ClusterId,
    key: SigningKey,
    stores: Client,
}

/// What `cluster.json` says; docs/cli.md describes it.
#[derive(Deserialize)]
struct File {
    gateways: Vec<Server>,
    stores: Vec<Server>,
    key: PathBuf,
}

#[derive(Deserialize)]
struct Server {
    node: Option<u64>,
    grpc: String,
    http: String,
}

impl Target {
    /// The cluster of this file.
    pub(crate) async fn find(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).with_context(|| {
            format!("{}: start a cluster first, or run scripts/bench", path.display())
        })?;
        let File { gateways, stores, key } =
            serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
        let folder = path.with_file_name("");
        let key = SigningKey::read(folder.join(key))?;
        let Server { grpc, http, .. } = gateways.first().context("the cluster has no gateway")?;
        let (gateway, gateway_http) = (grpc.clone(), http.clone());
        let endpoints = stores.iter().map(|store| store.grpc.clone()).collect();
        let config = ClientConfig { endpoints, deadline: STORE_DEADLINE };
        let clock = Arc::new(SystemClock::new());
        let client = Client::connect(config, clock, Arc::new(SystemRng)).await?;
        let map = client.map();
        let shards = map.shard_count().context("the cluster's map has no shards")?;
        let cluster = map.cluster;
        ensure!(gateways.len() == 1, "the load goes through one gateway: start one only");
        // Beside the file lie the ids of the processes that were started with it.
        let named = |name: String, http| Process::find(&folder, name, http);
        let gateways = (1..).zip(gateways);
        let gateways = gateways.map(|(at, server)| named(format!("gateway-{at}"), server.http));
        let stores = stores
            .into_iter()
            .filter_map(|server| Some(named(format!("node-{}", server.node?), server.http)));
        let processes = stores.chain(gateways).flatten().collect();
        Ok(Target { gateway, gateway_http, processes, shards, cluster, key, stores: client })
    }

    /// The stores, as the cluster's own parts see them: for what goes past the gateway.
    pub(crate) fn stores(&self) -> &Client {
        &self.stores
    }

    /// A token for a device.
    pub(crate) fn device_token(&self, user: &UserId, device: &DeviceId) -> String {
        self.token(Role::Device { user: user.clone(), device: Some(device.clone()) })
    }

    /// A token for the calls of a back end.
    pub(crate) fn service_token(&self) -> String {
        self.token(Role::Service)
    }

    fn token(&self, role: Role) -> String {
        self.key.sign(&Claims::new(role, SystemClock::new().wall(), TOKEN_VALID))
    }

    /// Bytes in all outboxes, as the shards' leaders see them; none while a shard has no leader.
    pub(crate) async fn outbox_bytes(&self) -> Result<Option<u64>> {
        let mut nodes = Vec::new();
        for node in self.stores.map().nodes.keys() {
            nodes.push(self.stores.status(*node).await?);
        }
        Ok(outbox_bytes(&nodes, self.shards))
    }
}

fn outbox_bytes(nodes: &[StatusResponse], shards: ShardCount) -> Option<u64> {
    let led =
        nodes.iter().flat_map(|node| node.groups.iter().filter(|group| group.leader == node.node));
    let led: Vec<_> = led.filter(|group| group.group < u32::from(shards.get())).collect();
    let bytes = led.iter().map(|group| group.outbox_bytes).sum();
    (led.len() == usize::from(shards.get())).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use tidemark_proto::store::v1::GroupStatus;

    use super::*;

    fn node(node: u64, groups: &[(u32, u64, u64)]) -> StatusResponse {
        let group = |(group, leader, outbox_bytes): &(u32, u64, u64)| GroupStatus {
            group: *group,
            leader: *leader,
            outbox_bytes: *outbox_bytes,
            ..Default::default()
        };
        StatusResponse { node, groups: groups.iter().map(group).collect(), ..Default::default() }
    }

    #[test]
    fn outboxes_are_what_leaders_say() {
        let shards = ShardCount::new(2).expect("a test's own constant");
        let control = u32::MAX;
        let one = node(1, &[(0, 1, 70), (1, 2, 5), (control, 1, 9)]);
        let two = node(2, &[(0, 1, 0), (1, 2, 0), (control, 1, 0)]);
        assert_eq!(outbox_bytes(&[one.clone(), two], shards), Some(70));
        assert_eq!(outbox_bytes(&[one], shards), None, "nobody leads shard 1");
    }
}
