//! `tidemark-chaos`: runs a cluster under faults and checks every promise.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
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
        /// Runs the build with mutants, and this one of them.
        #[arg(long, value_parser = mutants_by_name())]
        mutant: Option<Mutant>,
    },
    /// Runs every deliberately broken build, and looks whether it is caught as it should be.
    Mutants {
        /// Only this one; may be given several times.
        #[arg(long, value_parser = mutants_by_name())]
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
            code(report.verdict)
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

/// The exit code that says so.
fn code(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Holds => 0,
        Verdict::Violated => 1,
        Verdict::Void => 2,
    }
}

/// Of two exit codes the one that counts: a broken promise more than what proves nothing.
fn worse(one: u8, other: u8) -> u8 {
    if one == 1 || other == 1 { 1 } else { one.max(other) }
}

fn again(folder: PathBuf) -> Result<u8> {
    let path = folder.join("report.json");
    let text = std::fs::read(&path).with_context(|| format!("{}", path.display()))?;
    let Summary { scenario, seconds, seed, rate, .. } = serde_json::from_slice(&text)?;
    let variant = Variant { rate, ..Variant::default() };
    run(&scenario, seconds, seed, folder.join("replay"), false, variant)
}

/// Each by its name, with which the help says what it breaks.
fn mutants_by_name() -> impl TypedValueParser<Value = Mutant> {
    let names =
        Mutant::ALL.iter().map(|mutant| PossibleValue::new(mutant.name()).help(mutant.what()));
    PossibleValuesParser::new(names).map(|name| Mutant::named(&name).expect("one of the list"))
}

fn mutants(only: &[Mutant], seed: Option<u64>, folder: &Path) -> Result<u8> {
    lan::enter().context("mutants are caught on networks and disks of their own")?;
    let runtime = tokio::runtime::Runtime::new()?;
    let verdict = runtime.block_on(async {
        tokio::select! {
            verdict = run::mutants::run(only, seed, folder, true) => verdict,
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        }
    })?;
    Ok(code(verdict))
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
    let why_not = match loopback {
        true => Some("as asked for".to_owned()),
        false => lan::enter().err().map(|error| format!("since {error:#}")),
    };
    if let Some(why) = &why_not {
        let left_out = SCENARIOS.iter().filter(|scenario| scenario.needs_lab);
        let left_out: Vec<&str> = left_out.map(|scenario| scenario.name).collect();
        let left_out = left_out.join(", ");
        eprintln!(
            "NOT ISOLATED: plain processes on loopback, {why}; mixed does without {left_out}"
        );
    }
    let lab = why_not.is_none();
    let runtime = tokio::runtime::Runtime::new()?;
    let several = scenarios.len() > 1;
    let mut worst = 0;
    for scenario in scenarios {
        if scenario.needs_lab && !lab {
            eprintln!("{}: it proves nothing without networks and disks of its own", scenario.name);
            worst = worse(worst, 2);
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
        let code = match runtime.block_on(one(&plan)) {
            Ok(Ok(summary)) => {
                say(&summary);
                summary.exit_code()
            }
            // The others may prove something.
            Ok(Err(error)) => {
                eprintln!("{}: {error:#}", scenario.name);
                2
            }
            Err(ended) => {
                eprintln!("{}: {ended:#}", scenario.name);
                return Ok(worse(worst, 2));
            }
        };
        worst = worse(worst, code);
    }
    Ok(worst)
}

/// Runs it, unless the user ends everything.
async fn one(plan: &Plan) -> Result<Result<Summary>> {
    use tokio::signal::unix::{SignalKind, signal};
    // Whatever ends the run, it puts everything back first.
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        summary = run::run(plan) => Ok(summary),
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        _ = terminated.recv() => anyhow::bail!("terminated"),
    }
}

fn say(summary: &Summary) {
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
}
