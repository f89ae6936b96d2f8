//! `cluster status` and `cluster map`: the cluster as it is, and as it should be.

use std::fmt;
use std::iter::once;

use serde::Serialize;
use tidemark_proto::convert::uuid;
use tidemark_proto::v1::cluster_client::ClusterClient;
use tidemark_proto::v1::{
    ClusterStatusRequest, ClusterStatusResponse, MapRequest, MapResponse, MapSettings, NodeStatus,
    ReplicaStatus, ShardStatus,
};
use tidemark_token::Role;
use tidemark_types::ClusterId;

use crate::arguments::Cluster;
use crate::error::Error;
use crate::gateways::Gateways;
use crate::outcome::Outcome;
use crate::output::{Output, plain, row, table};

/// Asks and prints.
pub(crate) async fn run(
    command: &Cluster,
    gateways: &mut Gateways,
    output: Output,
) -> Result<(), Error> {
    match command {
        Cluster::Status => output.print(&Status::new(status(gateways).await?)?)?,
        Cluster::Map => {
            let rpc = async |channel, request| ClusterClient::new(channel).map(request).await;
            let request = MapRequest {};
            let map = gateways.call(Role::Admin, Outcome::of_read(), request, rpc).await?;
            output.print(&Map::new(map)?)?;
        }
    }
    Ok(())
}

/// The cluster's status, as a gateway's store node sees it.
pub(crate) async fn status(gateways: &mut Gateways) -> Result<ClusterStatusResponse, Error> {
    let rpc = async |channel, request| ClusterClient::new(channel).status(request).await;
    gateways.call(Role::Admin, Outcome::of_read(), ClusterStatusRequest {}, rpc).await
}

fn cluster_id(bytes: &[u8]) -> Result<String, Error> {
    let id = uuid::<ClusterId>("cluster_id", bytes).map_err(Error::bad_answer)?;
    Ok(id.to_string())
}

#[derive(Serialize)]
struct Status {
    cluster: String,
    nodes: Vec<Node>,
    shards: Vec<Shard>,
}

#[derive(Serialize)]
struct Node {
    node: u64,
    address: String,
    up: bool,
    ready: bool,
    version: String,
    leads: u32,
    disk_free_bytes: u64,
}

#[derive(Serialize)]
struct Shard {
    shard: u32,
    /// 0 when none is known.
    leader: u64,
    term: u64,
    committed: u64,
    replicas: Vec<Replica>,
}

#[derive(Serialize)]
struct Replica {
    node: u64,
    replica: u64,
    voter: bool,
    matched: u64,
    applied: u64,
}

impl Status {
    fn new(status: ClusterStatusResponse) -> Result<Self, Error> {
        Ok(Status {
            cluster: cluster_id(&status.cluster_id)?,
            nodes: status.nodes.into_iter().map(Node::from).collect(),
            shards: status.shards.into_iter().map(Shard::from).collect(),
        })
    }
}

impl From<NodeStatus> for Node {
    fn from(status: NodeStatus) -> Self {
        let NodeStatus { node, address, up, ready, version, leads, disk_free_bytes } = status;
        Node { node, address, up, ready, version, leads, disk_free_bytes }
    }
}

impl From<ShardStatus> for Shard {
    fn from(status: ShardStatus) -> Self {
        let ShardStatus { shard, leader, term, committed, replicas } = status;
        let replicas = replicas.into_iter().map(Replica::from).collect();
        Shard { shard, leader, term, committed, replicas }
    }
}

impl From<ReplicaStatus> for Replica {
    fn from(status: ReplicaStatus) -> Self {
        let ReplicaStatus { node, replica, voter, matched, applied } = status;
        Replica { node, replica, voter, matched, applied }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = row([&"NODE", &"ADDRESS", &"STATE", &"LEADS", &"VERSION", &"DISK FREE"]);
        let nodes = table(once(head).chain(self.nodes.iter().map(Node::row)));
        let head = row([&"SHARD", &"LEADER", &"TERM", &"COMMITTED", &"NODE:MATCHED/APPLIED"]);
        let shards = table(once(head).chain(self.shards.iter().map(Shard::row)));
        write!(f, "cluster {}\n\n{nodes}\n\n{shards}", self.cluster)
    }
}

impl Node {
    fn row(&self) -> Vec<String> {
        let state = match (self.up, self.ready) {
            (false, _) => "down",
            (true, false) => "up",
            (true, true) => "ready",
        };
        let (address, version) = (plain(&self.address), plain(&self.version));
        // A node that does not report it says 0, which is no node that still runs.
        let known = self.up && self.disk_free_bytes > 0;
        let free = if known { gib(self.disk_free_bytes) } else { String::new() };
        row([&self.node, &address, &state, &self.leads, &version, &free])
    }
}

impl Shard {
    fn row(&self) -> Vec<String> {
        let replicas = self.replicas.iter().map(|replica| {
            let learner = if replica.voter { "" } else { " (learner)" };
            format!("{}:{}/{}{learner}", replica.node, replica.matched, replica.applied)
        });
        let replicas = replicas.collect::<Vec<_>>().join("  ");
        row([&self.shard, &node(self.leader), &self.term, &self.committed, &replicas])
    }
}

