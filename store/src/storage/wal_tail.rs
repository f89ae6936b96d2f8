//! Tells a torn end of RocksDB's write-ahead log from damage, and cuts it off.
//!
//! A power cut may leave of the last, unsynced write any pages and not the others: its length on
//! disk, its content not. RocksDB calls that a checksum mismatch and refuses, as it does for a
//! flipped bit; but what was never synced was never acknowledged, and a cluster whose nodes all
//! lost their power at once must come back.
//!
//! ```text
//!   … record  record │ record with a hole of zeros │ (lazy records) (one durable record) end
//!             synced ┘ └ cut here
//! ```
//!
//! It is taken for torn only if
//! * the damaged record has a sector that was never written, which a flipped bit cannot make;
//! * nothing behind it proves that it was synced. There is one writer, so a durable record that is
//!   followed by another one had been synced, with all before it.
//!
//! Anything else stays as it is, and refuses.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::log_key::LogKey;

/// RocksDB's log format: blocks of fragments, none across the end of a block.
const BLOCK: usize = 32 * 1024;

/// A fragment's head: masked CRC-32C of the rest, length, kind.
const HEAD: usize = 7;

const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;

/// A disk writes these whole.
const SECTOR: usize = 512;

/// What was cut off a log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// From which file.
    pub(super) file: PathBuf,
    /// How long it is now.
    pub(super) from: usize,
    /// How long it was.
    pub(super) to: usize,
}

/// Cuts a torn end off the newest log in RocksDB's folder, durably; `None` if there is none.
pub(super) fn cut(folder: &Path) -> io::Result<Option<Cut>> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        // An empty one was begun and never synced.
        if path.extension().is_some_and(|extension| extension == "log")
            && entry.metadata()?.len() > 0
        {
            logs.push(path);
        }
    }
    // Their names are numbers of one width.
    let Some(file) = logs.into_iter().max() else { return Ok(None) };
    let log = fs::read(&file)?;
    let Some(from) = torn_at(&log) else { return Ok(None) };
    let opened = OpenOptions::new().write(true).open(&file)?;
    opened.set_len(from as u64)?;
    opened.sync_all()?;
    Ok(Some(Cut { file, from, to: log.len() }))
}

/// Where the torn end begins, if the log has one.
fn torn_at(log: &[u8]) -> Option<usize> {
    let (record, damage) = first_damage(log)?;
    let hole = has_unwritten_sector(log, damage);
    (hole && !proves_sync(log, record, damage)).then_some(record)
}

/// The first record that is not whole, and where in it the damage is; `None` if the log only ends
/// too soon, which RocksDB tolerates by itself.
fn first_damage(log: &[u8]) -> Option<(usize, usize)> {
    let mut at = 0;
    let mut record = None;
    while at < log.len() {
        if BLOCK - at % BLOCK < HEAD {
            at = at.next_multiple_of(BLOCK);
            continue;
        }
        let fragment = Fragment::at(log, at);
        match (fragment.as_ref().map(|fragment| fragment.kind), record) {
            (Some(FIRST), None) => record = Some(at),
            (Some(MIDDLE), Some(_)) => {}
            (Some(LAST), Some(_)) => record = None,
            // A record, or one of the notes that RocksDB puts between them.
            (Some(kind), None) if !matches!(kind, MIDDLE | LAST) => {}
            _ => return Some((record.unwrap_or(at), at)),
        }
        at = fragment?.end;
    }
    None
}

/// Is a whole sector of the fragment at `at` zeros?
fn has_unwritten_sector(log: &[u8], at: usize) -> bool {
    let block_end = (at / BLOCK + 1) * BLOCK;
    let claimed = log.get(at + 4..at + HEAD).map(|head| {
        let length = usize::from(u16::from_le_bytes([head[0], head[1]]));
        if head[2] == 0 { BLOCK } else { HEAD + length }
    });
    let end = (at + claimed.unwrap_or(BLOCK)).min(block_end).min(log.len());
    let first = at / SECTOR * SECTOR;
    (first..end).step_by(SECTOR).any(|sector| {
        // The end of the file is not written to the end of its sector.
        let sector = &log[sector..(sector + SECTOR).min(log.len())];
        sector.iter().all(|byte| *byte == 0)
    })
}

