//! The reading half of the log; also what an offline look gets.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

use super::super::{GroupId, GroupMarks, LogReads};
use super::index::{Index, Place};
use super::sectors;

/// Reads what the index knows, from the segments' files. Clones read the same log.
#[derive(Clone)]
pub struct SegmentReads {
    pub(super) index: Arc<RwLock<Index>>,
}

impl SegmentReads {
    pub(super) fn new(index: Index) -> Self {
        SegmentReads { index: Arc::new(RwLock::new(index)) }
    }

    /// What entries in a segment are, with whose and which they are: the first one, and more up to so many
    /// bytes.
    pub(super) fn entries_in(
        &self,
        segment: u32,
        bytes_max: usize,
    ) -> io::Result<Vec<(GroupId, u64, Bytes)>> {
        let (file, places) = {
            let index = self.index.read();
            (file(&index, segment)?, index.entries_in(segment))
        };
        let mut bytes = 0;
        let mut entries = Vec::new();
        for (group, index, place) in places {
            bytes += place.length as usize;
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push((group, index, read(&file, place)?));
        }
        Ok(entries)
    }
}

impl LogReads for SegmentReads {
    fn groups(&self) -> io::Result<Vec<GroupId>> {
        Ok(self.index.read().groups().collect())
    }

    fn marks(&self, group: GroupId) -> io::Result<GroupMarks> {
        Ok(self.index.read().marks_of(group))
    }

    fn entries(
        &self,
        group: GroupId,
        range: Range<u64>,
        bytes_max: usize,
    ) -> io::Result<Vec<(u64, Bytes)>> {
        let mut bytes = 0;
        let mut places = Vec::new();
        {
            let index = self.index.read();
            for (at, place) in index.places(group, range) {
                bytes += place.length as usize;
                if bytes > bytes_max && !places.is_empty() {
                    break;
                }
                // Under the lock: a segment leaves the index before its file becomes another's.
                places.push((at, place, file(&index, place.segment)?));
            }
        }
        places.into_iter().map(|(index, place, file)| Ok((index, read(&file, place)?))).collect()
    }
}

/// The file of a segment, which stays what it is as long as it is held.
fn file(index: &Index, segment: u32) -> io::Result<Arc<File>> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, format!("no segment {segment}"));
    index.segments.get(&segment).map(|segment| Arc::clone(&segment.file)).ok_or_else(missing)
}

fn read(file: &File, place: Place) -> io::Result<Bytes> {
    let from = place.offset as usize;
    Ok(sectors::read_at(file, place.segment, from..from + place.length as usize)?.into())
}
