//! Checks of the repository that no compiler does, and generated documents.
//!
//! `cargo xtask tidy` checks and writes nothing; `cargo xtask docs` writes what is generated.

mod docs;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

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

/// The repository: this crate's parent.
fn root() -> Result<PathBuf> {
    let parent = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    parent.map(Path::to_owned).context("xtask lies in the repository")
}
