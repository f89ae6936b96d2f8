//! A store node's configuration: the only place of its defaults.
//!
//! A file in TOML with unknown keys refused; what it leaves out has the default below.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tidemark_process::ConfigError;

/// There is no TLS and no authentication between servers yet.
const LOOPBACK: &str = "a loopback address, as nothing is encrypted yet; or say `insecure`";

/// Shorter files would be changed all the time, longer ones need more memory at a start.
const SEGMENT_BYTES: RangeInclusive<usize> = 16 << 10..=1 << 30;

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// Where the node keeps its identity, log and state.
    pub data_dir: PathBuf,
    /// Where gateways, tools and other nodes reach it, as `host:port`.
    pub grpc: SocketAddr,
    /// Where operators find `/metrics`, `/healthz` and `/readyz`.
    pub http: SocketAddr,
    /// Listen on other addresses than loopback, though nothing is encrypted yet: for a network that
    /// nobody else is on.
    pub insecure: bool,
    /// Raft's timers and log.
    pub raft: RaftConfig,
    /// What waits to be proposed, per shard.
    pub proposals: ProposalConfig,
    /// What goes from shard to shard.
    pub relay: RelayConfig,
    /// What is refused when the disk is nearly full.
    pub disk: DiskConfig,
    /// How often things expire.
    pub retention: RetentionConfig,
}

impl Default for StoreConfig {
    fn default() -> Self {
        StoreConfig {
            data_dir: PathBuf::from("data"),
            grpc: SocketAddr::from((Ipv4Addr::LOCALHOST, 7101)),
            http: SocketAddr::from((Ipv4Addr::LOCALHOST, 7201)),
            insecure: false,
            raft: RaftConfig::default(),
            proposals: ProposalConfig::default(),
            relay: RelayConfig::default(),
            disk: DiskConfig::default(),
            retention: RetentionConfig::default(),
        }
    }
}

/// What is refused when the disk is nearly full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiskConfig {
    /// With less free space than this, new messages are refused.
    pub free_bytes_min: u64,
    /// With less than this, other shards' messages are not taken either: they wait there.
    pub free_bytes_reserve: u64,
}

impl Default for DiskConfig {
    fn default() -> Self {
        DiskConfig { free_bytes_min: 1 << 30, free_bytes_reserve: 256 << 20 }
    }
}

/// How often a leader looks for what expires. What does is a matter of the cluster's settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionConfig {
    /// Sessions, ids and the time that retention goes by: this often, in milliseconds.
    pub expire_every_ms: u64,
    /// Every mailbox is looked at for entries and devices that need not be kept: this often, in
    /// milliseconds.
    pub walk_every_ms: u64,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        RetentionConfig { expire_every_ms: 60_000, walk_every_ms: 3_600_000 }
    }
}

/// Raft's timers and log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RaftConfig {
    /// A leader without other traffic says this often that it is there, in milliseconds.
    pub heartbeat_ms: u64,
    /// A follower that hears nothing waits at least this long before it asks for votes.
    pub election_timeout_min_ms: u64,
    /// And at most this long; also the lease, so a crash costs up to twice this.
    pub election_timeout_max_ms: u64,
    /// Entries after which the state is flushed and the log behind it may be purged.
    pub snapshot_entries: u64,
    /// Entries kept behind that point, so that a follower that was away needs no snapshot: more
    /// than are written while one is sent and installed.
    pub keep_entries: u64,
    /// A segment of the log that is as long as this is not written to any more; its file is 1.6 % longer.
    /// Changing to the next one takes half a dozen syncs. One that is not needed any more is deleted or
    /// written over as a whole.
    pub segment_bytes: usize,
}

impl Default for RaftConfig {
    fn default() -> Self {
        RaftConfig {
            heartbeat_ms: 200,
            election_timeout_min_ms: 600,
            election_timeout_max_ms: 900,
            snapshot_entries: 50_000,
            keep_entries: 100_000,
            segment_bytes: 64 << 20,
        }
    }
}

/// What waits to be proposed, per shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProposalConfig {
    /// Bytes of clients' commands that may wait or be under way; above it they are refused.
    pub client_bytes_max: usize,
    /// The same for the cluster's own commands (relay, trims, cursors, expiry), which wait
    /// instead: a share that clients can never use up (R7).
    pub internal_bytes_max: usize,
    /// Commands in one log entry.
    pub batch_commands_max: usize,
    /// Bytes in one log entry, unless a single command has more.
    pub batch_bytes_max: usize,
    /// Log entries under way at once.
    pub batches_in_flight_max: usize,
}

impl Default for ProposalConfig {
    fn default() -> Self {
        ProposalConfig {
            client_bytes_max: 16 << 20,
            internal_bytes_max: 16 << 20,
            batch_commands_max: 256,
            batch_bytes_max: 1 << 20,
            batches_in_flight_max: 4,
        }
    }
}

