//! Frames survive the wire, and broken ones are refused.

use bytes::Bytes;
use openraft::entry::RaftEntry;
use openraft::raft::{AppendEntriesRequest, StreamAppendError, TransferLeaderRequest, VoteRequest};
use openraft::vote::RaftLeaderId;
use tidemark_types::NodeId;

use super::{cluster_id, group_id};
use crate::raft::network::frame::{Address, Answer, Ask, Hello, Refusal, Request, Told};
use crate::raft::types::{
    CommittedLeaderId, Entry, EntryPayload, LeaderId, LogId, Payload, TypeConfig, Vote,
};

fn log_id(term: u64, index: u64) -> LogId {
    let leader: CommittedLeaderId = LeaderId::new(term, 4).to_committed();
    LogId::new(leader, index)
}

fn to() -> Address {
    Address { group: group_id(3), replica: 31 }
}

fn check_request(request: &Request) {
    let frame = request.encode().unwrap();
    let back = Request::decode(&frame).unwrap();
    assert_eq!(format!("{back:?}"), format!("{request:?}"));
    assert_eq!(back.encode().unwrap(), frame);
    for cut in 0..frame.len() {
        assert!(Request::decode(&frame[..cut]).is_err(), "cut to {cut} of {}", frame.len());
    }
    let trailing = [&frame[..], &[0]].concat();
    assert!(Request::decode(&trailing).is_err(), "a trailing byte");
    let mut version = frame.to_vec();
    version[0] = 9;
    let refused = Request::decode(&version).unwrap_err().to_string();
    assert!(refused.contains('9'), "{refused}");
}

fn check_answer(answer: &Answer) {
    let frame = answer.encode().unwrap();
    let back = Answer::decode(&frame).unwrap();
    assert_eq!(format!("{back:?}"), format!("{answer:?}"));
    assert_eq!(back.encode().unwrap(), frame);
}

#[test]
fn requests_survive_the_wire() {
    let hello = Hello { cluster: cluster_id(), from: NodeId::new(1), to: NodeId::new(2) };
    check_request(&Request::Hello(hello));
    check_request(&Request::End { stream: 300 });
    let entries = vec![
        Entry::new(log_id(4, 8), EntryPayload::Normal(Payload(Bytes::from(vec![5; 1000])))),
        Entry::new(log_id(4, 9), EntryPayload::Blank),
    ];
    let append = AppendEntriesRequest::<TypeConfig> {
        vote: Vote::new_committed(4, 4),
        prev_log_id: Some(log_id(3, 7)),
        entries,
        leader_commit: Some(log_id(3, 6)),
    };
    check_request(&Request::Append { stream: 5, to: to(), last: true, append });
    let transfer = TransferLeaderRequest::new(Vote::new_committed(4, 4), 31, Some(log_id(4, 9)));
    check_request(&Request::Call { call: 6, to: to(), ask: Ask::Transfer(transfer) });
}

#[test]
fn a_vote_request_keeps_that_it_is_for_a_transfer() {
    for leadership_transfer in [false, true] {
        let mut vote = VoteRequest::<TypeConfig>::new(Vote::new(5, 31), Some(log_id(4, 9)));
        vote.leadership_transfer = leadership_transfer;
        let request = Request::Call { call: 1, to: to(), ask: Ask::Vote(vote.clone()) };
        check_request(&request);
        match Request::decode(&request.encode().unwrap()).unwrap() {
            Request::Call { ask: Ask::Vote(back), .. } => assert_eq!(back, vote),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_append_is_encoded_into_room_of_the_right_size() {
    let payload = Payload(Bytes::from(vec![7; 1 << 20]));
    let entry = Entry::new(log_id(u64::MAX, u64::MAX), EntryPayload::Normal(payload));
    let append = AppendEntriesRequest::<TypeConfig> {
        vote: Vote::new_committed(u64::MAX, u64::MAX),
        prev_log_id: Some(log_id(u64::MAX, u64::MAX)),
        entries: vec![entry],
        leader_commit: Some(log_id(u64::MAX, u64::MAX)),
    };
    let to = Address { group: crate::storage::GroupId::CONTROL, replica: u64::MAX };
    let request = Request::Append { stream: u64::MAX, to, last: true, append };
    assert!(request.encode().unwrap().len() <= (1 << 20) + 96 + 32, "it would be copied again");
}

#[test]
fn answers_survive_the_wire() {
    let vote = openraft::raft::VoteResponse::new(Vote::new(5, 31), Some(log_id(4, 9)), true);
    check_answer(&Answer::Called { call: 1, result: Ok(Told::Vote(vote)) });
    check_answer(&Answer::Called { call: 1, result: Ok(Told::Transfer(Ok(()))) });
    check_answer(&Answer::Called { call: 2, result: Err(Refusal::OtherReplica(7)) });
    let conflict = StreamAppendError::Conflict(log_id(1, 2));
    for result in [Ok(Ok(Some(log_id(4, 9)))), Ok(Err(conflict)), Err(Refusal::UnknownGroup)] {
        check_answer(&Answer::Appended { stream: 3, result });
    }
}
