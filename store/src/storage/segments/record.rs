//! What a segment's content is, byte by byte; [`super::sectors`] has where in the file it lies.
//!
//! ```text
//!   magic 8   number u32   crc u32                                                  the segment's head
//!   crc u32   crc of the body u32   length u32   number u32   offset u32   synced u32   a record's head
//!   body, and zeros up to the next multiple of 8
//! ```
//!
//! Numbers are little-endian. A head's checksum covers what follows in it.
//! It says where it stands, so that bytes of another place never pass for it, and up to where its segment
//! had been synced when it was written: a damaged record before that had been acknowledged, and is loss.
//!
//! A body is one batch: changes, each a tag and its fields, one behind the other.
//!
//! ```text
//!   1 vote        group u32   length u32   bytes
//!   2 committed   group u32   length u32   bytes
//!   3 entry       group u32   index u64    length u32   head and body as stored
//!   4 truncate    group u32   from u64     to u64
//!   5 purge       group u32   from u64     to u64       length u32   mark
//!   6 span        group u32   first u64    entries u64
//! ```
//!
//! A segment's first record is its checkpoint: all marks, and which entries there are in the segments
//! before it.

use std::ops::Range;

use super::super::{Change, GroupId, GroupMarks, LogWrite};
use super::sectors::Content;

/// The segment's head.
pub(super) const SEGMENT_HEAD: usize = 16;

/// A record's head.
const HEAD: usize = 24;

/// Records begin at multiples of this.
const ALIGN: usize = 8;

const MAGIC: [u8; 8] = *b"TIDELOG\x03";

const VOTE: u8 = 1;
const COMMITTED: u8 = 2;
const ENTRY: u8 = 3;
const TRUNCATE: u8 = 4;
const PURGE: u8 = 5;
const SPAN: u8 = 6;

/// Which entries of a group are in the segments before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) first: u64,
    pub(super) entries: u64,
}

