//! Short runs of `tidemark-chaos`, as a user would start them.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use tidemark_chaos::run::report::Summary;

/// Runs a scenario, which must hold; its report.
fn run(scenario: &str, seconds: u64) -> Result<Summary> {
    let folder = tempfile::tempdir()?;
    let output = Command::new(env!("CARGO_BIN_EXE_tidemark-chaos"))
        .args(["run", "--scenario", scenario, "--seconds", &seconds.to_string(), "--seed", "1"])
        .arg("--report")
        .arg(folder.path())
        .output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    println!("{said}");
    ensure!(output.status.success(), "{scenario}: {}", output.status);
    let page = fs::read_to_string(folder.path().join("report.html"))?;
    ensure!(page.contains("Every check holds"), "the page says otherwise");
    let summary: Summary = serde_json::from_slice(&fs::read(folder.path().join("report.json"))?)?;
    ensure!(summary.verdict == "holds" && !summary.faults.is_empty(), "{summary:?}");
    ensure!(summary.acked > seconds * 100, "too few sends: {summary:?}");
    ensure!(summary.delivered >= summary.acked, "each has a recipient: {summary:?}");
    Ok(summary)
}

#[test]
fn what_was_acknowledged_survives_power_cuts_of_all_nodes() -> Result<()> {
    let summary = run("power-cut-all", 15)?;
    ensure!(summary.unsynced_bytes_lost > 0, "no power was cut: {summary:?}");
    Ok(())
}

#[test]
fn every_promise_holds_while_leaders_are_killed_and_nodes_cut_off() -> Result<()> {
    run("leader-kill", 12)?;
    run("partition", 20).map(drop)
}

#[test]
fn lost_acknowledgements_and_entries_cost_time_and_nothing_else() -> Result<()> {
    run("ack-loss", 15).map(drop)
}

#[test]
fn a_weak_network_and_a_disk_that_fails_lose_nothing() -> Result<()> {
    run("weak-network", 12)?;
    run("eio", 12).map(drop)
}

#[test]
fn a_run_without_a_fault_proves_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let status = Command::new(env!("CARGO_BIN_EXE_tidemark-chaos"))
        .args(["run", "--scenario", "leader-kill", "--seconds", "1", "--loopback", "--report"])
        .arg(folder.path())
        .status()?;
    ensure!(status.code() == Some(2), "it ended with {status}");
    Ok(())
}
