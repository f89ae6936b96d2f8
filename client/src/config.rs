//! Who the device is, where its gateways are, and how much it may keep.

use thiserror::Error;
use tidemark_proto::hello::{AGENT_BYTES_MAX, Start};
use tidemark_types::limits::{BODY_BYTES_MAX, LABEL_BYTES_MAX, SEND_WINDOW, SEND_WINDOW_BYTES};
use tidemark_types::{ClusterId, DeviceId, UserId};

/// The sends that a device keeps by default: many windows, so that an hour without a network does
/// not stop an application that people type into.
const OUTBOX_ENTRIES: usize = 4_096;

/// The bytes of their bodies; the outbox is also in memory.
const OUTBOX_BYTES: usize = 64 << 20;

/// More is a mistake: all of it is in memory.
const OUTBOX_BYTES_MAX: usize = 1 << 31;

/// More than any device has to say.
const OUTBOX_ENTRIES_MAX: usize = 1 << 24;

// A full window fits into the default outbox, or the outbox would be the bound on throughput.
const _: () = assert!(OUTBOX_ENTRIES as u64 > SEND_WINDOW);
const _: () = assert!(OUTBOX_BYTES > SEND_WINDOW_BYTES);

/// Who the device is, where its gateways are, and how much it may keep.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whose mailbox.
    pub user: UserId,
    /// The user's name for this device.
    pub device: DeviceId,
    /// Gateways, as `host:port`; the first one is drawn, and each failure goes on to the next.
    pub gateways: Vec<String>,
    /// The only cluster to talk to; none takes the first one that welcomes the device.
    pub cluster: Option<ClusterId>,
    /// Where a device starts that has no cursor yet.
    pub start: Start,
    /// The software's name and version, for the server's logs; at most 64 bytes.
    pub agent: String,
    /// What the device is called in its owner's list; none leaves what it was called before.
    pub label: Option<Label>,
    /// Sends that the outbox holds, those included whose outcome was not taken yet.
    pub outbox_entries_max: usize,
    /// Bytes of their bodies.
    pub outbox_bytes_max: usize,
    /// Tells other users which of their messages this device has taken: a delivered mark for each
    /// conversation, at most one a second. Each one is a send. Off by default.
    pub delivered_marks: bool,
}

/// What a device is called, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Label {
    /// The owner's name for it, at most 64 bytes.
    pub name: String,
    /// What it runs on, at most 64 bytes.
    pub platform: String,
}

impl Label {
    pub(crate) fn is_too_long(&self) -> bool {
        self.name.len().max(self.platform.len()) > LABEL_BYTES_MAX
    }
}

/// What is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// There is nobody to connect to.
    #[error("gateways: there is none; name at least one as host:port")]
    NoGateway,
    /// The software's name is too long for the server.
    #[error("agent: it has {0} bytes, and may have {AGENT_BYTES_MAX}")]
    Agent(usize),
    /// What the device is called is too long.
    #[error("label: name and platform may have {LABEL_BYTES_MAX} bytes each")]
    Label,
    /// The outbox could not hold one message.
    #[error(
        "outbox_entries_max must be 1 to {OUTBOX_ENTRIES_MAX}, outbox_bytes_max {BODY_BYTES_MAX} to \
         {OUTBOX_BYTES_MAX}"
    )]
    Outbox,
}

impl Config {
    /// The configuration of this device, with defaults for the rest; a new device starts with the
    /// oldest entry that is kept.
    pub fn new(user: UserId, device: DeviceId, gateways: Vec<String>) -> Self {
        Config {
            user,
            device,
            gateways,
            cluster: None,
            start: Start::Floor,
            agent: concat!("tidemark-client/", env!("CARGO_PKG_VERSION")).to_owned(),
            label: None,
            outbox_entries_max: OUTBOX_ENTRIES,
            outbox_bytes_max: OUTBOX_BYTES,
            delivered_marks: false,
        }
    }

    /// Is it one that can work?
    pub fn validate(&self) -> Result<(), ConfigError> {
        let bytes = BODY_BYTES_MAX..=OUTBOX_BYTES_MAX;
        if self.gateways.is_empty() {
            Err(ConfigError::NoGateway)
        } else if self.agent.len() > AGENT_BYTES_MAX {
            Err(ConfigError::Agent(self.agent.len()))
        } else if self.label.as_ref().is_some_and(Label::is_too_long) {
            Err(ConfigError::Label)
        } else if !(1..=OUTBOX_ENTRIES_MAX).contains(&self.outbox_entries_max)
            || !bytes.contains(&self.outbox_bytes_max)
        {
            Err(ConfigError::Outbox)
        } else {
            Ok(())
        }
    }
}
