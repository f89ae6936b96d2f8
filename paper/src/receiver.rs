//! A server that takes pushes as webhooks and counts them by device: whether two were ever under way
//! to one device at a time, and the newest seq that each was told.
//!
//! A push is under way from when its request is here until it is answered, or its sender is gone.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// How long a push is under way, so that a second one would be seen: as a push service takes.
const TAKES: Duration = Duration::from_millis(20);

/// Connections at once: more than the gateways' lanes open.
const CONNECTIONS_MAX: usize = 2_048;

/// Bytes of a push that are read.
const BODY_BYTES_MAX: usize = 16 * 1_024;

/// What happened to each device, by its number.
pub(crate) struct Book {
    lines: Vec<Line>,
    pushes: AtomicU64,
    outstanding_max: AtomicU32,
    strange: AtomicU64,
}

#[derive(Default)]
struct Line {
    under_way: AtomicU32,
    pushes: AtomicU32,
    told: AtomicU32,
}

/// A push that is under way to a device.
struct UnderWay<'a>(&'a Line);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Book {
    /// Of so many devices.
    pub(crate) fn new(devices: usize) -> Self {
        Book {
            lines: std::iter::repeat_with(Line::default).take(devices).collect(),
            pushes: AtomicU64::default(),
            outstanding_max: AtomicU32::default(),
            strange: AtomicU64::default(),
        }
    }

    /// Pushes so far.
    pub(crate) fn pushes(&self) -> u64 {
        self.pushes.load(Ordering::SeqCst)
    }

    /// Requests that are no push to a device of these.
    pub(crate) fn strange(&self) -> u64 {
        self.strange.load(Ordering::SeqCst)
    }

    /// How many were under way to one device at the most.
    pub(crate) fn outstanding_max(&self) -> u32 {
        self.outstanding_max.load(Ordering::SeqCst)
    }

    /// How many one device got at the most.
    pub(crate) fn pushes_max(&self) -> u32 {
        self.lines.iter().map(|line| line.pushes.load(Ordering::SeqCst)).max().unwrap_or(0)
    }

    /// Devices that were not told of this seq.
    pub(crate) fn missing(&self, head: u32) -> usize {
        let told = self.lines.iter().map(|line| line.told.load(Ordering::SeqCst));
        told.filter(|told| *told < head).count()
    }

    /// Devices that were told of a seq beyond this one.
    pub(crate) fn beyond(&self, head: u32) -> usize {
        let told = self.lines.iter().map(|line| line.told.load(Ordering::SeqCst));
        told.filter(|told| *told > head).count()
    }

    fn arrives(&self, device: usize) -> Option<UnderWay<'_>> {
        let line = self.lines.get(device)?;
        self.pushes.fetch_add(1, Ordering::SeqCst);
        line.pushes.fetch_add(1, Ordering::SeqCst);
        let now = line.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.outstanding_max.fetch_max(now, Ordering::SeqCst);
        Some(UnderWay(line))
    }
}

/// A wake-up, as a webhook carries it.
#[derive(Deserialize)]
struct Wake {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    target: String,
    head: u32,
}

/// The server; it ends when it is dropped.
pub(crate) struct Receiver {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Receiver {
    /// Listens on a free port of loopback.
    pub(crate) async fn start(book: Arc<Book>) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("a port")?;
        let address = listener.local_addr()?;
        Ok(Receiver { address, task: tokio::spawn(serve(listener, book)) })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, book: Arc<Book>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        let Ok((stream, _)) = listener.accept().await else { continue };
        let book = book.clone();
        connections.spawn(async move {
            let service = service_fn(|request| {
                let book = book.clone();
                async move { Ok::<_, Infallible>(take(&book, request).await) }
            });
            let served = hyper::server::conn::http1::Builder::new();
            // Whoever breaks the connection does not get an answer.
            drop(served.serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

async fn take(book: &Book, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await;
    let wake = body.ok().and_then(|body| serde_json::from_slice::<Wake>(&body.to_bytes()).ok());
    let device = wake.as_ref().and_then(|wake| wake.data.target.parse().ok());
    match device.and_then(|device| book.arrives(device)).zip(wake) {
        Some((under_way, wake)) => {
            tokio::time::sleep(TAKES).await;
            under_way.0.told.fetch_max(wake.data.head, Ordering::SeqCst);
        }
        None => {
            book.strange.fetch_add(1, Ordering::SeqCst);
            *response.status_mut() = StatusCode::BAD_REQUEST;
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_push_that_is_under_way_is_seen() {
        let book = Book::new(2);
        drop(book.arrives(0));
        let first = book.arrives(0).expect("a device");
        drop(book.arrives(1));
        assert_eq!((book.outstanding_max(), book.pushes(), book.pushes_max()), (1, 3, 2));
        drop(book.arrives(0));
        drop(first);
        assert_eq!(book.outstanding_max(), 2);
        assert!(book.arrives(2).is_none());
        first_is_told(&book);
    }

    fn first_is_told(book: &Book) {
        book.lines[0].told.fetch_max(4, Ordering::SeqCst);
        assert_eq!(
            (book.missing(4), book.missing(5), book.beyond(4), book.beyond(3)),
            (1, 2, 0, 1)
        );
    }
}
