//! A gateway on loopback over a store in memory, and who calls it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use tempfile::TempDir;
use tidemark_env::{Clock, SeededRng, SystemClock};
use tidemark_gateway::app::App;
use tidemark_gateway::config::{ChecksConfig, GatewayConfig};
use tidemark_gateway::serve::{self, Listeners};
use tidemark_proto::{Failure, headers};
use tidemark_push::PushConfig;
use tidemark_push::config::{LogConfig, ProviderConfig};
use tidemark_token::{Claims, Keys, Role, SigningKey};
use tidemark_types::{ErrorCode, UnixMs, UserId};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::metadata::MetadataMap;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use crate::memory::MemoryStore;

const DRAIN: Duration = Duration::from_secs(5);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// A running gateway.
pub(crate) struct Gateway {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) app: Arc<App>,
    pub(crate) channel: Channel,
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) keys: TempDir,
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) running: JoinHandle<Result<(), serve::Error>>,
    key: SigningKey,
}

/// Puts headers on each call.
#[derive(Clone)]
pub(crate) struct Headers(MetadataMap);

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        *request.metadata_mut() = self.0.clone();
        Ok(request)
    }
}

/// Whose calls carry some headers.
pub(crate) type Caller = InterceptedService<Channel, Headers>;

impl Gateway {
    pub(crate) async fn start() -> Self {
        Gateway::of(Arc::new(MemoryStore::new()), ChecksConfig::default()).await
    }

    /// One of several on this store, with checks of sends.
    pub(crate) async fn of(store: Arc<MemoryStore>, checks: ChecksConfig) -> Self {
        Self::configured(store, GatewayConfig { checks, ..GatewayConfig::default() }).await
    }

    /// One that wakes devices by a line in the log.
    pub(crate) async fn waking() -> Self {
        let log = ProviderConfig::Log(LogConfig::default());
        let providers = [("log".to_owned(), log)].into();
        let push = PushConfig { providers, ..PushConfig::default() };
        let config = GatewayConfig { push, ..GatewayConfig::default() };
        Self::configured(Arc::new(MemoryStore::new()), config).await
    }

    async fn configured(store: Arc<MemoryStore>, config: GatewayConfig) -> Self {
        let keys = tempfile::tempdir().unwrap();
        let file = keys.path().join("one.hs256");
        let key = SigningKey::generate_hs256(file, &SeededRng::new(1)).unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let verifying = Keys::read(keys.path(), clock.clone()).unwrap();
        let rng = Arc::new(SeededRng::new(2));
        let app = Arc::new(App::new(&config, verifying, store.clone(), clock, rng).unwrap());
        let grpc = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let web = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = grpc.local_addr().unwrap();
        let http = web.local_addr().unwrap();
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn({
            let connections_max = config.limits.connections_max;
            let listeners = Listeners { grpc, http: web, connections_max };
            let app = app.clone();
            async move {
                let stop = async { stopped.await.unwrap() };
                serve::until_stopped(async { Ok(app) }, listeners, metrics, DRAIN, stop).await
            }
        });
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
        Gateway { store, app, channel, grpc: address, http, keys, stop, running, key }
    }

    /// A token of this role, good for an hour.
    pub(crate) fn token(&self, role: Role) -> String {
        self.key.sign(&Claims::new(role, SystemClock::new().wall(), HOUR))
    }

    /// Calls with a token that was made then, and is good for another hour.
    pub(crate) fn issued(&self, role: Role, issued: UnixMs) -> Caller {
        let expires = SystemClock::new().wall().plus(HOUR);
        let token = self.key.sign(&Claims { role, issued: Some(issued), expires });
        self.with(&[bearer(&token)])
    }

    /// One that was good until an hour ago.
    pub(crate) fn expired(&self, role: Role) -> String {
        let then = SystemClock::new().wall().minus(2 * HOUR);
        self.key.sign(&Claims::new(role, then, HOUR))
    }

    /// Calls with a token of this role.
    pub(crate) fn by(&self, role: Role) -> Caller {
        self.with(&[bearer(&self.token(role))])
    }

    /// Calls with exactly these headers.
    pub(crate) fn with(&self, headers: &[(&'static str, String)]) -> Caller {
        let mut map = MetadataMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        InterceptedService::new(self.channel.clone(), Headers(map))
    }

    pub(crate) fn service(&self) -> Caller {
        self.by(Role::Service)
    }

    pub(crate) fn admin(&self) -> Caller {
        self.by(Role::Admin)
    }
}

/// The header with a token.
pub(crate) fn bearer(token: &str) -> (&'static str, String) {
    (headers::AUTHORIZATION, format!("{}{token}", headers::BEARER))
}

/// Any device of this user.
pub(crate) fn device_of(user: &str) -> Role {
    Role::Device { user: UserId::new(user).unwrap(), device: None }
}

/// What Tidemark, not the library, refused a call with.
pub(crate) fn refused<T: std::fmt::Debug>(outcome: Result<Response<T>, Status>) -> Failure {
    let status = outcome.expect_err("refused");
    assert!(status.metadata().contains_key(headers::ERROR_CODE), "{status:?}");
    Failure::from(&status)
}

/// A call was refused for this field.
pub(crate) fn bad_field<T: std::fmt::Debug>(outcome: Result<Response<T>, Status>, field: &str) {
    let failure = refused(outcome);
    assert_eq!(failure.code, ErrorCode::Invalid, "{failure}");
    assert!(failure.message.starts_with(&format!("{field}: ")), "{failure}");
}
