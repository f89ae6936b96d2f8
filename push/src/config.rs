//! The configuration of platform push: the only place of its defaults.
//!
//! A provider is there when the configuration names it. Its name is what devices register with, so
//! that one gateway can serve several applications, or a vendor's two environments, side by side.
//! Secrets stand in files of their own, never here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::dispatcher::LEASE;

/// Providers at most; each has a lane, a pool of connections and its keys.
pub const PROVIDERS_MAX: usize = 64;

/// Bytes of a text that is shown, so that the largest payload stays below every service's limit.
pub const TEXT_BYTES_MAX: usize = 256;

/// Everything that can be set. By default there is no provider, and nothing is pushed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PushConfig {
    /// The dispatcher's bounds.
    pub dispatch: DispatchConfig,
    /// The providers, by the names that devices register with.
    pub providers: BTreeMap<String, ProviderConfig>,
}

/// The dispatcher's bounds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DispatchConfig {
    /// Hints that are leased, waiting, being sent or being reported, at most.
    pub in_hand: usize,
    /// How often is asked for hints while there are none, in milliseconds.
    pub poll_ms: u64,
    /// How long a dispatcher that was told to stop waits for what is under way, in milliseconds.
    pub drain_ms: u64,
}

impl Default for DispatchConfig {
    fn default() -> Self {
        // An attempt takes up to 10 s, and is reported then.
        DispatchConfig { in_hand: 4_096, poll_ms: 500, drain_ms: 12_000 }
    }
}

impl DispatchConfig {
    pub(crate) fn poll(&self) -> Duration {
        Duration::from_millis(self.poll_ms)
    }

    pub(crate) fn drain(&self) -> Duration {
        Duration::from_millis(self.drain_ms)
    }
}

/// How much one provider is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LaneConfig {
    /// Attempts at once.
    pub concurrency: usize,
    /// Attempts a second; 0 for no limit.
    pub per_second: u32,
    /// Hints in this lane, so that a slow provider does not take all the room of the others.
    pub queue: usize,
}

impl Default for LaneConfig {
    fn default() -> Self {
        LaneConfig { concurrency: 64, per_second: 1_000, queue: 1_024 }
    }
}

/// One provider; `kind` says which service it speaks to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum ProviderConfig {
    /// Apple Push Notification service.
    Apns(ApnsConfig),
    /// Firebase Cloud Messaging, HTTP v1.
    Fcm(FcmConfig),
    /// Windows Push Notification Services.
    Wns(WnsConfig),
    /// Web Push, which is UnifiedPush too.
    WebPush(WebPushConfig),
    /// Microsoft Push Notification Service, of Windows Phone. Its service ended in 2018.
    Mpns(MpnsConfig),
    /// BlackBerry Push (PAP). The public service ended in 2022.
    BbPush(BbPushConfig),
    /// A signed call to a server of the operator.
    Webhook(WebhookConfig),
    /// A line in the log, for development.
    Log(LogConfig),
}

/// What an HTTPS client trusts beside the system's roots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// Certificates of authorities, in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

/// Apple Push Notification service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApnsConfig {
    /// Apple's server, or its sandbox `https://api.sandbox.push.apple.com`.
    pub endpoint: String,
    /// The token-signing key, `AuthKey_….p8`.
    pub key: PathBuf,
    /// That key's id, ten characters.
    pub key_id: String,
    /// The team's id, ten characters.
    pub team_id: String,
    /// The application's bundle id.
    pub topic: String,
    /// What the device shows. Without it the push is a background one, which iOS delivers a few times
    /// an hour at most.
    pub alert: String,
    /// How long Apple keeps it for a device that is off, in seconds, up to 30 days.
    pub ttl_s: u64,
    /// What is trusted beside the system's roots.
    pub tls: TlsConfig,
    /// How much it is asked to do.
    pub lane: LaneConfig,
}

impl Default for ApnsConfig {
    fn default() -> Self {
        ApnsConfig {
            endpoint: "https://api.push.apple.com".to_owned(),
            key: PathBuf::new(),
            key_id: String::new(),
            team_id: String::new(),
            topic: String::new(),
            alert: String::new(),
            ttl_s: DAY_S,
            tls: TlsConfig::default(),
            // Streams of one connection; Apple allows 1000.
            lane: LaneConfig { concurrency: 256, ..LaneConfig::default() },
        }
    }
}