/// A node by its number, of which 0 means none.
fn node(node: u64) -> String {
    if node == 0 { "none".to_owned() } else { node.to_string() }
}

/// Milliseconds in the largest unit that needs no fraction.
fn duration(ms: u64) -> String {
    let units = [("days", 86_400_000), ("hours", 3_600_000), ("minutes", 60_000), ("s", 1_000)];
    match units.into_iter().find(|(_, unit)| ms.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{} {name}", ms / unit),
        None => format!("{ms} ms"),
    }
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

#[derive(Serialize)]
struct Map {
    cluster: String,
    version: u64,
    hash_version: u32,
    nodes: Vec<Address>,
    shards: Vec<Placement>,
    #[serde(skip_serializing_if = "Option::is_none")]
    settings: Option<Settings>,
}

#[derive(Serialize)]
struct Address {
    node: u64,
    address: String,
}

#[derive(Serialize)]
struct Placement {
    shard: u32,
    nodes: Vec<u64>,
    /// 0 for none.
    leader_hint: u64,
}

#[derive(Serialize)]
struct Settings {
    session_idle_ms: u64,
    dedup_window_ms: u64,
    allocate_window_ms: u64,
    mailbox_entries_max: u32,
    keep_ms: u64,
    hard_keep_ms: u64,
    eligible_ms: u64,
    device_expiry_ms: u64,
    devices_max: u32,
    push_after_ms: u64,
    push_every_ms: u64,
    group_members_max: u32,
    feed_records_max: u32,
    recall_within_ms: u64,
    edit_within_ms: u64,
}

impl Map {
    fn new(map: MapResponse) -> Result<Self, Error> {
        let nodes =
            map.nodes.into_iter().map(|node| Address { node: node.node, address: node.address });
        let shards = map.shards.into_iter().map(|shard| Placement {
            shard: shard.shard,
            nodes: shard.nodes,
            leader_hint: shard.leader_hint,
        });
        Ok(Map {
            cluster: cluster_id(&map.cluster_id)?,
            version: map.version,
            hash_version: map.hash_version,
            nodes: nodes.collect(),
            shards: shards.collect(),
            settings: map.settings.map(Settings::from),
        })
    }
}

impl From<MapSettings> for Settings {
    fn from(settings: MapSettings) -> Self {
        let MapSettings {
            session_idle_ms,
            dedup_window_ms,
            allocate_window_ms,
            mailbox_entries_max,
            keep_ms,
            hard_keep_ms,
            eligible_ms,
            device_expiry_ms,
            devices_max,
            push_after_ms,
            push_every_ms,
            group_members_max,
            feed_records_max,
            recall_within_ms,
            edit_within_ms,
        } = settings;
        Settings {
            session_idle_ms,
            dedup_window_ms,
            allocate_window_ms,
            mailbox_entries_max,
            keep_ms,
            hard_keep_ms,
            eligible_ms,
            device_expiry_ms,
            devices_max,
            push_after_ms,
            push_every_ms,
            group_members_max,
            feed_records_max,
            recall_within_ms,
            edit_within_ms,
        }
    }
}

impl fmt::Display for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = self.nodes.iter().map(|node| row([&node.node, &plain(&node.address)]));
        let nodes = table(once(row([&"NODE", &"ADDRESS"])).chain(nodes));
        let shards = self.shards.iter().map(|shard| {
            let nodes = shard.nodes.iter().map(ToString::to_string).collect::<Vec<_>>();
            row([&shard.shard, &nodes.join(" "), &node(shard.leader_hint)])
        });
        let head = row([&"SHARD", &"NODES", &"LEADER HINT"]);
        let shards = table(once(head).chain(shards));
        writeln!(f, "cluster {}, map {}, hash {}", self.cluster, self.version, self.hash_version)?;
        write!(f, "\n{nodes}\n\n{shards}")?;
        match &self.settings {
            None => Ok(()),
            Some(settings) => write!(f, "\n\n{}", table(settings.rows())),
        }
    }
}

impl Settings {
    fn rows(&self) -> [Vec<String>; 15] {
        [
            row([&"sessions are kept idle for", &duration(self.session_idle_ms)]),
            row([&"back ends' ids are kept for", &duration(self.dedup_window_ms)]),
            row([&"allocations' ids are kept for", &duration(self.allocate_window_ms)]),
            row([&"entries in a mailbox, at most", &self.mailbox_entries_max]),
            row([&"confirmed entries are kept for", &duration(self.keep_ms)]),
            row([&"all entries are kept for", &duration(self.hard_keep_ms)]),
            row([&"devices are waited for", &duration(self.eligible_ms)]),
            row([&"devices are forgotten after", &duration(self.device_expiry_ms)]),
            row([&"devices of a user, at most", &self.devices_max]),
            row([&"connected devices get a hint after", &duration(self.push_after_ms)]),
            row([&"hints to a device, one in", &duration(self.push_every_ms)]),
            row([&"members of a group, at most", &self.group_members_max]),
            row([&"records in a shard's feed, at most", &self.feed_records_max]),
            row([&"a message can be recalled for", &duration(self.recall_within_ms)]),
            row([&"a message can be edited for", &duration(self.edit_within_ms)]),
        ]
    }
}
