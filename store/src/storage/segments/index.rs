//! Where each entry of each group is, in memory: what the segments say, put together.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::super::{Change, GroupId, GroupMarks, LogWrite};
use super::error::Contradiction;
use super::record::{Read, Record, Span};

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) length: u32,
}

/// The place of an entry of which a checkpoint tells, and whose segment is gone: it has to be removed later
/// in the log.
const GONE: Place = Place { segment: 0, offset: 0, length: 0 };

/// A group's marks, and its entries from `first` on.
#[derive(Debug, Default)]
struct Group {
    marks: GroupMarks,
    first: u64,
    entries: VecDeque<Place>,
}

/// How much of a segment is still needed.
#[derive(Debug, Default)]
pub(super) struct Segment {
    /// Everybody who reads from its file has this too: it is written over when nobody does.
    pub(super) in_use: Arc<()>,
    /// Entries in it that are not removed.
    pub(super) live: u64,
    /// And their bytes.
    pub(super) live_bytes: u64,
}

/// All groups and all segments.
#[derive(Debug, Default)]
pub(super) struct Index {
    groups: BTreeMap<GroupId, Group>,
    /// By number; the last one is written to.
    pub(super) segments: BTreeMap<u32, Segment>,
}

impl Index {
    /// Changes are written; the entries among them are at `places`.
    pub(super) fn apply(
        &mut self,
        writes: Vec<LogWrite>,
        places: Vec<Place>,
    ) -> Result<(), Contradiction> {
        let mut places = places.into_iter();
        for LogWrite { group, change } in writes {
            match change {
                Change::Vote(vote) => self.marks(group).vote = Some(vote),
                Change::Committed(committed) => self.marks(group).committed = Some(committed),
                Change::Entry { index, .. } => {
                    self.entry(group, index, places.next().expect("each entry has one"))?;
                }
                Change::Truncate { range } => self.truncate(group, range.start),
                Change::Purge { range, mark } => self.purge(group, range.end, mark),
            }
        }
        Ok(())
    }

    /// A change is read from a record of `segment`.
    pub(super) fn replay(
        &mut self,
        segment: u32,
        group: GroupId,
        change: Read<'_>,
    ) -> Result<(), Contradiction> {
        let owned = Bytes::copy_from_slice;
        match change {
            Read::Vote(vote) => self.marks(group).vote = Some(owned(vote)),
            Read::Committed(committed) => self.marks(group).committed = Some(owned(committed)),
            Read::Entry(index, range) => self.entry(group, index, Place::new(segment, range))?,
            Read::Truncate(range) => self.truncate(group, range.start),
            Read::Purge(range, mark) => self.purge(group, range.end, owned(mark)),
            Read::Span(span) => self.span(group, span)?,
        }
        Ok(())
    }

    /// What the next segment begins with.
    pub(super) fn checkpoint(&self) -> Record {
        let mut record = Record::new(Vec::new());
        for (group, Group { marks, first, entries }) in &self.groups {
            record.group(*group, marks, Span { first: *first, entries: entries.len() as u64 });
        }
        record
    }

    /// All groups, in order.
    pub(super) fn groups(&self) -> impl Iterator<Item = GroupId> {
        self.groups.keys().copied()
    }

    /// What `group` has besides entries.
    pub(super) fn marks_of(&self, group: GroupId) -> GroupMarks {
        self.groups.get(&group).map(|group| group.marks.clone()).unwrap_or_default()
    }

    /// Where the entries of `group` in `range` are.
    pub(super) fn places(
        &self,
        group: GroupId,
        range: Range<u64>,
    ) -> impl Iterator<Item = (u64, Place)> {
        self.groups.get(&group).into_iter().flat_map(move |Group { first, entries, .. }| {
            let from = range.start.max(*first);
            let to = range.end.min(first + entries.len() as u64);
            (from..to).map(move |index| (index, entries[(index - first) as usize]))
        })
    }

    /// The entries that are in this segment.
    pub(super) fn entries_in(&self, segment: u32) -> Vec<(GroupId, u64, Place)> {
        let in_group = |(group, Group { first, entries, .. }): (&GroupId, &Group)| {
            let (group, first) = (*group, *first);
            let here =
                entries.iter().enumerate().filter(move |(_, place)| place.segment == segment);
            here.map(move |(at, place)| (group, first + at as u64, *place)).collect::<Vec<_>>()
        };
        self.groups.iter().flat_map(in_group).collect()
    }