/// One change as it is read from a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read<'a> {
    Vote(&'a [u8]),
    Committed(&'a [u8]),
    /// An entry, and where in its segment it is.
    Entry(u64, Range<usize>),
    Truncate(Range<u64>),
    Purge(Range<u64>, &'a [u8]),
    Span(Span),
}

/// The head of segment `number`.
pub(super) fn segment_head(number: u32) -> [u8; SEGMENT_HEAD] {
    let mut head = [0; SEGMENT_HEAD];
    head[..8].copy_from_slice(&MAGIC);
    head[8..12].copy_from_slice(&number.to_le_bytes());
    let crc = crc32fast::hash(&head[..12]);
    head[12..].copy_from_slice(&crc.to_le_bytes());
    head
}

/// A record that is being put together.
pub(super) struct Record {
    bytes: Vec<u8>,
    /// Where in it its entries are.
    entries: Vec<Range<usize>>,
}

impl Record {
    /// An empty one, in a buffer whose former content goes.
    pub(super) fn new(mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        bytes.resize(HEAD, 0);
        Record { bytes, entries: Vec::new() }
    }

    /// Bytes that it takes.
    pub(super) fn len(&self) -> usize {
        self.bytes.len().next_multiple_of(ALIGN)
    }

    /// The buffer, for the next one.
    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }

    /// Where in it its entries are, in the order in which they were added.
    pub(super) fn entries(&self) -> &[Range<usize>] {
        &self.entries
    }

    /// Adds a change.
    pub(super) fn add(&mut self, LogWrite { group, change }: &LogWrite) {
        match change {
            Change::Vote(vote) => self.string(VOTE, *group, vote),
            Change::Committed(committed) => self.string(COMMITTED, *group, committed),
            Change::Entry { index, value } => {
                self.entry(*group, *index, [&value.head, &value.body]);
            }
            Change::Truncate { range } => {
                self.tag(TRUNCATE, *group);
                self.numbers([range.start, range.end]);
            }
            Change::Purge { range, mark } => self.purge(*group, range, mark),
        }
    }

    /// Adds an entry, in two parts.
    pub(super) fn entry(&mut self, group: GroupId, index: u64, [head, body]: [&[u8]; 2]) {
        self.tag(ENTRY, group);
        self.bytes.extend_from_slice(&index.to_le_bytes());
        self.length(head.len() + body.len());
        let from = self.bytes.len();
        self.bytes.extend_from_slice(head);
        self.bytes.extend_from_slice(body);
        self.entries.push(from..self.bytes.len());
    }

    /// Adds a group's marks, as they are, and which entries it has in the segments before.
    pub(super) fn group(&mut self, group: GroupId, marks: &GroupMarks, span: Span) {
        let GroupMarks { vote, committed, purged } = marks;
        if let Some(vote) = vote {
            self.string(VOTE, group, vote);
        }
        if let Some(committed) = committed {
            self.string(COMMITTED, group, committed);
        }
        if let Some(mark) = purged {
            self.purge(group, &(0..0), mark);
        }
        self.tag(SPAN, group);
        self.numbers([span.first, span.entries]);
    }

    /// Its bytes, for this place in segment `number`, which is synced up to `synced`.
    pub(super) fn finish(&mut self, number: u32, offset: usize, synced: usize) -> &[u8] {
        let small = |at: usize| u32::try_from(at).expect("a segment's size is bounded");
        let length = small(self.bytes.len() - HEAD);
        self.bytes.resize(self.len(), 0);
        let fields =
            [crc32fast::hash(&self.bytes[HEAD..]), length, number, small(offset), small(synced)];
        for (at, field) in (4..HEAD).step_by(4).zip(fields) {
            self.bytes[at..at + 4].copy_from_slice(&field.to_le_bytes());
        }
        let crc = crc32fast::hash(&self.bytes[4..HEAD]);
        self.bytes[..4].copy_from_slice(&crc.to_le_bytes());
        &self.bytes
    }

    fn tag(&mut self, tag: u8, group: GroupId) {
        self.bytes.push(tag);
        self.bytes.extend_from_slice(&group.get().to_le_bytes());
    }

    fn string(&mut self, tag: u8, group: GroupId, bytes: &[u8]) {
        self.tag(tag, group);
        self.length(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    fn purge(&mut self, group: GroupId, range: &Range<u64>, mark: &[u8]) {
        self.tag(PURGE, group);
        self.numbers([range.start, range.end]);
        self.length(mark.len());
        self.bytes.extend_from_slice(mark);
    }

    fn length(&mut self, length: usize) {
        let length = u32::try_from(length).expect("a batch is bounded");
        self.bytes.extend_from_slice(&length.to_le_bytes());
    }

    fn numbers(&mut self, numbers: [u64; 2]) {
        numbers.iter().for_each(|number| self.bytes.extend_from_slice(&number.to_le_bytes()));
    }
}

/// A whole record in a segment.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Up to where its segment had been synced when it was written.
    pub(super) synced: usize,
    /// The batch.
    pub(super) body: Range<usize>,
    /// Where it ends.
    pub(super) end: usize,
}

/// What a whole head says of its record.
struct Head {
    body_crc: u32,
    body: Range<usize>,
    synced: usize,
    end: usize,
}

/// The head at `at` of segment `number`, if it is whole.
fn head(segment: &[u8], number: u32, at: usize) -> Option<Head> {
    let bytes: &[u8; HEAD] = segment.get(at..)?.first_chunk()?;
    let field =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let is_here = field(12) == number && field(16) as usize == at;
    let is_whole = is_here && field(0) == crc32fast::hash(&bytes[4..]);
    let body = at + HEAD..at + HEAD + field(8) as usize;
    let end = body.end.next_multiple_of(ALIGN);
    is_whole.then_some(Head { body_crc: field(4), body, synced: field(20) as usize, end })
}

/// The record at `at` of segment `number`, if it is whole.
pub(super) fn at(segment: &[u8], number: u32, at: usize) -> Option<Found> {
    let Head { body_crc, body, synced, end } = head(segment, number, at)?;
    // The zeros behind it are a part of it: whatever changes in a segment is noticed.
    let is_whole = crc32fast::hash(segment.get(body.start..end)?) == body_crc;
    is_whole.then_some(Found { synced, body, end })
}

/// What follows the last whole record of the newest segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Nothing.
    Clean,
    /// What a power cut left of what was being written.
    Torn,
    /// Something that had been synced is not what it was.
    Damaged,
}

/// How many whole records segment `number` begins with.
pub(super) fn count(segment: &[u8], number: u32) -> usize {
    let first = at(segment, number, SEGMENT_HEAD);
    std::iter::successors(first, |found| at(segment, number, found.end)).count()
}

/// Looks at the end of the newest segment, behind its last whole record.
///
/// A power cut leaves of what was not synced any sectors and not the others: a record with a sector that
/// the segment never wrote was not written whole. A record may begin in the sector where the one before
/// it ends; without it that one goes on with zeros. A head further on that was written after a sync behind
/// `from` proves that what is there had been: then it is damage.
pub(super) fn end(content: &Content, number: u32, from: usize) -> End {
    let segment = &content.bytes[..];
    let is_blank = content.rest_of_sector(from).iter().all(|byte| *byte == 0);
    let is_unwritten = match head(segment, number, from) {
        Some(Head { end, .. }) => content.has_hole(from..end),
        None if is_blank && content.is_last(from) => return End::Clean,
        // It is the head that was not written: nobody knows how long the record is.
        None => is_blank || content.has_hole(from..from + HEAD),
    };
    let behind = (from..segment.len()).step_by(ALIGN).skip(1);
    let mut proofs = behind.filter_map(|at| head(segment, number, at));
    match is_unwritten && !proofs.any(|head| head.synced > from) {
        true => End::Torn,
        false => End::Damaged,
    }
}

/// The changes of a record, in order.
pub(super) struct Changes<'a> {
    segment: &'a [u8],
    at: usize,
}

/// A record with a change that this build does not know.
#[derive(Debug)]
pub(super) struct Unknown;

/// Goes through the body of a whole record in a segment.
pub(super) fn changes(segment: &[u8], body: Range<usize>) -> Changes<'_> {
    Changes { segment: &segment[..body.end], at: body.start }
}

impl<'a> Changes<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let taken = self.segment.get(self.at..self.at.checked_add(bytes)?)?;
        self.at += bytes;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    fn change(&mut self) -> Option<(GroupId, Read<'a>)> {
        let tag = *self.take(1)?.first()?;
        let group = GroupId::new(self.u32()?);
        let read = match tag {
            VOTE => Read::Vote(self.bytes()?),
            COMMITTED => Read::Committed(self.bytes()?),
            ENTRY => {
                let index = self.u64()?;
                let bytes = self.bytes()?.len();
                Read::Entry(index, self.at - bytes..self.at)
            }
            TRUNCATE => Read::Truncate(self.u64()?..self.u64()?),
            PURGE => Read::Purge(self.u64()?..self.u64()?, self.bytes()?),
            SPAN => Read::Span(Span { first: self.u64()?, entries: self.u64()? }),
            _ => return None,
        };
        Some((group, read))
    }
}

impl<'a> Iterator for Changes<'a> {
    type Item = Result<(GroupId, Read<'a>), Unknown>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.segment.len() {
            return None;
        }
        let change = self.change().ok_or(Unknown);
        if change.is_err() {
            self.at = self.segment.len();
        }
        Some(change)
    }
}
