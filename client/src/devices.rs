//! A user's devices, as one of them sees and changes them.
//!
//! These are calls of their own, beside the device's connection: they work while it has none, and
//! its token is enough for them. Whatever is set here is a value, so every call may be repeated, and
//! is: at each gateway once. Invariant (R3): once an attempt's outcome is unknown, so is the call's,
//! whatever later attempts are refused with for the moment.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tidemark_proto::v1::devices_client::DevicesClient;
use tidemark_proto::v1::{self, LogOutRequest, RegisterRequest, SetPushRequest};
use tidemark_proto::{Failure, convert, headers};
use tidemark_types::limits::{PUSH_PROVIDER_BYTES_MAX, PUSH_TARGET_BYTES_MAX};
use tidemark_types::{DeviceId, ErrorCode, Seq, UnixMs};
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::config::{Config, ConfigError, Label};
use crate::grpc::GrpcConnector;
use crate::handler::TokenSource;

/// One attempt: longer than an election, for which a gateway waits.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a platform's push service finds a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushTarget {
    /// The provider's name in the gateways' configuration, as `apns`; at most 32 bytes.
    pub provider: String,
    /// What the platform gave the application: its token, or for Web Push the subscription as JSON;
    /// at most 4,096 bytes.
    pub target: String,
}

/// A device, as its owner is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// The owner's id for it.
    pub device: DeviceId,
    /// What it is called.
    pub label: Label,
    /// What it has confirmed.
    pub cursor: Seq,
    /// When it was last heard of, to the hour.
    pub last_seen: UnixMs,
    /// It has a connection whose end was not told.
    pub connected: bool,
    /// When it was logged out; none for never. Tokens made up to then are refused.
    pub logged_out: Option<UnixMs>,
    /// The provider that wakes it; none for nobody does. The target itself is not told.
    pub push_provider: Option<String>,
    /// Everything up to here it was told of by a hint.
    pub pushed_upto: Seq,
}

/// A user's devices; a cheap handle.
pub struct Devices<T> {
    inner: Arc<Inner<T>>,
}

struct Inner<T> {
    config: Config,
    tokens: T,
    connector: GrpcConnector,
    /// The gateway to begin with: one that answered.
    at: AtomicUsize,
    /// Connections to gateways, by their places in the configuration.
    channels: Mutex<HashMap<usize, Channel>>,
}

impl<T> Clone for Devices<T> {
    fn clone(&self) -> Self {
        Devices { inner: self.inner.clone() }
    }
}

impl<T: TokenSource> Devices<T> {
    /// The devices of the configuration's user, for its device; nothing is connected yet. It is
    /// the configuration of [`crate::Device::open`], and the tokens may come from the same source.
    ///
    /// # Errors
    /// If the configuration is not one that can work.
    pub fn new(config: Config, tokens: T) -> Result<Self, ConfigError> {
        Self::over(config, tokens, GrpcConnector::default())
    }

    /// The same, over byte streams of another kind than TCP.
    ///
    /// # Errors
    /// If the configuration is not one that can work.
    pub fn over(config: Config, tokens: T, connector: GrpcConnector) -> Result<Self, ConfigError> {
        config.validate()?;
        let (at, channels) = (AtomicUsize::default(), Mutex::default());
        Ok(Devices { inner: Arc::new(Inner { config, tokens, connector, at, channels }) })
    }

    /// All of the user's devices, by their ids.
    ///
    /// # Errors
    /// What the gateways refuse it with; `UNAVAILABLE` where there is none.
    pub async fn list(&self) -> Result<Vec<DeviceInfo>, Failure> {
        let request = v1::ListRequest { user: self.inner.config.user.to_string() };
        let call =
            |mut client: DevicesClient<Channel>, request| async move { client.list(request).await };
        let listed = self.inner.call(request, call).await?;
        listed.devices.into_iter().map(info).collect()
    }

    /// Says where hints for this device go from now on, in place of any other; the device must have
    /// connected once, or been registered. A platform that gives the application another token says
    /// so, and the application calls this again.
    ///
    /// # Errors
    /// `INVALID` if no gateway is configured for the provider, or the target is none of its;
    /// `NO_DEVICE` if the device was never there. `UNKNOWN`: it may have been set.
    pub async fn set_push(
        &self,
        PushTarget { provider, target }: PushTarget,
    ) -> Result<(), Failure> {
        let bounds = [
            ("provider", provider.len(), PUSH_PROVIDER_BYTES_MAX),
            ("target", target.len(), PUSH_TARGET_BYTES_MAX),
        ];
        for (field, bytes, most) in bounds {
            if bytes == 0 || bytes > most {
                let text = format!("{field}: {bytes} bytes, must be 1 to {most}");
                return Err(Failure::new(ErrorCode::Invalid).message(text));
            }
        }
        self.hints_go(Some(v1::PushTarget { provider, target })).await
    }

    /// Says that this device gets no hints.
    ///
    /// # Errors
    /// As of [`Devices::set_push`].
    pub async fn remove_push(&self) -> Result<(), Failure> {
        self.hints_go(None).await
    }

    /// Gives this device another name and platform; a device that was never there is registered, with
    /// its start as configured.
    ///
    /// # Errors
    /// `INVALID` if one of them is too long. `UNKNOWN`: it may have been set.
    pub async fn set_label(&self, label: Label) -> Result<(), Failure> {
        if label.is_too_long() {
            let text = ConfigError::Label.to_string();
            return Err(Failure::new(ErrorCode::Invalid).message(text));
        }
        let Config { user, device, start, .. } = &self.inner.config;
        let request = RegisterRequest {
            user: user.to_string(),
            device: device.to_string(),
            start: Some((*start).into()),
            label: Some(v1::Label { name: label.name, platform: label.platform }),
        };
        let call = |mut client: DevicesClient<Channel>, request| async move {
            client.register(request).await
        };
        self.inner.call(request, call).await.map(drop)
    }

