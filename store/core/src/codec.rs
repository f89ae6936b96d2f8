//! How values and commands become bytes: postcard, whose wire format is fixed since its 1.0.
//!
//! A version byte stands before every stored value ([`crate::value::Value`]) and every batch.
//! Decoding refuses unknown versions and trailing bytes, and never panics on any input.

use std::cell::{Cell, RefCell};
use std::fmt;

use bytes::{Bytes, BytesMut};
use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserializer, Serialize};
use thiserror::Error;

use crate::value_bytes::ValueBytes;

/// Bytes that are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The version byte is missing or is one that this build does not know.
    #[error("{what}: version {found:?} is unknown, this build reads version {known}")]
    Version {
        /// What was to be decoded.
        what: &'static str,
        /// The version found; none in an empty value.
        found: Option<u8>,
        /// The version this build reads and writes.
        known: u8,
    },
    /// The fields do not decode.
    #[error("{what}: {bytes} bytes do not decode: {reason}")]
    Malformed {
        /// What was to be decoded.
        what: &'static str,
        /// How many bytes there were.
        bytes: usize,
        /// What was wrong.
        reason: String,
    },
    /// The fields decode and bytes are left over.
    #[error("{what}: {left} of {bytes} bytes are left over")]
    Trailing {
        /// What was to be decoded.
        what: &'static str,
        /// How many bytes there were.
        bytes: usize,
        /// How many were left.
        left: usize,
    },
}

/// What is longer is not copied out of the scratch, and leaves a new one behind.
const SCRATCH_MAX: usize = 64 << 10;

/// Bytes that encoded values share.
const CHUNK: usize = 64 << 10;

/// What is longer has bytes of its own.
const CHUNKED_MAX: usize = 4 << 10;

thread_local! {
    /// Values are encoded here and copied out: a vector that grows is copied again and again, and
    /// one with room to spare makes whatever is allocated next to it slower to reach.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };

    /// What is left of the chunk that the next values will share.
    static REST: RefCell<BytesMut> = RefCell::default();

    /// What is being decoded by [`decode_shared`].
    static SOURCE: Cell<Option<Bytes>> = const { Cell::new(None) };
}

/// Encodes `value` behind its version byte.
pub fn encode<T: Serialize>(version: u8, value: &T) -> Vec<u8> {
    encoded(version, value, <[u8]>::to_vec)
}

/// As [`encode`], for values that are many and do not live long, since they keep their neighbours in
/// memory: some hundreds of them share one allocation.
pub(crate) fn encode_chunked<T: Serialize>(version: u8, value: &T) -> Bytes {
    encoded(version, value, chunked)
}

/// As [`encode_chunked`]; small values have their bytes in place.
pub(crate) fn encode_stored<T: Serialize>(version: u8, value: &T) -> ValueBytes {
    let stored =
        |bytes: &[u8]| ValueBytes::in_place(bytes).unwrap_or_else(|| chunked(bytes).into());
    encoded(version, value, stored)
}

fn chunked(bytes: &[u8]) -> Bytes {
    if bytes.len() > CHUNKED_MAX {
        return Bytes::copy_from_slice(bytes);
    }
    REST.with_borrow_mut(|rest| {
        if rest.capacity() < bytes.len() {
            *rest = BytesMut::with_capacity(CHUNK);
        }
        rest.extend_from_slice(bytes);
        rest.split().freeze()
    })
}

fn encoded<T: Serialize, B: From<Vec<u8>>>(
    version: u8,
    value: &T,
    copy: impl FnOnce(&[u8]) -> B,
) -> B {
    let mut scratch = SCRATCH.take();
    scratch.clear();
    scratch.push(version);
    let encoded = postcard::to_extend(value, scratch)
        .expect("a Vec grows as needed and our types all serialize");
    if encoded.len() > SCRATCH_MAX {
        return encoded.into();
    }
    let bytes = copy(&encoded);
    SCRATCH.set(encoded);
    bytes
}

/// As [`decode`]; byte strings with [`bytes`] are parts of `source` instead of copies, and keep it in
/// memory.
pub(crate) fn decode_shared<T: DeserializeOwned>(
    what: &'static str,
    known: u8,
    source: &Bytes,
) -> Result<T, DecodeError> {
    SOURCE.set(Some(source.clone()));
    let decoded = decode(what, known, source);
    SOURCE.set(None);
    decoded
}