/// Firebase Cloud Messaging, HTTP v1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FcmConfig {
    /// Google's server.
    pub endpoint: String,
    /// The service account's key, JSON, which also names the project and where tokens are got.
    pub service_account: PathBuf,
    /// Wake a device that sleeps; Google throttles applications that do so and show nothing.
    pub high_priority: bool,
    /// How long Google keeps it, in seconds, up to 28 days.
    pub ttl_s: u64,
    /// What is trusted beside the system's roots.
    pub tls: TlsConfig,
    /// How much it is asked to do.
    pub lane: LaneConfig,
}

impl Default for FcmConfig {
    fn default() -> Self {
        FcmConfig {
            endpoint: "https://fcm.googleapis.com".to_owned(),
            service_account: PathBuf::new(),
            high_priority: true,
            ttl_s: DAY_S,
            tls: TlsConfig::default(),
            lane: LaneConfig::default(),
        }
    }
}

/// Windows Push Notification Services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WnsConfig {
    /// Where tokens are got: `https://login.live.com/accesstoken.srf` for a package SID, or
    /// `https://login.microsoftonline.com/TENANT/oauth2/v2.0/token` for an Entra application.
    pub token_url: String,
    /// `notify.windows.com` for the first, `https://wns.windows.com/.default` for the second.
    pub scope: String,
    /// The package SID, or the application's id.
    pub client_id: String,
    /// The file with its secret.
    pub client_secret: PathBuf,
    /// Hosts that channels may be on, with all below them.
    pub hosts: Vec<String>,
    /// What the device shows. Without it the push is a raw one, for an application that runs or has a
    /// background task.
    pub toast: String,
    /// How long Microsoft keeps it, in seconds.
    pub ttl_s: u64,
    /// Servers that channels may name although they are not Microsoft's: a simulator's.
    pub origins: Vec<String>,
    /// What is trusted beside the system's roots.
    pub tls: TlsConfig,
    /// How much it is asked to do.
    pub lane: LaneConfig,
}

impl Default for WnsConfig {
    fn default() -> Self {
        WnsConfig {
            token_url: "https://login.live.com/accesstoken.srf".to_owned(),
            scope: "notify.windows.com".to_owned(),
            client_id: String::new(),
            client_secret: PathBuf::new(),
            hosts: vec!["notify.windows.com".to_owned()],
            toast: String::new(),
            ttl_s: DAY_S,
            origins: Vec::new(),
            tls: TlsConfig::default(),
            lane: LaneConfig::default(),
        }
    }
}

/// Web Push (RFC 8030, 8291, 8292), which is UnifiedPush too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebPushConfig {
    /// The VAPID key: P-256, a PEM (PKCS #8), or its 32 bytes in base64url.
    pub vapid_key: PathBuf,
    /// Where a push service's operator can reach us: a `mailto:` or `https:` URL.
    pub subject: String,
    /// `very-low`, `low`, `normal` or `high`.
    pub urgency: String,
    /// How long it is kept, in seconds.
    pub ttl_s: u64,
    /// Servers that subscriptions may name although their addresses are not public: one's own
    /// distributor, or a simulator.
    pub origins: Vec<String>,
    /// What is trusted beside the system's roots.
    pub tls: TlsConfig,
    /// How much it is asked to do.
    pub lane: LaneConfig,
}

impl Default for WebPushConfig {
    fn default() -> Self {
        WebPushConfig {
            vapid_key: PathBuf::new(),
            subject: String::new(),
            urgency: "high".to_owned(),
            ttl_s: DAY_S,
            origins: Vec::new(),
            tls: TlsConfig::default(),
            lane: LaneConfig::default(),
        }
    }
}

/// Microsoft Push Notification Service, of Windows Phone. Its service ended in 2018: this is for
/// stand-ins that speak its protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MpnsConfig {
    /// Hosts that channels may be on, with all below them; `notify.live.net` was Microsoft's.
    pub hosts: Vec<String>,
    /// What the device shows. Without it the push is a raw one, for an application that runs.
    pub toast: String,
    /// Servers that channels may name although they are on none of these hosts.
    pub origins: Vec<String>,
    /// What is trusted beside the system's roots.
    pub tls: TlsConfig,
    /// How much it is asked to do.
    pub lane: LaneConfig,
}

