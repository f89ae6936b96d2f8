//! What is broken on purpose stays out of the release, and a run without fsyncs is noticed.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tidemark_chaos::build::VARIABLE;
use tidemark_chaos::cluster;

/// Each binary, and something that it certainly says.
const RELEASE: [(&str, &str); 2] = [
    ("tidemark-store", "the damaged log cannot be examined"),
    ("tidemark-gateway", "the store's reply does not go with the command"),
];

fn holds(binary: &[u8], text: &str) -> bool {
    binary.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn the_release_holds_no_mutant() -> Result<()> {
    for (name, certain) in RELEASE {
        let path = cluster::binaries()?.join(name);
        let binary = fs::read(&path).with_context(|| format!("{}", path.display()))?;
        ensure!(holds(&binary, certain), "{name}: nothing is found in it");
        ensure!(!holds(&binary, VARIABLE), "{name} was built with mutants");
    }
    Ok(())
}

/// Proves that the whole rig can fail: what an fsync that does nothing promised is lost, and the
/// checker says so.
#[test]
fn a_cluster_that_never_syncs_loses_what_it_acknowledged() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let output = Command::new(env!("CARGO_BIN_EXE_tidemark-chaos"))
        .args(["run", "--scenario", "power-cut-all", "--seconds", "8", "--seed", "1"])
        .args(["--no-fsync", "--report"])
        .arg(folder.path())
        .output()?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    println!("{said}");
    ensure!(output.status.code() == Some(1), "it ended with {}", output.status);
    ensure!(said.contains("\nC4: "), "no acknowledged send was missed");
    Ok(())
}
