//! A gateway's sockets: gRPC for devices, back ends and operators, HTTP for browsers and for whoever
//! watches the process.
//!
//! ```text
//!   stop ─► not ready ─► devices are sent away ─► no new calls, those under way end ─► done
//!           └──────────────────── or the time to drain is over ────────────────────┘
//! ```

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use metrics_exporter_prometheus::PrometheusHandle;
use thiserror::Error;
use tidemark_proto::FILE_DESCRIPTOR_SET;
use tidemark_proto::v1::cluster_server::ClusterServer;
use tidemark_proto::v1::devices_server::DevicesServer;
use tidemark_proto::v1::feed_server::FeedServer;
use tidemark_proto::v1::gateway_server::GatewayServer;
use tidemark_proto::v1::groups_server::GroupsServer;
use tidemark_proto::v1::mailboxes_server::MailboxesServer;
use tidemark_proto::v1::messages_server::MessagesServer;
use tidemark_proto::v1::passing_server::PassingServer;
use tidemark_proto::v1::sequence_server::SequenceServer;
use tidemark_proto::v1::settings_server::SettingsServer;
use tidemark_types::limits::FRAME_BYTES_MAX;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::server::NamedService;
use tonic::transport::server::Router;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::app::App;
use crate::backend::Backend;
use crate::connect::grpc::GrpcCarrier;
use crate::http::{self, Started};
use crate::kept::Keeping;
use crate::limits::SOCKETS_SPARE;
use crate::sockets::{Socket, Sockets};

/// Calls of one connection under way at once, a device's stream among them: a back end's pool needs
/// no more, and each may hold a page.
const STREAMS_MAX: u32 = 256;

/// A connection on which nothing was read for the interval, nor for the timeout after a ping, is dead.
/// A device that says its `Ping` at a third of the default `heartbeat_max_ms` never sees one, which would
/// wake its radio for nothing.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(90);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Samples of histograms are folded this often, scraped or not, so that they take no more memory.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// The whole gateway, to the health service.
const GATEWAY: &str = "";

/// What is served here: the descriptors also hold the store nodes' service.
const SERVICES: [&str; 9] = [
    GatewayServer::<GrpcCarrier>::NAME,
    MessagesServer::<Backend>::NAME,
    MailboxesServer::<Backend>::NAME,
    SettingsServer::<Backend>::NAME,
    DevicesServer::<Backend>::NAME,
    GroupsServer::<Backend>::NAME,
    SequenceServer::<Backend>::NAME,
    FeedServer::<Backend>::NAME,
    ClusterServer::<Backend>::NAME,
];

/// Why a gateway ended that nobody stopped.
#[derive(Debug, Error)]
pub enum Error {
    /// The gRPC server ended.
    #[error("the gRPC server ended: {0}")]
    Grpc(#[from] tonic::transport::Error),
    /// Nothing ended it, and it ended.
    #[error("a server ended by itself")]
    Ended,
}

/// Where a gateway is reached.
pub struct Listeners {
    /// For devices, back ends and operators.
    pub grpc: TcpListener,
    /// For browsers, and whoever watches the process.
    pub http: TcpListener,
    /// Devices that may be connected: each port takes some connections more.
    pub connections_max: u32,
}

/// Serves until `stop` is ready, then drains for at most `drain`. Until the gateway has started it
/// says so by HTTP, and takes nothing.
pub async fn until_stopped<E: From<Error>>(
    start: impl Future<Output = Result<Arc<App>, E>>,
    listeners: Listeners,
    metrics: PrometheusHandle,
    drain: Duration,
    stop: impl Future<Output = ()>,
) -> Result<(), E> {
    let started = Started::default();
    let Listeners { grpc, http, connections_max } = listeners;
    let sockets_max = connections_max as usize + SOCKETS_SPARE;
    let (grpc, http) = (Sockets::new(grpc, sockets_max), Sockets::new(http, sockets_max));
    let http = http::serve(http, http::router(started.clone(), metrics.clone()));
    let upkeep = async {
        loop {
            tokio::time::sleep(UPKEEP_EVERY).await;
            metrics.run_upkeep();
        }
    };
    let served = async {
        tokio::pin!(stop);
        let app = tokio::select! {
            app = start => app?,
            () = &mut stop => return Ok(()),
        };
        let app = started.get_or_init(|| app);
        Ok(until_drained(app, grpc, drain, stop).await?)
    };
    tokio::select! {
        done = served => done,
        () = http => unreachable!("it never ends"),
        () = upkeep => unreachable!("it never ends"),
    }
}

/// Serves gRPC until `stop` is ready and what is under way has ended.
async fn until_drained(
    app: &App,
    sockets: Sockets,
    drain: Duration,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let (reporter, health) = tonic_health::server::health_reporter();
    report(&reporter, ServingStatus::Serving).await;
    let incoming = stream::unfold(sockets, |sockets| async move {
        let socket = sockets.accept().await;
        Some((Ok::<Socket, Infallible>(socket), sockets))
    });
    let (close, closed) = oneshot::channel::<()>();
    let grpc = grpc(app).add_service(health).serve_with_incoming_shutdown(incoming, async {
        // Closed by a message as by the end of this function.
        let _ = closed.await;
    });
    tokio::pin!(grpc);
    tokio::select! {
        ended = &mut grpc => return Err(ended.map_or_else(Error::from, |()| Error::Ended)),
        () = stop => {}
    }
    app.leave();
    report(&reporter, ServingStatus::NotServing).await;
    let away = async {
        app.drain(drain).await;
        // Nobody listens if the server has just ended.
        let _ = close.send(());
    };
    match tokio::time::timeout(drain, async { tokio::join!(grpc, away).0 }).await {
        Ok(ended) => Ok(ended?),
        Err(_) => {
            tracing::warn!("what is still under way is cut off");
            Ok(())
        }
    }
}

async fn report(reporter: &HealthReporter, status: ServingStatus) {
    for service in SERVICES.into_iter().chain([GATEWAY]) {
        reporter.set_service_status(service, status).await;
    }
}

/// Everything that is served over gRPC but the health service.
pub fn grpc(app: &App) -> Router {
    let backend = app.backend();
    let descriptors = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name(tonic_health::pb::health_server::SERVICE_NAME);
    let reflection = SERVICES
        .into_iter()
        .fold(descriptors, |descriptors, service| descriptors.with_service_name(service))
        .build_v1()
        .expect("the descriptors were written by the compiler");
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(STREAMS_MAX)
        .add_service(reflection)
        .add_service(GrpcCarrier::service(app.devices()))
        .add_service(Keeping(MessagesServer::new(backend.clone())))
        .add_service(Keeping(MailboxesServer::new(backend.clone())))
        .add_service(Keeping(SettingsServer::new(backend.clone())))
        .add_service(Keeping(DevicesServer::new(backend.clone())))
        .add_service(Keeping(GroupsServer::new(backend.clone())))
        .add_service(Keeping(PassingServer::new(backend.clone())))
        .add_service(Keeping(
            SequenceServer::new(backend.clone()).max_decoding_message_size(FRAME_BYTES_MAX),
        ))
        .add_service(Keeping(FeedServer::new(backend.clone())))
        .add_service(Keeping(ClusterServer::new(backend)))
}