    /// Lets go of the oldest segments of which nothing is needed, but not of the newest; which is the oldest
    /// then, and which went.
    pub(super) fn let_go(&mut self) -> (u32, BTreeMap<u32, Segment>) {
        let newest = *self.segments.last_key_value().expect("there is one to write to").0;
        let needed = |(number, segment): &(&u32, &Segment)| segment.live > 0 || **number == newest;
        let oldest = self.segments.iter().find(needed).map_or(newest, |(number, _)| *number);
        let kept = self.segments.split_off(&oldest);
        (oldest, std::mem::replace(&mut self.segments, kept))
    }

    /// An entry is stored at `place`.
    pub(super) fn entry(
        &mut self,
        group: GroupId,
        index: u64,
        place: Place,
    ) -> Result<(), Contradiction> {
        let Group { first, entries, .. } = self.groups.entry(group).or_default();
        if entries.is_empty() {
            *first = index;
        }
        let at = index.checked_sub(*first).and_then(|at| usize::try_from(at).ok());
        match at {
            Some(at) if at == entries.len() => entries.push_back(place),
            // It was copied out of an old segment.
            Some(at) if at < entries.len() => {
                let old = std::mem::replace(&mut entries[at], place);
                self.removed(old);
            }
            _ => {
                let (first, next) = (*first, *first + entries.len() as u64);
                return Err(Contradiction::NotNext { group, index, first, next });
            }
        }
        if let Some(segment) = self.segments.get_mut(&place.segment) {
            segment.live += 1;
            segment.live_bytes += u64::from(place.length);
        }
        Ok(())
    }

    /// Refuses if an entry that should be there is in no segment.
    pub(super) fn check(&self) -> Result<(), Contradiction> {
        for (group, Group { first, entries, .. }) in &self.groups {
            if let Some(at) = entries.iter().position(|place| *place == GONE) {
                return Err(Contradiction::Gone { group: *group, index: first + at as u64 });
            }
        }
        Ok(())
    }

    fn marks(&mut self, group: GroupId) -> &mut GroupMarks {
        &mut self.groups.entry(group).or_default().marks
    }

    fn truncate(&mut self, group: GroupId, from: u64) {
        let Group { first, entries, .. } = self.groups.entry(group).or_default();
        let kept = usize::try_from(from.saturating_sub(*first)).unwrap_or(usize::MAX);
        let removed: Vec<_> = entries.drain(kept.min(entries.len())..).collect();
        removed.into_iter().for_each(|place| self.removed(place));
    }

    fn purge(&mut self, group: GroupId, upto: u64, mark: Bytes) {
        let Group { marks, first, entries } = self.groups.entry(group).or_default();
        marks.purged = Some(mark);
        let count = usize::try_from(upto.saturating_sub(*first)).unwrap_or(usize::MAX);
        let removed: Vec<_> = entries.drain(..count.min(entries.len())).collect();
        *first += removed.len() as u64;
        removed.into_iter().for_each(|place| self.removed(place));
    }

    /// A checkpoint tells of entries in segments before; they are gone, if these are.
    fn span(&mut self, group: GroupId, span: Span) -> Result<(), Contradiction> {
        let Span { first, entries } = span;
        let is_oldest = self.segments.len() == 1;
        let known = self.groups.entry(group).or_default();
        if is_oldest {
            known.first = first;
            known.entries = (0..entries).map(|_| GONE).collect();
        }
        let (found_first, found) = (known.first, known.entries.len() as u64);
        match (found_first, found) == (first, entries) || entries == 0 && found == 0 {
            true => Ok(()),
            false => Err(Contradiction::Span { group, first, entries, found_first, found }),
        }
    }

    fn removed(&mut self, place: Place) {
        if let Some(segment) = self.segments.get_mut(&place.segment) {
            segment.live -= 1;
            segment.live_bytes -= u64::from(place.length);
        }
    }
}

impl Place {
    /// What is at `range` of `segment`.
    pub(super) fn new(segment: u32, range: Range<usize>) -> Self {
        let small = |at: usize| u32::try_from(at).expect("a segment's size is bounded");
        Place { segment, offset: small(range.start), length: small(range.len()) }
    }
}
