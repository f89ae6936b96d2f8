//! Which segments there are: the one file that tells a log from a folder that lost a part of it.
//!
//! ```text
//!   magic 8   format u32   oldest u32   newest u32   crc u32
//! ```
//!
//! It is replaced, never changed. What it does not name is what an interrupted change of segments left.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::ops::RangeInclusive;
use std::path::Path;

use super::super::sync_parent;
use super::error::{LogDamage, SegmentLogError, damaged, io_error};

/// The version of the files that this build reads and writes. Version 1 was a RocksDB database; what versions 6 to
/// 8 held is applied otherwise now: groups were given other portions.
pub(super) const FORMAT_VERSION: u32 = 9;

/// The manifest's name.
pub(super) const MANIFEST: &str = "MANIFEST";

/// The file by which a RocksDB database is known.
const DATABASE: &str = "CURRENT";

const MAGIC: [u8; 8] = *b"TIDEMAN\x02";

const BYTES: usize = 24;

/// The segments of a log, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) oldest: u32,
    pub(super) newest: u32,
}

impl Manifest {
    /// Every segment of the log, the oldest first.
    pub(super) fn segments(self) -> RangeInclusive<u32> {
        self.oldest..=self.newest
    }

    /// Replaces the manifest of the log in `folder`, durably.
    pub(super) fn save(self, folder: &Path) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.extend_from_slice(&MAGIC);
        for field in [FORMAT_VERSION, self.oldest, self.newest] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        let path = folder.join(MANIFEST);
        let new = path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        sync_parent(&path)
    }

    /// Reads the manifest of the log in `folder`.
    pub(super) fn load(folder: &Path) -> Result<Self, SegmentLogError> {
        let path = folder.join(MANIFEST);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && folder.exists() => {
                let path = folder.to_owned();
                return Err(match folder.join(DATABASE).exists() {
                    true => SegmentLogError::Database { path },
                    false => SegmentLogError::NoManifest { path },
                });
            }
            read => read.map_err(io_error(&path))?,
        };
        let damaged = damaged(&path);
        let bytes: [u8; BYTES] = bytes.try_into().map_err(|bytes: Vec<u8>| {
            damaged(LogDamage::Length { bytes: bytes.len(), want: BYTES })
        })?;
        let field = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        if bytes[..8] != MAGIC || field(20) != crc32fast::hash(&bytes[..20]) {
            return Err(damaged(LogDamage::Checksum));
        }
        match field(8) {
            FORMAT_VERSION => Ok(Manifest { oldest: field(12), newest: field(16) }),
            found => Err(SegmentLogError::UnknownFormat { path: folder.to_owned(), found }),
        }
    }
}
