//! `tidemark-sim`: the whole system simulated from seeds, and whether it kept its promises.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use tidemark_checker::Verdict;
use tidemark_sim::plan::Plan;
use tidemark_sim::{interpose, ledger, run};
use tidemark_version::VERSION;

/// Where a memory file system usually is: simulated disks need no real one.
const MEMORY: &str = "/dev/shm";

/// The whole of Tidemark over a simulated network, clock and disk. Exits with 0 if every check holds,
/// 1 if one is violated, 2 if the run proves nothing.
#[derive(Parser)]
#[command(version = VERSION, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs many seeds, each in a process of its own.
    Run {
        /// Which ones: `A..B`, without B.
        #[arg(long, value_parser = seeds)]
        seeds: std::ops::Range<u64>,
        /// How many at once; as many as there are cores if it is not given.
        #[arg(long)]
        jobs: Option<usize>,
    },
    /// Runs one seed.
    Seed {
        /// Which one.
        seed: u64,
        /// Where to write all that happens, line by line.
        #[arg(long)]
        trace: Option<PathBuf>,
        /// Say what it showed in JSON.
        #[arg(long)]
        json: bool,
        /// Write the product's own log to stderr, with this filter.
        #[arg(long)]
        log: Option<String>,
        /// Keep the history and the disks in this folder.
        #[arg(long)]
        keep: Option<PathBuf>,
        /// Let the disks acknowledge what they have not written: the control, which a seed with
        /// power cuts must notice.
        #[arg(long)]
        lying_disks: bool,
        /// Let dispatchers say that they have sent hints which they have not: another control.
        #[arg(long)]
        lost_hints: bool,
        /// Crash only where votes are written, if in a step of the disk.
        #[arg(long)]
        votes: bool,
        /// Let clocks be far ahead beside all else.
        #[arg(long)]
        clocks: bool,
    },
    /// Tries what is broken on purpose, each with one seed after the other until one catches it.
    #[cfg(feature = "mutants")]
    Mutants {
        /// Only this one, as M21; may be given several times.
        #[arg(long, value_parser = mutant)]
        only: Vec<tidemark_mutants::Mutant>,
        /// With these seeds: `A..B`, without B.
        #[arg(long, value_parser = seeds, default_value = "1..41")]
        seeds: std::ops::Range<u64>,
    },
}

#[cfg(feature = "mutants")]
fn mutant(name: &str) -> Result<tidemark_mutants::Mutant> {
    tidemark_mutants::Mutant::named(name).context("there is no such mutant")
}

fn seeds(text: &str) -> Result<std::ops::Range<u64>> {
    let (from, to) = text.split_once("..").context("A..B")?;
    Ok(from.parse()?..to.parse()?)
}

/// As the operating system calls it.
pub(crate) fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run { seeds, jobs } => many(seeds, jobs),
        Command::Seed { seed, trace, json, log, keep, lying_disks, lost_hints, votes, clocks } => {
            let plan = Plan { lying_disks, lost_hints, votes, ..Plan::of(seed) };
            let plan = if clocks { plan.with_clocks() } else { plan };
            one(plan, trace, json, log, keep)
        }
        #[cfg(feature = "mutants")]
        Command::Mutants { only, seeds } => {
            let all_caught = tidemark_sim::mutants::run(&only, seeds);
            all_caught.map(|all| if all { Verdict::Holds } else { Verdict::Violated })
        }
    };
    match done {
        Ok(Verdict::Holds) => ExitCode::SUCCESS,
        Ok(Verdict::Violated) => ExitCode::from(1),
        Ok(Verdict::Void) => ExitCode::from(2),
        Err(error) => {
            eprintln!("tidemark-sim: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn many(seeds: std::ops::Range<u64>, jobs: Option<usize>) -> Result<Verdict> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let ledger = ledger::run(seeds, jobs.unwrap_or(cores))?;
    println!("{ledger}");
    Ok(ledger.verdict())
}

fn one(
    plan: Plan,
    trace: Option<PathBuf>,
    json: bool,
    log: Option<String>,
    keep: Option<PathBuf>,
) -> Result<Verdict> {
    if let Some(filter) = log {
        let filter = tracing_subscriber::EnvFilter::new(filter);
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
        log.with_writer(std::io::stderr).init();
    }
    let (began, seed) = (Instant::now(), plan.seed);
    let memory = Path::new(MEMORY);
    let temporary = match memory.is_dir() {
        true => tempfile::tempdir_in(memory)?,
        false => tempfile::tempdir()?,
    };
    let folder = match keep {
        Some(folder) => {
            std::fs::create_dir_all(&folder)?;
            folder
        }
        None => temporary.path().to_owned(),
    };
    // A thread of its own: what libraries keep per thread begins with it.
    let simulated = std::thread::Builder::new().name("simulation".to_owned()).spawn(move || {
        interpose::enter(plan.seed);
        run::run(plan, &folder, trace.as_deref())
    });
    let shown = simulated?.join().map_err(|_| anyhow::anyhow!("the simulation panicked"));
    let Ok(shown) = shown else {
        // The panic has said why. A product that panics has broken its promise.
        return Ok(Verdict::Violated);
    };
    let shown = shown?;
    match json {
        true => println!("{}", serde_json::to_string(&shown)?),
        false => println!("{}", ledger::line(seed, Some(&shown), began.elapsed())),
    }
    Ok(match shown.verdict.as_str() {
        "holds" => Verdict::Holds,
        "violated" => Verdict::Violated,
        _ => Verdict::Void,
    })
}
