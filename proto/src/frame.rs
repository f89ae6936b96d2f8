//! Frames: from bytes, into their envelope, and by number.

use prost::Message as _;
use tidemark_types::ErrorCode;
use tidemark_types::limits::FRAME_BYTES_MAX;

use crate::failure::Failure;
use crate::v1;
use crate::v1::{client_frame, server_frame};

/// The frame that a device sent as these bytes, one WebSocket message.
///
/// `FRAME_TOO_LARGE` and `UNKNOWN_FRAME` leave the connection as good as it was; `INVALID` means
/// that the peer does not speak this protocol, and the connection is cut.
pub fn from_device(bytes: &[u8]) -> Result<client_frame::Frame, Failure> {
    check_size(bytes.len())?;
    let frame = v1::ClientFrame::decode(bytes)
        .map_err(|error| Failure::new(ErrorCode::Invalid).message(format!("the frame: {error}")))?;
    known(frame)
}

/// The frame that a device sent on a gRPC stream, which has decoded it already.
pub fn opened(frame: v1::ClientFrame) -> Result<client_frame::Frame, Failure> {
    check_size(frame.encoded_len())?;
    known(frame)
}

fn check_size(bytes: usize) -> Result<(), Failure> {
    if bytes <= FRAME_BYTES_MAX {
        return Ok(());
    }
    let message = format!("the frame has {bytes} bytes, and may have {FRAME_BYTES_MAX}");
    Err(Failure::new(ErrorCode::FrameTooLarge).message(message))
}

fn known(frame: v1::ClientFrame) -> Result<client_frame::Frame, Failure> {
    frame.frame.ok_or_else(|| Failure::new(ErrorCode::UnknownFrame))
}

impl client_frame::Frame {
    /// Its number, by which an [`v1::Error`] names it.
    pub fn number(&self) -> u32 {
        use client_frame::Frame;
        match self {
            Frame::Hello(_) => 1,
            Frame::Open(_) => 2,
            Frame::Send(_) => 3,
            Frame::Ack(_) => 4,
            Frame::Sync(_) => 5,
            Frame::Status(_) => 6,
            Frame::Ping(_) => 7,
        }
    }

    /// The request id by which an [`v1::Error`] refers to it, 0 for none.
    pub fn request_id(&self) -> u64 {
        use client_frame::Frame;
        match self {
            Frame::Sync(sync) => sync.request_id,
            Frame::Status(status) => status.request_id,
            Frame::Hello(_) | Frame::Open(_) | Frame::Send(_) | Frame::Ack(_) | Frame::Ping(_) => 0,
        }
    }
}

macro_rules! envelope {
    ($envelope:ident, $frames:ident: $($frame:ident)*) => {$(
        impl From<v1::$frame> for v1::$envelope {
            fn from(frame: v1::$frame) -> Self {
                v1::$envelope { frame: Some($frames::Frame::$frame(frame)) }
            }
        }
    )*};
}

envelope! { ClientFrame, client_frame: Hello Open Send Ack Sync Status Ping }
envelope! {
    ServerFrame, server_frame:
    Welcome Opened SendAck Deliver Notice SyncPage Reset StatusReply Pong GoAway Error
}
