//! The values in the log: vote, log id, entry. Numbers are big-endian.
//!
//! ```text
//! vote    term u64 | replica u64 | committed u8 | crc u32                              21 bytes
//! log id  term u64 | index u64 | crc u32                                               20 bytes
//! entry   kind u8 | term u64 | body length u32 | crc u32 | body                        17 + body
//! ```
//!
//! The checksum covers the value and the place it belongs to (what, group, index). The log's files have
//! checksums of their own, for whole batches; none of them covers what is read back later, one entry at a
//! time, or would notice a value in another's place.
//!
//! The layout is ours, not openraft's serde: its types change between versions, the disk may not.
//! Decoders name the field and both sizes, reject trailing bytes, and never panic.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::vote::RaftLeaderId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::raft::types::{
    CommittedLeaderId, Entry, EntryPayload, LeaderId, LogId, Membership, Payload, Replica,
    ReplicaId, Vote,
};
use crate::storage::{ENTRY_HEAD_BYTES, EntryValue, GroupId};

const VOTE_BYTES: usize = 8 + 8 + 1 + 4;
const LOG_ID_BYTES: usize = 8 + 8 + 4;

// Kinds of entries. Never reused.
const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// Why a stored value is not what should be there.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CodecError {
    /// The wrong number of bytes.
    #[error("{field} has {bytes} bytes, not {want}")]
    Length {
        /// Which value.
        field: &'static str,
        /// How long it is.
        bytes: usize,
        /// How long it must be.
        want: usize,
    },
    /// Other bytes than were written, or in another place.
    #[error("{field} has checksum {found:#010x}, its bytes and place give {want:#010x}")]
    Checksum {
        /// Which value.
        field: &'static str,
        /// The stored one.
        found: u32,
        /// The computed one.
        want: u32,
    },
    /// A byte that may only be some values.
    #[error("{field} is {found}, which means nothing")]
    Unknown {
        /// Which one.
        field: &'static str,
        /// What it is.
        found: u8,
    },
    /// A membership that is not one.
    #[error("an entry's membership: {0}")]
    Membership(String),
    /// More bytes than an entry can have.
    #[error("an entry's body has {bytes} bytes, more than {}", u32::MAX)]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
}

/// What a value is; a part of its checksum, together with its place.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum What {
    Vote = 1,
    Committed = 2,
    Purged = 3,
    Entry = 4,
}

impl What {
    fn field(self) -> &'static str {
        match self {
            What::Vote => "the vote",
            What::Committed => "the commit mark",
            What::Purged => "the purge mark",
            What::Entry => "an entry",
        }
    }
}

fn checksum(what: What, group: GroupId, index: u64, parts: [&[u8]; 2]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[what as u8]);
    hasher.update(&group.get().to_be_bytes());
    hasher.update(&index.to_be_bytes());
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

/// Checks a fixed-size value and gives its bytes without the checksum.
fn open<const N: usize>(what: What, group: GroupId, value: &[u8]) -> Result<[u8; N], CodecError> {
    let field = what.field();
    let (body, stored) = match value.split_last_chunk::<4>() {
        Some((body, stored)) if body.len() == N => (body, u32::from_be_bytes(*stored)),
        _ => {
            return Err(CodecError::Length { field, bytes: value.len(), want: N + 4 });
        }
    };
    compare(field, stored, checksum(what, group, 0, [body, &[]]))?;
    Ok(body.try_into().expect("its length was compared with N"))
}

