//! The processes of a peer: started, watched, paused and ended, each by the id that it was started
//! with. None outlives this process: the kernel kills them when it dies, whatever it dies of.
//!
//! Invariant: they are started by the main thread, since the kernel counts a thread's death as its
//! process's. So nothing here is called from a spawned task.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::process::Process;

/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(50);

/// How long a server may take to end by itself.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Lines of a server's log that an error shows.
const LOG_LINES: usize = 8;

/// Servers of one cluster.
#[derive(Default)]
pub(crate) struct Servers {
    all: Vec<Server>,
}

struct Server {
    name: String,
    child: Child,
    log: PathBuf,
    /// Whether it does the work that is measured.
    measured: bool,
}

/// What to start.
pub(crate) struct Program {
    /// By which name it is known.
    pub(crate) name: String,
    /// The executable.
    pub(crate) path: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    /// Whether its costs are of interest.
    pub(crate) measured: bool,
}

impl Servers {
    /// Starts a server in `folder`, which has its log afterwards.
    pub(crate) fn start(&mut self, folder: &Path, program: Program) -> Result<()> {
        let Program { name, path, arguments, environment, measured } = program;
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let log = folder.join(format!("{name}.log"));
        let out = File::create(&log).with_context(|| log.display().to_string())?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(&path).args(arguments).envs(environment);
        command.current_dir(folder).stdin(Stdio::null()).stderr(out.try_clone()?).stdout(out);
        // An interrupt from the terminal is ours alone: we end them.
        command.process_group(0).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("setpriv, to start {name}"))?;
        self.all.push(Server { name, child, log, measured });
        Ok(())
    }

    /// Waits until `attempt` succeeds, as long as all servers run.
    pub(crate) async fn until<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut attempt: impl AsyncFnMut() -> Result<T>,
    ) -> Result<T> {
        let began = Instant::now();
        loop {
            let left = limit.saturating_sub(began.elapsed());
            let tried = timeout(left, attempt()).await;
            self.all_run()?;
            match tried {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) if began.elapsed() >= limit => {
                    return Err(error.context(format!("{what}: not within {limit:?}")));
                }
                Err(_) => bail!("{what}: not within {limit:?}, and no answer"),
                Ok(Err(_)) => sleep(LOOK).await,
            }
        }
    }

    /// Fails when one has ended, with the end of its log.
    pub(crate) fn all_run(&mut self) -> Result<()> {
        for server in &mut self.all {
            if let Some(status) = server.child.try_wait()? {
                let log = fs::read_to_string(&server.log).unwrap_or_default();
                let lines: Vec<_> = log.lines().rev().take(LOG_LINES).collect();
                let end: Vec<_> = lines.into_iter().rev().collect();
                bail!("{} has ended ({status}):\n{}", server.name, end.join("\n"));
            }
        }
        Ok(())
    }

    /// Those that do the work.
    pub(crate) fn processes(&self) -> Vec<Process> {
        let measured = self.all.iter().filter(|server| server.measured);
        let started =
            |server: &Server| Some(Process::started(server.name.clone(), server.child.id()?));
        measured.filter_map(started).collect()
    }

    /// Takes all of them off the processors, until [`Self::resume`].
    pub(crate) fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets them go on.
    pub(crate) fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Asks them to end and waits, so that what they hold in memory is on the disk afterwards.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        for server in &mut self.all {
            let ended = timeout(STOP_TIMEOUT, server.child.wait()).await;
            ensure!(ended.is_ok(), "{} does not end within {STOP_TIMEOUT:?}", server.name);
        }
        Ok(())
    }

    /// Ends them at once.
    pub(crate) async fn kill(mut self) -> Result<()> {
        for server in &mut self.all {
            server.child.start_kill().with_context(|| server.name.clone())?;
        }
        for server in &mut self.all {
            server.child.wait().await?;
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        for server in &self.all {
            // One that has ended was waited for, and its number may be another's.
            let Some(id) = server.child.id() else { continue };
            let pid = i32::try_from(id).ok().and_then(Pid::from_raw).context("a process's id")?;
            kill_process(pid, signal).with_context(|| server.name.clone())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Program {
        Program {
            name: "shell".to_owned(),
            path: "/bin/sh".into(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
            environment: Vec::new(),
            measured: true,
        }
    }

    #[tokio::test]
    async fn a_server_that_ends_is_told_with_its_last_words() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut servers = Servers::default();
        servers.start(folder.path(), shell("echo no such option >&2; exit 3")).expect("sh");
        let waited = servers
            .until("a server", Duration::from_secs(30), async || bail!("not yet") as Result<()>)
            .await;
        let told = waited.expect_err("it has ended").to_string();
        assert!(told.contains("shell has ended") && told.contains("no such option"), "{told}");
    }

    #[tokio::test]
    async fn what_is_started_runs_and_is_killed() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut servers = Servers::default();
        servers.start(folder.path(), shell("sleep 600")).expect("sh");
        servers.all_run().expect("it runs");
        assert_eq!(servers.processes().len(), 1);
        servers.pause().expect("ours");
        servers.resume().expect("ours");
        servers.kill().await.expect("ours");
    }

    #[tokio::test]
    async fn what_does_not_come_is_given_up_with_its_reason() {
        let late = Servers::default()
            .until("an answer", Duration::from_millis(1), async || bail!("refused") as Result<()>)
            .await;
        let told = format!("{:#}", late.expect_err("too late"));
        assert!(told.contains("an answer") && told.contains("refused"), "{told}");
    }
}
