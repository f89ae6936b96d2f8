//! What carries frames: the seam between a device and a network.
//!
//! A carrier moves frames in both directions, in order, and says when it no longer can. It knows
//! nothing of what they mean. gRPC is [`crate::GrpcConnector`]; a WebSocket or a simulated network
//! is another [`Connector`].

use std::future::Future;

use futures::stream::BoxStream;
use tidemark_proto::v1;
use tokio::sync::mpsc;

/// Frames that wait to be written. A window of sends and a second one that goes out again fit; a
/// peer that lets more pile up does not read, and the connection is given up.
pub const OUTGOING_FRAMES: usize = 1_024;

/// Connects to gateways.
pub trait Connector: Send + Sync + 'static {
    /// Connects to a gateway, given as in the configuration. The error is for a person.
    fn connect(&self, gateway: &str) -> impl Future<Output = Result<Wire, String>> + Send;
}

/// One connection; it ends when it is dropped.
pub struct Wire {
    /// Frames to the gateway, with room for [`OUTGOING_FRAMES`]. When this is dropped, what waits
    /// is still written, and then the device's direction ends.
    pub outgoing: mpsc::Sender<v1::ClientFrame>,
    /// Frames from the gateway, until it ends or fails. The error is for a person.
    pub incoming: BoxStream<'static, Result<v1::ServerFrame, String>>,
}
