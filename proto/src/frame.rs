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
    /// The number of `Hello`.
    pub const HELLO: u32 = 1;
    /// The number of `Open`.
    pub const OPEN: u32 = 2;
    /// The number of `Send`.
    pub const SEND: u32 = 3;
    /// The number of `Ack`.
    pub const ACK: u32 = 4;
    /// The number of `Sync`.
    pub const SYNC: u32 = 5;
    /// The number of `Status`.
    pub const STATUS: u32 = 6;
    /// The number of `Ping`.
    pub const PING: u32 = 7;
    /// The number of `Unread`.
    pub const UNREAD: u32 = 8;
    /// The number of `Typing`.
    pub const TYPING: u32 = 9;
    /// The number of `Presence`.
    pub const PRESENCE: u32 = 10;
    /// The number of `WatchPresence`.
    pub const WATCH_PRESENCE: u32 = 11;

    /// Its number, by which an [`v1::Error`] names it.
    pub fn number(&self) -> u32 {
        use client_frame::Frame;
        match self {
            Frame::Hello(_) => Self::HELLO,
            Frame::Open(_) => Self::OPEN,
            Frame::Send(_) => Self::SEND,
            Frame::Ack(_) => Self::ACK,
            Frame::Sync(_) => Self::SYNC,
            Frame::Status(_) => Self::STATUS,
            Frame::Ping(_) => Self::PING,
            Frame::Unread(_) => Self::UNREAD,
            Frame::Typing(_) => Self::TYPING,
            Frame::Presence(_) => Self::PRESENCE,
            Frame::WatchPresence(_) => Self::WATCH_PRESENCE,
        }
    }

    /// Its name, for metrics and logs.
    pub fn name(&self) -> &'static str {
        use client_frame::Frame;
        match self {
            Frame::Hello(_) => "hello",
            Frame::Open(_) => "open",
            Frame::Send(_) => "send",
            Frame::Ack(_) => "ack",
            Frame::Sync(_) => "sync",
            Frame::Status(_) => "status",
            Frame::Ping(_) => "ping",
            Frame::Unread(_) => "unread",
            Frame::Typing(_) => "typing",
            Frame::Presence(_) => "presence",
            Frame::WatchPresence(_) => "watch_presence",
        }
    }

    /// The request id by which an [`v1::Error`] refers to it, 0 for none.
    pub fn request_id(&self) -> u64 {
        use client_frame::Frame;
        match self {
            Frame::Sync(sync) => sync.request_id,
            Frame::Status(status) => status.request_id,
            Frame::Unread(unread) => unread.request_id,
            Frame::Presence(presence) => presence.request_id,
            Frame::Hello(_)
            | Frame::Open(_)
            | Frame::Send(_)
            | Frame::Ack(_)
            | Frame::Typing(_)
            | Frame::WatchPresence(_)
            | Frame::Ping(_) => 0,
        }
    }
}

