//! Where byte streams to other processes come from.

use std::future::Future;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Duplex for T {}

/// A byte stream that is being made.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<Box<dyn Duplex>>> + Send>>;

/// Makes byte streams to other processes; a simulation has its own.
pub trait Connector: Send + Sync + 'static {
    /// A stream to `address` (`host:port`). Whoever waits for it gives up after a while.
    fn connect(&self, address: String) -> Connecting;
}
