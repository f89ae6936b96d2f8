//! Acts of devices: they are sends, and lie in mailboxes as entries of their own (R19).

use tidemark_proto::convert::error_code;
use tidemark_proto::v1;
use tidemark_proto::v1::ActKind;
use tidemark_proto::v1::send_ack::Result as Sent;
use tidemark_proto::v1::server_frame::Frame;
use tidemark_types::ErrorCode;

use crate::device::{Device, gateway, send};
use crate::store::Cluster;

/// An act about the message at this place of the sender's own mailbox.
fn act(session: u64, n: u64, kind: ActKind, seq: u32, body: &str) -> v1::Send {
    let about = Some(v1::About { kind: kind.into(), epoch: 1, seq });
    let kind = u32::from(kind == ActKind::Edit);
    v1::Send { about, kind, body: body.to_owned().into(), ..send(session, n, &[]) }
}

/// What a device is told of a send: its seq, or why not.
async fn told(device: &mut Device, send: v1::Send) -> Result<u32, ErrorCode> {
    device.say(send).await;
    match device.ack().await.result.expect("it has one") {
        Sent::Accepted(accepted) => Ok(accepted.seq),
        Sent::Failure(failure) => Err(error_code(failure.code)),
    }
}

/// The acts in a mailbox, as a page shows them: seq, who, what, about which of alice's sends, body.
async fn acts(device: &mut Device) -> Vec<(u32, String, ActKind, u64, String)> {
    device.say(v1::Sync { request_id: 1, epoch: 1, seq_cli: 0, limit: 0 }).await;
    let page = loop {
        if let Frame::SyncPage(page) = device.hear().await {
            break page.page.expect("it has one");
        }
    };
    let act = |entry: v1::Entry| {
        let Some(v1::entry::Content::Act(act)) = entry.content else { return None };
        let (kind, of) = (act.kind(), act.of.expect("it has one"));
        assert_eq!(of.sender, "alice");
        let Some(v1::origin::Key::SessionSend(of)) = of.key else { panic!("{of:?}") };
        let body = String::from_utf8(act.message.expect("so").body.to_vec()).expect("text");
        Some((entry.seq, entry.origin.expect("it has one").sender, kind, of.n, body))
    };
    page.entries.into_iter().filter_map(act).collect()
}

#[tokio::test(start_paused = true)]
async fn marks_recalls_and_edits_are_told_to_everybody_concerned() {
    let cluster = Cluster::new();
    let here = gateway(&cluster);
    let (mut alice, session) = Device::with_session(&here, "alice").await;
    let (mut bob, his) = Device::with_session(&here, "bob").await;
    assert_eq!(told(&mut alice, send(session, 1, &["bob"])).await, Ok(1));
    assert_eq!(told(&mut bob, act(his, 1, ActKind::Read, 1, "")).await, Ok(2));
    // It says nothing new, and there is no entry of it.
    assert_eq!(told(&mut bob, act(his, 2, ActKind::Delivered, 1, "")).await, Ok(0));
    assert_eq!(told(&mut alice, act(session, 2, ActKind::Edit, 1, "new")).await, Ok(3));
    assert_eq!(told(&mut alice, act(session, 3, ActKind::Recall, 1, "")).await, Ok(4));
    let act = |seq, who: &str, kind, body: &str| (seq, who.to_owned(), kind, 1, body.to_owned());
    let wanted = [
        act(2, "bob", ActKind::Read, ""),
        act(3, "alice", ActKind::Edit, "new"),
        act(4, "alice", ActKind::Recall, ""),
    ];
    assert_eq!(acts(&mut alice).await, wanted);
    assert_eq!(acts(&mut bob).await, wanted);
}

#[tokio::test(start_paused = true)]
async fn an_act_that_cannot_be_has_a_verdict() {
    let cluster = Cluster::new();
    let here = gateway(&cluster);
    let (mut alice, session) = Device::with_session(&here, "alice").await;
    assert_eq!(told(&mut alice, send(session, 1, &["bob"])).await, Ok(1));
    let to_bob =
        v1::Send { to: send(1, 1, &["bob"]).to, ..act(session, 2, ActKind::Recall, 1, "") };
    let unknown = v1::About { kind: 9, epoch: 1, seq: 1 };
    let unknown = v1::Send { about: Some(unknown), ..act(session, 4, ActKind::Recall, 1, "") };
    for (send, code) in [
        (to_bob, ErrorCode::BadRecipient),
        (act(session, 3, ActKind::Recall, 1, "why"), ErrorCode::BodyTooLarge),
        (unknown, ErrorCode::NoMessage),
        (act(session, 5, ActKind::Read, 1, ""), ErrorCode::NoMessage),
        (act(session, 6, ActKind::Recall, 2, ""), ErrorCode::NoMessage),
    ] {
        assert_eq!(told(&mut alice, send.clone()).await, Err(code));
        assert_eq!(told(&mut alice, send).await, Err(code), "it is stored");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_unread_is_counted_when_a_device_asks() {
    let cluster = Cluster::new();
    let here = gateway(&cluster);
    let (mut alice, session) = Device::with_session(&here, "alice").await;
    let (mut bob, his) = Device::with_session(&here, "bob").await;
    for n in 1..=3 {
        assert_eq!(told(&mut alice, send(session, n, &["bob"])).await, Ok(n as u32));
    }
    assert_eq!(told(&mut bob, act(his, 1, ActKind::Read, 2, "")).await, Ok(4));
    bob.say(v1::Unread { request_id: 7 }).await;
    let Frame::UnreadReply(reply) = bob.answer().await else { panic!("another frame") };
    let counts = reply.counts.expect("they are counted");
    assert_eq!((reply.request_id, counts.unread, counts.from, counts.head), (7, 1, 0, 4));
    let [with] = &counts.conversations[..] else { panic!("{counts:?}") };
    assert_eq!((with.unread, with.delivered_seq, with.read_seq), (1, 2, 2));
}
