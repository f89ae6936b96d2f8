//! Durable before use: what a frame tells must be in the device's store when the frame goes out.

use tidemark_client::store::Saved;
use tidemark_proto::v1::client_frame::Frame;

/// Is what this frame tells in the store?
pub(crate) fn before(frame: &Frame, saved: &Saved) {
    let meta = saved.meta.as_ref().expect("stored before anything else");
    let cursor = (meta.epoch.get(), meta.cursor.get());
    match frame {
        // What came later in the same step may be stored as well.
        Frame::Hello(hello) => assert!((hello.epoch, hello.seq_cli) <= cursor),
        Frame::Ack(ack) => assert!((ack.epoch, ack.seq) <= cursor),
        Frame::Ping(ping) => assert!((ping.epoch, ping.seq_cli) <= cursor),
        Frame::Open(open) => {
            let open_id = meta.open_id.expect("stored before its Open");
            assert_eq!(open.open_id, open_id.as_bytes().as_slice());
        }
        Frame::Send(send) => {
            let session = meta.session.expect("stored before its sends");
            let id = session.id_of(send.n);
            assert_eq!(session.id.get(), send.session);
            assert!(id < meta.numbered);
            assert_eq!(saved.outbox[&id].body, send.body);
            assert_eq!(saved.outbox[&id].about, send.about);
            let below = saved.outbox.range(..session.id_of(send.base)).next();
            assert!(below.is_none(), "a base above a send without a stored outcome");
        }
        Frame::Sync(_)
        | Frame::Status(_)
        | Frame::Unread(_)
        | Frame::Typing(_)
        | Frame::Presence(_)
        | Frame::WatchPresence(_) => {}
    }
}
