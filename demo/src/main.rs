//! The demo: two users with two devices each exchange messages of real text on a local cluster,
//! while the leader of a recipient's shard is killed; then everything is counted.
//!
//! ```text
//!   talk    devices (SDK) ── gateways ── stores        kill at a third, restart at the end
//!             └ notebook: what each device's application took, in a file
//!   ledger  notebooks, and the stores' own files while they are down
//! ```
//!
//! Nothing of the ledger comes from a counter: it is read from the devices' notebooks and, with
//! `inspect`, from every replica.

mod cluster;
mod ledger;
mod notebook;
mod talk;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;

use cluster::Cluster;
use ledger::Ledger;
use talk::Talk;
use tidemark_version::VERSION;

/// What they read to each other: Lewis Carroll, Alice's Adventures in Wonderland (1865), in the
/// public domain.
const TEXT: &str = include_str!("../text/alice.txt");

/// Two users with two devices each talk through a leader kill.
#[derive(Parser)]
#[command(version = VERSION)]
struct Arguments {
    /// The checkout whose `scripts/cluster` runs the cluster.
    #[arg(long, default_value = ".")]
    root: PathBuf,
    /// The cluster's folder; the checkout's `.tidemark` by default.
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// How many messages they exchange.
    #[arg(long, default_value_t = 2_000)]
    messages: usize,
    /// How many they send in a second.
    #[arg(long, default_value_t = 400)]
    rate: u32,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let Arguments { root, home, messages, rate } = Arguments::parse();
    let lines = TEXT.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines: Vec<&str> = lines.take(messages).collect();
    ensure!(rate > 0, "--rate is at least 1");
    ensure!(lines.len() == messages, "the text has {} lines only", lines.len());
    let home = home.unwrap_or_else(|| root.join(".tidemark"));
    let cluster = Cluster::find(&root, &home)?;
    let talk = Talk::run(&cluster, &lines, rate).await.context("the talk")?;
    println!("killing the stores to read their files");
    cluster.kill_stores()?;
    let ledger = Ledger::read(&cluster, &talk);
    println!("starting them again");
    cluster.script(&["up"])?;
    let ledger = ledger.context("the ledger")?;
    println!("{ledger}");
    Ok(if ledger.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
