//! The paper's two flows as an executable test, on a cluster of real processes with all push
//! providers over a simulator of their services; and hints to many devices that are away.

mod clocks;
mod cluster;
mod flows;
mod offline;
mod phone;
mod receiver;
mod register;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;
use futures::future::join_all;
use tidemark_push_sim::{Sim, SimConfig};
use tidemark_types::UserId;
use tidemark_version::VERSION;
use tokio::signal::unix::{SignalKind, signal};

use cluster::Cluster;
use flows::{PROVIDERS, Stage};
use offline::Load;

/// Who is there gets the message; who is away is woken, syncs and confirms.
#[derive(Parser)]
#[command(version = VERSION)]
struct Arguments {
    /// The checkout whose `scripts/cluster` runs the cluster.
    #[arg(long, default_value = ".")]
    root: PathBuf,
    /// Not the flows, but a burst of messages to so many devices that are away, while a leader and a
    /// gateway are killed.
    #[arg(long, value_name = "DEVICES", value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    offline: Option<u32>,
    /// Not the flows, but what is kept while a store's clock is far ahead.
    #[arg(long, conflicts_with = "offline")]
    clocks: bool,
    /// Messages to each of them.
    #[arg(long, default_value_t = 3, requires = "offline", value_parser = clap::value_parser!(u32).range(2..=1_000))]
    messages: u32,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    // A run that is told to stop takes its cluster down with it.
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        ended = run(arguments) => ended,
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("told to stop"),
    }
}

async fn run(Arguments { root, offline, clocks, messages }: Arguments) -> Result<ExitCode> {
    match offline {
        Some(devices) => Load { devices: devices as usize, messages }.run(&root).await?,
        None if clocks => clocks::run(&root).await?,
        None => return flows(&root).await,
    }
    Ok(ExitCode::SUCCESS)
}

async fn flows(root: &Path) -> Result<ExitCode> {
    let sim = Sim::start(SimConfig::default()).await?;
    let folder = tempfile::tempdir()?;
    sim.write(folder.path())?;
    let push = std::fs::read_to_string(folder.path().join("push.toml"))?;
    let cluster = Cluster::up(root, &push, "")?;
    let stage = Stage { cluster: &cluster, sim: &sim, folder: folder.path() };
    let mut alice = stage.phone(&UserId::new("alice")?, "phone")?;
    alice.on().await?;
    let took = stage.online(&alice).await.context("online")?;
    println!("paper: online ok in_ms={}", took.as_millis());
    let shown = PROVIDERS.map(async |(provider, service)| {
        let shown = stage.offline(&alice, provider, service).await;
        match &shown {
            Ok(()) => println!("paper: provider={provider} ok"),
            Err(error) => eprintln!("paper: provider={provider} failed: {error:#}"),
        }
        shown.is_ok()
    });
    let ok = join_all(shown).await.into_iter().all(|ok| ok);
    alice.off().await;
    cluster.down()?;
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
