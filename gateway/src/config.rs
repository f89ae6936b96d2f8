//! A gateway's configuration: the only place of its defaults.
//!
//! A file in TOML with unknown keys refused; what it leaves out has the default below.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidemark_process::ConfigError;
use tidemark_push::PushConfig;
use tidemark_store_client::ClientConfig;
use tidemark_types::ClusterId;

use crate::limits::{Limits, PRESENCE_MAX, TAIL_BYTES_MAX};

mod checks;

pub use checks::{ChecksConfig, FilterConfig, HookConfig, Kinds, OnFailure, Rate, RatesConfig};

/// There is no TLS yet, and tokens must not travel in the clear.
const LOOPBACK: &str = "a loopback address, as nothing is encrypted yet; or say `insecure`";

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewayConfig {
    /// Where devices, back ends and operators reach it by gRPC.
    pub grpc: SocketAddr,
    /// Where `/metrics`, `/healthz` and `/readyz` are.
    pub http: SocketAddr,
    /// Where the live pages of other gateways find the same, as `host:port`. Without this they are told
    /// what `http` says, unless that is every address of the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub announce: Option<String>,
    /// The keys by which tokens are verified: a file, or a folder of several.
    pub keys: PathBuf,
    /// The cluster that it serves, as a UUID. It ends when the store is another one; without this
    /// any cluster will do.
    #[serde(with = "as_text", skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterId>,
    /// Listen on other addresses than loopback, though nothing is encrypted yet: for a network that
    /// nobody else is on.
    pub insecure: bool,
    /// The store behind it.
    pub store: StoreConfig,
    /// Bounds.
    pub limits: LimitsConfig,
    /// What is checked of each send.
    pub checks: ChecksConfig,
    /// Through whom devices that are away are woken.
    pub push: PushConfig,
}

/// An id that a person writes.
mod as_text {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};
    use tidemark_types::ClusterId;

    pub(super) fn serialize<S: Serializer>(
        id: &Option<ClusterId>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match id {
            Some(id) => serializer.collect_str(id),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<ClusterId>, D::Error> {
        String::deserialize(deserializer)?.parse().map(Some).map_err(D::Error::custom)
    }
}

impl Default for GatewayConfig {
    fn default() -> Self {
        GatewayConfig {
            grpc: SocketAddr::from((Ipv4Addr::LOCALHOST, 7301)),
            http: SocketAddr::from((Ipv4Addr::LOCALHOST, 7401)),
            announce: None,
            keys: PathBuf::from("keys"),
            cluster: None,
            insecure: false,
            store: StoreConfig::default(),
            limits: LimitsConfig::default(),
            checks: ChecksConfig::default(),
            push: PushConfig::default(),
        }
    }
}

/// The store behind a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// Some of its nodes, as `host:port`; any of them tells where all are.
    pub endpoints: Vec<String>,
    /// How long a call to the store may take in all, in milliseconds: longer than a failover. At
    /// start there is no such bound: a gateway waits for its store.
    pub deadline_ms: u64,
}

impl Default for StoreConfig {
    fn default() -> Self {
        StoreConfig { endpoints: vec!["127.0.0.1:7101".to_owned()], deadline_ms: 5_000 }
    }
}

impl From<&StoreConfig> for ClientConfig {
    fn from(config: &StoreConfig) -> Self {
        let deadline = Duration::from_millis(config.deadline_ms);
        ClientConfig { endpoints: config.endpoints.clone(), deadline }
    }
}

/// Bounds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Connections of devices at most; one more is refused.
    pub connections_max: u32,
    /// The shortest time between two `Ping`s that devices are told, in milliseconds.
    pub heartbeat_min_ms: u64,
    /// A device that is silent for longer is cut, in milliseconds.
    pub heartbeat_max_ms: u64,
    /// Users whom a device may watch, whether they are there.
    pub presence_max: u32,
    /// Bytes that it keeps of the newest entries of all mailboxes together, ready to be sent. Beyond it
    /// devices are told that there is something, and ask for it.
    pub tails_bytes_max: u64,
    /// How long a gateway that was told to stop goes on for what is under way, in milliseconds.
    pub drain_ms: u64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        LimitsConfig {
            // Some 20 KiB each when all is quiet: 2 GiB of memory are enough.
            connections_max: 100_000,
            heartbeat_min_ms: 5_000,
            // Mobile networks forget idle connections after some minutes.
            heartbeat_max_ms: 180_000,
            // Some 30 KiB for a device that watches as many.
            presence_max: 256,
            // A message of 200 bytes for each of 100,000 devices, ten times.
            tails_bytes_max: 256 << 20,
            drain_ms: 10_000,
        }
    }
}

impl LimitsConfig {
    /// How long what is under way may take once the gateway was told to stop.
    pub fn drain(&self) -> Duration {
        Duration::from_millis(self.drain_ms)
    }
}

impl From<&LimitsConfig> for Limits {
    fn from(config: &LimitsConfig) -> Self {
        Limits {
            connections_max: config.connections_max,
            heartbeat_min: Duration::from_millis(config.heartbeat_min_ms),
            heartbeat_max: Duration::from_millis(config.heartbeat_max_ms),
            presence_max: config.presence_max,
            tails_bytes_max: usize::try_from(config.tails_bytes_max).unwrap_or(usize::MAX),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits::from(&LimitsConfig::default())
    }
}

impl GatewayConfig {
    /// Where others find its HTTP port, if that is known.
    pub fn announced(&self) -> Option<String> {
        let own = || (!self.http.ip().is_unspecified()).then(|| self.http.to_string());
        self.announce.clone().or_else(own)
    }