fn compare(field: &'static str, found: u32, want: u32) -> Result<(), CodecError> {
    match found == want {
        true => Ok(()),
        false => Err(CodecError::Checksum { field, found, want }),
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let bytes = bytes[at..at + 8].try_into();
    u64::from_be_bytes(bytes.expect("a slice of 8 bytes"))
}

/// A group's vote, as stored.
pub(crate) fn encode_vote(group: GroupId, vote: &Vote) -> Bytes {
    let mut value = Vec::with_capacity(VOTE_BYTES);
    value.extend_from_slice(&vote.leader_id.term.to_be_bytes());
    value.extend_from_slice(&vote.leader_id.voted_for.to_be_bytes());
    value.push(u8::from(vote.committed));
    let crc = checksum(What::Vote, group, 0, [&value, &[]]);
    value.extend_from_slice(&crc.to_be_bytes());
    value.into()
}

/// The reverse of [`encode_vote`].
pub(crate) fn decode_vote(group: GroupId, value: &[u8]) -> Result<Vote, CodecError> {
    let body: [u8; VOTE_BYTES - 4] = open(What::Vote, group, value)?;
    let committed = match body[16] {
        0 => false,
        1 => true,
        found => {
            let field = "the vote's `committed`";
            return Err(CodecError::Unknown { field, found });
        }
    };
    Ok(Vote { leader_id: LeaderId::new(u64_at(&body, 0), u64_at(&body, 8)), committed })
}

/// A mark in a group's log, as stored.
pub(crate) fn encode_log_id(what: What, group: GroupId, id: &LogId) -> Bytes {
    let mut value = Vec::with_capacity(LOG_ID_BYTES);
    value.extend_from_slice(&id.leader_id.term.to_be_bytes());
    value.extend_from_slice(&id.index.to_be_bytes());
    let crc = checksum(what, group, 0, [&value, &[]]);
    value.extend_from_slice(&crc.to_be_bytes());
    value.into()
}

/// The reverse of [`encode_log_id`].
pub(crate) fn decode_log_id(what: What, group: GroupId, value: &[u8]) -> Result<LogId, CodecError> {
    let body: [u8; LOG_ID_BYTES - 4] = open(what, group, value)?;
    Ok(log_id(u64_at(&body, 0), u64_at(&body, 8)))
}

/// The id of the entry at `index` proposed in `term`.
pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: CommittedLeaderId { term }, index }
}

/// An entry, as stored. The payload's bytes are shared, not copied.
pub(crate) fn encode_entry(group: GroupId, entry: &Entry) -> Result<EntryValue, CodecError> {
    let (kind, body) = match &entry.payload {
        EntryPayload::Blank => (BLANK, Bytes::new()),
        EntryPayload::Normal(payload) => (NORMAL, payload.0.clone()),
        EntryPayload::Membership(members) => (MEMBERSHIP, encode_membership(members)),
    };
    let length = u32::try_from(body.len());
    let length = length.map_err(|_| CodecError::TooLong { bytes: body.len() })?;
    let mut head = [0; ENTRY_HEAD_BYTES];
    head[0] = kind;
    head[1..9].copy_from_slice(&entry.log_id.leader_id.term.to_be_bytes());
    head[9..13].copy_from_slice(&length.to_be_bytes());
    let crc = checksum(What::Entry, group, entry.log_id.index, [&head[..13], &body]);
    head[13..].copy_from_slice(&crc.to_be_bytes());
    Ok(EntryValue { head, body })
}

/// The reverse of [`encode_entry`]; the payload shares `value`'s memory.
pub(crate) fn decode_entry(group: GroupId, index: u64, value: &Bytes) -> Result<Entry, CodecError> {
    let field = What::Entry.field();
    let (head, body) = match value.split_first_chunk::<ENTRY_HEAD_BYTES>() {
        Some((head, _)) => (head, value.slice(ENTRY_HEAD_BYTES..)),
        None => {
            return Err(CodecError::Length { field, bytes: value.len(), want: ENTRY_HEAD_BYTES });
        }
    };
    let number =
        |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let want = number(9) as usize;
    if body.len() != want {
        return Err(CodecError::Length { field: "an entry's body", bytes: body.len(), want });
    }
    compare(field, number(13), checksum(What::Entry, group, index, [&head[..13], &body]))?;
    let payload = match head[0] {
        BLANK if body.is_empty() => EntryPayload::Blank,
        BLANK => {
            return Err(CodecError::Length {
                field: "a blank entry's body",
                bytes: body.len(),
                want: 0,
            });
        }
        NORMAL => EntryPayload::Normal(Payload(body)),
        MEMBERSHIP => EntryPayload::Membership(decode_membership(&body)?),
        found => {
            let field = "an entry's kind";
            return Err(CodecError::Unknown { field, found });
        }
    };
    Ok(Entry { log_id: log_id(u64_at(head, 1), index), payload })
}

/// A membership's own layout (postcard), so that openraft may change its type.
#[derive(Serialize, Deserialize)]
struct StoredMembership {
    /// One set of voters, or two while the membership is being changed.
    configs: Vec<BTreeSet<ReplicaId>>,
    /// All replicas; those in no config are learners.
    replicas: BTreeMap<ReplicaId, Replica>,
}

