//! Checks of the repository that no compiler does, and generated documents.
//!
//! `cargo xtask tidy` checks and writes nothing; `cargo xtask docs` writes what is generated.

mod docs;
mod tidy;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

fn main() -> Result<ExitCode> {
    let root = root()?;
    match std::env::args().nth(1).as_deref() {
        Some("tidy") => {
            let problems = tidy::problems(&root)?;
            for problem in &problems {
                eprintln!("{problem}");
            }
            Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Some("docs") => {
            docs::write(&root)?;
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            eprintln!("usage: cargo xtask tidy|docs");
            Ok(ExitCode::from(2))
        }
    }
}

/// The repository around the current directory. Not the one that this was built from: checkouts
/// may share a target directory, and with it this program.
fn root() -> Result<PathBuf> {
    let asked = Command::new("git").args(["rev-parse", "--show-toplevel"]).output();
    let answer = asked.context("git")?;
    ensure!(answer.status.success(), "git: {}", String::from_utf8_lossy(&answer.stderr));
    Ok(PathBuf::from(String::from_utf8(answer.stdout)?.trim_end()))
}
