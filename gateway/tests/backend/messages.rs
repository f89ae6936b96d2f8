//! `Messages`: each message once, whatever becomes of the answer, and what became of it.

use bytes::Bytes;
use tidemark_proto::convert::bytes_of;
use tidemark_proto::v1::messages_client::MessagesClient;
use tidemark_proto::v1::settings_client::SettingsClient;
use tidemark_proto::v1::{
    BlockRequest, ErrorCode as Refusal, Id, IdKind, MessageStatus, MessagesStatusRequest, Origin,
    RecipientStatus, SendRequest, SendResponse, SessionSend, Stage, origin,
};
use tidemark_types::limits::{BODY_BYTES_MAX, RECIPIENTS_MAX};
use tidemark_types::{ClientMsgId, ErrorCode};
use tonic::{Code, Response, Status};

use crate::gateway::{Gateway, bad_field, refused};
use crate::memory::{Fault, NOW};

fn id(number: u8) -> Vec<u8> {
    bytes_of(ClientMsgId::new(NOW, [number; 10]).as_bytes())
}

fn user(name: &str) -> Id {
    Id { kind: IdKind::User.into(), name: name.to_owned() }
}

/// A message under the id with this number.
pub(crate) fn request(sender: &str, to: &str, number: u8) -> SendRequest {
    SendRequest {
        sender: sender.to_owned(),
        client_msg_id: id(number),
        to: vec![user(to)],
        kind: 1,
        body: Bytes::from_static(b"hello"),
        about: None,
    }
}

/// Where it comes from.
pub(crate) fn origin(sender: &str, number: u8) -> Origin {
    Origin { sender: sender.to_owned(), key: Some(origin::Key::ClientMsgId(id(number))) }
}

async fn send(gateway: &Gateway, request: SendRequest) -> Result<Response<SendResponse>, Status> {
    MessagesClient::new(gateway.service()).send(request).await
}

async fn status(gateway: &Gateway, origin: Origin) -> MessageStatus {
    let request = MessagesStatusRequest { origin: Some(origin) };
    let answer = MessagesClient::new(gateway.service()).status(request).await.unwrap();
    answer.into_inner().status.unwrap()
}

#[tokio::test]
async fn a_repeated_send_is_taken_once_and_answered_the_same() {
    let gateway = Gateway::start().await;
    let first = send(&gateway, request("alice", "bob", 1)).await.unwrap().into_inner();
    assert_eq!(first, SendResponse { seq: 1, time_ms: NOW.get() });
    for _ in 0..2 {
        let again = send(&gateway, request("alice", "bob", 1)).await.unwrap().into_inner();
        assert_eq!(again, first);
    }
    assert_eq!(send(&gateway, request("alice", "bob", 2)).await.unwrap().into_inner().seq, 2);
    let other = SendRequest { kind: 2, ..request("alice", "bob", 1) };
    assert_eq!(refused(send(&gateway, other).await).code, ErrorCode::Conflict);
}

#[tokio::test]
async fn an_unknown_outcome_stays_unknown_until_it_is_repeated() {
    let gateway = Gateway::start().await;
    gateway.store.fail(&[Fault::Lost, Fault::Unavailable]);
    let lost = send(&gateway, request("alice", "bob", 1)).await;
    assert_eq!(lost.as_ref().unwrap_err().code(), Code::Unknown);
    assert_eq!(refused(lost).code, ErrorCode::Unknown);
    let unavailable = send(&gateway, request("alice", "bob", 2)).await;
    assert_eq!(unavailable.as_ref().unwrap_err().code(), Code::Unavailable);
    assert_eq!(refused(unavailable).code, ErrorCode::Unavailable);
    // The first was taken, the second was not.
    assert_eq!(send(&gateway, request("alice", "bob", 2)).await.unwrap().into_inner().seq, 2);
    assert_eq!(send(&gateway, request("alice", "bob", 1)).await.unwrap().into_inner().seq, 1);
}

