//! Acts of back ends in a user's name, and what a user has not read.

use tidemark_proto::v1::mailboxes_client::MailboxesClient;
use tidemark_proto::v1::messages_client::MessagesClient;
use tidemark_proto::v1::{About, ActKind, SendRequest, SendResponse, UnreadCounts, UnreadRequest};
use tidemark_types::ErrorCode;
use tonic::{Code, Response, Status};

use crate::gateway::{Gateway, refused};
use crate::messages::request;

async fn send(gateway: &Gateway, request: SendRequest) -> Result<Response<SendResponse>, Status> {
    MessagesClient::new(gateway.service()).send(request).await
}

fn act(user: &str, number: u8, kind: ActKind, seq: u32) -> SendRequest {
    let about = Some(About { kind: kind.into(), epoch: 1, seq });
    SendRequest { to: vec![], kind: 0, body: "".into(), about, ..request(user, "bob", number) }
}

async fn unread(gateway: &Gateway, user: &str) -> UnreadCounts {
    let request = UnreadRequest { user: user.to_owned() };
    let answer = MailboxesClient::new(gateway.service()).unread(request).await.unwrap();
    answer.into_inner().counts.unwrap()
}

#[tokio::test]
async fn a_back_end_marks_and_recalls_in_a_users_name() {
    // Both live on one shard.
    let gateway = Gateway::start().await;
    for number in 1..=2 {
        send(&gateway, request("alice", "grace", number)).await.unwrap();
    }
    assert_eq!(unread(&gateway, "grace").await.unread, 2);
    let marked = send(&gateway, act("grace", 3, ActKind::Read, 1)).await.unwrap().into_inner();
    assert_eq!(marked.seq, 3);
    let again = send(&gateway, act("grace", 3, ActKind::Read, 1)).await.unwrap().into_inner();
    assert_eq!(again, marked, "it is taken once");
    assert_eq!(unread(&gateway, "grace").await.unread, 1);
    send(&gateway, act("alice", 4, ActKind::Recall, 2)).await.unwrap();
    assert_eq!(unread(&gateway, "grace").await.unread, 0, "what was recalled is not unread");

    let nothing = send(&gateway, act("grace", 5, ActKind::Recall, 1)).await;
    assert_eq!(nothing.as_ref().unwrap_err().code(), Code::NotFound);
    assert_eq!(refused(nothing).code, ErrorCode::NoMessage);
}
