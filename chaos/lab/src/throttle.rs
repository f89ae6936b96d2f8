//! A disk that is slow for one process: a control group whose writes to one device wait.
//!
//! Only what the process itself writes and syncs waits, as with a slow disk of its own; what waits
//! goes on at once when the limit is lifted. Lifted, and the group gone, when it is dropped.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

const ROOT: &str = "/sys/fs/cgroup/blkio";

/// A limit on one process and one device.
pub struct Throttle {
    group: PathBuf,
    home: PathBuf,
    process: u32,
    device: String,
    /// The limit that is set now, if any.
    limit: Option<&'static str>,
}

impl Throttle {
    /// Prepares to slow down what `process` writes to the device of these numbers.
    pub fn create(process: u32, (major, minor): (u32, u32)) -> Result<Self> {
        let home = Path::new(ROOT).join(home(process)?.trim_start_matches('/'));
        // Device numbers are the machine's own: no two runs have the same at a time. One that was
        // killed may have left its group, which is empty then.
        let group = Path::new(ROOT).join(format!("tidemark-lab-{major}-{minor}"));
        let _ = fs::remove_dir(&group);
        fs::create_dir(&group).with_context(|| format!("no control group {}", group.display()))?;
        let device = format!("{major}:{minor}");
        let throttle = Throttle { group, home, process, device, limit: None };
        throttle.move_to(&throttle.group)?;
        Ok(throttle)
    }

    /// So many writes a second from now on.
    pub fn slow(&mut self, writes_per_second: u32) -> Result<()> {
        self.set("blkio.throttle.write_iops_device", writes_per_second)
    }

    /// Nothing is written any more from now on.
    pub fn stall(&mut self) -> Result<()> {
        // One byte a second: a page takes more than an hour.
        self.set("blkio.throttle.write_bps_device", 1)
    }

    fn set(&mut self, limit: &'static str, amount: u32) -> Result<()> {
        self.limit = (amount > 0).then_some(limit);
        let path = self.group.join(limit);
        fs::write(&path, format!("{} {amount}", self.device))
            .with_context(|| path.display().to_string())
    }

    fn move_to(&self, group: &Path) -> Result<()> {
        let path = group.join("cgroup.procs");
        fs::write(&path, self.process.to_string()).with_context(|| path.display().to_string())
    }

    fn lift(&mut self) -> Result<()> {
        if let Some(limit) = self.limit {
            self.set(limit, 0)?;
        }
        // It may be gone.
        let _ = self.move_to(&self.home);
        Ok(fs::remove_dir(&self.group)?)
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        if let Err(error) = self.lift() {
            eprintln!("{} stays: {error:#}", self.group.display());
        }
    }
}

/// The control group that a process is in.
fn home(process: u32) -> Result<String> {
    let groups = fs::read_to_string(format!("/proc/{process}/cgroup"))?;
    let blkio = groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let controllers = parts.nth(1)?;
        controllers.split(',').any(|name| name == "blkio").then(|| parts.next())?
    });
    Ok(blkio.context("this machine has no control groups for disks (version 1)")?.to_owned())
}
