//! `Sequence`: numbers are unique, and the same for a repeated request.

use tidemark_proto::convert::bytes_of;
use tidemark_proto::v1::sequence_client::SequenceClient;
use tidemark_proto::v1::{AllocateRequest, AllocateResponse, CurrentRequest};
use tidemark_types::limits::ALLOCATE_MAX;
use tidemark_types::{ClientMsgId, ErrorCode};
use tonic::{Response, Status};

use crate::gateway::{Gateway, bad_field, refused};
use crate::memory::{Fault, NOW};

async fn allocate(
    gateway: &Gateway,
    count: u32,
    request_id: Vec<u8>,
) -> Result<Response<AllocateResponse>, Status> {
    let request = AllocateRequest { counter: "orders".to_owned(), count, request_id };
    SequenceClient::new(gateway.service()).allocate(request).await
}

#[tokio::test]
async fn a_request_with_an_id_gets_the_same_numbers() {
    let gateway = Gateway::start().await;
    let id = || bytes_of(ClientMsgId::new(NOW, [7; 10]).as_bytes());
    gateway.store.fail(&[Fault::Lost]);
    assert_eq!(refused(allocate(&gateway, 5, id()).await).code, ErrorCode::Unknown);
    for _ in 0..2 {
        let answer = allocate(&gateway, 5, id()).await.unwrap().into_inner();
        assert_eq!(answer, AllocateResponse { first: 1, count: 5 });
    }
    assert_eq!(refused(allocate(&gateway, 6, id()).await).code, ErrorCode::Conflict);
    // Without an id each call takes numbers of its own.
    for first in [6, 7] {
        let answer = allocate(&gateway, 1, Vec::new()).await.unwrap().into_inner();
        assert_eq!(answer, AllocateResponse { first, count: 1 });
    }
    let current = |counter: &str| CurrentRequest { counter: counter.to_owned() };
    let mut sequence = SequenceClient::new(gateway.service());
    assert_eq!(sequence.current(current("orders")).await.unwrap().into_inner().last, 7);
    assert_eq!(sequence.current(current("other")).await.unwrap().into_inner().last, 0);
}

#[tokio::test]
async fn what_cannot_be_counted_is_refused_by_its_field() {
    let gateway = Gateway::start().await;
    let mut sequence = SequenceClient::new(gateway.service());
    bad_field(sequence.allocate(AllocateRequest::default()).await, "counter");
    bad_field(sequence.current(CurrentRequest::default()).await, "counter");
    bad_field(allocate(&gateway, 1, b"short".to_vec()).await, "request_id");
    for count in [0, ALLOCATE_MAX + 1] {
        let failure = refused(allocate(&gateway, count, Vec::new()).await);
        assert_eq!(failure.code, ErrorCode::Invalid);
        assert!(failure.message.starts_with("count "), "{failure}");
    }
}
