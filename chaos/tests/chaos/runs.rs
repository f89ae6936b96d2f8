//! Short runs of `tidemark-chaos`, as a user would start them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use tidemark_chaos::run::report::Summary;
use tidemark_checker::history::{Copy, Way};
use tidemark_checker::{Event, Files, History};

/// Runs a scenario, which must hold; its report.
fn run(scenario: &str, seconds: u64) -> Result<Summary> {
    run_seed(scenario, seconds, 1)
}

/// The same with this seed.
fn run_seed(scenario: &str, seconds: u64, seed: u64) -> Result<Summary> {
    let folder = tempfile::tempdir()?;
    let output = Command::new(env!("CARGO_BIN_EXE_tidemark-chaos"))
        .args(["run", "--scenario", scenario])
        .args(["--seconds", &seconds.to_string(), "--seed", &seed.to_string(), "--report"])
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
    let outcomes = summary.delivered + summary.dropped;
    ensure!(outcomes >= summary.acked, "each has a recipient: {summary:?}");
    every_check_had_something_to_judge(scenario, &folder.path().join("run.history"))?;
    Ok(summary)
}

/// A check without events of its kind holds for nothing.
fn every_check_had_something_to_judge(scenario: &str, history: &Path) -> Result<()> {
    let mut seen = BTreeMap::<&str, u64>::new();
    let mut saw = |what| *seen.entry(what).or_default() += 1;
    for event in Files::default().whole(history).events()? {
        match event? {
            Event::Mailbox { .. } => saw("C1, C2: mailboxes of replicas"),
            Event::StateHash { .. } => saw("C2: state hashes"),
            Event::Entry { copy: Copy::Message { .. }, .. } => saw("C3 to C6: entries"),
            Event::Entry { copy: Copy::Refusal { .. }, .. } => saw("C4: refusals"),
            Event::Send { way: Way::Session, .. } => saw("C4, C11: sends of devices"),
            Event::Send { way: Way::Backend, .. } => saw("C4b: attempts of back ends"),
            Event::HeadIs { .. } => saw("C7: heads"),
            Event::RangeIs { .. } => saw("C8: pages"),
            Event::Taken { .. } => saw("C9: entries that devices took"),
            Event::CursorIs { .. } => saw("C10: cursors"),
            Event::Raft(_) => saw("C12: what nodes say of Raft"),
            Event::ProbeAck { .. } => saw("C13: probes"),
            Event::Quiet { .. } => saw("C9d, C13: rest"),
            Event::Fault { .. } => saw("C14: faults"),
            Event::Effect { .. } => saw("C14: effects"),
            Event::Cost { .. } => saw("C15: costs"),
            Event::Decided { .. } => saw("C16: decisions about senders"),
            Event::Hint { .. } => saw("C17: hints"),
            Event::Judged { .. } => saw("C18: what may become of sends"),
            Event::Dropped { .. } => saw("C4, C18: verdicts that a send is dropped"),
            Event::Sent { .. }
            | Event::Head { .. }
            | Event::Range { .. }
            | Event::Start { .. }
            | Event::Stop { .. }
            | Event::Gap { .. }
            | Event::Silent { .. }
            | Event::ReplicaEntry { .. }
            | Event::Healed { .. }
            | Event::Probe { .. }
            | Event::Target { .. } => {}
        }
    }
    println!("{seen:#?}");
    let expected = if scenario == "push-acts" { 20 } else { 17 };
    ensure!(seen.len() == expected, "some check had nothing to judge");
    Ok(())
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
fn what_a_group_is_given_survives_kills_in_the_middle() -> Result<()> {
    run("group-fanout", 15).map(drop)
}

#[test]
fn who_is_away_is_woken_and_what_users_do_is_kept_through_kills() -> Result<()> {
    // A seed that draws a gateway first, and then all nodes, if there is time for them.
    let Summary { refused, dropped, faults, .. } = run_seed("push-acts", 12, 883)?;
    ensure!(refused > 0 && dropped > 0, "{refused} sends were refused, {dropped} dropped");
    let killed: Vec<&str> = faults.iter().map(|fault| fault.kind.as_str()).collect();
    ensure!(killed.first() == Some(&"gateway-kill"), "{killed:?}");
    Ok(())
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
