//! Running a node: servers, metrics, and the signals that end it.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use metrics_exporter_prometheus::PrometheusHandle;
use tidemark_env::{Clock, SystemClock, SystemRng, TcpConnector};
use tidemark_proto::FILE_DESCRIPTOR_SET;
use tidemark_proto::store::MESSAGE_BYTES_MAX;
use tidemark_proto::store::v1::store_server::StoreServer;
use tidemark_store::config::StoreConfig;
use tidemark_store::identity::Identity;
use tidemark_store::metrics;
use tidemark_store::node::Node;
use tidemark_store::raft::network::{self, Acceptor, Me, Peers};
use tidemark_store::server::{http, store::StoreService};
use tidemark_version::VERSION;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// openraft says at info what it does for every group; a node has hundreds.
pub(crate) const LOG_FILTER: &str = "info,openraft=warn";

/// A group or a disk that takes longer will not.
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// How often the health service learns how the node is.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Runs the node until it is told to stop, or cannot go on.
pub(crate) async fn until_stopped(config: StoreConfig) -> Result<ExitCode> {
    let recorder = tidemark_process::recorder(metrics::BUCKETS)?;
    metrics::describe();
    tidemark_process::usage::describe();
    tidemark_process::watch_runtime()?;
    let identity = Identity::read(&config.data_dir)?;
    let grpc = listen(config.grpc).await?;
    let web = listen(config.http).await?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let me = Me { cluster: identity.cluster(), node: identity.node };
    let peers = Peers::new(me, Arc::new(TcpConnector));
    let acceptor = Acceptor::new(peers.clone());
    let node = Node::start(&config, peers, &acceptor, clock, Arc::new(SystemRng)).await?;
    tracing::info!(
        node = %identity.node,
        grpc = %config.grpc,
        http = %config.http,
        shards = %identity.shards(),
        data_dir = %config.data_dir.display(),
        version = VERSION,
        "started",
    );

    // The descriptors also hold the gateways' services.
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name(StoreServer::<StoreService>::NAME)
        .with_service_name(tonic_health::pb::health_server::SERVICE_NAME)
        .build_v1()?;
    let (reporter, health) = tonic_health::server::health_reporter();
    let service = StoreServer::new(StoreService::new(node.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let grpc = network::server()
        .add_service(acceptor.service())
        .add_service(service)
        .add_service(health)
        .add_service(reflection)
        .serve_with_incoming(network::incoming(grpc));
    let web = axum::serve(web, http::router(node.clone(), recorder.clone())).into_future();
    let mut fatal = node.fatal();
    tokio::select! {
        ended = tokio::spawn(grpc) => Err(anyhow!("the gRPC server ended: {ended:?}")),
        ended = tokio::spawn(web) => Err(anyhow!("the HTTP server ended: {ended:?}")),
        () = report(&node, &reporter, &recorder) => unreachable!("it never ends"),
        reason = fatal.wait_for(Option::is_some) => {
            // Nothing may be acknowledged any more, and there is nothing to clean up: the log is
            // on disk, and the state is replayed from it.
            let reason = reason.ok().and_then(|reason| reason.clone());
            eprintln!("tidemark-store: {}", reason.unwrap_or_default());
            std::process::abort();
        }
        stopped = stop_signal() => {
            tracing::info!(signal = stopped?, "stopping: moving leaders away");
            stop(&node).await?;
            acceptor.shut_down();
            tracing::info!("stopped");
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Stops the node in order, unless that takes too long or somebody is in a hurry: what is
/// acknowledged is in the log either way.
async fn stop(node: &Node) -> Result<()> {
    tokio::select! {
        stopped = node.shut_down() => Ok(stopped?),
        signal = stop_signal() => Err(anyhow!("stopped at once by a second {}", signal?)),
        () = tokio::time::sleep(STOP_WITHIN) => {
            Err(anyhow!("it did not stop within {} s", STOP_WITHIN.as_secs()))
        }
    }
}

/// Tells the health service whether the node is ready, and folds the samples of histograms, which
/// would otherwise grow until somebody scrapes.
async fn report(node: &Node, reporter: &HealthReporter, recorder: &PrometheusHandle) {
    loop {
        let status = match node.readiness() {
            Ok(()) => ServingStatus::Serving,
            Err(_) => ServingStatus::NotServing,
        };
        for service in ["", StoreServer::<StoreService>::NAME] {
            reporter.set_service_status(service, status).await;
        }
        recorder.run_upkeep();
        tokio::time::sleep(REPORT_EVERY).await;
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

async fn stop_signal() -> Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}
