//! How values and commands become bytes: postcard, whose wire format is fixed since its 1.0.
//!
//! A version byte stands before every stored value ([`crate::value::Value`]) and every batch.
//! Decoding refuses unknown versions and trailing bytes, and never panics on any input.

use std::cell::Cell;

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

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

thread_local! {
    /// Values are encoded here and copied out: a vector that grows is copied again and again, and
    /// one with room to spare makes whatever is allocated next to it slower to reach.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Encodes `value` behind its version byte.
pub fn encode<T: Serialize>(version: u8, value: &T) -> Vec<u8> {
    let mut scratch = SCRATCH.take();
    scratch.clear();
    scratch.push(version);
    let encoded = postcard::to_extend(value, scratch)
        .expect("a Vec grows as needed and our types all serialize");
    if encoded.len() > SCRATCH_MAX {
        return encoded;
    }
    let bytes = encoded.as_slice().to_vec();
    SCRATCH.set(encoded);
    bytes
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
