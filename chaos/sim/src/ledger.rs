//! Many seeds, each in a process of its own, and the account of them.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tidemark_checker::Verdict;

use crate::harm;
use crate::machine;
use crate::run::Shown;

/// In so many seeds each kind of fault must have been felt, and each crash point reached: one that never
/// is no longer works.
const ALL_IN: u64 = 100;

/// The account of many seeds.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Seeds that were run.
    pub seeds: u64,
    /// Seeds in which something was wrong, or which ended before there was a verdict.
    pub violated: Vec<u64>,
    /// Seeds that showed too little.
    pub void: Vec<u64>,
    seconds: f64,
    accepted: u64,
    delivered: u64,
    leader_changes: u64,
    compared: u64,
    faults: BTreeMap<String, u64>,
    points: BTreeMap<String, u64>,
    installs: u64,
    lost_batches: u64,
    took: Duration,
}

impl Ledger {
    fn add(&mut self, seed: u64, shown: Option<&Shown>) {
        self.seeds += 1;
        let Some(shown) = shown else { return self.violated.push(seed) };
        self.seconds += shown.seconds;
        self.accepted += shown.accepted;
        self.delivered += shown.delivered;
        self.leader_changes += shown.leader_changes;
        self.compared += shown.compared;
        self.installs += shown.installs;
        self.lost_batches += shown.lost_batches;
        for (point, count) in &shown.points {
            *self.points.entry(point.clone()).or_default() += count;
        }
        for (kind, count) in &shown.faults {
            *self.faults.entry(kind.clone()).or_default() += count;
        }
        if shown.verdict == Verdict::Violated.to_string() {
            self.violated.push(seed);
        } else if shown.verdict != Verdict::Holds.to_string() {
            self.void.push(seed);
        }
    }

    /// Kinds of faults that should have been felt by now, and crash points that should have been
    /// reached, and never were.
    fn never_felt(&self) -> Vec<String> {
        if self.seeds < ALL_IN {
            return Vec::new();
        }
        let kinds = harm::KINDS.into_iter().map(str::to_owned);
        let kinds = kinds.filter(|kind| !self.faults.contains_key(kind));
        let points = machine::crash_points().filter(|point| !self.points.contains_key(point));
        kinds.chain(points).collect()
    }

    /// What all of it shows.
    pub fn verdict(&self) -> Verdict {
        if !self.violated.is_empty() {
            Verdict::Violated
        } else if !self.void.is_empty() || self.seeds == 0 || !self.never_felt().is_empty() {
            Verdict::Void
        } else {
            Verdict::Holds
        }
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ledger { seeds, violated, void, accepted, delivered, .. } = self;
        let faults: Vec<String> =
            self.faults.iter().map(|(kind, count)| format!("{kind}={count}")).collect();
        let minutes = self.took.as_secs_f64() / 60.0;
        writeln!(
            f,
            "ledger: seeds={seeds} violated={} void={} simulated_hours={:.2} accepted={accepted} \
             delivered={delivered} faults={} leader_changes={} snapshots_installed={} \
             batches_lost={} states_compared={}",
            violated.len(),
            void.len(),
            self.seconds / 3_600.0,
            self.faults.values().sum::<u64>(),
            self.leader_changes,
            self.installs,
            self.lost_batches,
            self.compared,
        )?;
        writeln!(f, "faults: {}", faults.join(" "))?;
        let points: Vec<String> =
            self.points.iter().map(|(point, count)| format!("{point}={count}")).collect();
        writeln!(f, "crash points: {}", points.join(", "))?;
        if !violated.is_empty() {
            writeln!(f, "violated: {violated:?}")?;
        }
        if !void.is_empty() {
            writeln!(f, "void: {void:?}")?;
        }
        if !self.never_felt().is_empty() {
            writeln!(f, "never felt: {}", self.never_felt().join(", "))?;
        }
        write!(
            f,
            "took {:.1} min: {:.1} seeds/min, {:.0} simulated seconds in each",
            minutes,
            *seeds as f64 / minutes,
            self.seconds / *seeds as f64,
        )
    }
}

/// Runs these seeds, so many at once, and says of each what it showed.
pub fn run(seeds: Range<u64>, jobs: usize) -> Result<Ledger> {
    let program = std::env::current_exe().context("this program's file")?;
    let (next, began) = (AtomicU64::new(seeds.start), Instant::now());
    let ledger = Mutex::new(Ledger::default());
    let work = || -> Result<()> {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return Ok(());
            }
            let started = Instant::now();
            let (shown, output) = apart(Command::new(&program), seed, None)?;
            println!("{}", line(seed, shown.as_ref(), started.elapsed()));
            if shown.is_none() {
                let said = String::from_utf8_lossy(&output.stderr);
                let last: Vec<&str> = said.lines().rev().take(12).collect();
                last.iter().rev().for_each(|line| println!("    {line}"));
            }
            ledger.lock().expect("nobody panics with it").add(seed, shown.as_ref());
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })?;
    let mut ledger = ledger.into_inner().expect("nobody panics with it");
    ledger.took = began.elapsed();
    ledger.violated.sort_unstable();
    ledger.void.sort_unstable();
    Ok(ledger)
}

/// Runs a seed in a process of its own; what it showed, unless it ended without a verdict.
pub(crate) fn apart(
    mut program: Command,
    seed: u64,
    option: Option<&str>,
) -> Result<(Option<Shown>, Output)> {
    program.args(["seed", &seed.to_string(), "--json"]).args(option).stdin(Stdio::null());
    let output = program.output().context("a seed's process")?;
    let shown = String::from_utf8_lossy(&output.stdout);
    let shown = shown.lines().last().and_then(|line| serde_json::from_str(line).ok());
    Ok((shown, output))
}

/// What a seed showed, in a line.
pub fn line(seed: u64, shown: Option<&Shown>, took: Duration) -> String {
    let Some(shown) = shown else { return format!("seed {seed}: ended without a verdict") };
    let faults: Vec<String> = shown.faults.iter().map(|(kind, n)| format!("{kind}:{n}")).collect();
    let mut line = format!(
        "seed {seed}: {} {:.1} s simulated in {:.1} s, {} accepted, {} delivered, {} faults [{}], \
         trace {}",
        shown.verdict,
        shown.seconds,
        took.as_secs_f64(),
        shown.accepted,
        shown.delivered,
        shown.fault_count(),
        faults.join(" "),
        shown.trace,
    );
    for wrong in shown.wrong.iter().take(5) {
        line.push_str("\n    ");
        line.push_str(wrong);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_seeds_that_never_reach_a_crash_point_are_void_and_name_it() {
        let faults = harm::KINDS.map(|kind| (kind.to_owned(), 1)).into();
        let points = machine::crash_points().map(|point| (point, 1)).collect();
        let mut ledger = Ledger { seeds: ALL_IN, faults, points, ..Ledger::default() };
        assert_eq!(ledger.verdict(), Verdict::Holds);
        let (point, _) = ledger.points.pop_last().expect("a point");
        assert_eq!(ledger.verdict(), Verdict::Void);
        assert!(ledger.to_string().contains(&format!("never felt: {point}\n")), "{ledger}");
        ledger.seeds -= 1;
        assert_eq!(ledger.verdict(), Verdict::Holds);
    }
}
