//! Tidemark's own side: a fresh cluster, started by the script that everybody starts one with, and
//! the workloads as they are run by themselves.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use tokio::process::Command;

use crate::peers::plan::{Cell, Job};
use crate::report::Measured;
use crate::run;
use crate::settings::{Selection, Settings};
use crate::target::Target;
use crate::workload::{Pace, Workload};

/// Lines of the script's words that an error shows.
const SAID_LINES: usize = 5;

/// Where and how our clusters are started.
#[derive(Clone, Debug)]
pub(crate) struct Ours {
    script: PathBuf,
    /// The folder with the servers' binaries, which lie beside this one.
    binaries: PathBuf,
    home: PathBuf,
    base_port: u16,
}

impl Ours {
    /// Clusters in `home`, with ports from `base_port` on.
    pub(crate) fn new(scripts: &Path, home: PathBuf, base_port: u16) -> Result<Self> {
        let script = std::fs::canonicalize(scripts.join("cluster")).with_context(|| {
            format!(
                "{}: no script `cluster` there; name its folder with --scripts",
                scripts.display()
            )
        })?;
        let own = std::env::current_exe().context("this program's own path")?;
        let binaries = own.parent().context("this program's folder")?.to_owned();
        Ok(Ours { script, binaries, home, base_port })
    }

    /// Starts a cluster.
    pub(crate) async fn up(&self, shards: u16) -> Result<Target> {
        let (shards, port) = (shards.to_string(), self.base_port.to_string());
        let options =
            ["--nodes", "3", "--gateways", "1", "--shards", &shards, "--base-port", &port];
        self.cluster("up", &options).await?;
        Target::find(&self.home.join("cluster.json")).await
    }

    /// Stops the cluster, if there is one.
    pub(crate) async fn stop(&self) -> Result<()> {
        self.cluster("down", &[]).await
    }

    /// Stops the cluster, if there is one, and removes its data.
    pub(crate) async fn down(&self) -> Result<()> {
        self.cluster("down", &["--wipe"]).await
    }

    async fn cluster(&self, command: &str, options: &[&str]) -> Result<()> {
        let mut script = Command::new(&self.script);
        script.arg(command).arg("--home").arg(&self.home).args(options);
        script.env("TIDEMARK_BIN", &self.binaries).stdin(Stdio::null()).kill_on_drop(true);
        let output = script.output().await.with_context(|| self.script.display().to_string())?;
        let said = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<_> = said.lines().rev().take(SAID_LINES).collect();
        let end: Vec<_> = lines.into_iter().rev().collect();
        ensure!(output.status.success(), "scripts/cluster {command} failed:\n{}", end.join("\n"));
        Ok(())
    }
}

/// Runs a cell's workload over a cluster of ours.
pub(crate) async fn drive(target: &Target, cell: Cell, settings: &Settings) -> Result<Measured> {
    let workload =
        workload(cell.job).with_context(|| format!("there is no workload for {cell}"))?;
    run::run(target, &workload, settings).await
}

/// The workload of a job. None where there is none yet: `inbox` is found by its name, as soon as the
/// command line has it.
pub(crate) fn workload(job: Job) -> Option<Workload> {
    let named = |name: &str| {
        let selection = Selection::from_str(name, false).ok()?;
        selection.workloads().first().copied()
    };
    match job {
        Job::Append | Job::Window1 | Job::Shards { .. } => named("append"),
        Job::Send => named("send"),
        Job::Deliver => named("deliver"),
        Job::Latency => named("latency"),
        Job::Inbox => named("inbox"),
        Job::AppendBytes => Some(Workload { pace: Pace::Open, ..named("append")? }),
        Job::DeliverBytes => Some(Workload { pace: Pace::Open, ..named("deliver")? }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_of_ours_but_the_inbox_has_a_workload() {
        let jobs = [
            Job::Append,
            Job::Send,
            Job::Deliver,
            Job::Latency,
            Job::Window1,
            Job::Shards { shards: 4, deep: true },
            Job::AppendBytes,
            Job::DeliverBytes,
        ];
        for job in jobs {
            assert!(workload(job).is_some(), "{}", job.name());
        }
        let bytes = workload(Job::AppendBytes).expect("it has one");
        assert_eq!((bytes.name, bytes.pace), ("append", Pace::Open));
        // Both ways: it is there when, and only when, it can be asked for by name.
        let inbox = Selection::from_str("inbox", false).is_ok();
        assert_eq!(workload(Job::Inbox).is_some(), inbox);
    }
}
