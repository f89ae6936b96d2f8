//! What reached the device: flushes and bytes, as the block layer counts them for the whole disk that
//! a folder lies on. Linux only; it cannot tell whose they are, so nothing else may be running.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};
use serde::Serialize;

/// One sector, in `/sys`, whatever the device has.
const SECTOR_BYTES: u64 = 512;

/// Fields of a device's `stat`, counted from 0, as the kernel's documentation has them.
const SECTORS_WRITTEN: usize = 6;
const FLUSHES: usize = 15;

/// The disk that a folder lies on.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    stat: PathBuf,
}

/// What a disk has done since the machine started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    flushes: u64,
    bytes: u64,
}

/// What a disk did per acknowledged message.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct PerAck {
    /// Flushes of its cache, which is what an fsync waits for.
    pub(crate) flushes: f64,
    /// Bytes written to it, those of the filesystem included.
    pub(crate) bytes: f64,
}

impl Disk {
    /// The disk of this folder; none where there is none, as for a filesystem in memory.
    pub(crate) fn of(folder: &Path) -> Option<Self> {
        let device = fs::metadata(folder).ok()?.dev();
        let block = format!("/sys/dev/block/{}:{}", major(device), minor(device));
        let block = fs::canonicalize(block).ok()?;
        // Flushes are counted for whole disks only.
        let is_part = block.join("partition").exists();
        let whole = if is_part { block.parent()?.to_owned() } else { block };
        let disk = Disk { stat: whole.join("stat") };
        disk.done().is_some().then_some(disk)
    }

    /// What it has done so far.
    pub(crate) fn done(&self) -> Option<Done> {
        parse(&fs::read_to_string(&self.stat).ok()?)
    }
}

impl Done {
    /// What was done since `from`, by the messages acknowledged meanwhile; none when there were none.
    pub(crate) fn per_ack(&self, from: &Done, acked: u64) -> Option<PerAck> {
        let per_ack = |from: u64, to: u64| to.saturating_sub(from) as f64 / acked as f64;
        (acked > 0).then(|| PerAck {
            flushes: per_ack(from.flushes, self.flushes),
            bytes: per_ack(from.bytes, self.bytes),
        })
    }
}

fn parse(stat: &str) -> Option<Done> {
    let field = |at: usize| stat.split_whitespace().nth(at)?.parse::<u64>().ok();
    Some(Done { flushes: field(FLUSHES)?, bytes: field(SECTORS_WRITTEN)? * SECTOR_BYTES })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sectors_and_flushes_are_found_in_a_stat() {
        let stat = "  1 2 3 4 5 6 70 8 9 10 11 12 13 14 15 160 17\n";
        assert_eq!(parse(stat), Some(Done { flushes: 160, bytes: 70 * 512 }));
        assert_eq!(parse("1 2 3 4 5 6 7 8 9 10 11"), None, "a kernel that counts no flushes");
    }

    #[test]
    fn what_a_disk_did_is_per_acknowledgement() {
        let from = Done { flushes: 10, bytes: 1_000 };
        let to = Done { flushes: 40, bytes: 6_000 };
        assert_eq!(to.per_ack(&from, 10), Some(PerAck { flushes: 3.0, bytes: 500.0 }));
        assert_eq!(to.per_ack(&from, 0), None);
    }
}
