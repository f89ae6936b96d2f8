//! A simulator that runs, and what a test asks of it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::SecretKey;
use p256::elliptic_curve::sec1::ToEncodedPoint;
use rsa::rand_core::{OsRng, RngCore};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::credentials::{Credentials, random_hex};
use crate::services::Counted;
use crate::state::{Fault, Received, Service, State, Subscriber, Subscription};
use crate::{apns_server, http_server};

/// Where it listens, and what vendors leave open.
#[derive(Clone, Copy, Debug)]
pub struct SimConfig {
    /// APNs.
    pub apns: SocketAddr,
    /// Everything else.
    pub http: SocketAddr,
    /// How Apple counts tokens.
    pub counted: Counted,
}

impl Default for SimConfig {
    /// Ports that are free.
    fn default() -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        SimConfig { apns: any, http: any, counted: Counted::default() }
    }
}

/// A simulator that runs until it is dropped.
pub struct Sim {
    state: Arc<State>,
    apns: SocketAddr,
    http: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
}

impl Sim {
    /// Starts one, with new credentials.
    pub async fn start(config: SimConfig) -> Result<Sim> {
        for address in [config.apns, config.http] {
            ensure!(address.ip().is_loopback(), "{address} is not loopback");
        }
        let state = Arc::new(State::new(Credentials::new()?, config.counted));
        let apns = TcpListener::bind(config.apns).await.context("the port of APNs")?;
        let http = TcpListener::bind(config.http).await.context("the port of all others")?;
        let (apns_at, http_at) = (apns.local_addr()?, http.local_addr()?);
        let tasks = vec![
            tokio::spawn(apns_server::run(
                apns,
                apns_server::tls(&state.credentials)?,
                state.clone(),
            )),
            tokio::spawn(http_server::run(http, http_at, state.clone())),
        ];
        Ok(Sim { state, apns: apns_at, http: http_at, tasks })
    }

    /// Where APNs listens.
    pub fn apns(&self) -> SocketAddr {
        self.apns
    }

    /// Where all others listen.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// What the vendors gave the application.
    pub fn credentials(&self) -> &Credentials {
        &self.state.credentials
    }

    /// Writes the credentials into a folder, with a configuration that uses them: `push.toml`.
    pub fn write(&self, folder: &Path) -> Result<()> {
        self.credentials().write(folder, self.apns, self.http)
    }

    /// What a service took, in order.
    pub fn received(&self, service: Service) -> Vec<Received> {
        let inner = self.state.inner.lock();
        inner.received.iter().filter(|received| received.service == service).cloned().collect()
    }

    /// What all services took since this was last asked, in order.
    pub fn take_received(&self) -> Vec<Received> {
        std::mem::take(&mut self.state.inner.lock().received).into()
    }

    /// Orders a fault.
    pub fn fail(&self, fault: Fault) {
        assert!(self.state.order(fault), "too many faults are ordered");
    }

    /// A target is dead from now on, since then.
    pub fn kill(&self, service: Service, target: &str, since_ms: u64) {
        self.state.kill(service, target, since_ms);
    }

    /// Lets the vendors' clocks go ahead.
    pub fn advance(&self, by: Duration) {
        self.state.advance(by);
    }

    /// The tokens that were given out become invalid.
    pub fn revoke_bearers(&self) {
        self.state.inner.lock().bearers.clear();
    }

    /// Streams that APNs refused because it had not taken a token on their connection yet.
    pub fn refused_streams(&self) -> u64 {
        self.state.inner.lock().refused_streams
    }

    /// A device subscribes to Web Push, for the server with this key only, if one is given.
    pub fn subscribe(&self, server: Option<String>) -> Subscription {
        subscribe(&self.state, self.http, server)
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

pub(crate) fn subscribe(state: &State, http: SocketAddr, server: Option<String>) -> Subscription {
    let secret = SecretKey::random(&mut OsRng);
    let mut auth = [0; 16];
    OsRng.fill_bytes(&mut auth);
    let id = random_hex();
    let public = secret.public_key().to_encoded_point(false);
    let keys = BTreeMap::from([
        ("p256dh", URL_SAFE_NO_PAD.encode(public.as_bytes())),
        ("auth", URL_SAFE_NO_PAD.encode(auth)),
    ]);
    let subscriber = Subscriber { secret, auth, server };
    state.inner.lock().subscribers.insert(id.clone(), subscriber);
    Subscription { endpoint: format!("http://{http}/push/{id}"), keys }
}
