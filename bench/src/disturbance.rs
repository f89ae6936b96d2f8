//! What is done to a cluster while it is measured: a command of the caller's, who knows the processes.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;
use tokio::time::timeout;

/// How long it may take: killing a process takes no second, and restarting one takes some.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Something was done.
pub(crate) struct Done {
    /// When it began.
    pub(crate) at: Duration,
    /// What it told of itself.
    pub(crate) said: String,
}

/// Has the shell carry out a command, which must succeed: what it printed.
pub(crate) async fn cause(command: &str) -> Result<String> {
    let mut shell = Command::new("sh");
    // What goes wrong is told where the caller reads it.
    let shell = shell.arg("-c").arg(command).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = shell.kill_on_drop(true).output();
    let output = timeout(TIMEOUT, output).await;
    let output = output.with_context(|| format!("`{command}` takes longer than {TIMEOUT:?}"))?;
    let output = output.with_context(|| format!("`{command}`"))?;
    ensure!(output.status.success(), "`{command}` ended with {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_tells_what_it_did_or_fails() {
        assert_eq!(cause("echo killed 'node-2'").await.expect("it succeeds"), "killed node-2");
        let failed = cause("exit 3").await.expect_err("it fails").to_string();
        assert!(failed.starts_with("`exit 3` ended with"), "{failed}");
    }
}
