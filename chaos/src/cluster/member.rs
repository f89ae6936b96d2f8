//! A cluster's processes: their names, their hosts, what they use, how they end.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tidemark_lab::lan::Host;
use tidemark_types::NodeId;

use super::PATIENCE;

/// How a process ended by itself.
#[derive(Debug)]
pub struct Exit {
    /// Its exit status.
    pub status: ExitStatus,
    /// The end of its log.
    pub log: String,
}

/// What a process uses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of memory, at most so far.
    pub memory_max: u64,
    /// Files and connections that are open.
    pub files: u64,
}

/// One of a cluster's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Member {
    /// A store node.
    Node(NodeId),
    /// A gateway, counted from 0.
    Gateway(usize),
}

impl From<NodeId> for Member {
    fn from(node: NodeId) -> Self {
        Member::Node(node)
    }
}

impl Member {
    /// Its host in the lab.
    pub fn host(self) -> Host {
        let number = |number: u64| u8::try_from(number).expect("a cluster has few members");
        match self {
            Member::Node(node) => Host(number(node.get())),
            Member::Gateway(gateway) => Host(100 + number(gateway as u64)),
        }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Member::Node(node) => write!(f, "node-{node}"),
            Member::Gateway(number) => write!(f, "gateway-{number}"),
        }
    }
}

impl Usage {
    /// Of a running process.
    pub(super) fn of(process: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let kilobytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let amount = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            amount.with_context(|| format!("process {process} has no {name}"))
        };
        let (memory, memory_max) = (kilobytes("VmRSS:")? << 10, kilobytes("VmHWM:")? << 10);
        let files = fs::read_dir(format!("/proc/{process}/fd"))?.count() as u64;
        Ok(Usage { memory, memory_max, files })
    }

    /// Of each, what is more.
    pub(super) fn most(self, other: Usage) -> Usage {
        Usage {
            memory: self.memory.max(other.memory),
            memory_max: self.memory_max.max(other.memory_max),
            files: self.files.max(other.files),
        }
    }
}

/// What a process or thread does, in the system's letter; none of one that has just ended.
fn state(stat: &Path) -> Option<char> {
    let stat = fs::read_to_string(stat).unwrap_or_default();
    stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next())
}

/// Is a process stopped, as by SIGSTOP?
pub(super) fn is_stopped(process: u32) -> bool {
    state(Path::new(&format!("/proc/{process}/stat"))) == Some('T')
}

/// Waits until no thread of a process that was sent SIGSTOP runs any more. One that is inside a system
/// call may end it, but not return from it.
pub(super) fn stand_still(process: u32) -> Result<()> {
    let from = Instant::now();
    while from.elapsed() < PATIENCE {
        let mut moves = false;
        for thread in fs::read_dir(format!("/proc/{process}/task"))? {
            moves |= matches!(state(&thread?.path().join("stat")), Some('R' | 'S'));
        }
        if !moves {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    bail!("process {process} does not stand still")
}