/// Does anything behind `damage` in `record` prove that the record was synced?
fn proves_sync(log: &[u8], record: usize, damage: usize) -> bool {
    let mut durable = begins_durable(log.get(record + HEAD..).unwrap_or_default());
    let mut at = damage + 1;
    // The damage may have hidden where fragments begin: look everywhere.
    while at < log.len() {
        match Fragment::at(log, at) {
            Some(Fragment { kind: FULL | FIRST, .. }) if durable => return true,
            Some(fragment) if matches!(fragment.kind, FULL | FIRST) => {
                durable = fragment.kind == FIRST || !is_lazy(fragment.body);
                at = fragment.end;
            }
            _ => at += 1,
        }
    }
    false
}

/// A fragment whose checksum is right.
struct Fragment<'a> {
    kind: u8,
    body: &'a [u8],
    end: usize,
}

impl Fragment<'_> {
    fn at(log: &[u8], at: usize) -> Option<Fragment<'_>> {
        let head = log.get(at..at + HEAD)?;
        let length = usize::from(u16::from_le_bytes([head[4], head[5]]));
        let end = at + HEAD + length;
        let kind = head[6];
        if kind == 0 || at / BLOCK != (end - 1) / BLOCK {
            return None;
        }
        let summed = log.get(at + HEAD - 1..end)?;
        let crc = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        (crc == masked_crc32c(summed)).then(|| Fragment { kind, body: &summed[1..], end })
    }
}

/// A batch's sequence number and count.
const BATCH_HEAD: usize = 12;
/// What a batch does with a key.
const PUT: u8 = 1;
const DELETE_RANGE: u8 = 15;

/// Is it a batch that was written without a sync: marks and what they remove, no entry, no vote?
fn is_lazy(batch: &[u8]) -> bool {
    let mut rest = batch.get(BATCH_HEAD..).unwrap_or_default();
    let mut marks = 0;
    while !rest.is_empty() {
        let Some((tag, key, after)) = split_change(rest) else { return false };
        match (tag, LogKey::decode(key)) {
            (PUT, Ok(LogKey::Committed(_) | LogKey::Purged(_))) => marks += 1,
            (DELETE_RANGE, Ok(_)) => {}
            _ => return false,
        }
        let Some((_, after)) = split_string(after) else { return false };
        rest = after;
    }
    marks > 0
}

/// Does a batch begin with what is always synced? As far as its damage lets one see.
fn begins_durable(batch: &[u8]) -> bool {
    let change = batch.get(BATCH_HEAD..).and_then(split_change);
    let Some((PUT, key, _)) = change else { return false };
    matches!(LogKey::decode(key), Ok(LogKey::Entry(..) | LogKey::Vote(_)))
}

/// A tag, a key, and what follows.
fn split_change(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (key, rest) = split_string(rest)?;
    Some((*tag, key, rest))
}

/// A string behind its length as a varint.
fn split_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0;
    for (at, byte) in bytes.iter().enumerate().take(4) {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return bytes[at + 1..].split_at_checked(length);
        }
    }
    None
}

/// RocksDB rotates the sum, so that a sum of sums is not trivial.
fn masked_crc32c(bytes: &[u8]) -> u32 {
    const DELTA: u32 = 0xa282_ead8;
    crc32c(bytes).rotate_right(15).wrapping_add(DELTA)
}

/// Only for a log that RocksDB refused, so simple rather than fast.
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = crc32c_table();
    let step = |crc: u32, byte: &u8| TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8);
    !bytes.iter().fold(u32::MAX, step)
}

