//! The floor under everything: what this machine does at most of a part of the work, in the same run, so
//! that a table shows how far a whole system is from it.
//!
//! | floor | what it does |
//! |---|---|
//! | `raw_log` | writes and syncs bodies in three files, as three nodes on one machine would; no protocol |
//! | `echo` | sends bodies over gRPC streams and back; no storage |
//! | `one_commit` | our stores without a gateway, with the smallest command there is: a number of a counter |
//!
//! All have as many in flight as the workloads. Costs are of all processes, what loads them included.

mod echo;
mod one_commit;
mod raw_log;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use crate::process::{Process, Usage};
use crate::target::Target;

/// The longest time that is told from longer ones, in µs.
const LONGEST_US: u64 = 60_000_000;

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Floor {
    pub(crate) name: &'static str,
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// Processor time of all processes, per message; none where one does not tell.
    pub(crate) cpu_us_per_message: Option<f64>,
}

/// What is done, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) senders: usize,
    /// Of each sender.
    pub(crate) in_flight: usize,
    /// Bytes.
    pub(crate) body: usize,
    pub(crate) warmup: Duration,
    pub(crate) measured: Duration,
}

impl Shape {
    /// Of all senders.
    fn all_in_flight(&self) -> usize {
        self.senders * self.in_flight
    }
}

/// The log alone, in this folder.
pub(crate) async fn raw_log(folder: &Path, shape: &Shape) -> Result<Floor> {
    let (files, shape_) = (folder.to_owned(), *shape);
    let work = move |tally: Tally| async move {
        let written = tokio::task::spawn_blocking(move || raw_log::write(&files, &shape_, tally));
        written.await?
    };
    measure("raw_log", shape, vec![Process::own()], work).await
}

/// The streams alone.
pub(crate) async fn echo(shape: &Shape) -> Result<Floor> {
    let shape_ = *shape;
    measure("echo", shape, vec![Process::own()], async move |tally| {
        echo::exchange(&shape_, tally).await
    })
    .await
}

/// The stores alone.
pub(crate) async fn one_commit(target: &Target, shape: &Shape) -> Result<Floor> {
    let stores = target.processes.iter().filter(|process| !process.is_gateway());
    let processes = stores.cloned().chain([Process::own()]).collect();
    let shape_ = *shape;
    measure("one_commit", shape, processes, async move |tally| {
        one_commit::allocate(target.stores(), &shape_, tally).await
    })
    .await
}

/// When messages count, and how long those took.
#[derive(Clone)]
struct Tally {
    begins: Instant,
    ends: Instant,
    took: Histogram<u64>,
}

impl Tally {
    fn new(shape: &Shape) -> Self {
        let begins = Instant::now() + shape.warmup;
        let took = Histogram::new_with_max(LONGEST_US, 3).expect("legal bounds");
        Tally { begins, ends: begins + shape.measured, took }
    }

    /// A message that was due then is done.
    fn done(&mut self, due: Instant) {
        let now = Instant::now();
        if (self.begins..self.ends).contains(&now) {
            let took = u64::try_from((now - due).as_micros()).unwrap_or(LONGEST_US);
            self.took.saturating_record(took);
        }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.ends
    }

    fn add(&mut self, other: &Tally) {
        self.took.add(&other.took).expect("the same bounds");
    }
}

async fn measure(
    name: &'static str,
    shape: &Shape,
    processes: Vec<Process>,
    work: impl AsyncFnOnce(Tally) -> Result<Tally>,
) -> Result<Floor> {
    eprintln!("== the floor: {name}");
    let tally = Tally::new(shape);
    let watch = async {
        sleep_until(tally.begins).await;
        let from = usage(&processes).await;
        sleep_until(tally.ends).await;
        (from, usage(&processes).await)
    };
    let (done, (from, to)) = tokio::join!(work(tally.clone()), watch);
    let took = done.context(name)?.took;
    let costs = processes.iter().zip(from.into_iter().zip(to)).map(|(process, (from, to))| {
        process.cost(&from?, &to?, shape.measured, took.len()).cpu_us_per_message
    });
    let ms = |quantile: f64| took.value_at_quantile(quantile) as f64 / 1_000.0;
    Ok(Floor {
        name,
        per_second: took.len() as f64 / shape.measured.as_secs_f64(),
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
        cpu_us_per_message: costs.sum(),
    })
}

async fn usage(processes: &[Process]) -> Vec<Option<Usage>> {
    let mut all = Vec::with_capacity(processes.len());
    for process in processes {
        all.push(process.usage().await);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        senders: 4,
        in_flight: 4,
        body: 256,
        warmup: Duration::from_millis(50),
        measured: Duration::from_millis(400),
    };

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_log_is_written_and_streams_are_answered() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = raw_log(folder.path(), &SHAPE).await.expect("a disk");
        let echo = echo(&SHAPE).await.expect("loopback");
        for Floor { name, per_second, p50_ms, p99_ms, .. } in [log, echo] {
            assert!(per_second > 1.0 && p50_ms > 0.0 && p99_ms >= p50_ms, "{name}: {per_second}");
        }
        let files = std::fs::read_dir(folder.path()).expect("a folder");
        let lengths: Vec<_> =
            files.map(|file| file.expect("a file").metadata().expect("its length").len()).collect();
        assert_eq!(lengths.len(), 3);
        assert!(lengths.iter().all(|length| *length > 0), "{lengths:?}");
    }
}
