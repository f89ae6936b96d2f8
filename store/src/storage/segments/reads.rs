//! The reading half of the log; also what an offline look gets.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

use super::super::{GroupId, GroupMarks, LogReads};
use super::index::{Index, Place};
use super::{sectors, segment_path};

/// Reads what the index knows, from the segments' files. Clones read the same log.
#[derive(Clone)]
pub struct SegmentReads {
    folder: Arc<Path>,
    pub(super) index: Arc<RwLock<Index>>,
}

impl SegmentReads {
    pub(super) fn new(folder: &Path, index: Index) -> Self {
        SegmentReads { folder: folder.into(), index: Arc::new(RwLock::new(index)) }
    }

    /// What entries in a segment are, with whose and which they are: the first one, and more up to so many
    /// bytes.
    pub(super) fn entries_in(
        &self,
        segment: u32,
        bytes_max: usize,
    ) -> io::Result<Vec<(GroupId, u64, Bytes)>> {
        let mut files = Files::default();
        let places = {
            let index = self.index.read();
            files.open(&self.folder, &index, segment)?;
            index.entries_in(segment)
        };
        let mut bytes = 0;
        let mut entries = Vec::new();
        for (group, index, place) in places {
            bytes += place.length as usize;
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push((group, index, files.read(place)?));
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
        let mut files = Files::default();
        {
            let index = self.index.read();
            for (at, place) in index.places(group, range) {
                bytes += place.length as usize;
                if bytes > bytes_max && !places.is_empty() {
                    break;
                }
                files.open(&self.folder, &index, place.segment)?;
                places.push((at, place));
            }
        }
        places.into_iter().map(|(index, place)| Ok((index, files.read(place)?))).collect()
    }
}

/// The segments that a read needs.
#[derive(Default)]
struct Files(BTreeMap<u32, Reading>);

/// A file that stays what it is as long as this is there.
struct Reading {
    file: File,
    _in_use: Arc<()>,
}

impl Files {
    /// With the index locked: a segment leaves it before its file goes or becomes another's.
    fn open(&mut self, folder: &Path, index: &Index, segment: u32) -> io::Result<()> {
        if let std::collections::btree_map::Entry::Vacant(vacant) = self.0.entry(segment) {
            let file = File::open(segment_path(folder, segment))?;
            let in_use = index.segments.get(&segment).map(|segment| segment.in_use.clone());
            vacant.insert(Reading { file, _in_use: in_use.unwrap_or_default() });
        }
        Ok(())
    }

    fn read(&self, place: Place) -> io::Result<Bytes> {
        let Reading { file, .. } =
            self.0.get(&place.segment).expect("it was opened for this place");
        let from = place.offset as usize;
        Ok(sectors::read_at(file, place.segment, from..from + place.length as usize)?.into())
    }
}
