//! The rig of the tests with real processes: a child process to be killed, a node in one, and a seed
//! for chance.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use tidemark_env::SeededRng;

/// The slowest line of a child: a node that replays its log on a busy machine.
const LINE_WITHIN: Duration = Duration::from_secs(60);

/// A seed, from `TIDEMARK_SEED` or from the clock, and its numbers.
pub(crate) fn random() -> Result<(u64, SeededRng)> {
    let seed = match std::env::var("TIDEMARK_SEED") {
        Ok(text) => text.parse().context("TIDEMARK_SEED is a number")?,
        Err(_) => UNIX_EPOCH.elapsed()?.subsec_nanos().into(),
    };
    Ok((seed, SeededRng::new(seed)))
}

/// Creates a node of two shards, and starts it in a process of its own; where its gRPC port is.
pub(crate) fn node(data_dir: &Path, errors: PathBuf) -> Result<(Child, String)> {
    let [grpc, http] = [(); 2].map(|()| tidemark_lab::own_address().to_string());
    let binary = env!("CARGO_BIN_EXE_tidemark-store");
    let created = Command::new(binary)
        .args(["create", "--cluster", "0192f5a0-1234-7abc-8def-0123456789ab", "--node", "1"])
        .args(["--shards", "2", "--member", &format!("1={grpc}"), "--data-dir"])
        .arg(data_dir)
        .status()?;
    ensure!(created.success(), "{created}");
    let mut run = Command::new(binary);
    run.args(["run", "--grpc", &grpc, "--http", &http, "--data-dir"]).arg(data_dir);
    Ok((Child::start(run, errors)?, grpc))
}

/// A child process that says what it does line by line; killed when it is dropped.
pub(crate) struct Child {
    process: std::process::Child,
    lines: mpsc::Receiver<String>,
    errors: PathBuf,
}

impl Child {
    /// Starts `command`; what it writes to stderr goes to the file `errors`.
    pub(crate) fn start(mut command: Command, errors: PathBuf) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&errors)?);
        let mut process = command.spawn()?;
        let stdout = process.stdout.take().context("stdout is piped")?;
        let (tx, lines) = mpsc::channel();
        // Ends when the child does, and with it the pipe.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if tx.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Child { process, lines, errors })
    }

    /// Waits for its next line.
    pub(crate) fn line(&mut self) -> Result<String> {
        match self.lines.recv_timeout(LINE_WITHIN) {
            Ok(line) => Ok(line),
            Err(error) => {
                let said = fs::read_to_string(&self.errors).unwrap_or_default();
                bail!("the child says nothing more ({error}); it said on stderr:\n{said}")
            }
        }
    }

    /// Waits until it has ended by itself.
    pub(crate) fn exited(&mut self, within: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status);
            }
            ensure!(Instant::now() < deadline, "the child still runs");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills it by SIGKILL, and returns the lines that nobody read yet.
    pub(crate) fn kill(mut self) -> Result<Vec<String>> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(self.lines.iter().collect())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may be dead already, which is all that is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
