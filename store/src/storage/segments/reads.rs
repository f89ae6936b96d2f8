//! The reading half of the log; also what an offline look gets.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

use super::super::{GroupId, GroupMarks, LogReads};
use super::index::{Index, Place};
use super::segment_path;

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
        let places = self.index.read().entries_in(segment);
        let mut files = Files::default();
        files.open(&self.folder, segment)?;
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
                // Under the lock: a segment leaves the index before its file goes, and an open file stays.
                files.open(&self.folder, place.segment)?;
                places.push((at, place));
            }
        }
        places.into_iter().map(|(index, place)| Ok((index, files.read(place)?))).collect()
    }
}

/// The segments that a read needs.
#[derive(Default)]
struct Files(BTreeMap<u32, File>);

impl Files {
    fn open(&mut self, folder: &Path, segment: u32) -> io::Result<()> {
        if let std::collections::btree_map::Entry::Vacant(vacant) = self.0.entry(segment) {
            vacant.insert(File::open(segment_path(folder, segment))?);
        }
        Ok(())
    }

    fn read(&self, place: Place) -> io::Result<Bytes> {
        let file = self.0.get(&place.segment).expect("it was opened for this place");
        let mut bytes = vec![0; place.length as usize];
        file.read_exact_at(&mut bytes, place.offset.into())?;
        Ok(bytes.into())
    }
}
