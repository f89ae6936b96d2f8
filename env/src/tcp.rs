//! TCP, with a bound on how long it waits for a peer that vanished without a word.
//!
//! With TCP's own patience alone a healed partition stays broken for its retransmission backoff,
//! which was measured at 24 s.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use crate::connect::{Connecting, Connector, Duplex};

/// A server that has not acknowledged bytes for so long is gone.
pub const SERVER_GONE_AFTER: Duration = Duration::from_secs(5);

/// Byte streams to servers, by TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpConnector;

impl Connector for TcpConnector {
    fn connect(&self, address: String) -> Connecting {
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            tune(&stream, SERVER_GONE_AFTER)?;
            Ok(Box::new(stream) as Box<dyn Duplex>)
        })
    }
}

/// Lets no small message wait for the next one, and gives a peer up that has not acknowledged bytes,
/// or has not read, for `gone_after`. One that is idle is asked whether it lives: a backstop under
/// the pings of whoever speaks over the connection.
pub fn tune(stream: &TcpStream, gone_after: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(2 * gone_after).with_interval(gone_after / 5);
    socket.set_tcp_keepalive(&keepalive)?;
    // Servers run on Linux; devices, which make no such sockets, do not all.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(gone_after))?;
    Ok(())
}