/// BlackBerry Push, by the Push Access Protocol. The public service ended in 2022: this is for servers
/// on premises.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BbPushConfig {
    /// The whole URL, such as `https://mds.example/pap`.
    pub endpoint: String,
    /// The application's id.
    pub application_id: String,
    /// The file with its password.
    pub password: PathBuf,
    /// The document type of the control part.
    pub dtd: String,
    /// How long it is kept, in seconds.
    pub ttl_s: u64,
    /// What is trusted beside the system's roots.
    pub tls: TlsConfig,
    /// How much it is asked to do.
    pub lane: LaneConfig,
}

impl Default for BbPushConfig {
    fn default() -> Self {
        BbPushConfig {
            endpoint: String::new(),
            application_id: String::new(),
            password: PathBuf::new(),
            dtd: "-//WAPFORUM//DTD PAP 2.1//EN".to_owned(),
            ttl_s: DAY_S,
            tls: TlsConfig::default(),
            lane: LaneConfig::default(),
        }
    }
}

/// A signed call to a server of the operator, after Standard Webhooks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookConfig {
    /// The whole URL.
    pub endpoint: String,
    /// The file with the secrets, `whsec_…`, one a line: each signs, so that they can be replaced one
    /// after the other.
    pub secrets: PathBuf,
    /// What is trusted beside the system's roots.
    pub tls: TlsConfig,
    /// How much it is asked to do.
    pub lane: LaneConfig,
}

/// A line in the log, for development.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// How much it is asked to do.
    pub lane: LaneConfig,
}

const DAY_S: u64 = 24 * 3_600;

/// What is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{key}: {reason}")]
pub struct ConfigError {
    /// Which key, below `push`.
    pub key: String,
    /// What it must be.
    pub reason: String,
}

/// A key, whether its value holds, and what it must be.
type Check = (&'static str, bool, &'static str);

impl PushConfig {
    /// Checks what the types cannot, but for the contents of files.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let dispatch = &self.dispatch;
        let checks = [
            ("dispatch.in_hand", (1..=65_536).contains(&dispatch.in_hand), "1 to 65536"),
            ("dispatch.poll_ms", (10..=60_000).contains(&dispatch.poll_ms), "10 to 60000"),
            ("dispatch.drain_ms", dispatch.drain_ms <= LEASE_MS, "at most a lease (30000)"),
            ("providers", self.providers.len() <= PROVIDERS_MAX, "at most 64"),
        ];
        first_wrong("", &checks)?;
        for (name, provider) in &self.providers {
            let under = format!("providers.{name}.");
            first_wrong(&under, &[("", is_name(name), "a name of 1 to 32 of a-z, 0-9 and -")])?;
            first_wrong(&under, &lane_checks(provider.lane()))?;
            first_wrong(&under, &provider.checks())?;
        }
        Ok(())
    }
}

#[expect(clippy::cast_possible_truncation, reason = "30 s are few milliseconds")]
const LEASE_MS: u64 = LEASE.as_millis() as u64;

fn first_wrong(under: &str, checks: &[Check]) -> Result<(), ConfigError> {
    match checks.iter().find(|(_, holds, _)| !holds) {
        Some((key, _, reason)) => {
            let key = format!("{under}{key}").trim_end_matches('.').to_owned();
            Err(ConfigError { key, reason: (*reason).to_owned() })
        }
        None => Ok(()),
    }
}

/// A provider's name is a label of metrics and a word in registrations.
fn is_name(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=32).contains(&name.len()) && name.chars().all(letter)
}

fn lane_checks(lane: &LaneConfig) -> [Check; 2] {
    [
        ("lane.concurrency", (1..=1_000).contains(&lane.concurrency), "1 to 1000"),
        ("lane.queue", (1..=65_536).contains(&lane.queue), "1 to 65536"),
    ]
}

/// An endpoint that the operator names: encrypted, or not leaving the machine.
fn is_endpoint(url: &str) -> bool {
    crate::wire::endpoint(url).is_some()
}

fn are_origins(urls: &[String]) -> bool {
    urls.iter().all(|url| crate::wire::origin(url).is_some())
}

const ENDPOINT: &str = "an https URL, or an http one on loopback";
const ORIGINS: &str = "https://host[:port] each, or http on loopback, without a path";
const TEXT: &str = "at most 256 bytes, no control characters";
const GIVEN: &str = "required";

