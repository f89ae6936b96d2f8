//! Which build of the servers runs: the release's, or one that is broken on purpose.

use std::fmt;
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

    /// Tells a process what it is.
    pub fn prepare(self, command: &mut Command) {
        command.env_remove(VARIABLE);
        if let Build::Mutants(Some(mutant)) = self {
            command.env(VARIABLE, mutant.name());
        }
    }

    /// The library that stands between a member and the system, if one does.
    pub fn library(self, member: Member) -> Option<&'static str> {
        let syncs = self != Build::NoFsync || matches!(member, Member::Gateway(_));
        (!syncs).then_some(NO_FSYNC)
    }
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Build::Release => f.write_str("release"),
            Build::Mutants(None) => f.write_str("with mutants, none on"),
            Build::Mutants(Some(mutant)) => write!(f, "with mutants, {} on", mutant.name()),
            Build::NoFsync => f.write_str("release, without fsyncs"),
        }
    }
}
