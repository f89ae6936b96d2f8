//! The program as a user runs it, on clusters of real processes: one at a time.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// What it says if it ends well.
fn paper(arguments: &[&str]) -> Result<Vec<String>> {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_tidemark-paper"));
    let binaries = program.parent().context("it is in a folder")?;
    ensure!(
        Path::new(binaries).join("tidemark-store").is_file(),
        "not built: cargo build --release --workspace"
    );
    let mut command = Command::new(&program);
    command.args(["--root", ROOT]).args(arguments).env("TIDEMARK_BIN", binaries);
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{said}{}", String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{command:?}: {}", output.status);
    Ok(said.lines().map(str::to_owned).collect())
}

#[test]
fn who_is_there_gets_the_message_and_who_is_away_is_woken_by_every_provider() -> Result<()> {
    let mut said = paper(&[])?;
    let online = said.iter().position(|line| line.starts_with("paper: online ok in_ms="));
    said.remove(online.context("nothing of who is there")?);
    said.sort_unstable();
    let providers = ["apns", "bbpush", "fcm", "mpns", "webhook", "webpush", "wns"];
    assert_eq!(said, providers.map(|provider| format!("paper: provider={provider} ok")));
    Ok(())
}

#[test]
fn one_clock_far_ahead_removes_nothing() -> Result<()> {
    let said = paper(&["--clocks"])?;
    let nothing = said.iter().filter(|line| line.ends_with(": nothing is removed"));
    assert_eq!((nothing.count(), said.len()), (2, 3), "{said:?}");
    assert!(said[2].ends_with(": everything is removed"), "or the test proves nothing: {said:?}");
    Ok(())
}

#[test]
fn a_thousand_devices_are_each_told_of_their_newest_message_by_one_push_at_a_time() -> Result<()> {
    let said = paper(&["--offline", "1000"])?;
    let line = said.last().context("it says nothing")?;
    let fields: Vec<&str> = line.split(' ').collect();
    assert!(line.starts_with("hints: devices=1000 messages=3000 pushes="), "{line}");
    assert!(fields.contains(&"outstanding_max_per_device=1"), "{line}");
    assert!(fields.contains(&"missing=0"), "{line}");
    Ok(())
}