fn encode_membership(members: &Membership) -> Bytes {
    let stored = StoredMembership {
        configs: members.get_joint_config().clone(),
        replicas: members.nodes().map(|(id, at)| (*id, at.clone())).collect(),
    };
    let bytes = postcard::to_stdvec(&stored);
    bytes.expect("maps and sets of known size always encode").into()
}

fn decode_membership(bytes: &[u8]) -> Result<Membership, CodecError> {
    let stored = postcard::take_from_bytes::<StoredMembership>(bytes);
    let (stored, rest) = stored.map_err(|error| CodecError::Membership(error.to_string()))?;
    if !rest.is_empty() {
        return Err(CodecError::Length {
            field: "an entry's membership",
            bytes: bytes.len(),
            want: bytes.len() - rest.len(),
        });
    }
    Membership::new(stored.configs, stored.replicas)
        .map_err(|error| CodecError::Membership(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_types::NodeId;

    const GROUP: GroupId = GroupId::new(3);

    fn entries() -> Vec<Entry> {
        let replica =
            |node| Replica { node: NodeId::new(node), address: format!("10.0.0.{node}:7000") };
        let voters = BTreeSet::from([11, 12]);
        let replicas = BTreeMap::from([(11, replica(1)), (12, replica(2)), (13, replica(3))]);
        let members = Membership::new(vec![voters], replicas).expect("legal");
        [
            EntryPayload::Blank,
            EntryPayload::Normal(Payload(Bytes::from_static(b"batch"))),
            EntryPayload::Membership(members),
        ]
        .into_iter()
        .zip(7..)
        .map(|(payload, index)| Entry { log_id: log_id(5, index), payload })
        .collect()
    }

    fn stored(value: EntryValue) -> Bytes {
        [&value.head[..], &value.body].concat().into()
    }

    #[test]
    fn values_have_these_bytes_for_ever() {
        let vote = Vote { leader_id: LeaderId::new(2, 9), committed: true };
        let bytes = encode_vote(GROUP, &vote);
        assert_eq!(bytes[..17], [0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 9, 1]);
        assert_eq!(decode_vote(GROUP, &bytes), Ok(vote));
        let bytes = encode_log_id(What::Purged, GROUP, &log_id(2, 9));
        assert_eq!(bytes[..16], [0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 9]);
        assert_eq!(decode_log_id(What::Purged, GROUP, &bytes), Ok(log_id(2, 9)));
        let value = stored(encode_entry(GROUP, &entries()[1]).expect("short"));
        assert_eq!(value[..13], [1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 5]);
        assert_eq!(value[17..], *b"batch");
    }

    #[test]
    fn entries_round_trip() {
        for entry in entries() {
            let value = stored(encode_entry(GROUP, &entry).expect("short"));
            assert_eq!(decode_entry(GROUP, entry.log_id.index, &value), Ok(entry));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        for entry in entries() {
            let value = stored(encode_entry(GROUP, &entry).expect("short"));
            for at in 0..value.len() {
                let mut damaged = value.to_vec();
                damaged[at] ^= 0x10;
                assert!(decode_entry(GROUP, entry.log_id.index, &damaged.into()).is_err());
                assert!(decode_entry(GROUP, entry.log_id.index, &value.slice(..at)).is_err());
            }
            let longer = [&value[..], &[0]].concat().into();
            assert!(decode_entry(GROUP, entry.log_id.index, &longer).is_err());
        }
    }

    #[test]
    fn a_value_in_another_place_is_refused() {
        let entry = &entries()[1];
        let value = stored(encode_entry(GROUP, entry).expect("short"));
        assert!(decode_entry(GROUP, entry.log_id.index + 1, &value).is_err());
        assert!(decode_entry(GroupId::new(4), entry.log_id.index, &value).is_err());
        let mark = encode_log_id(What::Purged, GROUP, &log_id(2, 9));
        assert!(decode_log_id(What::Committed, GROUP, &mark).is_err());
        assert_eq!(
            decode_vote(GROUP, &mark),
            Err(CodecError::Length { field: "the vote", bytes: 20, want: 21 })
        );
    }
}
