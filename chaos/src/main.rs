//! `tidemark-chaos`: runs a cluster under faults and checks every promise.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use tidemark_chaos::run::report::{Summary, Unavailable};
use tidemark_chaos::run::scenario::{SCENARIOS, Scenario};
use tidemark_chaos::run::{self, Plan};
use tidemark_checker::Verdict;
use tidemark_env::{Rng, SystemRng};
use tidemark_lab::lan;
use tidemark_version::VERSION;

/// Proof that no message is lost, doubled or out of order, whatever crashes. Exits with 0 if every
/// check holds, 1 if one is violated, 2 if the run proves nothing.
#[derive(Parser)]
#[command(version = VERSION, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a scenario and writes a report.
    Run {
        /// Which one; `all` runs one after the other. `list` says which there are.
        #[arg(long)]
        scenario: String,
        /// How long the load lasts.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// For everything that is left to chance; drawn if it is not given.
        #[arg(long)]
        seed: Option<u64>,
        /// Where report.html, report.json and the history go.
        #[arg(long, default_value = "chaos-report")]
        report: PathBuf,
        /// Plain processes on loopback, though this machine allows networks and disks of their own.
        #[arg(long)]
        loopback: bool,
    },
    /// Says which scenarios there are.
    List,
    /// Judges the histories of a run once more.
    Check {
        /// Its files.
        #[arg(required = true)]
        histories: Vec<PathBuf>,
    },
    /// Runs once more what a report tells of: the same scenario, time and seed.
    Replay {
        /// A folder with a report.json.
        folder: PathBuf,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::List => {
            for Scenario { name, what, needs_lab, .. } in SCENARIOS {
                println!("{name:16} {what}{}", if *needs_lab { " (needs root)" } else { "" });
            }
            Ok(0)
        }
        Command::Check { histories } => run::judge(&histories).map(|report| {
            println!("{report}");
            match report.verdict {
                Verdict::Holds => 0,
                Verdict::Violated => 1,
                Verdict::Void => 2,
            }
        }),
        Command::Run { scenario, seconds, seed, report, loopback } => {
            let seed = seed.unwrap_or_else(|| SystemRng.number() >> 32);
            run(&scenario, seconds, seed, report, loopback)
        }
        Command::Replay { folder } => again(folder),
    };
    // What did not run proves nothing.
    done.map_or_else(
        |error| {
            eprintln!("tidemark-chaos: {error:#}");
            ExitCode::from(2)
        },
        ExitCode::from,
    )
}

fn again(folder: PathBuf) -> Result<u8> {
    let path = folder.join("report.json");
    let text = std::fs::read(&path).with_context(|| format!("{}", path.display()))?;
    let Summary { scenario, seconds, seed, .. } = serde_json::from_slice(&text)?;
    run(&scenario, seconds, seed, folder.join("replay"), false)
}

fn run(name: &str, seconds: u64, seed: u64, folder: PathBuf, loopback: bool) -> Result<u8> {
    let scenarios: Vec<Scenario> = match name {
        "all" => SCENARIOS.to_vec(),
        name => vec![*Scenario::named(name).context("no such scenario: tidemark-chaos list")?],
    };
    let lab = !loopback
        && match lan::enter() {
            Ok(()) => true,
            Err(error) => {
                eprintln!("NOT ISOLATED: plain processes on loopback, since {error:#}");
                false
            }
        };
    let runtime = tokio::runtime::Runtime::new()?;
    let several = scenarios.len() > 1;
    let mut worst = 0;
    for scenario in scenarios {
        if scenario.needs_lab && !lab {
            eprintln!("{}: it proves nothing without networks and disks of its own", scenario.name);
            worst = if worst == 1 { 1 } else { 2 };
            continue;
        }
        let folder = if several { folder.join(scenario.name) } else { folder.clone() };
        println!(
            "== {}: {} s, seed {seed}, report in {}",
            scenario.name,
            seconds,
            folder.display()
        );
        let plan = Plan { scenario, seconds, seed, folder, lab };
        let summary = runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            // Whatever ends the run, it puts everything back first.
            let mut terminated = signal(SignalKind::terminate())?;
            tokio::select! {
                summary = run::run(&plan) => summary,
                _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
                _ = terminated.recv() => anyhow::bail!("terminated"),
            }
        })?;
        for Unavailable { kind, faults, p50_ms, p99_ms, max_ms } in summary.unavailable() {
            println!(
                "{kind}: {faults} times, unavailable p50 {p50_ms} ms, p99 {p99_ms} ms, \
                 max {max_ms} ms"
            );
        }
        println!(
            "ledger: acked={} delivered={} lost={} duplicated={} out_of_order={} seq_gaps={} \
             divergent_replicas={} faults={} verdict={}",
            summary.acked,
            summary.delivered,
            summary.lost,
            summary.duplicated,
            summary.out_of_order,
            summary.seq_gaps,
            summary.divergent_replicas,
            summary.faults.len(),
            summary.verdict,
        );
        worst = match (worst, summary.exit_code()) {
            (1, _) | (_, 1) => 1,
            (one, other) => one.max(other),
        };
    }
    Ok(worst)
}
