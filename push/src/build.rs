//! From a configuration to providers: reads keys, makes clients, refuses what cannot work.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use tidemark_env::{Clock, Rng};

use crate::config::{ConfigError, LaneConfig, ProviderConfig, PushConfig};
use crate::provider::{PushProvider, TargetError};
use crate::providers::{self, ProviderTokens};

/// Bytes of a file: a service account's key has below 4 KiB, a set of authorities far below this.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Why no providers can be made.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file cannot be read.
    #[error("{path}: {error}")]
    Io {
        /// Which.
        path: PathBuf,
        /// The system's words.
        error: io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}: {reason}")]
    NotAKey {
        /// Which.
        path: PathBuf,
        /// What is wrong, without a byte of its content.
        reason: &'static str,
    },
    /// A URL names no server.
    #[error("{0}: it is no URL with a host")]
    Url(String),
    /// No client can be made.
    #[error("TLS: {0}")]
    Tls(String),
}

impl BuildError {
    pub(crate) fn not_a_key(path: &Path, reason: &'static str) -> Self {
        BuildError::NotAKey { path: path.to_owned(), reason }
    }
}

/// Reads a key's file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, BuildError> {
    let io = |error| BuildError::Io { path: path.to_owned(), error };
    let mut content = Vec::new();
    let file = File::open(path).map_err(io)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content).map_err(io)?;
    match content.len() as u64 {
        0..=FILE_BYTES_MAX => Ok(content),
        _ => Err(BuildError::not_a_key(path, "it is too large for a key")),
    }
}

/// Reads a secret that is one line.
pub(crate) fn read_line(path: &Path) -> Result<String, BuildError> {
    let text = String::from_utf8(read(path)?);
    let text = text.map_err(|_| BuildError::not_a_key(path, "it is not text"))?;
    match text.trim() {
        "" => Err(BuildError::not_a_key(path, "it is empty")),
        line if line.contains(char::is_control) => {
            Err(BuildError::not_a_key(path, "it has more than one line"))
        }
        line => Ok(line.to_owned()),
    }
}

/// The providers of a configuration, by name.
#[derive(Clone, Default)]
pub struct Providers(BTreeMap<String, (LaneConfig, Arc<dyn PushProvider>)>);

impl Providers {
    /// Makes those that the configuration names.
    pub fn build(
        config: &PushConfig,
        clock: &Arc<dyn Clock>,
        rng: &Arc<dyn Rng>,
    ) -> Result<Self, BuildError> {
        config.validate()?;
        // Apple counts the tokens of a key, whatever they are used for.
        let mut tokens = ProviderTokens::default();
        let mut built = Providers::default();
        for (name, provider) in &config.providers {
            let clock = clock.clone();
            let made: Arc<dyn PushProvider> = match provider {
                ProviderConfig::Apns(c) => Arc::new(providers::Apns::new(c, &mut tokens, clock)?),
                ProviderConfig::Fcm(c) => Arc::new(providers::Fcm::new(c, clock)?),
                ProviderConfig::Wns(c) => Arc::new(providers::Wns::new(c, clock)?),
                ProviderConfig::WebPush(c) => {
                    Arc::new(providers::WebPush::new(c, clock, rng.clone())?)
                }
                ProviderConfig::Mpns(c) => Arc::new(providers::Mpns::new(c, clock)?),
                ProviderConfig::BbPush(c) => Arc::new(providers::BbPush::new(c, clock)?),
                ProviderConfig::Webhook(c) => Arc::new(providers::Webhook::new(c, clock)?),
                ProviderConfig::Log(_) => Arc::new(providers::Log),
            };
            built.insert(name, *provider.lane(), made);
        }
        Ok(built)
    }

    /// Adds one of the caller's own making.
    pub fn insert(&mut self, name: &str, lane: LaneConfig, provider: Arc<dyn PushProvider>) {
        self.0.insert(name.to_owned(), (lane, provider));
    }

    /// Could a device register this target with the provider of that name?
    pub fn check(&self, provider: &str, target: &str) -> Result<(), TargetError> {
        let unknown = || TargetError::NoProvider(provider.chars().take(64).collect());
        self.get(provider).ok_or_else(unknown)?.check(target)
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The provider of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn PushProvider>> {
        self.0.get(name).map(|(_, provider)| provider)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, LaneConfig, &dyn PushProvider)> {
        self.0.iter().map(|(name, (lane, provider))| (name.as_str(), *lane, &**provider))
    }
}
