//! The checker can fail: every deliberately broken build must be caught by the check that is meant
//! to catch it, in a run that the same build passes when it is not broken.
//!
//! ```text
//!   recipe ──┬── build with mutants, none on ──► must hold        (once for all that share it)
//!            └── the same, with the mutant on ──► must be violated, with the expected code
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tidemark_checker::report::Code;
use tidemark_checker::{Report, Verdict};
use tidemark_mutants::Mutant;

use super::report::Summary;
use super::scenario::Scenario;
use super::{Plan, Variant, judged};
use crate::build::Build;

/// How long a broken run may take to come to rest, which it may never do.
const REST_WITHIN: Duration = Duration::from_secs(45);

/// A run that catches mutants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Recipe {
    /// Its name in the table, and its folder's.
    name: &'static str,
    scenario: &'static str,
    seconds: u64,
    seed: u64,
    rate: Option<u32>,
    /// The stores' configuration.
    stores: &'static str,
}

/// A log that is flushed and purged all the time.
const SHORT_LOG: &str = "raft.snapshot_entries = 100\nraft.keep_entries = 100\n";

/// States are written out all the time, and logs reach back: what a replica got wrong by itself is on its
/// disk, and neither what its log says nor another replica's state takes its place.
const LONG_WRITTEN_LOG: &str = "raft.snapshot_entries = 100\nraft.keep_entries = 100000\n";

/// A log whose newest part is not in the state on the disk: that would show what the log has forgotten.
const LONG_LOG: &str = "raft.snapshot_entries = 50000\n";

const fn recipe(name: &'static str, scenario: &'static str, seconds: u64, seed: u64) -> Recipe {
    Recipe { name, scenario, seconds, seed, rate: None, stores: "" }
}

const PARTITION: Recipe = recipe("partition", "partition", 32, 3);
const WRITTEN_OUT: Recipe =
    Recipe { stores: LONG_WRITTEN_LOG, ..recipe("partition, written out", "partition", 32, 3) };
const POWER: Recipe = Recipe { stores: LONG_LOG, ..recipe("power-cut-all", "power-cut-all", 8, 1) };
const EMPTY: Recipe = recipe("empty-disk", "empty-disk", 20, 1);
const FAILING: Recipe = recipe("eio", "eio", 30, 1);
const DAMAGE: Recipe = Recipe { stores: LONG_LOG, ..recipe("corrupt", "corrupt", 30, 2) };
const SLOW: Recipe = recipe("slow-consumers", "slow-consumers", 35, 1);
const CHECKED: Recipe = recipe("push-acts", "push-acts", 12, 1);
/// Long enough for both gateways to be killed.
const WOKEN: Recipe = recipe("push-acts, gateways killed", "push-acts", 40, 4);
const LEADERS: Recipe = Recipe { rate: Some(0), ..recipe("leader-kill", "leader-kill", 20, 1) };
const LAGGING: Recipe =
    Recipe { stores: SHORT_LOG, ..recipe("leader-kill, short log", "leader-kill", 20, 1) };
const ALL: Recipe =
    Recipe { stores: SHORT_LOG, ..recipe("kill-all, short log", "kill-all", 12, 6) };

