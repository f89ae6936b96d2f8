//! Carriers, and who may speak.
//!
//! It knows frames and tokens, never what a message means. A carrier (gRPC here) turns its stream
//! into [`Incoming`] and takes what comes out of a bounded channel; everything behind that is the
//! same for all carriers.

pub mod grpc;
mod hello;

use futures::stream::BoxStream;
use tidemark_proto::Failure;
use tidemark_proto::v1::client_frame;
use tidemark_types::{DeviceId, UnixMs, UserId};

pub(crate) use hello::check;

/// What a device sends. A frame that is not known or too large is a failure, and the stream goes
/// on; after `INVALID` nothing more is read. The stream ends when the peer has gone.
pub type Incoming = BoxStream<'static, Result<client_frame::Frame, Failure>>;

/// Verifies tokens.
pub trait Authenticator: Send + Sync + 'static {
    /// Who holds this token; `UNAUTHENTICATED` or `TOKEN_EXPIRED` when nobody does.
    fn check(&self, token: &str, now: UnixMs) -> Result<Identity, Failure>;
}

/// Who holds a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user whose mailbox it opens.
    pub user: UserId,
    /// The only device that it is for, if it names one.
    pub device: Option<DeviceId>,
    /// When it ends.
    pub expires: UnixMs,
}
