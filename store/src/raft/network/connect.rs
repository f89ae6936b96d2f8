//! How a node gets a byte stream to another, and what the two expect of it.
//!
//! A peer that vanished without a word must be noticed within seconds, in both directions: by
//! HTTP/2 pings while nothing is said, and by TCP's own bound while something is under way.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, stream};
use tidemark_env::{Connector, SERVER_GONE_AFTER, tune};
use tidemark_proto::over::Over;
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::{Channel, Endpoint, Server};

/// An idle connection is asked this often whether it lives.
const PING_EVERY: Duration = Duration::from_secs(1);
/// And has this long to answer.
const PONG_WITHIN: Duration = Duration::from_secs(2);
/// HTTP/2's windows: several batches under way, or a round trip would bound the throughput.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// See [`STREAM_WINDOW_BYTES`]; the connection carries one stream, and its window must not bind.
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// A failed accept (no more descriptors, say) is tried again after this long.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// A gRPC server with the same patience and windows as our connections, to mount services on.
pub fn server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PONG_WITHIN))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
}

/// The connections of other nodes, for [`Server::serve_with_incoming`].
pub fn incoming(listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> + Send {
    stream::unfold(listener, |listener| async move {
        loop {
            let accepted = listener.accept().await.and_then(|(stream, _)| {
                tune(&stream, SERVER_GONE_AFTER)?;
                Ok(stream)
            });
            match accepted {
                Ok(stream) => return Some((Ok(stream), listener)),
                // It concerns one connection, or passes; the listener itself stays good.
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    })
}

/// A channel to `address` over `connector`, connected.
pub(super) async fn channel(
    connector: Arc<dyn Connector>,
    address: String,
) -> Result<Channel, tonic::transport::Error> {
    Endpoint::from_shared(format!("http://{address}"))?
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG_WITHIN)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .connect_with_connector(Over::new(connector, &address))
        .await
}