/// How a mutant is caught.
#[derive(Clone, Copy, Debug)]
enum Caught {
    /// By this run, with this code.
    By(Recipe, Code),
    /// By what is named here, and not by this command.
    Elsewhere(&'static str),
}

fn caught(mutant: Mutant) -> Caught {
    use Caught::{By, Elsewhere};
    match mutant {
        Mutant::AckBeforeCommit => By(PARTITION, Code::C4),
        Mutant::NoFsync => By(POWER, Code::C4),
        Mutant::VoteNotSynced => Elsewhere("scripts/sim mutants"),
        Mutant::SnapshotWithoutIds => By(LAGGING, Code::C2),
        Mutant::ForgetfulSession => By(LEADERS, Code::C3),
        Mutant::ApplyInTwoWrites => By(ALL, Code::C2),
        Mutant::ReadWithoutQuorum => By(PARTITION, Code::C7a),
        Mutant::PurgeUnflushed => By(ALL, Code::C13),
        Mutant::InstallInPlace => Elsewhere("scripts/sim mutants"),
        Mutant::KeepConflicts => By(PARTITION, Code::C2),
        Mutant::PushBeforeCommit => By(PARTITION, Code::C9c),
        Mutant::UnknownIsRefused => By(LEADERS, Code::C11),
        Mutant::ConfirmWhenSent => By(LEADERS, Code::C10),
        Mutant::RegisterAfterRead => By(LEADERS, Code::C9d),
        Mutant::KeepLostNumbers => By(WRITTEN_OUT, Code::C1),
        Mutant::SwallowWriteErrors => By(FAILING, Code::C4),
        Mutant::ForgetDamagedLog => By(DAMAGE, Code::C4),
        Mutant::StartOnEmptyDisk => By(EMPTY, Code::C4),
        Mutant::ClockInApply => By(LEADERS, Code::C2),
        Mutant::LeadWithoutElection => Elsewhere("scripts/sim mutants"),
        Mutant::UnboundedQueue => By(SLOW, Code::C15),
        Mutant::UnjudgedGoes | Mutant::DeliverDropped => By(CHECKED, Code::C18),
        Mutant::OwnPushTokens => By(WOKEN, Code::C17),
        Mutant::ForgetLogOut
        | Mutant::LeaseTwice
        | Mutant::RepeatMarks
        | Mutant::ChangeTooLate
        | Mutant::AnybodyChanges
        | Mutant::ChangeForOne
        | Mutant::CountRecalled
        | Mutant::FeedTellsOne
        | Mutant::OwnClock => Elsewhere("scripts/sim mutants"),
    }
}

/// What became of a run.
struct Ran {
    verdict: Result<String, String>,
    /// What was wrong, and how often.
    wrong: BTreeMap<Code, u64>,
    seconds: u64,
}

/// A line of the table.
struct Row {
    mutant: Mutant,
    /// The recipe's name, or what catches it elsewhere.
    by: &'static str,
    expected: Option<Code>,
    broken: Option<Ran>,
    twin: Option<Result<String, String>>,
}

impl Row {
    /// Was it caught as it should be, where this command can?
    fn holds(&self) -> bool {
        let (Some(expected), Some(broken), Some(twin)) = (self.expected, &self.broken, &self.twin)
        else {
            return true;
        };
        twin.as_ref().is_ok_and(|verdict| *verdict == Verdict::Holds.to_string())
            && broken.verdict.as_ref().is_ok_and(|v| *v == Verdict::Violated.to_string())
            && broken.wrong.contains_key(&expected)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { mutant, by, expected, broken, twin } = self;
        let (Some(expected), Some(broken), Some(twin)) = (expected, broken, twin) else {
            return write!(f, "| {} | {} | {by} | | not run | | |", mutant.name(), what(*mutant));
        };
        let found = match &broken.verdict {
            Ok(_) if !broken.wrong.is_empty() => {
                let found: Vec<String> =
                    broken.wrong.iter().map(|(code, times)| format!("{code} ×{times}")).collect();
                found.join(", ")
            }
            Ok(verdict) | Err(verdict) => verdict.clone(),
        };
        let found = Found { caught: self.holds(), what: &found };
        let (Ok(twin) | Err(twin)) = twin;
        f.write_str(&line(*mutant, by, *expected, found, twin, broken.seconds))
    }
}

/// What was found of a mutant.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// What should have been found, beside a twin that holds.
    pub caught: bool,
    /// All of it.
    pub what: &'a str,
}

/// The table's head.
const HEAD: &str = "| mutant | what is broken | caught by | expected | found | not broken | seconds |\n\
                        |---|---|---|---|---|---|---|";

/// A line of the table.
pub fn line(
    mutant: Mutant,
    by: &str,
    expected: impl fmt::Display,
    found: Found<'_>,
    twin: &str,
    seconds: u64,
) -> String {
    let end = if found.caught { "caught" } else { "NOT CAUGHT" };
    let (name, broken) = (mutant.name(), what(mutant));
    format!(
        "| {name} | {broken} | {by} | {expected} | {end}: {} | {twin} | {seconds} |",
        found.what
    )
}

fn what(mutant: Mutant) -> &'static str {
    mutant.what().trim_end_matches('.')
}