#[tokio::test]
async fn a_message_that_cannot_be_is_refused_by_its_field() {
    let gateway = Gateway::start().await;
    let good = || request("alice", "bob", 1);
    let to = |to: Vec<Id>| SendRequest { to, ..good() };
    bad_field(send(&gateway, SendRequest { sender: String::new(), ..good() }).await, "sender");
    let no_uuid = SendRequest { client_msg_id: vec![1; 16], ..good() };
    bad_field(send(&gateway, no_uuid).await, "client_msg_id");
    let group = Id { kind: IdKind::Group.into(), name: "team".to_owned() };
    let large = SendRequest { body: vec![0; BODY_BYTES_MAX + 1].into(), ..good() };
    for (request, code, field) in [
        (to(vec![]), ErrorCode::BadRecipient, "to"),
        (to(vec![user("bob"), group.clone()]), ErrorCode::BadRecipient, "to[1]"),
        (to(vec![user("")]), ErrorCode::BadRecipient, "to[0].name"),
        (to(vec![user("bob"); RECIPIENTS_MAX + 1]), ErrorCode::TooManyRecipients, "to"),
        (large, ErrorCode::BodyTooLarge, "body"),
    ] {
        let failure = refused(send(&gateway, request).await);
        assert_eq!(failure.code, code, "{failure}");
        let said = failure.message.split([':', ' ']).next();
        assert_eq!(said, Some(field), "{failure}");
    }
    // The group decides: it is accepted, and then refused.
    let accepted = send(&gateway, to(vec![group.clone()])).await.unwrap().into_inner();
    assert_eq!(accepted, SendResponse { seq: 0, time_ms: NOW.get() });
    let found = status(&gateway, origin("alice", 1)).await;
    assert_eq!((found.stage(), found.seq), (Stage::Refused, 0));
    let refused = Refusal::GroupGone.into();
    let stage = Stage::Refused.into();
    let told = RecipientStatus { recipient: Some(group), stage, refused, ..Default::default() };
    assert_eq!(found.recipients, [told]);
}

#[tokio::test]
async fn a_message_is_followed_to_its_recipients() {
    // alice and grace live on one shard, bob on the other.
    let gateway = Gateway::start().await;
    let block = BlockRequest { user: "grace".to_owned(), sender: "alice".to_owned() };
    SettingsClient::new(gateway.service()).block(block).await.unwrap();
    let to = vec![user("alice"), user("bob"), user("grace")];
    send(&gateway, SendRequest { to, ..request("alice", "bob", 1) }).await.unwrap();

    let found = status(&gateway, origin("alice", 1)).await;
    assert_eq!((found.stage(), found.seq, found.time_ms), (Stage::Accepted, 1, NOW.get()));
    let told = |name: &str, stage: Stage, refused: Refusal| RecipientStatus {
        recipient: Some(user(name)),
        stage: stage.into(),
        refused: refused.into(),
        ..RecipientStatus::default()
    };
    let told = [
        told("alice", Stage::Delivered, Refusal::Unspecified),
        told("bob", Stage::Accepted, Refusal::Unspecified),
        told("grace", Stage::Refused, Refusal::Blocked),
    ];
    assert_eq!(found.recipients, told);
    assert_eq!(status(&gateway, origin("alice", 2)).await, MessageStatus::default());
}

#[tokio::test]
async fn a_status_is_asked_by_an_origin() {
    let gateway = Gateway::start().await;
    let ask = |origin| {
        let mut messages = MessagesClient::new(gateway.service());
        async move { messages.status(MessagesStatusRequest { origin }).await }
    };
    let from = |key| Some(Origin { sender: "alice".to_owned(), key });
    let send = |session| Some(origin::Key::SessionSend(SessionSend { session, n: 1 }));
    bad_field(ask(None).await, "origin");
    bad_field(ask(from(None)).await, "origin.key");
    bad_field(ask(from(send(0))).await, "origin.session_send.session");
    let unknown = ask(from(send(1))).await.unwrap().into_inner();
    assert_eq!(unknown.status, Some(MessageStatus::default()));
}