/// A byte string of something that [`decode_shared`] may decode: for `#[serde(deserialize_with)]`.
pub(crate) fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    struct Shared;

    impl<'de> Visitor<'de> for Shared {
        type Value = Bytes;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("bytes")
        }

        fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Bytes, E> {
            Ok(part_of_source(bytes).unwrap_or_else(|| Bytes::copy_from_slice(bytes)))
        }
    }

    deserializer.deserialize_bytes(Shared)
}

/// The same bytes as a part of what is being decoded, if they are one.
fn part_of_source(bytes: &[u8]) -> Option<Bytes> {
    let source = SOURCE.take()?;
    let is_within = source.as_ptr_range().contains(&bytes.as_ptr());
    let part = is_within.then(|| source.slice_ref(bytes));
    SOURCE.set(Some(source));
    part
}

/// Decodes what [`encode`] wrote.
pub fn decode<T: DeserializeOwned>(
    what: &'static str,
    known: u8,
    bytes: &[u8],
) -> Result<T, DecodeError> {
    let fields = match bytes.split_first() {
        Some((version, fields)) if *version == known => fields,
        other => {
            let found = other.map(|(version, _)| *version);
            return Err(DecodeError::Version { what, found, known });
        }
    };
    match postcard::take_from_bytes(fields) {
        Ok((value, [])) => Ok(value),
        Ok((_, left)) => Err(DecodeError::Trailing { what, bytes: bytes.len(), left: left.len() }),
        Err(reason) => {
            Err(DecodeError::Malformed { what, bytes: bytes.len(), reason: reason.to_string() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
    struct Body {
        before: u32,
        #[serde(deserialize_with = "super::bytes")]
        body: Bytes,
    }

    #[test]
    fn encoded_values_share_memory_and_nothing_else() {
        for len in [0, 1, 100, CHUNKED_MAX - 8, CHUNKED_MAX, SCRATCH_MAX, 2 * SCRATCH_MAX] {
            let values: Vec<_> = (0..100u32).map(|number| (number, vec![7u8; len])).collect();
            let encoded: Vec<_> = values.iter().map(|value| encode_chunked(3, value)).collect();
            for (bytes, value) in encoded.iter().zip(&values) {
                assert_eq!(*bytes, encode(3, value));
                assert_eq!(*encode_stored(3, value), **bytes);
            }
        }
    }

    #[test]
    fn a_body_is_a_part_of_what_is_decoded_if_that_is_shared() {
        let value = Body { before: 300, body: Bytes::from_static(b"hello") };
        let source = Bytes::from(encode(3, &value));
        let copied: Body = decode("Body", 3, &source).expect("encoded");
        let shared: Body = decode_shared("Body", 3, &source).expect("encoded");
        assert_eq!((&copied, &shared), (&value, &value));
        assert!(!source.as_ptr_range().contains(&copied.body.as_ptr()));
        assert!(source.as_ptr_range().contains(&shared.body.as_ptr()));
        // What follows is not taken for a part of it.
        let broken = decode_shared::<Body>("Body", 3, &source.slice(..source.len() - 1));
        assert!(broken.is_err());
        let other: Body = decode("Body", 3, &source).expect("encoded");
        assert!(!source.as_ptr_range().contains(&other.body.as_ptr()));
        let empty = Bytes::from(encode(3, &Body { before: 1, body: Bytes::new() }));
        assert_eq!(decode_shared::<Body>("Body", 3, &empty).expect("encoded").body, Bytes::new());
    }

    #[test]
    fn what_is_encoded_decodes_and_nothing_else_does() {
        let bytes = encode(3, &(7u32, "x"));
        assert_eq!(decode::<(u32, String)>("pair", 3, &bytes), Ok((7, "x".to_owned())));

        let error = |bytes: &[u8]| {
            decode::<(u32, String)>("pair", 3, bytes).expect_err("broken").to_string()
        };
        assert_eq!(error(&[]), "pair: version None is unknown, this build reads version 3");
        assert_eq!(error(&[4]), "pair: version Some(4) is unknown, this build reads version 3");
        assert_eq!(error(&[&bytes[..], &[0]].concat()), "pair: 1 of 5 bytes are left over");
        assert!(error(&bytes[..3]).starts_with("pair: 3 bytes do not decode"));
    }
}
