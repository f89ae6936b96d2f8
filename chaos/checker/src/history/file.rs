//! A writer's file of events.
//!
//! ```text
//!   magic (8 bytes)   format version (u32)
//!   length (u32)   CRC-32 of the payload (u32)   payload: the event, in postcard
//!   length ...
//! ```
//!
//! All numbers are little-endian. A writer only appends. One that was killed leaves at most an
//! incomplete last frame, which is an error of its own kind, for the caller to accept or not;
//! whatever else does not fit is damage, and is never skipped.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use thiserror::Error;

use super::event::{Event, Nanos};

/// What every file begins with.
pub const MAGIC: [u8; 8] = *b"TIDEHIST";

/// The format that this build writes and reads.
pub const VERSION: u32 = 1;

/// The longest payload: a page of 10,000 entries and more. A length beyond it is damage.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

const HEADER_BYTES: usize = MAGIC.len() + size_of::<u32>();
const FRAME_HEADER_BYTES: usize = 2 * size_of::<u32>();
const BUFFER_BYTES: usize = 256 << 10;

/// An event was not written.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The file cannot be written.
    #[error("the history cannot be written")]
    Io(#[from] io::Error),
    /// The event is too large for a frame.
    #[error("an event of {bytes} bytes, at most {FRAME_BYTES_MAX}")]
    TooLarge {
        /// Its encoded size.
        bytes: usize,
    },
    /// It is older than the event before it: its time was not taken by whoever held the writer.
    #[error("an event of {at} after one of {last}")]
    Backwards {
        /// The event's time.
        at: Nanos,
        /// The time of the one before it.
        last: Nanos,
    },
}

/// Appends events to a file of its own.
///
/// The events of a file are in order of time. Tasks that share a writer take the time while they
/// hold it. An event that is not flushed dies with the process, so [`Writer::flush`] goes before
/// a request leaves: what was asked is known, whatever happens to the asker.
#[derive(Debug)]
pub struct Writer {
    file: BufWriter<File>,
    frame: Vec<u8>,
    last: Nanos,
}

impl Writer {
    /// Begins a new file. It is an error if there is one already.
    pub fn create(path: &Path) -> Result<Self, WriteError> {
        let file = File::create_new(path)?;
        let mut file = BufWriter::with_capacity(BUFFER_BYTES, file);
        file.write_all(&MAGIC)?;
        file.write_all(&VERSION.to_le_bytes())?;
        file.flush()?;
        Ok(Writer { file, frame: Vec::new(), last: Nanos::default() })
    }

    /// Appends an event. After an error of the file the writer is of no more use; after the
    /// others nothing was written.
    pub fn write(&mut self, event: &Event) -> Result<(), WriteError> {
        let at = event.at().unwrap_or(self.last);
        if at < self.last {
            return Err(WriteError::Backwards { at, last: self.last });
        }
        self.frame.clear();
        self.frame = postcard::to_extend(event, std::mem::take(&mut self.frame))
            .expect("an event is plain data, which always encodes");
        let bytes = self.frame.len();
        let length = u32::try_from(bytes).ok().filter(|_| bytes <= FRAME_BYTES_MAX);
        let length = length.ok_or(WriteError::TooLarge { bytes })?;
        self.file.write_all(&length.to_le_bytes())?;
        self.file.write_all(&crc32fast::hash(&self.frame).to_le_bytes())?;
        self.file.write_all(&self.frame)?;
        self.last = at;
        Ok(())
    }

    /// Hands everything to the system, where it survives this process, though not the machine.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        Ok(self.file.flush()?)
    }
}

/// A file is not, or not to its end, what a writer leaves.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("the history cannot be read")]
    Io(#[from] io::Error),
    /// The file does not begin as a history does.
    #[error("the file is no history")]
    Foreign,
    /// Another version of the format.
    #[error("format version {found} is unknown, this build reads version {VERSION}")]
    Version {
        /// The version found.
        found: u32,
    },
    /// The file ends inside a frame, as that of a killed writer may.
    #[error("the file ends inside the frame at byte {offset}")]
    Torn {
        /// Where the incomplete frame begins, in bytes.
        offset: u64,
    },
    /// A frame is not what was written.
    #[error("the frame at byte {offset} is damaged: {reason}")]
    Damaged {
        /// Where the frame begins, in bytes.
        offset: u64,
        /// What does not fit.
        reason: String,
    },
}

/// Reads a file's events, one by one. After an error there are no more.
#[derive(Debug)]
pub struct Reader {
    file: BufReader<File>,
    frame: Vec<u8>,
    offset: u64,
    ended: bool,
}

impl Reader {
    /// Opens a file and reads its header.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let mut file = BufReader::with_capacity(BUFFER_BYTES, File::open(path)?);
        let mut header = [0; HEADER_BYTES];
        let got = read_up_to(&mut file, &mut header)?;
        let (magic, version) = header.split_at(MAGIC.len());
        if magic[..got.min(MAGIC.len())] != MAGIC[..got.min(MAGIC.len())] {
            return Err(ReadError::Foreign);
        }
        if got < HEADER_BYTES {
            return Err(ReadError::Torn { offset: 0 });
        }
        let found = u32::from_le_bytes(version.try_into().expect("the rest of a header"));
        if found != VERSION {
            return Err(ReadError::Version { found });
        }
        Ok(Reader { file, frame: Vec::new(), offset: HEADER_BYTES as u64, ended: false })
    }

    fn read(&mut self) -> Result<Option<Event>, ReadError> {
        let offset = self.offset;
        let damaged = |reason: String| ReadError::Damaged { offset, reason };
        let mut header = [0; FRAME_HEADER_BYTES];
        match read_up_to(&mut self.file, &mut header)? {
            0 => return Ok(None),
            FRAME_HEADER_BYTES => {}
            _ => return Err(ReadError::Torn { offset }),
        }
        let [l0, l1, l2, l3, sum @ ..] = header;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(damaged(format!("a length of {length} bytes, at most {FRAME_BYTES_MAX}")));
        }
        self.frame.resize(length, 0);
        if read_up_to(&mut self.file, &mut self.frame)? < length {
            return Err(ReadError::Torn { offset });
        }
        if crc32fast::hash(&self.frame) != u32::from_le_bytes(sum) {
            return Err(damaged("its checksum differs".to_owned()));
        }
        let (event, rest) = postcard::take_from_bytes(&self.frame)
            .map_err(|error| damaged(format!("{length} bytes do not decode: {error}")))?;
        if !rest.is_empty() {
            return Err(damaged(format!("{} of {length} bytes are left over", rest.len())));
        }
        self.offset += (FRAME_HEADER_BYTES + length) as u64;
        Ok(Some(event))
    }
}

impl Iterator for Reader {
    type Item = Result<Event, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let event = self.read().transpose();
        self.ended = !matches!(event, Some(Ok(_)));
        event
    }
}

/// Fills `bytes` as far as the file goes, and says how far that was.
fn read_up_to(file: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
