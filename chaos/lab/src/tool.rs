//! The system's own programs.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Runs a program to its end; what it wrote to standard output.
pub(crate) fn run<A: AsRef<OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = A>,
) -> Result<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output =
        output.with_context(|| format!("cannot run {program}: scripts/setup installs it"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    // xfs_io says what went wrong and returns 0.
    let failed = !output.status.success() || (program == "xfs_io" && !said.trim().is_empty());
    ensure!(!failed, "{program}: {}: {}", output.status, said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
