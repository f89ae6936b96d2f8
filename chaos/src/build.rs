//! Which build of the servers runs: the release's, or one that is broken on purpose.

use std::process::Command;

use tidemark_mutants::Mutant;

use crate::cluster::Member;

/// Says to a build with mutants which one is on; see the crate `tidemark-mutants`.
pub const VARIABLE: &str = "TIDEMARK_MUTANT";

/// Makes every fsync a lie; in the package eatmydata.
const NO_FSYNC: &str = "libeatmydata.so";

/// Which build of the servers runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Build {
    /// The release's.
    #[default]
    Release,
    /// The one with mutants in it, and which of them is on; with none it is as good as the release.
    Mutants(Option<Mutant>),
    /// The release's, with stores whose fsyncs do nothing.
    NoFsync,
}

impl Build {
    /// The name of a member's binary.
    pub fn program(self, member: Member) -> String {
        let name = match member {
            Member::Node(_) => "tidemark-store",
            Member::Gateway(_) => "tidemark-gateway",
        };
        match self {
            Build::Release | Build::NoFsync => name.to_owned(),
            Build::Mutants(_) => format!("{name}-mutants"),
        }
    }

    /// Tells a member's process what it is.
    pub fn prepare(self, command: &mut Command, member: Member) {
        command.env_remove(VARIABLE);
        match (self, member) {
            (Build::Mutants(Some(mutant)), _) => drop(command.env(VARIABLE, mutant.name())),
            (Build::NoFsync, Member::Node(_)) => drop(command.env("LD_PRELOAD", NO_FSYNC)),
            _ => {}
        }
    }
}
