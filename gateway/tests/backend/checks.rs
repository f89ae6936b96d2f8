//! What an operator lets be checked of back ends' sends: the same as of devices'.

use std::sync::Arc;
use std::time::Duration;

use tidemark_gateway::config::{ChecksConfig, FilterConfig, Rate, RatesConfig};
use tidemark_proto::v1::mailboxes_client::MailboxesClient;
use tidemark_proto::v1::messages_client::MessagesClient;
use tidemark_proto::v1::{HeadRequest, SendRequest, SendResponse};
use tidemark_types::ErrorCode;
use tonic::{Response, Status};

use crate::gateway::{Gateway, refused};
use crate::memory::{Fault, MemoryStore};
use crate::messages::request;

async fn send(gateway: &Gateway, request: SendRequest) -> Result<Response<SendResponse>, Status> {
    MessagesClient::new(gateway.service()).send(request).await
}

/// A message to grace, who lives on alice's shard.
fn say(number: u8, body: &str) -> SendRequest {
    SendRequest { body: body.to_owned().into(), ..request("alice", "grace", number) }
}

async fn head(gateway: &Gateway, user: &str) -> u32 {
    let request = HeadRequest { user: user.to_owned() };
    MailboxesClient::new(gateway.service()).head(request).await.unwrap().into_inner().head
}

#[tokio::test]
async fn the_first_verdict_counts_whichever_gateway_is_asked() {
    let store = Arc::new(MemoryStore::new());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("words.txt");
    std::fs::write(&file, "reject evil\ndrop spam\nreplace darn\n").unwrap();
    let filter = Some(FilterConfig { file, ..FilterConfig::default() });
    let checks = ChecksConfig { filter, body_bytes_max: 10, ..ChecksConfig::default() };
    let strict = Gateway::of(store.clone(), checks).await;
    let lax = Gateway::of(store, ChecksConfig::default()).await;

    for (number, body, code) in
        [(1, "evil", ErrorCode::Filtered), (2, "much too long", ErrorCode::BodyTooLarge)]
    {
        for gateway in [&strict, &lax, &strict] {
            assert_eq!(refused(send(gateway, say(number, body)).await).code, code);
        }
    }
    assert_eq!((head(&lax, "alice").await, head(&lax, "grace").await), (0, 0));

    let dropped = send(&strict, say(3, "spam")).await.unwrap().into_inner();
    assert_eq!(dropped.seq, 1);
    assert_eq!(send(&lax, say(3, "spam")).await.unwrap().into_inner(), dropped);
    assert_eq!((head(&lax, "alice").await, head(&lax, "grace").await), (1, 0));

    let replaced = send(&strict, say(4, "darn")).await.unwrap().into_inner();
    assert_eq!(send(&lax, say(4, "darn")).await.unwrap().into_inner(), replaced);
    assert_eq!(refused(send(&lax, say(4, "****")).await).code, ErrorCode::Conflict);
    assert_eq!((head(&lax, "alice").await, head(&lax, "grace").await), (2, 1));

    // What was taken where nobody minds stays taken.
    let taken = send(&lax, say(5, "evil")).await.unwrap().into_inner();
    assert_eq!(send(&strict, say(5, "evil")).await.unwrap().into_inner(), taken);
}

#[tokio::test]
async fn a_refusal_whose_answer_is_lost_is_unknown_and_then_the_same() {
    let checks = ChecksConfig { body_bytes_max: 1, ..ChecksConfig::default() };
    let gateway = Gateway::of(Arc::new(MemoryStore::new()), checks).await;
    gateway.store.fail(&[Fault::Lost]);
    assert_eq!(refused(send(&gateway, say(1, "long")).await).code, ErrorCode::Unknown);
    assert_eq!(refused(send(&gateway, say(1, "long")).await).code, ErrorCode::BodyTooLarge);
}

#[tokio::test]
async fn what_comes_too_fast_is_told_when_to_come_again() {
    let user = Some(Rate { sends: 2, within_ms: 3_600_000 });
    let rates = RatesConfig { user, ..RatesConfig::default() };
    let checks = ChecksConfig { rates, ..ChecksConfig::default() };
    let gateway = Gateway::of(Arc::new(MemoryStore::new()), checks).await;
    for number in 1..=2 {
        send(&gateway, say(number, "fine")).await.unwrap();
    }
    let failure = refused(send(&gateway, say(3, "fine")).await);
    assert_eq!(failure.code, ErrorCode::RetryAfter);
    let wait = failure.retry_after.expect("a hint");
    assert!(wait > Duration::from_secs(1_700) && wait <= Duration::from_secs(1_800), "{wait:?}");
    // Of another user nothing is known.
    let bob = SendRequest { sender: "bob".to_owned(), ..say(3, "fine") };
    send(&gateway, bob).await.unwrap();
}