impl server_frame::Frame {
    /// Its name, for metrics and logs.
    pub fn name(&self) -> &'static str {
        use server_frame::Frame;
        match self {
            Frame::Welcome(_) => "welcome",
            Frame::Opened(_) => "opened",
            Frame::SendAck(_) => "send_ack",
            Frame::Deliver(_) => "deliver",
            Frame::Notice(_) => "notice",
            Frame::SyncPage(_) => "sync_page",
            Frame::Reset(_) => "reset",
            Frame::StatusReply(_) => "status_reply",
            Frame::Pong(_) => "pong",
            Frame::GoAway(_) => "go_away",
            Frame::Error(_) => "error",
            Frame::UnreadReply(_) => "unread_reply",
            Frame::Typing(_) => "typing",
            Frame::PresenceReply(_) => "presence_reply",
            Frame::PresenceChange(_) => "presence_change",
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

envelope! {
    ClientFrame, client_frame:
    Hello Open Send Ack Sync Status Ping Unread Typing Presence WatchPresence
}
envelope! {
    ServerFrame, server_frame:
    Welcome Opened SendAck Deliver Notice SyncPage Reset StatusReply Pong GoAway Error UnreadReply Typing
    PresenceReply PresenceChange
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hello::{Hello, Open};
    use crate::page::Page;
    use crate::send::Send;
    use crate::{FieldError, Origin};

    fn frames() -> Vec<v1::ClientFrame> {
        let send = v1::Send {
            session: 1,
            n: 2,
            base: 1,
            to: vec![v1::Id { kind: 1, name: "bob".to_owned() }],
            kind: 1,
            body: "hello".into(),
            client_msg_id: vec![7; 16],
            about: Some(v1::About { kind: 4, epoch: 1, seq: 5 }),
        };
        let start = Some(v1::Start { at: 3, last: 10 });
        let key = v1::origin::Key::SessionSend(v1::SessionSend { session: 1, n: 2 });
        let origin = Some(v1::Origin { sender: "a".to_owned(), key: Some(key) });
        vec![
            v1::Hello { user: "a".to_owned(), start, ..Default::default() }.into(),
            v1::Open { open_id: vec![1; 16], ends: 1 }.into(),
            send.into(),
            v1::Ack { epoch: 1, seq: 9 }.into(),
            v1::Sync { request_id: 5, epoch: 1, seq_cli: 9, limit: 0 }.into(),
            v1::Status { request_id: 6, origin }.into(),
            v1::Ping { nonce: 1, epoch: 1, seq_cli: 9 }.into(),
            v1::Unread { request_id: 7 }.into(),
            v1::Typing { user: "bob".to_owned(), typing: true }.into(),
            v1::Presence { request_id: 8, user: "bob".to_owned() }.into(),
            v1::WatchPresence { users: vec!["bob".to_owned()] }.into(),
        ]
    }

    /// The tag that starts the encoding is the number: a frame's number is what stands on the wire.
    #[test]
    fn a_frame_has_the_number_of_its_field() {
        for (at, frame) in frames().into_iter().enumerate() {
            let bytes = frame.encode_to_vec();
            let opened = from_device(&bytes).expect("known");
            assert_eq!(opened.number(), u32::from(bytes[0] >> 3));
            assert_eq!(usize::try_from(opened.number()), Ok(at + 1));
            assert_eq!(Some(opened), frame.frame);
        }
    }

    #[test]
    fn only_what_asks_has_a_request_id() {
        let ids: Vec<u64> =
            frames().into_iter().map(|frame| opened(frame).expect("known").request_id()).collect();
        assert_eq!(ids, [0, 0, 0, 0, 5, 6, 0, 7, 0, 8, 0]);
    }

    #[test]
    fn an_unknown_field_is_passed_over() {
        for frame in frames() {
            // Field 2000 of type varint, as a later version may add it beside the frame.
            let mut bytes = frame.encode_to_vec();
            bytes.extend([0x80, 0x7d, 0x01]);
            assert_eq!(Some(from_device(&bytes).expect("known")), frame.frame);
        }
        // Inside a frame: field 15 of an Ack.
        let ack = [0x22, 0x06, 0x08, 0x01, 0x10, 0x09, 0x78, 0x05];
        let known = client_frame::Frame::Ack(v1::Ack { epoch: 1, seq: 9 });
        assert_eq!(from_device(&ack), Ok(known));
    }

    #[test]
    fn a_frame_is_known_or_named_unknown() {
        let code = |bytes: &[u8]| from_device(bytes).expect_err("not a frame").code;
        assert_eq!(code(&[]), ErrorCode::UnknownFrame);
        // Frame 60, empty.
        assert_eq!(code(&[0xe2, 0x03, 0x00]), ErrorCode::UnknownFrame);
        assert_eq!(code(&[0xff; 20]), ErrorCode::Invalid);
        // An Ack that says it is longer than the bytes there are.
        assert_eq!(code(&[0x22, 0x7f, 0x08]), ErrorCode::Invalid);
    }

    #[test]
    fn a_frame_has_a_limit_on_both_carriers() {
        let sized = |body: usize| {
            v1::ClientFrame::from(v1::Send { body: vec![0; body].into(), ..Default::default() })
        };
        let overhead = sized(FRAME_BYTES_MAX).encoded_len() - FRAME_BYTES_MAX;
        let fits = sized(FRAME_BYTES_MAX - overhead);
        assert_eq!(fits.encoded_len(), FRAME_BYTES_MAX);
        assert!(from_device(&fits.encode_to_vec()).is_ok());
        assert!(opened(fits).is_ok());
        let large = sized(FRAME_BYTES_MAX - overhead + 1);
        let code = |refused: Result<_, Failure>| refused.expect_err("too large").code;
        assert_eq!(code(from_device(&large.encode_to_vec())), ErrorCode::FrameTooLarge);
        assert_eq!(code(opened(large)), ErrorCode::FrameTooLarge);
    }

    /// Everything that a server does with a device's bytes before it asks anybody.
    fn judge(bytes: &[u8]) -> Result<(), FieldError> {
        use client_frame::Frame;
        match from_device(bytes) {
            Ok(Frame::Hello(hello)) => Hello::try_from(hello).map(drop),
            Ok(Frame::Open(open)) => Open::try_from(&open).map(drop),
            Ok(Frame::Send(send)) => Send::try_from(send).map(drop),
            Ok(Frame::Status(v1::Status { origin: Some(origin), .. })) => {
                Origin::try_from(&origin).map(drop)
            }
            Ok(
                Frame::Status(_)
                | Frame::Ack(_)
                | Frame::Sync(_)
                | Frame::Ping(_)
                | Frame::Unread(_)
                | Frame::Typing(_)
                | Frame::Presence(_)
                | Frame::WatchPresence(_),
            )
            | Err(_) => Ok(()),
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = judge(&bytes);
            if let Ok(page) = v1::Page::decode(bytes.as_slice()) {
                let _ = Page::try_from(page);
            }
            if let Ok(failure) = v1::Failure::decode(bytes.as_slice()) {
                let _ = tonic::Status::from(Failure::from(failure));
            }
        }

        /// Bytes that are nearly right go deeper than random ones.
        #[test]
        fn no_spoilt_frame_makes_it_panic(
            which in 0usize..10,
            at in any::<prop::sample::Index>(),
            flip in 1u8..,
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = frames()[which].encode_to_vec();
            let spoilt = at.index(bytes.len());
            bytes[spoilt] ^= flip;
            let _ = judge(&bytes);
            let _ = judge(&bytes[..cut.index(bytes.len())]);
        }
    }
}
