//! Sockets: accepted one after the other, never more than there are places for, and given up when
//! nothing comes on them.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Fuse};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::transport::server::Connected;

use crate::limits::HELLO_TIMEOUT;

/// When no connection can be accepted, most likely since there are too many, this is waited.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A peer that has not acknowledged bytes, or has not read any, for so long is gone: phones lose their
/// networks for seconds.
const GONE_AFTER: Duration = Duration::from_secs(30);

/// HTTP/2 begins with so many bytes of its client's (RFC 9113, section 3.4), and no request of
/// HTTP/1 is much shorter. From then on the server's own pings and timers notice who is gone.
const OPENING_BYTES: usize = 24;

/// Where connections come in; when all places are taken they wait in the system's queue.
pub(crate) struct Sockets {
    listener: TcpListener,
    places: Arc<Semaphore>,
    /// Dropped with this, which ends who has not begun to speak.
    open: watch::Sender<()>,
}

/// A connection of one peer, which keeps its place.
pub(crate) struct Socket {
    stream: TcpStream,
    opening: Option<Opening>,
    _place: OwnedSemaphorePermit,
}

/// A connection on which too little was said yet.
struct Opening {
    missing: usize,
    over: Fuse<BoxFuture<'static, ()>>,
}

impl Sockets {
    /// At most `max` at once.
    pub(crate) fn new(listener: TcpListener, max: usize) -> Self {
        let places = Arc::new(Semaphore::new(max));
        Sockets { listener, places, open: watch::Sender::default() }
    }

    /// The next one.
    pub(crate) async fn accept(&self) -> Socket {
        if self.places.available_permits() == 0 {
            tracing::warn!("all sockets are taken; the next connection waits until one is free");
        }
        let place = self.places.clone().acquire_owned().await.expect("nobody closes it");
        let stream = loop {
            match self.listener.accept().await {
                Ok((stream, _)) => break stream,
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        };
        if let Err(error) = tidemark_env::tune(&stream, GONE_AFTER) {
            tracing::debug!(%error, "a connection waits as long as the system does");
        }
        let mut open = self.open.subscribe();
        let over = async move {
            let _ = tokio::time::timeout(HELLO_TIMEOUT, open.changed()).await;
        };
        let opening = Opening { missing: OPENING_BYTES, over: over.boxed().fuse() };
        Socket { stream, opening: Some(opening), _place: place }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, into);
        let Some(opening) = &mut self.opening else { return read };
        opening.missing = opening.missing.saturating_sub(into.filled().len() - before);
        if opening.missing == 0 {
            self.opening = None;
        } else if read.is_pending() && opening.over.poll_unpin(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

/// It does not say that it takes vectors: HTTP/2 copies frames of up to 1 KiB into one buffer then, and many devices
/// of a connection are written to at once, instead of each by a call of the system.
impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connected for Socket {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}