fn is_text(text: &str) -> bool {
    text.len() <= TEXT_BYTES_MAX && !text.chars().any(char::is_control)
}

fn is_given(path: &std::path::Path) -> bool {
    !path.as_os_str().is_empty()
}

/// Ten letters and digits, as Apple writes its ids.
fn is_apple_id(id: &str) -> bool {
    id.len() == 10 && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Something that may stand in a header, or between quotes in XML.
fn is_word(word: &str) -> bool {
    (1..=256).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_graphic())
}

impl ProviderConfig {
    /// How much it is asked to do.
    pub fn lane(&self) -> &LaneConfig {
        match self {
            ProviderConfig::Apns(config) => &config.lane,
            ProviderConfig::Fcm(config) => &config.lane,
            ProviderConfig::Wns(config) => &config.lane,
            ProviderConfig::WebPush(config) => &config.lane,
            ProviderConfig::Mpns(config) => &config.lane,
            ProviderConfig::BbPush(config) => &config.lane,
            ProviderConfig::Webhook(config) => &config.lane,
            ProviderConfig::Log(config) => &config.lane,
        }
    }

    fn checks(&self) -> Vec<Check> {
        match self {
            ProviderConfig::Apns(config) => vec![
                ("endpoint", is_endpoint(&config.endpoint), ENDPOINT),
                ("key", is_given(&config.key), GIVEN),
                ("key_id", is_apple_id(&config.key_id), "10 letters and digits"),
                ("team_id", is_apple_id(&config.team_id), "10 letters and digits"),
                ("topic", is_word(&config.topic), "the application's bundle id"),
                ("alert", is_text(&config.alert), TEXT),
                ("ttl_s", config.ttl_s <= 30 * DAY_S, "at most 30 days"),
            ],
            ProviderConfig::Fcm(config) => vec![
                ("endpoint", is_endpoint(&config.endpoint), ENDPOINT),
                ("service_account", is_given(&config.service_account), GIVEN),
                ("ttl_s", config.ttl_s <= 28 * DAY_S, "at most 28 days"),
            ],
            ProviderConfig::Wns(config) => vec![
                ("token_url", is_endpoint(&config.token_url), ENDPOINT),
                ("scope", is_word(&config.scope), GIVEN),
                ("client_id", is_word(&config.client_id), GIVEN),
                ("client_secret", is_given(&config.client_secret), GIVEN),
                ("toast", is_text(&config.toast), TEXT),
                ("ttl_s", config.ttl_s <= 30 * DAY_S, "at most 30 days"),
                ("origins", are_origins(&config.origins), ORIGINS),
            ],
            ProviderConfig::WebPush(config) => vec![
                ("vapid_key", is_given(&config.vapid_key), GIVEN),
                ("subject", is_subject(&config.subject), "a mailto: or https: URL"),
                ("urgency", URGENCIES.contains(&config.urgency.as_str()), URGENCY),
                ("ttl_s", config.ttl_s <= 28 * DAY_S, "at most 28 days"),
                ("origins", are_origins(&config.origins), ORIGINS),
            ],
            ProviderConfig::Mpns(config) => vec![
                ("toast", is_text(&config.toast), TEXT),
                ("origins", are_origins(&config.origins), ORIGINS),
            ],
            ProviderConfig::BbPush(config) => vec![
                ("endpoint", is_endpoint(&config.endpoint), ENDPOINT),
                ("application_id", is_word(&config.application_id), GIVEN),
                ("password", is_given(&config.password), GIVEN),
                ("dtd", is_text(&config.dtd) && !config.dtd.contains(['"', '<', '>']), TEXT),
                ("ttl_s", config.ttl_s <= 30 * DAY_S, "at most 30 days"),
            ],
            ProviderConfig::Webhook(config) => vec![
                ("endpoint", is_endpoint(&config.endpoint), ENDPOINT),
                ("secrets", is_given(&config.secrets), GIVEN),
            ],
            ProviderConfig::Log(_) => Vec::new(),
        }
    }
}

const URGENCIES: [&str; 4] = ["very-low", "low", "normal", "high"];
const URGENCY: &str = "very-low, low, normal or high";

fn is_subject(subject: &str) -> bool {
    is_word(subject) && (subject.starts_with("mailto:") || subject.starts_with("https://"))
}

#[cfg(test)]
mod tests;
