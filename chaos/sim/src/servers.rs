//! What runs on the hosts of store nodes and gateways: the real node and the real gateway, composed
//! as their binaries do.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tidemark_env::Connector;
use tidemark_gateway::app::App;
use tidemark_gateway::config::{GatewayConfig, LimitsConfig};
use tidemark_gateway::serve;
use tidemark_proto::store::MESSAGE_BYTES_MAX;
use tidemark_proto::store::v1::store_server::StoreServer;
use tidemark_store::config::{DiskConfig, RaftConfig, RetentionConfig, StoreConfig};
use tidemark_store::node::Node;
use tidemark_store::raft::network::{self, Acceptor, Me, Peers};
use tidemark_store::server::store::StoreService;
use tidemark_store_client::{Client, ClientConfig, Error};
use tidemark_token::Keys;
use tidemark_types::NodeId;

use crate::away;
use crate::machine::{Machine, Writer};
use crate::net::{self, Net};
use crate::plan::Plan;
use crate::world::{self, World};

/// The log's writer looks this often whether there is something to write.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// How long a gateway's calls to the store may take.
const DEADLINE_MS: u64 = 5_000;

/// A store node, until the host is crashed.
pub async fn store(world: Arc<World>, node: NodeId) -> turmoil::Result {
    let machine = world.machine(node).clone();
    let ended = run_store(world, &machine).await;
    let reason = ended.err().map_or_else(|| "it ended".to_owned(), |error| format!("{error:#}"));
    machine.dies(reason);
    std::future::pending().await
}

async fn run_store(world: Arc<World>, machine: &Arc<Machine>) -> Result<()> {
    let host = world::store(machine.node);
    let listener = net::listen().await?;
    let (disks, writer) = machine.start()?;
    tokio::spawn(write_log(machine.clone(), writer, world.plan.fsync));
    let config = store_config(&world.plan, machine);
    let me = Me { cluster: machine.identity().cluster(), node: machine.node };
    let clock = world.clock(&host);
    let peers = Peers::new(me, Arc::new(Net { world: world.clone(), from: host.clone() }));
    let acceptor = Acceptor::new(peers.clone());
    let node = Node::start_on(disks, &config, peers, &acceptor, clock, world.rng()).await?;
    machine.runs(node.clone());
    world.line(&format_args!("{host} started, life {}", machine.lives()));
    let service = StoreServer::new(StoreService::new(node.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let server = network::server()
        .add_service(acceptor.service())
        .add_service(service)
        .serve_with_incoming(net::incoming(world, host, listener));
    let mut fatal = node.fatal();
    tokio::select! {
        ended = server => bail!("the gRPC server ended: {ended:?}"),
        reason = fatal.wait_for(Option::is_some) => {
            let reason = reason.ok().and_then(|reason| reason.clone());
            bail!(reason.unwrap_or_default())
        }
    }
}

/// In the place of the writer's thread.
async fn write_log(machine: Arc<Machine>, writer: Writer, healthy: Duration) {
    loop {
        let fsync = machine.fsync();
        tokio::time::sleep(fsync.max(LOOK_EVERY)).await;
        let wrote = writer.lock().step();
        match wrote {
            Ok(true) => machine.notice(fsync, healthy),
            Ok(false) => {}
            Err(_) => return,
        }
    }
}

fn store_config(plan: &Plan, machine: &Machine) -> StoreConfig {
    StoreConfig {
        data_dir: machine.folder().to_owned(),
        insecure: true,
        raft: RaftConfig {
            heartbeat_ms: plan.heartbeat_ms,
            election_timeout_min_ms: plan.election_ms,
            election_timeout_max_ms: plan.election_ms * 3 / 2,
            snapshot_entries: plan.snapshot_entries,
            keep_entries: plan.keep_entries,
            ..RaftConfig::default()
        },
        retention: RetentionConfig { expire_every_ms: 1_000, walk_every_ms: 2_000 },
        // The space of the machine that simulates says nothing.
        disk: DiskConfig { free_bytes_min: 0, free_bytes_reserve: 0 },
        ..StoreConfig::default()
    }
}

/// A gateway, until the host is crashed.
pub async fn gateway(world: Arc<World>, number: usize) -> turmoil::Result {
    let ended = run_gateway(world.clone(), number).await;
    let reason = ended.err().map_or_else(|| "it ended".to_owned(), |error| format!("{error:#}"));
    world.safety.violated(&world, format!("gateway-{number} ended: {reason}"));
    std::future::pending().await
}

async fn run_gateway(world: Arc<World>, number: usize) -> Result<()> {
    let host = world::gateway(number);
    let listener = net::listen().await?;
    let life = world.gateway_starts(number);
    let config = GatewayConfig {
        insecure: true,
        limits: LimitsConfig {
            heartbeat_min_ms: world.plan.silence_ms / 3,
            heartbeat_max_ms: world.plan.silence_ms,
            ..LimitsConfig::default()
        },
        ..GatewayConfig::default()
    };
    config.validate()?;
    let (clock, rng) = (world.clock(&host), world.rng());
    let keys = Keys::read(&world.key, clock.clone())?;
    let net: Arc<dyn Connector> = Arc::new(Net { world: world.clone(), from: host.clone() });
    let client = loop {
        let endpoints = world::addresses(world.plan.nodes().map(world::store));
        let reach = ClientConfig { endpoints, deadline: Duration::from_millis(DEADLINE_MS) };
        match Client::connect_over(Some(net.clone()), reach, clock.clone(), rng.clone()).await {
            Err(Error::Unavailable(_)) => {}
            reached => break reached?,
        }
    };
    tokio::spawn(away::dispatch(world.clone(), client.clone()));
    let app = App::new(&config, keys, Arc::new(client), clock, rng)?;
    world.line(&format_args!("{host} started, life {life}"));
    let incoming = net::incoming(world, host, listener);
    serve::grpc(&app).serve_with_incoming(incoming).await.context("the gRPC server")?;
    bail!("the gRPC server ended")
}
