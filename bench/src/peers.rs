//! `tidemark-bench peers`: other systems, measured beside ours by one load.
//!
//! ```text
//!   settings ─► plan ─► session ─┬► ours ─► run ............... (scripts/cluster, the own workloads)
//!                                └► nats │ etcd │ rabbitmq ◄── provision (apt, PyPI ─► cache)
//!                                     └► drive ─► post, intake       servers, ground, disk
//!                      findings ◄── ratio ◄── figures
//!                         └───────── floor: what the machine does at most
//! ```
//!
//! Invariants: what holds for our own workloads holds for the peers: one process and one clock see both
//! ends of every message, the same bodies, the same threads, as many in flight, and everything is
//! checked. Every peer is a cluster of three nodes with files on the same disk as ours. Nothing is
//! installed, no service is started, and only processes that were started here are ended.

mod disk;
mod drive;
mod etcd;
mod findings;
mod floor;
mod ground;
mod intake;
mod load;
mod nats;
mod ours;
mod plan;
mod post;
mod provision;
mod rabbitmq;
mod ratio;
mod servers;
mod session;
mod settings;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::peers::session::Session;
use crate::peers::settings::Arguments;

/// By which the comparison is asked for, in the place of a workload.
pub(crate) const COMMAND: &str = "peers";

/// Runs the comparison that the command line asks for.
pub(crate) fn main(runtime: impl FnOnce(u32) -> std::io::Result<Runtime>) -> Result<ExitCode> {
    // Without the program's own name: the command takes its place.
    let arguments = Arguments::parse_from(std::env::args_os().skip(1)).adjusted();
    runtime(arguments.common.threads)?.block_on(compare(&arguments))
}

/// On the main thread, which peers are started by.
async fn compare(arguments: &Arguments) -> Result<ExitCode> {
    raise_limit()?;
    let mut session = Session::new(arguments)?;
    let ended = tokio::select! {
        ended = session.run() => ended,
        interrupted = interrupted() => interrupted,
    };
    // Peers were killed as what ran was dropped; ours are ended here.
    let cleaned = session.clean().await;
    let wanted = session.wanted().to_vec();
    session.findings.conclude(&wanted);
    print!("{}", session.findings.markdown(&wanted));
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&session.findings)?;
        std::fs::write(path, text + "\n").with_context(|| path.display().to_string())?;
    }
    ended?;
    cleaned?;
    let void = session.findings.void.is_some();
    Ok(if void { ExitCode::from(crate::VOID) } else { ExitCode::SUCCESS })
}

/// Lets this process and the peers have as many connections as they are allowed to: a user's inbox may
/// have one of its own.
fn raise_limit() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).context("the limit of open files cannot be raised")
}

/// Ends, always as a failure, when this process is told to.
async fn interrupted() -> Result<()> {
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    }
}
