//! What was acknowledged survives a power cut and kill -9: a child process sends as fast as it
//! can on a filesystem of its own, and loses its power (or its life) after a random number of
//! acknowledgements; then its node is started here and compared with the ledger.
//!
//! Needs root, loop devices, and these packages: e2fsprogs (mkfs.ext4), xfsprogs (xfs_io),
//! util-linux (mount, umount), eatmydata (libeatmydata1).
//!
//! A failure prints the seed; `TIDEMARK_SEED=…` cuts at the same places, as far as a test with
//! real processes can.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use tidemark_env::{Rng, SeededRng, SystemClock};
use tidemark_lab::disk::{Cut, LoopFs, Loss};
use tidemark_store::config::{DiskConfig, StoreConfig};
use tidemark_store::node::Node;
use tidemark_store_core::value::Verdict;
use tokio::runtime::{Builder, Runtime};

use crate::device::{Device, verdict};
use crate::ledger::{self, Ledger, Said, USERS, Wrong};
use crate::node;
use crate::rig::{self, Child};

const IMAGE_BYTES: u64 = 512 << 20;

/// Power cuts in a row on the same data.
const CYCLES: u64 = 5;

/// A build that never syncs must lose something within so many cuts.
const CONTROL_CYCLES: u64 = 3;

/// The child's data directory; the test function that is the child does nothing without it.
const CHILD_DIR: &str = "TIDEMARK_TEST_CHILD_DIR";
/// Which child on this data, for ids that must be new.
const CHILD_CYCLE: &str = "TIDEMARK_TEST_CHILD_CYCLE";

/// Small, so that the state is flushed, the log purged and its segment changed many times between two cuts.
fn config(data_dir: &Path) -> StoreConfig {
    let mut config = node::config(data_dir);
    config.raft.snapshot_entries = 100;
    config.raft.keep_entries = 50;
    config.raft.segment_bytes = 16 << 10;
    // Its disk is a small one.
    config.disk = DiskConfig { free_bytes_min: 0, free_bytes_reserve: 0 };
    config
}

/// The process that is killed.
#[test]
#[ignore = "the child process of the other tests here"]
fn child() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let cycle = std::env::var(CHILD_CYCLE).unwrap().parse().unwrap();
    runtime().block_on(send_for_ever(&config(&PathBuf::from(dir)), cycle));
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

async fn send_for_ever(config: &StoreConfig, cycle: u8) {
    if !config.data_dir.exists() {
        node::create(config).unwrap();
    }
    let node = node::start(config).await;
    let mut failed = node.fatal();
    let senders = (0..USERS).map(|at| tokio::spawn(send_from(Arc::clone(&node), at, cycle)));
    let senders = join_all(senders);
    tokio::select! {
        // What the process of a node does: its log has failed, so it stops at once.
        failure = failed.wait_for(Option::is_some) => eprintln!("the log failed: {:?}", *failure.unwrap()),
        ended = senders => eprintln!("nobody sends any more: {ended:?}"),
    }
    std::process::exit(3);
}

async fn send_from(node: Arc<Node>, at: usize, cycle: u8) {
    let open_id = [cycle, u8::try_from(at).unwrap()].repeat(8).try_into().unwrap();
    let device = Device::open(&node, &ledger::user(at), open_id).await.unwrap();
    let session = device.session;
    say(Said::Opened { at, session });
    for n in 1.. {
        match verdict(node.propose(ledger::send(at, session, n)).await) {
            Ok(Verdict::Accepted { seq, time }) => say(Said::Acked { at, session, n, seq, time }),
            other => panic!("send {n} of user {at}: {other:?}"),
        }
    }
}

/// One whole line at once.
fn say(said: Said) {
    let mut stdout = std::io::stdout().lock();
    let line = ledger::line(UNIX_EPOCH.elapsed().unwrap(), &said);
    stdout.write_all(format!("\n{line}\n").as_bytes()).unwrap();
    stdout.flush().unwrap();
}

/// A filesystem, and what was acknowledged on it.
struct Rig {
    fs: LoopFs,
    ledger: Ledger,
    rng: SeededRng,
    runtime: Runtime,
    cycles: u8,
}

impl Rig {
    fn new() -> Result<(u64, Self)> {
        let (seed, rng) = rig::random()?;
        eprintln!("TIDEMARK_SEED={seed}");
        let (fs, ledger) = (LoopFs::create(IMAGE_BYTES)?, Ledger::default());
        Ok((seed, Rig { fs, ledger, rng, runtime: runtime(), cycles: 0 }))
    }

    fn config(&self) -> StoreConfig {
        config(&self.fs.data())
    }

