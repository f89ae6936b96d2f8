//! The port of APNs: HTTP/2 over TLS, and nothing less.
//!
//! Until a connection has shown a good token, one stream at a time is served on it; others are
//! refused, as a peer does that allows no more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::credentials::Credentials;
use crate::http::Call;
use crate::http_server::{CONNECTIONS_MAX, settle};
use crate::services;
use crate::state::{Service, State};

/// Streams of a connection that has shown a good token, as Apple allows.
const STREAMS_MAX: u32 = 1_000;

/// How long a token is looked at for the first time on a connection: a sender that does not wait for it
/// has sent its next stream by then, on any machine.
const TOKEN_CHECK: Duration = Duration::from_millis(50);

pub(crate) fn tls(credentials: &Credentials) -> Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(credentials.chain.clone(), credentials.tls_key())?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

pub(crate) async fn run(listener: TcpListener, tls: TlsAcceptor, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        let Ok((stream, _)) = listener.accept().await else { continue };
        connections.spawn(serve(stream, tls.clone(), state.clone()));
    }
}

/// What is known of a connection.
#[derive(Default)]
struct Connection {
    trusted: AtomicBool,
    streams: AtomicUsize,
    end: Notify,
}

async fn serve(stream: TcpStream, tls: TlsAcceptor, state: Arc<State>) {
    let Ok(stream) = tls.accept(stream).await else { return };
    // Who does not ask for HTTP/2 is not served HTTP/2 either.
    if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return;
    }
    let connection = Arc::<Connection>::default();
    let handler = {
        let connection = connection.clone();
        service_fn(move |request| answer(state.clone(), connection.clone(), request))
    };
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder.max_concurrent_streams(STREAMS_MAX);
    let mut served = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), handler));
    tokio::select! {
        // Whoever breaks the connection does not get an answer.
        _ = served.as_mut() => return,
        () = connection.end.notified() => served.as_mut().graceful_shutdown(),
    }
    drop(served.await);
}

/// Counts a stream while it is served.
struct Stream(Arc<Connection>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::AcqRel);
    }
}

async fn answer(
    state: Arc<State>,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, h2::Error> {
    let others = connection.streams.fetch_add(1, Ordering::AcqRel);
    let stream = Stream(connection.clone());
    if others > 0 && !connection.trusted.load(Ordering::Acquire) {
        state.inner.lock().refused_streams += 1;
        return Err(h2::Reason::REFUSED_STREAM.into());
    }
    let call = match Call::read(request).await {
        Ok(call) => call,
        Err(reply) => return Ok(reply.response()),
    };
    if !connection.trusted.load(Ordering::Acquire) {
        tokio::time::sleep(TOKEN_CHECK).await;
    }
    let judged = services::apns(&state, &call);
    if judged.is_ok() {
        connection.trusted.store(true, Ordering::Release);
    }
    let id = services::apns_id(&call);
    let (reply, close) = settle(&state, Service::Apns, &call, judged).await;
    if close {
        connection.end.notify_one();
    }
    drop(stream);
    Ok(reply.with("apns-id", id).response())
}
