//! The keys of the log database. Numbers are big-endian, so that byte order is log order.
//!
//! ```text
//! kind  1 byte   then                              value
//! 0x00  format   nothing                           u32: the version of keys and values
//! 0x01  vote     group u32                         the vote
//! 0x02  committed group u32                        a log id
//! 0x03  purged   group u32                         a log id
//! 0x10  entry    group u32, index u64              an entry
//! ```
//!
//! A kind number once shipped is never reused. All keys of one kind have one length; a key of
//! another length or kind is corruption, not something to skip.

use thiserror::Error;

use super::GroupId;

/// Why a stored key cannot be one of ours.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum KeyError {
    /// No byte to say which kind it is.
    #[error("a log key is empty")]
    Empty,
    /// A kind this version does not know.
    #[error("log key kind {0:#04x} is unknown")]
    UnknownKind(u8),
    /// The wrong number of bytes behind the kind.
    #[error("a log key of kind {kind:#04x} has {bytes} bytes, not {want}")]
    Length {
        /// The key's kind.
        kind: u8,
        /// How long it is.
        bytes: usize,
        /// How long it must be.
        want: usize,
    },
}

/// The key of the format version.
pub(crate) const FORMAT: [u8; 1] = [0x00];

const VOTE: u8 = 0x01;
const COMMITTED: u8 = 0x02;
const PURGED: u8 = 0x03;
const ENTRY: u8 = 0x10;

/// Kind and group.
const MARK_BYTES: usize = 1 + 4;
/// Kind, group and index.
const ENTRY_BYTES: usize = MARK_BYTES + 8;

/// A key, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogKey {
    /// The format version of the whole database.
    Format,
    /// A group's vote.
    Vote(GroupId),
    /// A group's commit mark.
    Committed(GroupId),
    /// A group's purge mark.
    Purged(GroupId),
    /// A group's entry.
    Entry(GroupId, u64),
}

impl LogKey {
    /// Takes a stored key apart.
    pub(crate) fn decode(key: &[u8]) -> Result<Self, KeyError> {
        let (&kind, rest) = key.split_first().ok_or(KeyError::Empty)?;
        let length = |want| KeyError::Length { kind, bytes: key.len(), want };
        let group = || {
            let number = rest.try_into().map_err(|_| length(MARK_BYTES))?;
            Ok(GroupId::new(u32::from_be_bytes(number)))
        };
        match kind {
            0x00 if rest.is_empty() => Ok(Self::Format),
            0x00 => Err(length(FORMAT.len())),
            VOTE => group().map(Self::Vote),
            COMMITTED => group().map(Self::Committed),
            PURGED => group().map(Self::Purged),
            ENTRY => {
                let (group, index) =
                    rest.split_first_chunk::<4>().ok_or_else(|| length(ENTRY_BYTES))?;
                let index = index.try_into().map_err(|_| length(ENTRY_BYTES))?;
                let group = GroupId::new(u32::from_be_bytes(*group));
                Ok(Self::Entry(group, u64::from_be_bytes(index)))
            }
            other => Err(KeyError::UnknownKind(other)),
        }
    }
}

fn mark(kind: u8, group: GroupId) -> [u8; MARK_BYTES] {
    let mut key = [kind; MARK_BYTES];
    key[1..].copy_from_slice(&group.get().to_be_bytes());
    key
}

/// The key of a group's vote.
pub(crate) fn vote(group: GroupId) -> [u8; MARK_BYTES] {
    mark(VOTE, group)
}

/// The key of a group's commit mark.
pub(crate) fn committed(group: GroupId) -> [u8; MARK_BYTES] {
    mark(COMMITTED, group)
}

/// The key of a group's purge mark.
pub(crate) fn purged(group: GroupId) -> [u8; MARK_BYTES] {
    mark(PURGED, group)
}

/// The key of a group's entry.
pub(crate) fn entry(group: GroupId, index: u64) -> [u8; ENTRY_BYTES] {
    let mut key = [ENTRY; ENTRY_BYTES];
    key[1..5].copy_from_slice(&group.get().to_be_bytes());
    key[5..].copy_from_slice(&index.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_these_bytes_for_ever() {
        let group = GroupId::new(0x0102_0304);
        assert_eq!(vote(group), [0x01, 1, 2, 3, 4]);
        assert_eq!(committed(group), [0x02, 1, 2, 3, 4]);
        assert_eq!(purged(group), [0x03, 1, 2, 3, 4]);
        assert_eq!(
            entry(group, 0x0506_0708_090a_0b0c),
            [0x10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
        );
    }

    #[test]
    fn keys_round_trip_and_sort_by_index() {
        let group = GroupId::new(9);
        for (key, want) in [
            (FORMAT.to_vec(), LogKey::Format),
            (vote(group).to_vec(), LogKey::Vote(group)),
            (committed(group).to_vec(), LogKey::Committed(group)),
            (purged(group).to_vec(), LogKey::Purged(group)),
            (entry(group, 256).to_vec(), LogKey::Entry(group, 256)),
        ] {
            assert_eq!(LogKey::decode(&key), Ok(want));
        }
        assert!(entry(group, 255) < entry(group, 256));
        assert!(entry(group, u64::MAX) < entry(GroupId::new(10), 0));
    }

    #[test]
    fn foreign_keys_are_refused_with_their_sizes() {
        assert_eq!(LogKey::decode(&[]), Err(KeyError::Empty));
        assert_eq!(LogKey::decode(&[0x55]), Err(KeyError::UnknownKind(0x55)));
        for (key, want) in [
            (vec![0x00, 0], 1),
            (vec![0x01, 0], MARK_BYTES),
            (vec![0x10, 0], ENTRY_BYTES),
            (vec![0x10; ENTRY_BYTES + 1], ENTRY_BYTES),
        ] {
            let bytes = key.len();
            let kind = key[0];
            assert_eq!(LogKey::decode(&key), Err(KeyError::Length { kind, bytes, want }));
        }
    }
}