    /// Lets a child send until it has had some number of acknowledgements.
    fn send(&mut self, acks_max: u64, preload: Option<&str>) -> Result<Child> {
        self.cycles += 1;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--exact", "power_cut::child", "--ignored", "--nocapture"]);
        command.env(CHILD_DIR, self.fs.data()).env(CHILD_CYCLE, self.cycles.to_string());
        if let Some(library) = preload {
            command.env("LD_PRELOAD", library);
        }
        let mut child = Child::start(command, self.fs.safe().join("stderr"))?;
        let acks = 1 + self.rng.number() % acks_max;
        let mut had = 0;
        while had < acks {
            had += u64::from(self.ledger.note(&child.line()?, None)?);
        }
        Ok(child)
    }

    /// Kills the child; what it had said by then was acknowledged, unless the power was cut before.
    fn kill(&mut self, child: Child, cut: Option<Duration>) -> Result<()> {
        for line in child.kill()? {
            self.ledger.note(&line, cut)?;
        }
        Ok(())
    }

    fn cut(&mut self, cut: Cut, child: Child) -> Result<Loss> {
        let when = self.fs.cut(cut, &self.rng)?;
        self.kill(child, Some(when))?;
        self.fs.restore()
    }

    /// Starts the node here, and compares it with the ledger; the number of sends asked again.
    fn verify(&mut self) -> Result<usize, Wrong> {
        let config = self.config();
        let Rig { ledger, runtime, .. } = self;
        runtime.block_on(async {
            let started = node::serving(&config, Arc::new(SystemClock::new())).await;
            let node = started.map_err(|error| Wrong(format!("it does not start: {error}")))?;
            let checked = ledger.verify(&node).await;
            if let Err(error) = node::stop(node).await {
                panic!("it does not stop: {error}");
            }
            checked
        })
    }
}

#[test]
fn what_was_acknowledged_survives_power_cuts() -> Result<()> {
    let _lock = tidemark_lab::alone()?;
    let (seed, mut rig) = Rig::new()?;
    for cycle in 1..=CYCLES {
        let started = Instant::now();
        let cut = match rig.rng.number() % 5 {
            0 => Cut::Metadata,
            1 | 2 => Cut::Torn,
            _ => Cut::Plain,
        };
        let child = rig.send(3_000, None)?;
        let loss = rig.cut(cut, child)?;
        // The second cut hits a node that has just recovered from the first one by itself.
        let retries = match cycle {
            1 => None,
            _ => {
                let verified = rig.verify();
                Some(verified.map_err(|Wrong(what)| {
                    anyhow::anyhow!("seed {seed}, cycle {cycle}, {cut:?}: {what}")
                })?)
            }
        };
        eprintln!(
            "cycle {cycle}: {cut:?}, {} acknowledged so far and {} late, lost {} unsynced bytes and {} files, \
             {retries:?} retried, {:.1} s",
            rig.ledger.acked,
            rig.ledger.late,
            loss.bytes(),
            loss.0.len(),
            started.elapsed().as_secs_f64(),
        );
    }
    Ok(())
}

/// Proves that the rig can fail: without fsyncs the same test loses what was acknowledged.
#[test]
fn a_node_that_never_syncs_loses_what_it_acknowledged() -> Result<()> {
    const LIBRARY: &str = "libeatmydata.so";
    let _lock = tidemark_lab::alone()?;
    installed(LIBRARY)?;
    let (seed, mut rig) = Rig::new()?;
    node::create(&rig.config())?;
    for cycle in 1..=CONTROL_CYCLES {
        let child = rig.send(2_000, Some(LIBRARY))?;
        rig.cut(Cut::Plain, child)?;
        if let Err(Wrong(what)) = rig.verify() {
            eprintln!("cut {cycle} of {} acknowledged: {what}", rig.ledger.acked);
            return Ok(());
        }
    }
    anyhow::bail!("seed {seed}: {CONTROL_CYCLES} cuts lost nothing: the rig does not see a loss")
}

fn installed(library: &str) -> Result<()> {
    let folders = std::fs::read_dir("/usr/lib").context("/usr/lib")?;
    let found = folders.flatten().any(|folder| folder.path().join(library).exists());
    ensure!(found, "this test needs the package eatmydata: no {library} in /usr/lib/*");
    Ok(())
}

#[test]
fn what_was_acknowledged_survives_kill_9() -> Result<()> {
    let _lock = tidemark_lab::alone()?;
    let (seed, mut rig) = Rig::new()?;
    let child = rig.send(3_000, None)?;
    rig.kill(child, None)?;
    let retries = rig.verify().map_err(|Wrong(what)| anyhow::anyhow!("seed {seed}: {what}"))?;
    eprintln!("{} acknowledged, {retries} retried", rig.ledger.acked);
    Ok(())
}
