//! Tidemark's shared vocabulary: the facts that every part must agree on, each in one place.
//!
//! Pure: no I/O, no clock, no randomness, nothing of ours below it. A rule that store, gateway,
//! SDK and checker all need (who lives on which shard, what comes after a sequence number, what
//! an error means for a retry) is a function here, never a copy there.

pub mod content;
pub mod error;
pub mod ids;
pub mod limits;
pub mod routing;
pub mod seq;
pub mod time;

pub use content::ContentHash;
pub use error::ErrorCode;
pub use ids::{
    ClientMsgId, ClusterId, CounterId, DeviceId, Epoch, GroupId, Id, IdError, IdKind, NodeId,
    OpenId, Recipient, SessionId, ShardId, UserId,
};
pub use routing::ShardCount;
pub use seq::{Arrival, Seq, SeqRange};
pub use time::UnixMs;
