//! `Mailboxes`: pages, heads, adoption, trims.

use tidemark_proto::page::Page;
use tidemark_proto::v1::mailboxes_client::MailboxesClient;
use tidemark_proto::v1::messages_client::MessagesClient;
use tidemark_proto::v1::{
    AdoptRequest, AdoptResponse, HeadRequest, HeadResponse, SyncRequest, SyncResponse, TrimRequest,
    TrimResponse,
};
use tidemark_proto::{Detail, Position, headers};
use tidemark_types::{Epoch, ErrorCode, Seq};
use tonic::{Code, Response, Status};

use crate::gateway::{Gateway, bad_field, refused};
use crate::memory::Fault;
use crate::messages::request;

/// Fills alice's mailbox with this many messages to herself.
async fn fill(gateway: &Gateway, count: u32) {
    let mut messages = MessagesClient::new(gateway.service());
    for number in 1..=count {
        let mut request = request("alice", "alice", 1);
        let id = &request.client_msg_id;
        request.client_msg_id = [&id[..12], &number.to_be_bytes()[..]].concat();
        messages.send(request).await.unwrap();
    }
}

async fn sync(
    gateway: &Gateway,
    epoch: u32,
    seq_cli: u32,
    limit: u32,
) -> Result<Response<SyncResponse>, Status> {
    let request = SyncRequest { user: "alice".to_owned(), epoch, seq_cli, limit };
    MailboxesClient::new(gateway.service()).sync(request).await
}

async fn page(gateway: &Gateway, epoch: u32, seq_cli: u32, limit: u32) -> Page {
    let answer = sync(gateway, epoch, seq_cli, limit).await.unwrap().into_inner();
    Page::try_from(answer.page.unwrap()).unwrap()
}

async fn head(gateway: &Gateway) -> HeadResponse {
    let request = HeadRequest { user: "alice".to_owned() };
    MailboxesClient::new(gateway.service()).head(request).await.unwrap().into_inner()
}

async fn adopt(gateway: &Gateway, seq: u32) -> Result<Response<AdoptResponse>, Status> {
    let request = AdoptRequest { user: "alice".to_owned(), seq };
    MailboxesClient::new(gateway.admin()).adopt(request).await
}

async fn trim(gateway: &Gateway, upto: u32) -> Result<Response<TrimResponse>, Status> {
    let request = TrimRequest { user: "alice".to_owned(), upto };
    MailboxesClient::new(gateway.admin()).trim(request).await
}

#[tokio::test]
async fn pages_are_read_to_the_head() {
    let gateway = Gateway::start().await;
    let nothing = page(&gateway, 0, 0, 0).await;
    assert_eq!((nothing.page.entries.len(), nothing.page.more), (0, false));
    fill(&gateway, 300).await;
    for (epoch, seq_cli, limit, last, more) in [
        (0, 298, 0, 300, false),
        (1, 0, 2, 2, true),
        (1, 298, 2, 300, false),
        (1, 300, 1, 300, false),
        // The server has a maximum of its own.
        (1, 0, 0, 256, true),
        (1, 0, u32::MAX, 256, true),
    ] {
        let page = page(&gateway, epoch, seq_cli, limit).await;
        assert_eq!((page.last.get(), page.page.more), (last, more));
        assert_eq!((page.page.epoch, page.page.head), (1, 300));
    }
}

#[tokio::test]
async fn a_cursor_of_elsewhere_is_reset() {
    let gateway = Gateway::start().await;
    fill(&gateway, 3).await;
    trim(&gateway, 1).await.unwrap();
    for (epoch, seq_cli) in [(2, 0), (1, 4), (0, 4)] {
        let outcome = sync(&gateway, epoch, seq_cli, 0).await;
        let status = outcome.as_ref().unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(status.metadata().get(headers::POSITION).unwrap(), "1,1,3");
        let failure = refused(outcome);
        assert_eq!(failure.code, ErrorCode::Reset);
        let position = Position { epoch: Epoch::FIRST, floor: Seq::new(1), head: Seq::new(3) };
        assert_eq!(failure.detail, Some(Detail::Position(position)));
    }
}

#[tokio::test]
async fn what_was_trimmed_is_a_gap() {
    let gateway = Gateway::start().await;
    fill(&gateway, 4).await;
    assert_eq!(trim(&gateway, 2).await.unwrap().into_inner().floor, 2);
    let page = page(&gateway, 1, 1, 0).await;
    assert_eq!(page.gap.unwrap().to_string(), "2..=2");
    assert_eq!(page.last.get(), 4);
    // A lower one changes nothing; above the head it means the head.
    assert_eq!(trim(&gateway, 1).await.unwrap().into_inner().floor, 2);
    assert_eq!(trim(&gateway, u32::MAX).await.unwrap().into_inner().floor, 4);
    assert_eq!(head(&gateway).await, HeadResponse { epoch: 1, floor: 4, head: 4 });
}

#[tokio::test]
async fn a_long_trim_is_unknown_once_it_has_begun() {
    let gateway = Gateway::start().await;
    // One command removes 1,000 entries.
    fill(&gateway, 1_001).await;
    for faults in [&[Fault::Unavailable][..], &[Fault::None, Fault::Unavailable]] {
        gateway.store.fail(faults);
        assert_eq!(refused(trim(&gateway, 1_001).await).code, ErrorCode::Unavailable);
        assert_eq!(head(&gateway).await.floor, 0);
    }
    gateway.store.fail(&[Fault::None, Fault::None, Fault::Unavailable]);
    assert_eq!(refused(trim(&gateway, 1_001).await).code, ErrorCode::Unknown);
    assert_eq!(head(&gateway).await.floor, 1_001);
    assert_eq!(trim(&gateway, 1_001).await.unwrap().into_inner().floor, 1_001);
}

#[tokio::test]
async fn an_unused_mailbox_is_adopted() {
    let gateway = Gateway::start().await;
    bad_field(adopt(&gateway, 0).await, "seq");
    gateway.store.fail(&[Fault::None, Fault::Lost]);
    assert_eq!(refused(adopt(&gateway, 7).await).code, ErrorCode::Unknown);
    let adopted = adopt(&gateway, 7).await.unwrap().into_inner();
    assert_eq!(adopted, AdoptResponse { epoch: 1, head: 7 });
    assert_eq!(head(&gateway).await, HeadResponse { epoch: 1, floor: 7, head: 7 });
    assert_eq!(refused(adopt(&gateway, 8).await).code, ErrorCode::NotEmpty);
    fill(&gateway, 1).await;
    assert_eq!(page(&gateway, 1, 7, 0).await.last.get(), 8);
}

#[tokio::test]
async fn a_user_is_named() {
    let gateway = Gateway::start().await;
    let mut mailboxes = MailboxesClient::new(gateway.admin());
    let user = || "x".repeat(65);
    bad_field(mailboxes.head(HeadRequest { user: user() }).await, "user");
    let request = SyncRequest { user: user(), ..SyncRequest::default() };
    bad_field(mailboxes.sync(request).await, "user");
    bad_field(mailboxes.adopt(AdoptRequest { user: user(), seq: 1 }).await, "user");
    bad_field(mailboxes.trim(TrimRequest { user: user(), upto: 1 }).await, "user");
}
