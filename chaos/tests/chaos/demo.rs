//! The local cluster and the demo, as a user starts them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tidemark_chaos::cluster::binaries;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

const MESSAGES: usize = 400;

/// Seconds that one command may take: three of them are less than a test may.
const PATIENCE: &str = "100";

/// A cluster of `scripts/cluster` in a folder of the test; it is down when this is dropped.
struct Local {
    folder: TempDir,
    base_port: u16,
    _alone: File,
}

impl Local {
    fn new() -> Result<Self> {
        let alone = tidemark_lab::alone()?;
        // No port of these is given to whoever asks the system for any.
        let mut bases = (20_000..30_000).step_by(400);
        let base_port = bases.find(|base| are_free(*base)).context("all ports are in use")?;
        Ok(Local { folder: tempfile::tempdir()?, base_port, _alone: alone })
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("cluster")
    }

    fn script(&self, arguments: &[&str]) -> Result<String> {
        self.run(PathBuf::from(ROOT).join("scripts/cluster"), arguments)
    }

    /// Runs a program on this cluster; what it says if it ends well and in time.
    fn run(&self, program: impl AsRef<OsStr>, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("timeout");
        command.arg(PATIENCE).arg(program).args(arguments).arg("--home").arg(self.home());
        // As they were built with this test, and not once more.
        let output = command.env("TIDEMARK_BIN", binaries()?).output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        println!("{said}{}", String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{command:?}: {}", output.status);
        Ok(said)
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        if let Err(error) = self.script(&["down"]) {
            eprintln!("the cluster may still be up: {error:#}");
        }
    }
}

/// Does nobody listen on the ports of a cluster with this first one?
fn are_free(base_port: u16) -> bool {
    (base_port..base_port + 400).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
}

#[test]
fn the_demo_on_a_local_cluster_ends_with_a_clean_ledger() -> Result<()> {
    let local = Local::new()?;
    // As an `up` leaves it that was interrupted.
    fs::create_dir_all(local.home().with_extension("part").join("node-1/log"))?;
    local.script(&["up", "--base-port", &local.base_port.to_string()])?;
    let demo = binaries()?.join("tidemark-demo");
    let said = local.run(demo, &["--root", ROOT, "--messages", &MESSAGES.to_string()])?;
    let ledger = said.lines().last().context("it says nothing")?;
    let delivered = MESSAGES * 3;
    let clean = format!(
        "ledger: sent={MESSAGES} acked={MESSAGES} delivered={delivered} lost=0 duplicated=0 \
         out_of_order=0 seq_gaps=0 failovers=1 max_pause_ms="
    );
    let pause = ledger.strip_prefix(&clean).with_context(|| format!("it ends with {ledger}"))?;
    ensure!(pause.parse::<u64>().is_ok(), "it ends with {ledger}");
    local.script(&["down"])?;
    ensure!(are_free(local.base_port), "something still runs");
    Ok(())
}
