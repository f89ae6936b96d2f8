//! Tidemark's own side: a fresh cluster, started by the script that everybody starts one with, and
//! the workloads as they are run by themselves.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::peers::plan::Job;
use crate::settings::Selection;
use crate::target::Target;
use crate::workload::{Kind, Pace, Workload};

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
        let size = ["--nodes", "3", "--gateways", "1", "--shards", &shards];
        let options = [&size[..], &["--base-port", &port, "--no-prometheus"]].concat();
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

/// The workload of a job.
pub(crate) fn workload(job: Job) -> Workload {
    let selection = match job {
        Job::Append | Job::AppendBytes | Job::Window1 | Job::Shards { .. } => Selection::Append,
        Job::Send => Selection::Send,
        Job::Deliver | Job::DeliverBytes => Selection::Deliver,
        Job::Latency => Selection::Latency,
        Job::Inbox => Selection::Inbox,
    };
    let mut workload = selection.workloads()[0];
    if let (Job::AppendBytes | Job::DeliverBytes, Kind::Messages(messages)) =
        (job, &mut workload.kind)
    {
        messages.pace = Pace::Open;
    }
    workload
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Messages;

    #[test]
    fn every_job_of_ours_has_its_workload() {
        let name = |job| workload(job).name;
        assert_eq!(name(Job::Shards { shards: 4, deep: true }), "append");
        assert_eq!((name(Job::Send), name(Job::Inbox)), ("send", "inbox"));
        let bytes = workload(Job::AppendBytes);
        assert_eq!(bytes.name, "append");
        assert!(matches!(bytes.kind, Kind::Messages(Messages { pace: Pace::Open, .. })));
    }
}