/// What goes from shard to shard, for each pair of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RelayConfig {
    /// Bytes that may wait for another shard; above it, sends to users there are refused (R7).
    pub queue_bytes_max: u64,
    /// Records in one batch.
    pub batch_records_max: usize,
    /// Bytes in one batch, unless a single record has more.
    pub batch_bytes_max: usize,
    /// Batches under way at once.
    pub batches_in_flight_max: usize,
}

impl Default for RelayConfig {
    fn default() -> Self {
        RelayConfig {
            queue_bytes_max: 64 << 20,
            batch_records_max: 256,
            batch_bytes_max: 1 << 20,
            batches_in_flight_max: 4,
        }
    }
}

/// The most that may be set for batches, of the relay or of commands.
pub(crate) const BATCH_BYTES_MAX: usize = 8 << 20;

impl StoreConfig {
    /// Checks what the types cannot.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let RaftConfig { heartbeat_ms, election_timeout_min_ms: min, .. } = self.raft;
        let max = self.raft.election_timeout_max_ms;
        let checks = [
            ("raft.heartbeat_ms", heartbeat_ms >= 2, "at least 2".to_owned()),
            (
                "raft.election_timeout_min_ms",
                min >= 2 * heartbeat_ms,
                format!("at least two heartbeats ({})", 2 * heartbeat_ms),
            ),
            ("raft.election_timeout_max_ms", max > min, format!("above the minimum ({min})")),
            ("grpc", self.insecure || self.grpc.ip().is_loopback(), LOOPBACK.to_owned()),
            ("http", self.insecure || self.http.ip().is_loopback(), LOOPBACK.to_owned()),
            ("relay.queue_bytes_max", self.relay.queue_bytes_max > 0, "at least 1".to_owned()),
            ("relay.batch_records_max", self.relay.batch_records_max > 0, "at least 1".to_owned()),
            (
                "relay.batch_bytes_max",
                (1..=BATCH_BYTES_MAX).contains(&self.relay.batch_bytes_max),
                format!("1 to {BATCH_BYTES_MAX}"),
            ),
            (
                "relay.batches_in_flight_max",
                self.relay.batches_in_flight_max > 0,
                "at least 1".to_owned(),
            ),
            (
                "disk.free_bytes_min",
                self.disk.free_bytes_min >= self.disk.free_bytes_reserve,
                format!("at least disk.free_bytes_reserve ({})", self.disk.free_bytes_reserve),
            ),
            (
                "retention.expire_every_ms",
                self.retention.expire_every_ms > 0,
                "at least 1".to_owned(),
            ),
            ("retention.walk_every_ms", self.retention.walk_every_ms > 0, "at least 1".to_owned()),
            ("raft.snapshot_entries", self.raft.snapshot_entries > 0, "at least 1".to_owned()),
            (
                "raft.segment_bytes",
                SEGMENT_BYTES.contains(&self.raft.segment_bytes),
                format!("{} to {}", SEGMENT_BYTES.start(), SEGMENT_BYTES.end()),
            ),
        ];
        for (key, holds, reason) in checks {
            if !holds {
                return Err(ConfigError::Invalid { key, reason });
            }
        }
        self.proposals.validate()
    }
}

impl ProposalConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        /// A semaphore's permits, one per byte.
        const BYTES_MAX: usize = u32::MAX as usize;
        let counts = [
            ("proposals.client_bytes_max", self.client_bytes_max, BYTES_MAX),
            ("proposals.internal_bytes_max", self.internal_bytes_max, BYTES_MAX),
            ("proposals.batch_commands_max", self.batch_commands_max, BYTES_MAX),
            ("proposals.batch_bytes_max", self.batch_bytes_max, BATCH_BYTES_MAX),
            ("proposals.batches_in_flight_max", self.batches_in_flight_max, BYTES_MAX),
        ];
        for (key, value, most) in counts {
            if value == 0 || value > most {
                return Err(ConfigError::Invalid { key, reason: format!("1 to {most}") });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_survive_a_file() {
        let config = StoreConfig::default();
        config.validate().expect("valid");
        let text = toml::to_string(&config).expect("it is TOML");
        assert_eq!(toml::from_str::<StoreConfig>(&text).expect("it parses"), config);
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let refused = toml::from_str::<StoreConfig>("[raft]\nheartbeat = 5").expect_err("unknown");
        assert!(refused.to_string().contains("unknown field `heartbeat`"), "{refused}");
    }

    #[test]
    fn timers_that_contradict_each_other_are_refused_by_name() {
        let mut config = StoreConfig::default();
        config.raft.election_timeout_max_ms = 600;
        let refused = config.validate().expect_err("max is not above min").to_string();
        assert_eq!(refused, "raft.election_timeout_max_ms: above the minimum (600)");
    }
}