/// Runs every mutant, or only these; the table is in `folder` afterwards. It holds if all were caught,
/// and all twins right; it is void if none is caught by this command.
pub async fn run(only: &[Mutant], seed: Option<u64>, folder: &Path, lab: bool) -> Result<Verdict> {
    let mut twins = BTreeMap::<&str, Result<String, String>>::new();
    let mut rows = Vec::new();
    let wanted = |mutant: &&Mutant| only.is_empty() || only.contains(mutant);
    for mutant in Mutant::ALL.iter().copied().filter(|mutant| wanted(&mutant)) {
        let (recipe, expected) = match caught(mutant) {
            Caught::By(recipe, expected) => (recipe, expected),
            Caught::Elsewhere(by) => {
                eprintln!("NOT RUN: {}, which only {by} can catch", mutant.name());
                rows.push(Row { mutant, by, expected: None, broken: None, twin: None });
                continue;
            }
        };
        let recipe = Recipe { seed: seed.unwrap_or(recipe.seed), ..recipe };
        if !twins.contains_key(recipe.name) {
            println!("== {}, not broken", recipe.name);
            let ran = recipe.run(None, &folder.join(recipe.name), lab).await?;
            twins.insert(recipe.name, ran.verdict);
        }
        println!("== {}: {}", mutant.name(), mutant.what());
        let broken = recipe.run(Some(mutant), &folder.join(mutant.name()), lab).await?;
        let twin = Some(twins[recipe.name].clone());
        let row =
            Row { mutant, by: recipe.name, expected: Some(expected), broken: Some(broken), twin };
        println!("{row}");
        rows.push(row);
    }
    let lines: Vec<String> = rows.iter().map(Row::to_string).collect();
    let table = format!("{HEAD}\n{}\n", lines.join("\n"));
    println!("{table}");
    let path = folder.join("mutants.md");
    std::fs::create_dir_all(folder).with_context(|| format!("{}", folder.display()))?;
    std::fs::write(&path, table).with_context(|| format!("{}", path.display()))?;
    Ok(match rows.iter().any(|row| row.broken.is_some()) {
        true if rows.iter().all(Row::holds) => Verdict::Holds,
        true => Verdict::Violated,
        false => Verdict::Void,
    })
}

impl Recipe {
    /// Runs it; an error means that the user ended it, or that there is no such scenario.
    async fn run(&self, mutant: Option<Mutant>, folder: &Path, lab: bool) -> Result<Ran> {
        let scenario = Scenario::named(self.scenario).context("a recipe's scenario is there")?;
        let variant = Variant {
            build: Build::Mutants(mutant),
            rate: self.rate,
            stores: self.stores,
            rest_within: Some(REST_WITHIN),
        };
        let (seconds, seed, folder) = (self.seconds, self.seed, folder.to_owned());
        let began = Instant::now();
        let done = judged(&Plan { scenario, seconds, seed, folder, lab, variant }).await;
        let seconds = began.elapsed().as_secs();
        let (verdict, wrong) = match done {
            Ok((Summary { verdict, .. }, Report { wrong, .. })) => (Ok(verdict), wrong),
            Err(error) => {
                eprintln!("{error:#}");
                (Err(format!("{error}")), BTreeMap::new())
            }
        };
        Ok(Ran { verdict, wrong, seconds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(twin: Verdict, broken: Verdict, wrong: &[Code]) -> Row {
        let wrong = wrong.iter().map(|code| (*code, 1)).collect();
        let broken = Ran { verdict: Ok(broken.to_string()), wrong, seconds: 1 };
        Row {
            mutant: Mutant::NoFsync,
            by: "power-cut-all",
            expected: Some(Code::C4),
            broken: Some(broken),
            twin: Some(Ok(twin.to_string())),
        }
    }

    #[test]
    fn only_the_expected_code_counts_and_only_beside_a_twin_that_holds() {
        let caught = row(Verdict::Holds, Verdict::Violated, &[Code::C4, Code::C13]);
        assert!(caught.holds(), "{caught}");
        for missed in [
            row(Verdict::Holds, Verdict::Violated, &[Code::C13]),
            row(Verdict::Holds, Verdict::Holds, &[]),
            row(Verdict::Holds, Verdict::Void, &[Code::C14]),
            row(Verdict::Void, Verdict::Violated, &[Code::C4]),
            row(Verdict::Violated, Verdict::Violated, &[Code::C4]),
        ] {
            assert!(!missed.holds(), "{missed}");
            assert!(missed.to_string().contains("NOT CAUGHT"), "{missed}");
        }
    }

    #[test]
    fn a_run_that_did_not_take_place_catches_nothing() {
        let failed =
            Ran { verdict: Err("no cluster".to_owned()), wrong: BTreeMap::new(), seconds: 0 };
        let row = Row { broken: Some(failed), ..row(Verdict::Holds, Verdict::Holds, &[]) };
        assert!(!row.holds(), "{row}");
    }

    #[test]
    fn recipes_name_scenarios_that_there_are() {
        for mutant in Mutant::ALL {
            if let Caught::By(recipe, _) = caught(*mutant) {
                assert!(Scenario::named(recipe.scenario).is_some(), "{recipe:?}");
            }
        }
    }
}
