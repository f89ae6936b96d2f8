//! The WebSocket carrier: `GET /v1/connect` on the HTTP port, for browsers.
//!
//! ```text
//!   messages ──► read ──► connection ──► write ──► messages, then Close
//!                 └── up to the peer's Close ◄──────┘
//! ```
//!
//! One binary message is one frame, as gRPC has it in its messages. Pings of the WebSocket are
//! answered and say nothing: a device is alive by its frames.
//!
//! Invariants: nothing larger than a legal frame is buffered; a closing handshake is waited for,
//! since data that nobody reads makes the last frames get lost, but never for long.

use std::sync::Arc;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use futures::{Sink, SinkExt as _, Stream, StreamExt as _};
use prost::Message as _;
use tidemark_proto::v1::{self, client_frame, server_frame};
use tidemark_proto::{Failure, convert, frame};
use tidemark_types::ErrorCode;
use tidemark_types::limits::FRAME_BYTES_MAX;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_tungstenite::tungstenite;

use super::{Carrier, Unreadable};
use crate::devices::Devices;
use crate::limits::{CLOSE_TIMEOUT, OUTGOING_FRAMES};

/// Where devices connect, on the HTTP port.
pub const PATH: &str = "/v1/connect";

/// The WebSocket sub-protocol, selected when a device offers it.
pub const SUB_PROTOCOL: &str = "tidemark.v1";

/// Of each connection, taken at once: small, since most are quiet. A larger frame makes it grow.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// Close codes from here on are free for applications; added to it is the number of an
/// [`ErrorCode`], whose name is the reason.
const CLOSE_CODE_BASE: u16 = 4000;

/// A connection that ended without a reason of which a device has to know.
const CLOSE_NORMAL: u16 = 1000;

/// Boxed for the same reason as [`Outgoing`](super::Outgoing).
type Read = Box<Result<client_frame::Frame, Unreadable>>;

/// Turns a request into a connection of a device.
pub fn upgrade(devices: Arc<Devices>, upgrade: WebSocketUpgrade) -> Response {
    upgrade
        .protocols([SUB_PROTOCOL])
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_message_size(FRAME_BYTES_MAX)
        .on_upgrade(async move |socket| carry(socket, &devices).await)
}

/// Carries frames until the connection has ended, and says goodbye.
async fn carry(socket: WebSocket, devices: &Devices) {
    let (sink, messages) = socket.split();
    let (outgoing, frames) = mpsc::channel(OUTGOING_FRAMES);
    let (incoming, taken) = mpsc::channel(1);
    // Dropped with the stream, when the connection has ended.
    let (lasts, ended) = oneshot::channel::<()>();
    let taken = ReceiverStream::new(taken)
        .map(|read: Read| *read)
        .inspect(move |_| {
            let _ = &lasts;
        })
        .boxed();
    // A browser is not told why a request was refused, so that even this is told in frames.
    let _admission = match devices.connect(Carrier::WebSocket, taken, outgoing.clone()) {
        Ok(admission) => Some(admission),
        Err(failure) => {
            let error =
                v1::Error { failure: Some(failure.into()), closing: true, ..v1::Error::default() };
            outgoing.try_send(Box::new(error.into())).expect("nothing was sent yet");
            None
        }
    };
    drop(outgoing);
    let reading = read(messages, incoming);
    let writing = async {
        let writing = write(frames, sink);
        tokio::pin!(writing);
        tokio::select! {
            () = &mut writing => {}
            // What is left is on its way; who reads nothing is just cut.
            _ = ended => drop(timeout(CLOSE_TIMEOUT, writing).await),
        }
    };
    tokio::pin!(reading, writing);
    tokio::select! {
        () = &mut reading => writing.await,
        () = &mut writing => drop(timeout(CLOSE_TIMEOUT, reading).await),
    }
}

/// Hands in what the device sends, up to its Close. What comes after the connection's end is
/// passed over; where nothing can be read any more this never ends, since a socket that is dropped
/// with unread data takes along what was written last.
async fn read(
    mut messages: impl Stream<Item = Result<Message, axum::Error>> + Unpin,
    incoming: mpsc::Sender<Read>,
) {
    while let Some(message) = messages.next().await {
        let read = match message {
            Ok(Message::Binary(bytes)) => frame::from_device(&bytes).map_err(Unreadable::from),
            Ok(Message::Text(_)) => Err(Unreadable::Passed(text())),
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_)) => continue,
            Err(error) => {
                let Some(failure) = unreadable(error) else { return };
                let _ = incoming.send(Box::new(Err(Unreadable::Broken(failure)))).await;
                return std::future::pending().await;
            }
        };
        // Nobody listens after the connection's end.
        let _ = incoming.send(Box::new(read)).await;
    }
}

/// Writes frames until there are no more, and then why it ends.
async fn write(
    mut frames: mpsc::Receiver<Box<v1::ServerFrame>>,
    mut sink: impl Sink<Message, Error = axum::Error> + Unpin,
) {
    let mut reason = None;
    while let Some(frame) = frames.recv().await {
        reason = reason_of(&frame).or(reason);
        if sink.send(Message::Binary(frame.encode_to_vec().into())).await.is_err() {
            return;
        }
    }
    let (code, reason) = match reason {
        Some(code) => (CLOSE_CODE_BASE + code.number(), code.name()),
        None => (CLOSE_NORMAL, ""),
    };
    let close = CloseFrame { code, reason: reason.into() };
    // The peer may have gone before.
    let _ = sink.send(Message::Close(Some(close))).await;
}

/// Why the connection ends after this frame, if it does.
fn reason_of(frame: &v1::ServerFrame) -> Option<ErrorCode> {
    match &frame.frame {
        Some(server_frame::Frame::Error(v1::Error {
            failure: Some(failure),
            closing: true,
            ..
        })) => Some(convert::error_code(failure.code)),
        Some(server_frame::Frame::GoAway(_)) => Some(ErrorCode::GoingAway),
        _ => None,
    }
}

fn text() -> Failure {
    Failure::new(ErrorCode::UnknownFrame)
        .message("a text message: each frame is one binary message, in protobuf's encoding")
}

/// What the peer is told whose message cannot be read; nothing, when the connection broke.
fn unreadable(error: axum::Error) -> Option<Failure> {
    let error = error.into_inner().downcast::<tungstenite::Error>().ok()?;
    let code = match *error {
        tungstenite::Error::Capacity(_) => ErrorCode::FrameTooLarge,
        tungstenite::Error::Protocol(
            tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        ) => return None,
        tungstenite::Error::Protocol(_) | tungstenite::Error::Utf8(_) => ErrorCode::Invalid,
        _ => return None,
    };
    let message = match code {
        ErrorCode::FrameTooLarge => format!("a frame may have {FRAME_BYTES_MAX} bytes: {error}"),
        _ => error.to_string(),
    };
    Some(Failure::new(code).message(message))
}
