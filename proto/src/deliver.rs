//! New entries of a mailbox, as they are encoded.
//!
//! A gateway has them encoded for as long as it keeps them, and sends the same bytes to each of the mailbox's
//! devices: in protobuf's encoding a field that is a message and one that is bytes look the same.

use bytes::Bytes;
use prost::Message;

use crate::convert::{FieldError, Reason};
use crate::v1;

/// New entries of the mailbox, above a cursor that the device's sync has reached.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Deliver {
    /// The epoch in which the seqs count.
    #[prost(uint32, tag = "1")]
    pub epoch: u32,
    /// The seq before the first entry.
    #[prost(uint32, tag = "2")]
    pub prev_seq: u32,
    /// At least one, each a [`v1::Entry`]: `prev_seq`+1, `prev_seq`+2 and so on, never across a gap.
    #[prost(bytes = "bytes", repeated, tag = "3")]
    pub entries: Vec<Bytes>,
}

impl Deliver {
    /// These entries.
    pub fn new(epoch: u32, prev_seq: u32, entries: &[v1::Entry]) -> Self {
        let entries = entries.iter().map(|entry| entry.encode_to_vec().into()).collect();
        Deliver { epoch, prev_seq, entries }
    }

    /// The entries, out of their bytes.
    pub fn decoded(self) -> Result<Vec<v1::Entry>, FieldError> {
        let decoded = |(at, entry)| {
            v1::Entry::decode(entry)
                .map_err(|error| FieldError::new(format!("entries[{at}]"), Reason::Encoding(error)))
        };
        self.entries.into_iter().enumerate().map(decoded).collect()
    }
}
