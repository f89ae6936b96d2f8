//! Tidemark's wire protocol.

#[expect(clippy::allow_attributes_without_reason, reason = "the code is generated")]
pub mod v1 {
    //! The generated messages and services of package `tidemark.v1`.
    tonic::include_proto!("tidemark.v1");
}

/// The compiled descriptors of all files.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
