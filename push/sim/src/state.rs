//! What the simulator remembers: what arrived, what is to fail, who is dead, what time it is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use p256::SecretKey;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::credentials::Credentials;
use crate::http::Call;
use crate::services::{Counted, Judged, Taken};

/// Notifications that are kept; older ones are forgotten.
const RECEIVED_MAX: usize = 10_000;

/// Faults that can be ordered ahead.
pub(crate) const FAULTS_MAX: usize = 1_000;

/// A push service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    /// Apple Push Notification service.
    Apns,
    /// Firebase Cloud Messaging, HTTP v1.
    Fcm,
    /// Windows Push Notification Services.
    Wns,
    /// Web Push.
    WebPush,
    /// Microsoft Push Notification Service, of Windows Phone.
    Mpns,
    /// BlackBerry Push, by the Push Access Protocol.
    BbPush,
    /// A server that takes Standard Webhooks.
    Webhook,
}

/// A notification that a service took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Received {
    /// Who took it.
    pub service: Service,
    /// For which device: a token, the last part of a URL, a PIN.
    pub target: String,
    /// The request's headers, without those that authorize.
    pub headers: BTreeMap<String, String>,
    /// What the device gets: decrypted where it was encrypted.
    pub body: String,
}

/// What a service is to answer to its next valid requests instead of taking them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Which service.
    pub service: Service,
    /// How often.
    #[serde(default = "once")]
    pub count: u32,
    /// The HTTP status.
    #[serde(default = "unavailable")]
    pub status: u16,
    /// The service's own code: Apple's `reason`, Google's `errorCode`, the notification status of
    /// Microsoft, the result code of PAP.
    #[serde(default)]
    pub reason: String,
    /// Seconds until it wants to be asked again.
    #[serde(default)]
    pub retry_after: Option<u64>,
    /// Waits so long before it answers, in milliseconds.
    #[serde(default)]
    pub stall_ms: u64,
    /// Lets the connection go: on HTTP/2 with GOAWAY, after this answer.
    #[serde(default)]
    pub close: bool,
}

fn once() -> u32 {
    1
}

fn unavailable() -> u16 {
    503
}

impl Fault {
    /// The next request of a service is answered with this status and code.
    pub fn new(service: Service, status: u16, reason: &str) -> Fault {
        let reason = reason.to_owned();
        let (count, retry_after, stall_ms, close) = (1, None, 0, false);
        Fault { service, count, status, reason, retry_after, stall_ms, close }
    }
}

/// A Web Push subscription, as a browser gives it to its application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Subscription {
    /// Where to push.
    pub endpoint: String,
    /// The device's keys.
    pub keys: BTreeMap<&'static str, String>,
}

/// What a subscription's device keeps.
#[derive(Clone)]
pub(crate) struct Subscriber {
    pub(crate) secret: SecretKey,
    pub(crate) auth: [u8; 16],
    /// The only server that may push, by its key in base64url.
    pub(crate) server: Option<String>,
}

/// Everything.
pub(crate) struct State {
    pub(crate) credentials: Credentials,
    /// How Apple counts tokens.
    pub(crate) counted: Counted,
    pub(crate) inner: Mutex<Inner>,
}

#[derive(Default)]
pub(crate) struct Inner {
    pub(crate) received: VecDeque<Received>,
    faults: VecDeque<Fault>,
    dead: BTreeMap<(Service, String), u64>,
    /// How far our clock is ahead of the machine's.
    ahead: Duration,
    /// Tokens that were given out, and until when they are good, in seconds.
    pub(crate) bearers: BTreeMap<String, u64>,
    pub(crate) subscribers: BTreeMap<String, Subscriber>,
    /// Apple's: tokens that were taken.
    pub(crate) provider_tokens: BTreeMap<String, Taken>,
    /// PAP's: ids of pushes that were taken.
    pub(crate) once: BTreeSet<String>,
    /// Streams that were refused as too early.
    pub(crate) refused_streams: u64,
}

impl State {
    pub(crate) fn new(credentials: Credentials, counted: Counted) -> State {
        State { credentials, counted, inner: Mutex::default() }
    }

    /// The simulator's time, in milliseconds.
    pub(crate) fn now_ms(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from((now + self.inner.lock().ahead).as_millis()).unwrap_or(u64::MAX)
    }

    /// The simulator's time, in seconds.
    pub(crate) fn now(&self) -> u64 {
        self.now_ms() / 1_000
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.inner.lock().ahead += by;
    }

    pub(crate) fn dead(&self, service: Service, target: &str) -> Option<u64> {
        self.inner.lock().dead.get(&(service, target.to_owned())).copied()
    }

    pub(crate) fn kill(&self, service: Service, target: &str, since_ms: u64) {
        self.inner.lock().dead.insert((service, target.to_owned()), since_ms);
    }

    pub(crate) fn order(&self, fault: Fault) -> bool {
        let mut inner = self.inner.lock();
        let room = inner.faults.len() < FAULTS_MAX;
        if room {
            inner.faults.push_back(fault);
        }
        room
    }

    /// The fault that this request of a service meets.
    pub(crate) fn fault(&self, service: Service) -> Option<Fault> {
        let mut inner = self.inner.lock();
        let at = inner.faults.iter().position(|fault| fault.service == service)?;
        let fault = &mut inner.faults[at];
        let met = fault.clone();
        fault.count = fault.count.saturating_sub(1);
        if fault.count == 0 {
            inner.faults.remove(at);
        }
        Some(met)
    }

    pub(crate) fn take(&self, service: Service, call: &Call, judged: Judged) {
        let Judged { target, body, once, .. } = judged;
        let secret = ["authorization", "webhook-signature"];
        let kept = call.headers.iter().filter(|(name, _)| !secret.contains(&name.as_str()));
        let text =
            |v: &hyper::header::HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned();
        let headers = kept.map(|(name, value)| (name.to_string(), text(value))).collect();
        let mut inner = self.inner.lock();
        if inner.received.len() >= RECEIVED_MAX {
            inner.received.pop_front();
        }
        inner.once.extend(once);
        inner.received.push_back(Received { service, target, headers, body });
    }

    /// Gives out a token that is good for so many seconds.
    pub(crate) fn grant(&self, life_s: u64) -> String {
        let token = format!("sim-{}", crate::credentials::random_hex());
        let now = self.now();
        let mut inner = self.inner.lock();
        inner.bearers.retain(|_, until| *until > now);
        inner.bearers.insert(token.clone(), now + life_s);
        token
    }

    /// Is this the header of a token that is good?
    pub(crate) fn bears(&self, authorization: Option<&str>) -> bool {
        let now = self.now();
        let token = authorization.and_then(|header| header.strip_prefix("Bearer "));
        let inner = self.inner.lock();
        token.and_then(|token| inner.bearers.get(token)).is_some_and(|until| *until > now)
    }
}
