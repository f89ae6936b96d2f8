//! Why a log is refused.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::super::GroupId;
use super::manifest::FORMAT_VERSION;

/// Why the log cannot be created or opened.
#[derive(Debug, Error)]
pub enum SegmentLogError {
    /// The system refuses: missing, no rights, no space.
    #[error("the log {path}: {source}")]
    Io {
        /// The folder, or the file in it.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is one already.
    #[error("the log {path} is there already")]
    Exists {
        /// Where it is.
        path: PathBuf,
    },
    /// Another process has it open.
    #[error("the log {path} is in use by another process")]
    InUse {
        /// Where it is.
        path: PathBuf,
    },
    /// A folder without a manifest.
    #[error("the log {path} has no manifest: its creation was cut off, or it is not ours")]
    NoManifest {
        /// Where it is.
        path: PathBuf,
    },
    /// Written by a build whose log was a database.
    #[error(
        "the log {path} is a RocksDB database of an earlier build, this build knows only format \
         {FORMAT_VERSION}: start the node with the build that wrote it, or create the cluster anew"
    )]
    Database {
        /// Where it is.
        path: PathBuf,
    },
    /// Written by a version with another format.
    #[error("the log {path} has format {found}, this build knows only {FORMAT_VERSION}")]
    UnknownFormat {
        /// Where it is.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// Something that had been synced is not what it was.
    #[error("the log {path} is damaged: {damage}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        damage: LogDamage,
    },
}

/// What is wrong with a file of a log.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LogDamage {
    /// The manifest is shorter or longer than it can be.
    #[error("it has {bytes} bytes, not {want}")]
    Length {
        /// How long it is.
        bytes: usize,
        /// How long it must be.
        want: usize,
    },
    /// The manifest's bytes are others than were written.
    #[error("its checksum does not match")]
    Checksum,
    /// The manifest names a segment, and there is no such file.
    #[error("it is missing")]
    Missing,
    /// A segment that was written to, and that the manifest does not name: it is an old one.
    #[error("it is not named by the manifest, and is more than an interrupted start of it")]
    Unnamed,
    /// The segment's head is not that of this segment.
    #[error("it does not begin as this segment")]
    Head,
    /// The segment's first record, without which the others mean nothing, is not whole.
    #[error("its checkpoint is not whole")]
    Checkpoint,
    /// A sector does not say whose it is, or is a segment's that cannot have written it.
    #[error("sector {at} is not this segment's, nor an older one's")]
    Sector {
        /// Which of the file's sectors.
        at: usize,
    },
    /// A record that had been synced is not whole any more.
    #[error("the record at {at} is not whole, and no power cut leaves one so")]
    Record {
        /// Where in the segment it begins.
        at: usize,
    },
    /// A whole record holds what this build does not know.
    #[error("the record at {at} has an unknown change")]
    Change {
        /// Where in the segment it begins.
        at: usize,
    },
    /// Whole records contradict each other: one that they build on was lost.
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
}

/// Records that cannot all be true.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Contradiction {
    /// An entry that does not follow the ones that are there.
    #[error("the log of {group}: entry {index} behind entries {first} to {next}, {next} excluded")]
    NotNext {
        /// Whose log.
        group: GroupId,
        /// The entry's index.
        index: u64,
        /// The first index that is there.
        first: u64,
        /// The one that should have come.
        next: u64,
    },
    /// A checkpoint that tells of other entries than the segments before it.
    #[error(
        "the log of {group}: {entries} entries from {first}, but {found} from {found_first} were found"
    )]
    Span {
        /// Whose log.
        group: GroupId,
        /// The first index by the checkpoint.
        first: u64,
        /// How many entries by the checkpoint.
        entries: u64,
        /// The first index that was found.
        found_first: u64,
        /// How many were found.
        found: u64,
    },
    /// An entry that is needed is in none of the segments.
    #[error("the log of {group}: entry {index} is in no segment")]
    Gone {
        /// Whose log.
        group: GroupId,
        /// Which entry.
        index: u64,
    },
}

impl From<Contradiction> for io::Error {
    fn from(contradiction: Contradiction) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, contradiction)
    }
}

/// Says of which file an error of the system is.
pub(super) fn io_error(path: &Path) -> impl Fn(io::Error) -> SegmentLogError {
    let path = path.to_owned();
    move |source| SegmentLogError::Io { path: path.clone(), source }
}

/// Says of which file a damage is.
pub(super) fn damaged(path: &Path) -> impl Fn(LogDamage) -> SegmentLogError {
    let path = path.to_owned();
    move |damage| SegmentLogError::Damaged { path: path.clone(), damage }
}
