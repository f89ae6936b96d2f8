//! Carriers, and who may speak.
//!
//! It knows frames and tokens, never what a message means. A carrier turns its stream into
//! [`Incoming`] and takes what comes out of a bounded channel; everything behind that is the same
//! for all carriers.

pub mod grpc;
mod hello;
pub mod websocket;

use futures::stream::BoxStream;
use tidemark_proto::Failure;
use tidemark_proto::v1::{ServerFrame, client_frame};
use tidemark_types::{DeviceId, ErrorCode, UnixMs, UserId};
use tokio::sync::mpsc;

pub(crate) use hello::check;

/// What a device sends. The stream ends when the peer has gone, or will send nothing more.
pub type Incoming = BoxStream<'static, Result<client_frame::Frame, Unreadable>>;

/// What a device is sent, taken out by its carrier. Boxed, since a channel has places for 32 frames as
/// soon as it is made, and most devices are quiet.
pub type Outgoing = mpsc::Sender<Box<ServerFrame>>;

/// A frame that cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It had no effect, and what follows it can be read.
    Passed(Failure),
    /// Nothing can be read any more.
    Broken(Failure),
}

impl From<Failure> for Unreadable {
    /// `INVALID` means that the peer does not speak this protocol.
    fn from(failure: Failure) -> Self {
        match failure.code {
            ErrorCode::Invalid => Unreadable::Broken(failure),
            _ => Unreadable::Passed(failure),
        }
    }
}

/// What carries a connection's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// A gRPC stream.
    Grpc,
    /// A WebSocket.
    WebSocket,
}

impl Carrier {
    /// Its name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Carrier::Grpc => "grpc",
            Carrier::WebSocket => "websocket",
        }
    }
}

/// Verifies tokens.
pub trait Authenticator: Send + Sync + 'static {
    /// When the token was made and when it ends, if whoever holds it may connect as this user's device; otherwise
    /// `UNAUTHENTICATED`, `TOKEN_EXPIRED` or `PERMISSION_DENIED`.
    fn check(&self, token: &str, user: &UserId, device: &DeviceId) -> Result<Validity, Failure>;
}

/// The time for which a token is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// When it was made; 0 if it does not say.
    pub issued: UnixMs,
    /// When it ends.
    pub expires: UnixMs,
}
