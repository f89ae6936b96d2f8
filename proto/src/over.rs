//! A connector of ours as tonic wants it: gRPC over whatever carries bytes.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tidemark_env::{Connector, Duplex};
use tonic::codegen::{Service, http::Uri};

/// Connects to one address, whatever a request's URI says.
#[derive(Clone)]
pub struct Over {
    connector: Arc<dyn Connector>,
    address: String,
}

impl Over {
    /// To `address` (`host:port`), over `connector`.
    pub fn new(connector: Arc<dyn Connector>, address: &str) -> Self {
        Over { connector, address: address.to_owned() }
    }
}

impl Service<Uri> for Over {
    type Response = TokioIo<Box<dyn Duplex>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connecting = self.connector.connect(self.address.clone());
        Box::pin(async move { Ok(TokioIo::new(connecting.await?)) })
    }
}