    /// Logs a device of the user out, this one or another: its connections are cut within seconds,
    /// its tokens that were made up to now are refused, and it gets no hints. It goes on where it was
    /// when it logs in again.
    ///
    /// # Errors
    /// `NO_DEVICE` if the user has none of this name. `UNKNOWN`: it may be logged out.
    pub async fn log_out(&self, device: &DeviceId) -> Result<(), Failure> {
        let user = self.inner.config.user.to_string();
        let request = LogOutRequest { user, device: device.to_string() };
        let call = |mut client: DevicesClient<Channel>, request| async move {
            client.log_out(request).await
        };
        self.inner.call(request, call).await.map(drop)
    }

    async fn hints_go(&self, target: Option<v1::PushTarget>) -> Result<(), Failure> {
        let Config { user, device, .. } = &self.inner.config;
        let (user, device) = (user.to_string(), device.to_string());
        let call = |mut client: DevicesClient<Channel>, request| async move {
            client.set_push(request).await
        };
        self.inner.call(SetPushRequest { user, device, target }, call).await.map(drop)
    }
}

impl<T: TokenSource> Inner<T> {
    /// Calls one gateway after the other, until one answers or refuses it for good; a token that is
    /// not accepted is replaced once.
    async fn call<Q, A, F>(
        &self,
        message: Q,
        method: impl Fn(DevicesClient<Channel>, Request<Q>) -> F,
    ) -> Result<A, Failure>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let gateways = self.config.gateways.len();
        let first = self.at.load(Ordering::Relaxed);
        let mut request = self.request(message.clone(), false).await?;
        let (mut failed, mut renewed, mut tried) = (None, false, 0);
        while tried < gateways {
            let place = (first + tried) % gateways;
            let failure = match self.attempt(place, request, &method).await {
                Ok(answer) => {
                    self.at.store(place, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            self.channels.lock().remove(&place);
            let refused =
                matches!(failure.code, ErrorCode::Unauthenticated | ErrorCode::TokenExpired);
            let renew = refused && !renewed;
            if !renew && !failure.code.is_retryable() {
                return Err(joined(failed, failure));
            }
            if renew {
                renewed = true;
            } else {
                tried += 1;
                failed = Some(joined(failed, failure));
            }
            request = self.request(message.clone(), renew).await?;
        }
        Err(failed.expect("a configuration has a gateway"))
    }

    async fn attempt<Q, A, F>(
        &self,
        place: usize,
        request: Request<Q>,
        method: &impl Fn(DevicesClient<Channel>, Request<Q>) -> F,
    ) -> Result<A, Failure>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let gateway = &self.config.gateways[place];
        let known = self.channels.lock().get(&place).cloned();
        let channel = match known {
            Some(channel) => channel,
            None => {
                // What was never connected has certainly sent nothing.
                let unavailable = |text| Failure::new(ErrorCode::Unavailable).message(text);
                let channel = self.connector.channel(gateway).await.map_err(unavailable)?;
                self.channels.lock().entry(place).or_insert(channel).clone()
            }
        };
        match timeout(ATTEMPT_TIMEOUT, method(DevicesClient::new(channel), request)).await {
            Ok(answered) => answered.map(Response::into_inner).map_err(|it| Failure::from(&it)),
            Err(_) => {
                let text = format!("{gateway} does not answer");
                Err(Failure::new(ErrorCode::Unknown).message(text))
            }
        }
    }

    async fn request<Q>(&self, message: Q, refused: bool) -> Result<Request<Q>, Failure> {
        let unauthenticated = |text: String| Failure::new(ErrorCode::Unauthenticated).message(text);
        let token =
            self.tokens.token(refused).await.map_err(|it| unauthenticated(it.to_string()))?;
        let bearer = format!("{}{token}", headers::BEARER).parse();
        let bearer = bearer.map_err(|_| unauthenticated("a token is visible ASCII".to_owned()))?;
        let mut request = Request::new(message);
        request.metadata_mut().insert(headers::AUTHORIZATION, bearer);
        if let Some(cluster) = self.config.cluster {
            let cluster = cluster.to_string().parse().expect("a UUID is a header");
            request.metadata_mut().insert(headers::CLUSTER, cluster);
        }
        Ok(request)
    }
}

/// What two failed attempts mean together.
fn joined(before: Option<Failure>, last: Failure) -> Failure {
    before.filter(|before| !before.code.has_no_effect()).unwrap_or(last)
}

fn info(listed: v1::DeviceInfo) -> Result<DeviceInfo, Failure> {
    let v1::Label { name, platform } = listed.label.unwrap_or_default();
    Ok(DeviceInfo {
        device: convert::name("device", &listed.device)?,
        label: Label { name, platform },
        cursor: Seq::new(listed.cursor),
        last_seen: UnixMs::new(listed.last_seen_ms),
        connected: listed.connected,
        logged_out: Some(UnixMs::new(listed.logged_out_ms)).filter(|it| *it != UnixMs::default()),
        push_provider: Some(listed.push_provider).filter(|it| !it.is_empty()),
        pushed_upto: Seq::new(listed.pushed_upto),
    })
}
