//! Tidemark's wire: the device protocol, the unary calls of back ends and operators, and what
//! turns their messages into checked values.
//!
//! ```text
//!   bytes ──► frame ──► v1::Hello, v1::Send … ──► hello, send ──► values that are legal
//!                       (whatever a peer wrote)   (FieldError)    (tidemark-types)
//!
//!   Failure ◄──► v1::Failure (stream)      Failure ◄──► tonic::Status (unary)
//! ```
//!
//! No I/O, no clock. Invariants: no bytes of a peer make it panic; a [`tonic::Status`] is built in
//! [`status`] only; no header is named outside [`headers`]. The frames and their rules are
//! described in `docs/protocol.md`.

pub mod codec;
pub mod convert;
pub mod deliver;
pub mod failure;
pub mod frame;
pub mod group;
pub mod headers;
pub mod hello;
pub mod over;
pub mod page;
pub mod send;
pub mod status;

pub use convert::{FieldError, Origin, Reason};
pub use failure::{Detail, Failure, Position};

#[expect(
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "the code is generated"
)]
pub mod v1 {
    //! The generated messages and services of package `tidemark.v1`.
    pub use crate::deliver::Deliver;

    tonic::include_proto!("tidemark.v1");
}

pub mod store {
    //! What store nodes offer to gateways and tools.

    /// Larger than any message: a page and its neighbours, a relay's batch of large bodies.
    pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

    #[expect(
        clippy::allow_attributes_without_reason,
        clippy::too_many_lines,
        reason = "the code is generated"
    )]
    pub mod v1 {
        //! The generated messages and services of package `tidemark.store.v1`.
        tonic::include_proto!("tidemark.store.v1");
    }
}

/// The compiled descriptors of all files of the protocol, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