const fn crc32c_table() -> [u32; 256] {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let mut crc = at as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ (POLYNOMIAL * (crc & 1));
            bit += 1;
        }
        table[at] = crc;
        at += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::storage::{GroupId, log_key};

    /// What tests write: as RocksDB lays it out.
    #[derive(Default)]
    struct Log {
        bytes: Vec<u8>,
        /// Where each record begins.
        records: Vec<usize>,
    }

    impl Log {
        fn add(&mut self, batch: &[u8]) {
            let mut rest = batch;
            let mut first = true;
            while first || !rest.is_empty() {
                let room = BLOCK - self.bytes.len() % BLOCK;
                if room < HEAD {
                    self.bytes.resize(self.bytes.len() + room, 0);
                    continue;
                }
                let (now, later) = rest.split_at(rest.len().min(room - HEAD));
                let kind = match (first, later.is_empty()) {
                    (true, true) => FULL,
                    (true, false) => FIRST,
                    (false, false) => MIDDLE,
                    (false, true) => LAST,
                };
                if first {
                    self.records.push(self.bytes.len());
                }
                let summed = [&[kind], now].concat();
                self.bytes.extend(masked_crc32c(&summed).to_le_bytes());
                self.bytes.extend(u16::try_from(now.len()).expect("below a block").to_le_bytes());
                self.bytes.extend(summed);
                (rest, first) = (later, false);
            }
        }

        fn durable(&mut self, bytes: usize) {
            self.put(&log_key::entry(GroupId::CONTROL, 1), bytes);
        }

        fn lazy(&mut self, bytes: usize) {
            self.put(&log_key::committed(GroupId::CONTROL), bytes);
        }

        fn put(&mut self, key: &[u8], bytes: usize) {
            let length = u8::try_from(key.len()).expect("short");
            let mut batch = [&[7; BATCH_HEAD][..], &[PUT, length], key].concat();
            let mut left = bytes;
            while left >= 0x80 {
                batch.push(0x80 | (left % 0x80) as u8);
                left /= 0x80;
            }
            batch.push(left as u8);
            batch.resize(batch.len() + bytes, b'x');
            self.add(&batch);
        }

        /// The log with a hole: the first whole page of a record, or sector where it has no page.
        fn with_hole(&self, record: usize, bytes: usize) -> Vec<u8> {
            let mut log = self.bytes.clone();
            let from = self.records[record].next_multiple_of(bytes);
            let to = (from + bytes).min(log.len());
            log[from..to].fill(0);
            log
        }
    }

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_whole_log_and_one_that_ends_too_soon_are_left_alone() {
        let mut log = Log::default();
        for bytes in [10, 40_000, 3, 70_000, 32_000] {
            log.durable(bytes);
            log.lazy(20);
        }
        for end in (0..log.bytes.len()).step_by(331) {
            assert_eq!(torn_at(&log.bytes[..end]), None, "{end}");
        }
        assert_eq!(torn_at(&log.bytes), None);
    }

    #[test]
    fn a_last_record_with_a_hole_is_cut_off() {
        for bytes in [6_000, 40_000, 100_000] {
            for page in 0..bytes / 4096 {
                let mut log = Log::default();
                log.durable(20_000);
                log.durable(bytes);
                let hole = log.records[1].next_multiple_of(4096) + page * 4096;
                let end = (hole + 4096).min(log.bytes.len());
                log.bytes[hole..end].fill(0);
                assert_eq!(torn_at(&log.bytes), Some(log.records[1]), "{bytes} {page}");
            }
        }
    }

    #[test]
    fn a_last_record_of_which_nothing_was_written_is_cut_off() {
        let mut log = Log::default();
        log.durable(20_000);
        log.durable(100_000);
        let end = log.records[1];
        log.bytes[end..].fill(0);
        assert_eq!(torn_at(&log.bytes), Some(end));
    }

    #[test]
    fn lazy_records_and_one_durable_one_may_be_unsynced_together() {
        let mut log = Log::default();
        log.durable(8_000);
        for _ in 0..3 {
            log.lazy(2_000);
        }
        log.durable(8_000);
        assert_eq!(torn_at(&log.with_hole(1, 512)), Some(log.records[1]));
        // The next record began after the durable one, and all before it, was synced.
        log.lazy(2_000);
        assert_eq!(torn_at(&log.with_hole(1, 512)), None);
    }

    #[test]
    fn a_hole_in_a_synced_record_is_damage() {
        let mut log = Log::default();
        for _ in 0..20 {
            log.durable(6_000);
        }
        for record in 0..19 {
            assert_eq!(torn_at(&log.with_hole(record, 512)), None, "{record}");
        }
        assert_eq!(torn_at(&log.with_hole(19, 512)), Some(log.records[19]));
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_damage_wherever_it_is(bit in 0..400_000_usize) {
            let mut log = Log::default();
            log.durable(30_000);
            log.lazy(20);
            log.durable(20_000);
            prop_assume!(bit / 8 < log.bytes.len());
            log.bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(torn_at(&log.bytes), None);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            torn_at(&bytes);
        }
    }
}
