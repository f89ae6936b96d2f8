//! Where peers run: a folder of their own, ports of their own, programs from the cache.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;
use tokio::time::{Instant, sleep};

/// Nodes of every cluster.
pub(crate) const NODES: u16 = 3;

/// How long removing a folder is tried, and how long to wait in between.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(50);

/// A folder and the ports from a number on.
#[derive(Clone, Debug)]
pub(crate) struct Ground {
    folder: PathBuf,
    base_port: u16,
}

impl Ground {
    /// In this folder, with ports from this number on.
    pub(crate) fn new(folder: PathBuf, base_port: u16) -> Self {
        Ground { folder, base_port }
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder of a node, from 1 on.
    pub(crate) fn node(&self, node: u16) -> PathBuf {
        self.folder.join(format!("node-{node}"))
    }

    /// The port of a node, from 1 on, for one of the things it listens for, from 0 on. Somebody else's
    /// is refused: we would measure them.
    pub(crate) fn port(&self, what: u16, node: u16) -> Result<u16> {
        let port = self.base_port + 10 * what + node;
        TcpListener::bind(("127.0.0.1", port))
            .with_context(|| format!("port {port} is not free: choose another --base-port"))?;
        Ok(port)
    }

    /// The same port of all nodes.
    pub(crate) fn ports(&self, what: u16) -> Result<Vec<u16>> {
        (1..=NODES).map(|node| self.port(what, node)).collect()
    }

    /// Makes the folder anew, and lets the disk settle, so that nothing of an earlier cell is still on
    /// its way.
    pub(crate) async fn clear(&self) -> Result<()> {
        self.remove().await?;
        fs::create_dir_all(&self.folder).with_context(|| self.folder.display().to_string())?;
        settle(&self.folder).await
    }

    /// Removes the folder; a process that was killed a moment ago may still put something into it.
    pub(crate) async fn remove(&self) -> Result<()> {
        let began = Instant::now();
        loop {
            match fs::remove_dir_all(&self.folder) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                Err(_) if began.elapsed() < REMOVE_TIMEOUT => sleep(LOOK).await,
                Err(error) => return Err(error).context(self.folder.display().to_string()),
            }
        }
    }
}

/// Waits until all that was written to the filesystem of this folder is on its disk.
pub(crate) async fn settle(folder: &Path) -> Result<()> {
    let mut sync = Command::new("sync");
    let ended = sync.arg("-f").arg(folder).stdin(Stdio::null()).kill_on_drop(true).status();
    let status = ended.await.context("sync")?;
    ensure!(status.success(), "sync -f {}: {status}", folder.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = taken.local_addr().expect("bound").port();
        let ground = Ground::new(PathBuf::new(), port - 11);
        let refused = ground.port(1, 1).expect_err("taken").to_string();
        assert!(refused.contains(&port.to_string()), "{refused}");
    }

    #[tokio::test]
    async fn a_cleared_folder_is_empty() {
        let folder = tempfile::tempdir().expect("a folder");
        let ground = Ground::new(folder.path().join("peers"), 1);
        ground.remove().await.expect("nothing there");
        fs::create_dir_all(ground.node(1)).expect("a folder");
        ground.clear().await.expect("ours");
        assert_eq!(fs::read_dir(ground.folder()).expect("it is there").count(), 0);
    }
}
