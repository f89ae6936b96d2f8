//! The simulated network, as the product's seams want it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::{Stream, stream};
use tidemark_env::{Connecting, Connector, Duplex};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use turmoil::net::{TcpListener, TcpStream};

use crate::world::{PORT, World};

/// Connects from one host to others.
pub struct Net {
    /// What all hosts share.
    pub world: Arc<World>,
    /// Who connects.
    pub from: String,
}

impl Connector for Net {
    fn connect(&self, address: String) -> Connecting {
        let (world, from) = (self.world.clone(), self.from.clone());
        Box::pin(async move {
            let to = address.split(':').next().unwrap_or_default().to_owned();
            let stream = TcpStream::connect(address.as_str()).await?;
            Ok(Box::new(Line { stream, world, from, to }) as Box<dyn Duplex>)
        })
    }
}

/// Listens on a host.
pub async fn listen() -> io::Result<TcpListener> {
    TcpListener::bind(("0.0.0.0", PORT)).await
}

/// The connections that a host takes, for a server.
pub fn incoming(
    world: Arc<World>,
    host: String,
    listener: TcpListener,
) -> impl Stream<Item = io::Result<Line>> + Send {
    stream::unfold((world, host, listener), |(world, from, listener)| async move {
        let line = listener.accept().await.map(|(stream, peer)| {
            let to = turmoil::reverse_lookup(peer.ip()).unwrap_or_default();
            Line { stream, world: world.clone(), from: from.clone(), to }
        });
        Some((line, (world, from, listener)))
    })
}

/// One end of a connection; what it writes is in the trace.
pub struct Line {
    stream: TcpStream,
    world: Arc<World>,
    from: String,
    to: String,
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.world.sent(&self.from, &self.to, &bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connected for Line {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}