    /// Checks what the types cannot.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let limits = &self.limits;
        let min = limits.heartbeat_min_ms;
        let at_least_1 = || "at least 1".to_owned();
        let checks = [
            ("grpc", self.insecure || self.grpc.ip().is_loopback(), LOOPBACK.to_owned()),
            ("http", self.insecure || self.http.ip().is_loopback(), LOOPBACK.to_owned()),
            ("store.endpoints", !self.store.endpoints.is_empty(), at_least_1()),
            ("store.deadline_ms", self.store.deadline_ms > 0, at_least_1()),
            ("limits.connections_max", limits.connections_max > 0, at_least_1()),
            ("limits.heartbeat_min_ms", min > 0, at_least_1()),
            (
                "limits.heartbeat_max_ms",
                limits.heartbeat_max_ms >= min.saturating_mul(3),
                format!("at least three times the minimum ({min})"),
            ),
            // While a call is under way its connection is not read, and looks silent.
            (
                "store.deadline_ms",
                self.store.deadline_ms < limits.heartbeat_max_ms,
                format!("below limits.heartbeat_max_ms ({})", limits.heartbeat_max_ms),
            ),
            (
                "limits.presence_max",
                limits.presence_max <= PRESENCE_MAX,
                format!("at most {PRESENCE_MAX}"),
            ),
            (
                "limits.tails_bytes_max",
                limits.tails_bytes_max >= TAIL_BYTES_MAX as u64,
                format!("at least {TAIL_BYTES_MAX}, what one mailbox may hold of it"),
            ),
            // Devices are told in 32 bits.
            (
                "limits.heartbeat_max_ms",
                u32::try_from(limits.heartbeat_max_ms).is_ok(),
                format!("at most {}", u32::MAX),
            ),
        ];
        for (key, holds, reason) in checks.into_iter().chain(self.checks.rules()) {
            if !holds {
                return Err(ConfigError::Invalid { key, reason });
            }
        }
        let push = self.push.validate();
        push.map_err(|error| ConfigError::Invalid { key: "push", reason: error.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_survive_a_file() {
        let config = GatewayConfig::default();
        config.validate().expect("valid");
        let text = toml::to_string(&config).expect("it is TOML");
        assert_eq!(toml::from_str::<GatewayConfig>(&text).expect("it parses"), config);
        assert_eq!(toml::from_str::<GatewayConfig>("").expect("nothing is needed"), config);
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        for (text, key) in [
            ("listen = 1", "listen"),
            ("[store]\nnodes = []", "nodes"),
            ("[limits]\nconnections = 5", "connections"),
        ] {
            let refused = toml::from_str::<GatewayConfig>(text).expect_err("unknown").to_string();
            assert!(refused.contains(&format!("unknown field `{key}`")), "{refused}");
        }
    }

    #[test]
    fn a_cluster_is_written_as_an_id() {
        let text = "cluster = \"01010101-0101-0101-0101-010101010101\"\n";
        let config = toml::from_str::<GatewayConfig>(text).expect("legal");
        assert_eq!(config.cluster, ClusterId::from_bytes([1; 16]).ok());
        assert!(toml::to_string(&config).expect("it is TOML").contains(text));
        let refused = toml::from_str::<GatewayConfig>("cluster = \"mine\"").expect_err("no id");
        assert!(refused.to_string().contains("UUID"), "{refused}");
    }

    #[test]
    fn others_find_it_where_it_says_or_listens() {
        let mut config = GatewayConfig::default();
        assert_eq!(config.announced().as_deref(), Some("127.0.0.1:7401"));
        config.http.set_ip(Ipv4Addr::UNSPECIFIED.into());
        assert_eq!(config.announced(), None);
        config.announce = Some("gateway-1.example:7401".to_owned());
        assert_eq!(config.announced(), config.announce);
    }

    #[test]
    fn a_value_that_cannot_be_is_refused_by_name() {
        let refused = |change: fn(&mut GatewayConfig)| {
            let mut config = GatewayConfig::default();
            change(&mut config);
            config.validate().expect_err("refused").to_string()
        };
        let open = |config: &mut GatewayConfig| config.grpc.set_ip(Ipv4Addr::UNSPECIFIED.into());
        assert_eq!(refused(open), format!("grpc: {LOOPBACK}"));
        let text = refused(|config| config.store.endpoints.clear());
        assert_eq!(text, "store.endpoints: at least 1");
        let text = refused(|config| config.limits.heartbeat_max_ms = 14_999);
        assert_eq!(text, "limits.heartbeat_max_ms: at least three times the minimum (5000)");
        let text = refused(|config| config.limits.heartbeat_max_ms = u64::MAX);
        assert_eq!(text, "limits.heartbeat_max_ms: at most 4294967295");
        let text = refused(|config| config.limits.tails_bytes_max = 327_679);
        let wanted = "at least 327680, what one mailbox may hold of it";
        assert_eq!(text, format!("limits.tails_bytes_max: {wanted}"));
        let text = refused(|config| config.checks.filter = Some(FilterConfig::default()));
        assert_eq!(text, "checks.filter.file: the list's path");
    }
}
