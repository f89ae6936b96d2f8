//! `tidemark-chaos`: runs a cluster under faults and checks every promise.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use tidemark_chaos::build::Build;
use tidemark_chaos::run::report::Summary;
use tidemark_chaos::run::scenario::{SCENARIOS, Scenario};
use tidemark_chaos::run::{self, Plan, Variant};
use tidemark_checker::Verdict;
use tidemark_env::{Rng, SystemRng};
use tidemark_lab::lan;
use tidemark_mutants::Mutant;
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
        /// Sends a second, all users together, in place of the scenario's; 0: as fast as answers come.
        #[arg(long)]
        rate: Option<u32>,
        /// Plain processes on loopback, though this machine allows networks and disks of their own.
        #[arg(long)]
        loopback: bool,
        /// Runs stores whose fsyncs do nothing (package eatmydata), to see that this is noticed.
        #[arg(long, conflicts_with = "mutant")]
        no_fsync: bool,
        /// Runs the build with mutants, and this one of them: M1 to M22.
        #[arg(long, value_parser = mutant)]
        mutant: Option<Mutant>,
    },
    /// Runs every deliberately broken build, and looks whether it is caught as it should be.
    Mutants {
        /// Only this one: M1 to M22; may be given several times.
        #[arg(long, value_parser = mutant)]
        only: Vec<Mutant>,
        /// For everything that is left to chance; each recipe has its own if it is not given.
        #[arg(long)]
        seed: Option<u64>,
        /// Where the table and the runs' reports go.
        #[arg(long, default_value = "chaos-report/mutants")]
        report: PathBuf,
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
        Command::Run { scenario, seconds, seed, report, rate, loopback, no_fsync, mutant } => {
            let seed = seed.unwrap_or_else(|| SystemRng.number() >> 32);
            let build = match (mutant, no_fsync) {
                (Some(mutant), _) => Build::Mutants(Some(mutant)),
                (None, true) => Build::NoFsync,
                (None, false) => Build::Release,
            };
            let variant = Variant { build, rate, ..Variant::default() };
            run(&scenario, seconds, seed, report, loopback, variant)
        }
        Command::Mutants { only, seed, report } => mutants(&only, seed, &report),
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
    let Summary { scenario, seconds, seed, rate, .. } = serde_json::from_slice(&text)?;
    let variant = Variant { rate, ..Variant::default() };
    run(&scenario, seconds, seed, folder.join("replay"), false, variant)
}

fn mutant(name: &str) -> Result<Mutant, String> {
    Mutant::named(name).ok_or_else(|| "there is no such mutant".to_owned())
}

fn mutants(only: &[Mutant], seed: Option<u64>, folder: &Path) -> Result<u8> {
    lan::enter().context("mutants are caught on networks and disks of their own")?;
    let runtime = tokio::runtime::Runtime::new()?;
    let all_caught = runtime.block_on(async {
        tokio::select! {
            all_caught = run::mutants::run(only, seed, folder, true) => all_caught,
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        }
    })?;
    Ok(if all_caught { 0 } else { 1 })
}

fn run(
    name: &str,
    seconds: u64,
    seed: u64,
    folder: PathBuf,
    loopback: bool,
    variant: Variant,
) -> Result<u8> {
    let scenarios: Vec<&Scenario> = match name {
        "all" => SCENARIOS.iter().collect(),
        name => vec![Scenario::named(name).context("no such scenario: tidemark-chaos list")?],
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
        let plan = Plan { scenario, seconds, seed, folder, lab, variant };
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
        for (kind, spread) in summary.unavailable() {
            println!("{kind}: shards unavailable {spread}");
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
