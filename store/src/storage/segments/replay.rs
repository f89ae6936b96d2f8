//! Reading a log at start: everything is looked at, nothing is believed.

use std::fs;
use std::io;
use std::path::Path;

use tidemark_mutants::{Mutant, is};

use super::error::{LogDamage, SegmentLogError, damaged, io_error};
use super::index::{Index, Segment};
use super::manifest::{MANIFEST, Manifest};
use super::record::{self, End, SEGMENT_HEAD};
use super::sectors::Content;
use super::segment_path;

/// A log as it was found.
pub(super) struct Replayed {
    /// All that its segments say.
    pub(super) index: Index,
    /// The newest segment's content, up to the end of its last whole record.
    pub(super) newest: Vec<u8>,
    /// Up to where that one had certainly been synced.
    pub(super) synced: usize,
}

/// Reads the segments that `manifest` names.
pub(super) fn replay(folder: &Path, manifest: Manifest) -> Result<Replayed, SegmentLogError> {
    let mut index = Index::default();
    let mut newest = Vec::new();
    let mut synced = 0;
    for number in manifest.segments() {
        let path = segment_path(folder, number);
        let damaged = damaged(&path);
        // Two segments are not in memory at once.
        drop(std::mem::take(&mut newest));
        let bytes = fs::read(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => damaged(LogDamage::Missing),
            _ => io_error(&path)(error),
        })?;
        index.segments.insert(number, Segment::default());
        let content = Content::of(number, bytes).map_err(&damaged)?;
        let records = read(&content, number, &mut index).map_err(&damaged)?;
        let refusal = || damaged(LogDamage::Record { at: records.end });
        let is_newest = number == manifest.newest;
        match record::end(&content, number, records.end) {
            End::Clean => {}
            End::Torn if is_newest => tracing::warn!(
                segment = number,
                from = records.end,
                bytes = content.bytes.len() - records.end,
                "a power cut tore the end of the log, which was never synced: a start cuts it off"
            ),
            End::Damaged if is_newest && is(Mutant::ForgetDamagedLog) => {}
            End::Torn | End::Damaged => return Err(refusal()),
        }
        newest = content.bytes;
        newest.truncate(records.end);
        synced = records.synced;
    }
    let path = folder.join(MANIFEST);
    index.check().map_err(|contradiction| damaged(&path)(contradiction.into()))?;
    Ok(Replayed { index, newest, synced })
}

/// The whole records at a segment's beginning.
struct Records {
    /// Where the last one ends.
    end: usize,
    /// Up to where the segment had been synced when that one was written.
    synced: usize,
}

fn read(content: &Content, number: u32, index: &mut Index) -> Result<Records, LogDamage> {
    let segment = &content.bytes[..];
    if !segment.starts_with(&record::segment_head(number)) {
        return Err(LogDamage::Head);
    }
    let mut records = Records { end: SEGMENT_HEAD, synced: SEGMENT_HEAD };
    while let Some(found) = record::at(segment, number, records.end) {
        // What it does not have would be zeros, and is not on the disk.
        if content.has_hole(records.end..found.end) {
            break;
        }
        for change in record::changes(segment, found.body) {
            let (group, change) = change.map_err(|_| LogDamage::Change { at: records.end })?;
            index.replay(number, group, change)?;
        }
        records = Records { end: found.end, synced: found.synced };
    }
    match records.end {
        SEGMENT_HEAD => Err(LogDamage::Checkpoint),
        _ => Ok(records),
    }
}
