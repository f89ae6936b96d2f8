//! The simulation can fail: what is broken on purpose is caught, with the code for it, by a seed that
//! holds when nothing is broken.

use std::fmt;
use std::ops::Range;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use tidemark_chaos::run::mutants::{Found, line};
use tidemark_checker::Verdict;
use tidemark_mutants::{Mutant, VARIABLE};

use crate::ledger::apart;
use crate::run::Shown;

/// What the simulation can catch, what the check that is meant to do it begins with, and what it asks of
/// the seeds.
pub const CAUGHT: [(Mutant, &str, Option<&str>); 13] = [
    (Mutant::VoteNotSynced, "C12", Some("--votes")),
    (Mutant::InstallInPlace, "C2", None),
    (Mutant::KeepConflicts, "C2", None),
    // States are compared after every step: that comes before a read that is stale.
    (Mutant::LeadWithoutElection, "C2", None),
    (Mutant::ForgetLogOut, "R12", None),
    (Mutant::LeaseTwice, "C15", None),
    (Mutant::RepeatMarks, "R19", None),
    (Mutant::ChangeTooLate, "R19", None),
    (Mutant::AnybodyChanges, "R19", None),
    (Mutant::ChangeForOne, "R19", None),
    (Mutant::CountRecalled, "R19", None),
    (Mutant::FeedTellsOne, "R20", None),
    (Mutant::OwnClock, "C15", Some("--clocks")),
];

/// What became of one.
struct Row {
    mutant: Mutant,
    expected: &'static str,
    /// The first seed that caught it, and what was wrong.
    caught: Option<(u64, String)>,
    /// What the same seed showed when nothing was broken.
    twin: Option<String>,
    tried: u64,
    seconds: u64,
}

impl Row {
    fn holds(&self) -> bool {
        self.caught.is_some() && self.twin.as_deref() == Some(&*Verdict::Holds.to_string())
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { mutant, expected, caught, twin, tried, seconds } = self;
        let (by, what) = match caught {
            Some((seed, wrong)) => (format!("simulation, seed {seed}"), wrong.as_str()),
            None => (format!("simulation, {tried} seeds"), "nothing of that code"),
        };
        let found = Found { caught: self.holds(), what };
        let twin = twin.as_deref().unwrap_or_default();
        f.write_str(&line(*mutant, &by, expected, found, twin, *seconds))
    }
}

/// Tries these mutants, or all that the simulation can catch, each with one seed after the other until
/// one catches it. Were all caught?
pub fn run(only: &[Mutant], seeds: Range<u64>) -> Result<bool> {
    let mut rows = Vec::new();
    for (mutant, expected, option) in CAUGHT {
        if only.is_empty() || only.contains(&mutant) {
            let row = try_one(mutant, expected, option, seeds.clone())?;
            println!("{row}");
            rows.push(row);
        }
    }
    Ok(!rows.is_empty() && rows.iter().all(Row::holds))
}

fn try_one(
    mutant: Mutant,
    expected: &'static str,
    option: Option<&str>,
    seeds: Range<u64>,
) -> Result<Row> {
    let began = Instant::now();
    let (mut caught, mut twin, mut tried) = (None, None, 0);
    for seed in seeds {
        tried += 1;
        let shown = one(seed, option, Some(mutant))?;
        let first = shown.as_ref().and_then(|shown| shown.wrong.first());
        println!("{} seed {seed}: {}", mutant.name(), first.map_or("-", String::as_str));
        let wrong = shown.into_iter().flat_map(|shown| shown.wrong);
        let prefix = format!("{expected}: ");
        if let Some(wrong) = wrong.into_iter().find(|wrong| wrong.starts_with(&prefix)) {
            twin = Some(
                one(seed, option, None)?.map_or("no verdict".to_owned(), |shown| shown.verdict),
            );
            caught = Some((seed, wrong));
            break;
        }
    }
    Ok(Row { mutant, expected, caught, twin, tried, seconds: began.elapsed().as_secs() })
}

fn one(seed: u64, option: Option<&str>, mutant: Option<Mutant>) -> Result<Option<Shown>> {
    let mut program = Command::new(std::env::current_exe().context("this program's file")?);
    program.env_remove(VARIABLE);
    if let Some(mutant) = mutant {
        program.env(VARIABLE, mutant.name());
    }
    Ok(apart(program, seed, option)?.0)
}
