//! The keys of the state database: before a key of a group's state stand the group and its generation.
//!
//! ```text
//!   00                              → format version
//!   01 group:u32                    → the group's generation (absent: 0)
//!   02 group:u32 generation:u32 key → value; key `01` is the applied position
//! ```

use tidemark_store_core::key::Kind;

use super::GroupId;

pub(super) const FORMAT_KEY: &[u8] = &[0];
pub(super) const GENERATION: u8 = 1;
pub(super) const DATA: u8 = 2;

/// The key of the applied position, within a generation.
pub(super) const APPLIED: &[u8] = &[Kind::Applied as u8];

/// What all keys of one generation of a group begin with.
pub(super) type Prefix = [u8; 9];

pub(super) fn prefix(group: GroupId, generation: u32) -> Prefix {
    let mut prefix = [DATA; 9];
    prefix[1..5].copy_from_slice(&group.get().to_be_bytes());
    prefix[5..].copy_from_slice(&generation.to_be_bytes());
    prefix
}

pub(super) fn parse_prefix(key: &[u8]) -> Option<(GroupId, u32)> {
    let fields = key.strip_prefix(&[DATA])?;
    let (group, rest) = fields.split_first_chunk()?;
    let (generation, _) = rest.split_first_chunk()?;
    Some((GroupId::new(u32::from_be_bytes(*group)), u32::from_be_bytes(*generation)))
}

/// The least key above all keys with this prefix.
pub(super) fn end(prefix: Prefix) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

pub(super) fn generation_key(group: GroupId) -> [u8; 5] {
    let mut key = [GENERATION; 5];
    key[1..].copy_from_slice(&group.get().to_be_bytes());
    key
}

pub(super) fn parse_generation(key: &[u8], value: &[u8]) -> Option<(GroupId, u32)> {
    let group = u32::from_be_bytes(key.strip_prefix(&[GENERATION])?.try_into().ok()?);
    Some((GroupId::new(group), u32::from_be_bytes(value.try_into().ok()?)))
}

pub(super) fn data_key(prefix: Prefix, key: &[u8]) -> Vec<u8> {
    [&prefix, key].concat()
}

pub(super) fn applied_key(prefix: Prefix) -> Vec<u8> {
    data_key(prefix, APPLIED)
}
