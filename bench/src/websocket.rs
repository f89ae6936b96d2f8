//! The WebSocket carrier, as a browser speaks it: each binary message is one frame.

use anyhow::{Context, Result};
use futures::stream::SplitSink;
use futures::{SinkExt, StreamExt, future};
use prost::Message as _;
use tidemark_proto::{Failure, v1};
use tidemark_types::ErrorCode;
use tidemark_types::limits::SERVER_FRAME_BYTES_MAX;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::wire::{CONNECT_TIMEOUT, OUTGOING_FRAMES, Wire};

/// Where devices connect, on the gateway's HTTP port; `docs/protocol.md` names this and the next.
const PATH: &str = "/v1/connect";

/// The header of a WebSocket's sub-protocol, and ours.
const SUB_PROTOCOL: (&str, &str) = ("sec-websocket-protocol", "tidemark.v1");

/// Of each device, taken at once: there are many, and most are quiet.
const READ_BUFFER_BYTES: usize = 4 * 1024;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A connection of a device's own to the gateway whose HTTP port is `http`.
pub(crate) async fn open(http: &str, hello: v1::Hello) -> Result<Wire> {
    let mut request = format!("ws://{http}{PATH}").into_client_request()?;
    let (header, protocol) = SUB_PROTOCOL;
    request.headers_mut().insert(header, protocol.parse()?);
    // Frames are written as they come.
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_frame_size(Some(SERVER_FRAME_BYTES_MAX))
        .max_message_size(Some(SERVER_FRAME_BYTES_MAX));
    let connecting = connect_async_with_config(request, Some(config), true);
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
    let (socket, _) = connected.context("no WebSocket in time")?.context("no WebSocket")?;
    let (sink, messages) = socket.split();
    let (outgoing, frames) = mpsc::channel(OUTGOING_FRAMES);
    outgoing.try_send(hello.into()).context("a new queue has room")?;
    tokio::spawn(write(frames, sink));
    let incoming = messages
        .take_while(|message| future::ready(!matches!(message, Ok(Message::Close(_)))))
        .filter_map(|message| future::ready(read(message)));
    Ok(Wire::new(outgoing, incoming.boxed()))
}

/// Writes frames until there are no more, and closes then. A socket that breaks is noticed where it
/// is read.
async fn write(mut frames: mpsc::Receiver<v1::ClientFrame>, mut sink: SplitSink<Socket, Message>) {
    while let Some(frame) = frames.recv().await {
        if sink.send(Message::Binary(frame.encode_to_vec().into())).await.is_err() {
            return;
        }
    }
    // The gateway may have gone before.
    let _ = sink.close().await;
}

/// The frame in a message, if it holds one.
fn read(message: Result<Message, tungstenite::Error>) -> Option<Result<v1::ServerFrame, Failure>> {
    let broken = |error: String| Failure::new(ErrorCode::Unknown).message(error);
    match message {
        Ok(Message::Binary(bytes)) => {
            Some(v1::ServerFrame::decode(bytes).map_err(|error| broken(error.to_string())))
        }
        Ok(Message::Text(_)) => Some(Err(broken("a text message from the gateway".to_owned()))),
        Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_)) => None,
        Err(error) => Some(Err(broken(error.to_string()))),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio_tungstenite::accept_hdr_async;
    use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

    use super::*;

    /// Takes the sub-protocol that the device offers.
    #[expect(clippy::result_large_err, reason = "the library says what is answered")]
    fn select(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
        let offered = request.headers()[SUB_PROTOCOL.0].clone();
        assert_eq!(offered, SUB_PROTOCOL.1);
        response.headers_mut().insert(SUB_PROTOCOL.0, offered);
        Ok(response)
    }

    #[tokio::test]
    async fn frames_travel_in_binary_messages_until_one_side_closes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let at = listener.local_addr().expect("it is bound").to_string();
        let gateway = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a device");
            let mut socket = accept_hdr_async(stream, select).await.expect("a WebSocket");
            let mut heard = Vec::new();
            while let Some(Ok(message)) = socket.next().await {
                let Message::Binary(bytes) = message else { continue };
                heard.push(v1::ClientFrame::decode(bytes).expect("a frame"));
                let pong = v1::ServerFrame::from(v1::Pong { nonce: 7, ..Default::default() });
                let pong = Message::Binary(pong.encode_to_vec().into());
                socket.send(pong).await.expect("the device reads");
            }
            heard
        });
        let hello = v1::Hello { user: "alice".to_owned(), ..Default::default() };
        let mut wire = open(&at, hello.clone()).await.expect("it is served");
        let pong = || v1::ServerFrame::from(v1::Pong { nonce: 7, ..Default::default() });
        assert_eq!(wire.next().await.expect("it is whole"), Some(pong()));
        let ping = v1::Ping { nonce: 7, ..Default::default() };
        wire.send(ping.into()).ok().expect("room");
        assert_eq!(wire.next().await.expect("it is whole"), Some(pong()));
        wire.close();
        assert_eq!(wire.next().await.expect("it ends well"), None);
        let heard = gateway.await.expect("it does not panic");
        assert_eq!(heard, [hello.into(), ping.into()]);
    }

    #[test]
    fn what_is_no_frame_breaks_the_connection() {
        let bytes = |bytes: &'static [u8]| Ok(Message::Binary(bytes.into()));
        assert!(matches!(read(bytes(&[0xff; 20])), Some(Err(_))));
        assert!(matches!(read(Ok(Message::Text("{}".into()))), Some(Err(_))));
        assert!(read(Ok(Message::Ping(Vec::new().into()))).is_none());
    }
}
