//! Seeds as a user would run them: the same seed twice, a few fixed ones, and those that once failed.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tidemark_sim::run::Shown;

/// Seeds that once failed; they are never removed.
const REGRESSIONS: &str = include_str!("../../regressions");

/// Seeds that nobody chose.
const FRESH: std::ops::Range<u64> = 1..5;

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_tidemark-sim"))
}

/// Runs a seed, which must hold.
fn holds(seed: u64, trace: Option<&Path>) -> Result<Shown> {
    let mut command = program();
    command.args(["seed", &seed.to_string(), "--json"]);
    if let Some(trace) = trace {
        command.arg("--trace").arg(trace);
    }
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}{}", String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "seed {seed}: {}", output.status);
    let shown = said.lines().last().context("it says what it showed")?;
    Ok(serde_json::from_str(shown)?)
}

fn regressions() -> Result<Vec<u64>> {
    let lines = REGRESSIONS.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let numbers = lines.filter(|line| !line.is_empty()).map(|line| Ok(line.parse()?));
    numbers.collect()
}

#[test]
fn the_same_seed_is_the_same_run_byte_for_byte() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let paths = [folder.path().join("one"), folder.path().join("two")];
    let shown = [holds(7, Some(&paths[0]))?, holds(7, Some(&paths[1]))?];
    ensure!(shown[0].trace == shown[1].trace, "{} and {}", shown[0].trace, shown[1].trace);
    let [one, two] = [fs::read(&paths[0])?, fs::read(&paths[1])?];
    ensure!(one.len() > 1_000_000, "a trace of {} bytes shows nothing", one.len());
    let lines = one.split(|byte| *byte == b'\n').zip(two.split(|byte| *byte == b'\n'));
    let differs = lines.enumerate().find(|(_, (one, two))| one != two);
    ensure!(differs.is_none() && one.len() == two.len(), "the traces differ: {differs:?}");
    Ok(())
}

/// The same for hints that nobody gets.
#[test]
fn hints_that_are_lost_are_noticed() -> Result<()> {
    let output = program().args(["seed", "7", "--lost-hints"]).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.code() == Some(1) && said.contains("C17: "), "it ended with {said}");
    Ok(())
}

/// The control: it can fail, and does so with the code for what is wrong.
#[test]
fn disks_that_acknowledge_what_they_have_not_written_are_noticed() -> Result<()> {
    let status = program().args(["seed", "7", "--lying-disks"]).status()?;
    ensure!(status.code() == Some(1), "it ended with {status}");
    Ok(())
}

#[test]
fn fixed_seeds_hold() -> Result<()> {
    for seed in FRESH {
        let shown = holds(seed, None)?;
        ensure!(shown.seconds >= 30.0 && shown.accepted >= 1_000, "{shown:?}");
        ensure!(shown.fault_count() >= 3, "{shown:?}");
    }
    Ok(())
}

#[test]
fn seeds_that_once_failed_hold() -> Result<()> {
    for seed in regressions()? {
        holds(seed, None)?;
    }
    Ok(())
}
