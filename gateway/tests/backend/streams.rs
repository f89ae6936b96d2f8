//! `Sequence.AllocateStream`: many calls at once, each answered by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use tidemark_proto::Failure;
use tidemark_proto::v1::allocate_answer::Outcome;
use tidemark_proto::v1::sequence_client::SequenceClient;
use tidemark_proto::v1::{AllocateCall, AllocateStreamRequest, AllocateStreamResponse};
use tidemark_types::ErrorCode;
use tidemark_types::limits::ALLOCATE_CALLS_MAX;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::gateway::{Gateway, refused};
use crate::memory::Fault;

const COUNTER: &str = "orders";

/// Long enough for whatever is on its way on loopback.
const A_MOMENT: Duration = Duration::from_millis(200);

/// A back end's end of a stream.
struct Caller {
    frames: mpsc::Sender<AllocateStreamRequest>,
    answers: Streaming<AllocateStreamResponse>,
}

/// What calls got, by their numbers.
type Answers = BTreeMap<u64, Result<u64, Failure>>;

impl Caller {
    async fn open(gateway: &Gateway) -> Result<Self, Status> {
        let (frames, outgoing) = mpsc::channel(4);
        let mut client = SequenceClient::new(gateway.service());
        let opened = client.allocate_stream(ReceiverStream::new(outgoing)).await?;
        Ok(Caller { frames, answers: opened.into_inner() })
    }

    /// One frame of calls.
    async fn call(&self, calls: impl IntoIterator<Item = (u64, &str)>) {
        let calls = calls.into_iter();
        let calls = calls.map(|(call, counter)| AllocateCall { call, counter: counter.to_owned() });
        let frame = AllocateStreamRequest { calls: calls.collect() };
        self.frames.send(frame).await.unwrap();
    }

    /// A frame of so many calls for the same counter, and a moment for it to arrive.
    async fn call_many(&self, first: u64, count: usize) {
        self.call((first..).take(count).map(|call| (call, COUNTER))).await;
        tokio::time::sleep(A_MOMENT).await;
    }

    /// The next answers, so many of them.
    async fn answers(&mut self, count: usize) -> Answers {
        let mut answers = Answers::new();
        while answers.len() < count {
            let frame = self.answers.message().await.unwrap().expect("an answer");
            for answer in frame.answers {
                let outcome = match answer.outcome.unwrap() {
                    Outcome::Number(number) => Ok(number),
                    Outcome::Failure(failure) => Err(failure.into()),
                };
                assert!(answers.insert(answer.call, outcome).is_none(), "answered twice");
            }
        }
        assert_eq!(answers.len(), count);
        answers
    }

    /// What the stream ends with.
    async fn end(mut self) -> Result<(), Failure> {
        match self.answers.message().await {
            Ok(None) => Ok(()),
            Ok(Some(frame)) => panic!("{frame:?} at the end"),
            Err(status) => Err(refused::<()>(Err(status))),
        }
    }
}

fn code(answer: &Result<u64, Failure>) -> ErrorCode {
    answer.as_ref().expect_err("refused").code
}

#[tokio::test]
async fn each_call_of_a_frame_is_answered_by_itself() {
    let gateway = Gateway::start().await;
    let mut caller = Caller::open(&gateway).await.unwrap();
    caller.call([(7, "orders"), (8, ""), (9, "invoices"), (10, "orders")]).await;
    let answers = caller.answers(4).await;
    let Err(failure) = &answers[&8] else { panic!("{answers:?}") };
    assert_eq!(failure.code, ErrorCode::Invalid);
    assert!(failure.message.starts_with("counter: "), "{failure}");
    assert_eq!((&answers[&7], &answers[&9], &answers[&10]), (&Ok(1), &Ok(1), &Ok(2)));
    drop(caller.frames);
    assert_eq!(caller.answers.message().await.unwrap(), None);
}

#[tokio::test]
async fn a_call_after_an_answer_gets_a_higher_number() {
    let gateway = Gateway::start().await;
    let mut callers =
        [Caller::open(&gateway).await.unwrap(), Caller::open(&gateway).await.unwrap()];
    for number in 1..=20 {
        let caller = &mut callers[usize::try_from(number % 2).unwrap()];
        caller.call([(number, COUNTER)]).await;
        assert_eq!(caller.answers(1).await[&number], Ok(number));
    }
}

#[tokio::test]
async fn what_waits_goes_to_the_store_in_one_command() {
    let gateway = Gateway::start().await;
    let mut callers =
        [Caller::open(&gateway).await.unwrap(), Caller::open(&gateway).await.unwrap()];
    gateway.store.hold(true);
    for first in [0, 10, 20] {
        callers[0].call_many(first, 2).await;
        callers[1].call_many(first, 2).await;
    }
    assert_eq!(gateway.store.proposed(), [2]);
    gateway.store.hold(false);
    let mut numbers = Vec::new();
    for caller in &mut callers {
        numbers.extend(caller.answers(6).await.into_values().map(Result::unwrap));
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=12).collect::<Vec<_>>());
    assert_eq!(gateway.store.proposed(), [2, 10]);
}

#[tokio::test]
async fn one_more_call_than_there_may_be_is_refused_alone() {
    let gateway = Gateway::start().await;
    let mut caller = Caller::open(&gateway).await.unwrap();
    gateway.store.hold(true);
    caller.call_many(0, ALLOCATE_CALLS_MAX).await;
    caller.call([(5_000, COUNTER)]).await;
    let answers = caller.answers(1).await;
    assert_eq!(code(&answers[&5_000]), ErrorCode::Overloaded);
    assert!(answers[&5_000].as_ref().unwrap_err().retry_after.is_some());
    gateway.store.hold(false);
    let answers = caller.answers(ALLOCATE_CALLS_MAX).await;
    assert!(answers.values().all(Result::is_ok));
    caller.call([(5_000, COUNTER)]).await;
    assert_eq!(caller.answers(1).await[&5_000], Ok(ALLOCATE_CALLS_MAX as u64 + 1));
}

#[tokio::test]
async fn a_shard_for_which_too_many_wait_takes_no_more() {
    let gateway = Gateway::start().await;
    gateway.store.hold(true);
    let mut callers = Vec::new();
    // One command under way, four that wait, and what has no room.
    for _ in 0..6 {
        let caller = Caller::open(&gateway).await.unwrap();
        caller.call_many(0, ALLOCATE_CALLS_MAX).await;
        callers.push(caller);
    }
    let mut last = callers.pop().unwrap();
    let answers = last.answers(ALLOCATE_CALLS_MAX).await;
    assert!(answers.values().all(|answer| code(answer) == ErrorCode::Overloaded));
    gateway.store.hold(false);
    for caller in &mut callers {
        assert!(caller.answers(ALLOCATE_CALLS_MAX).await.values().all(Result::is_ok));
    }
}

#[tokio::test]
async fn what_may_have_been_taken_is_unknown_and_what_waited_behind_it_was_not() {
    let gateway = Gateway::start().await;
    let mut caller = Caller::open(&gateway).await.unwrap();
    gateway.store.hold(true);
    gateway.store.fail(&[Fault::Lost]);
    caller.call_many(0, 2).await;
    caller.call_many(2, 2).await;
    gateway.store.hold(false);
    let answers = caller.answers(4).await;
    let codes: Vec<_> = answers.values().map(code).collect();
    assert_eq!(codes[..2], [ErrorCode::Unknown; 2]);
    assert_eq!(codes[2..], [ErrorCode::Unavailable; 2]);
    gateway.store.fail(&[Fault::Unavailable]);
    caller.call([(4, COUNTER)]).await;
    assert_eq!(code(&caller.answers(1).await[&4]), ErrorCode::Unavailable);
    // Two numbers were skipped, and none is given twice.
    caller.call([(5, COUNTER)]).await;
    assert_eq!(caller.answers(1).await[&5], Ok(3));
}

#[tokio::test]
async fn a_frame_that_cannot_be_right_ends_the_stream_after_the_answers() {
    let gateway = Gateway::start().await;
    let mut caller = Caller::open(&gateway).await.unwrap();
    gateway.store.hold(true);
    caller.call_many(0, 1).await;
    caller.call_many(1, ALLOCATE_CALLS_MAX + 1).await;
    gateway.store.hold(false);
    assert_eq!(caller.answers(1).await[&0], Ok(1));
    assert_eq!(caller.end().await.unwrap_err().code, ErrorCode::Invalid);

    let caller = Caller::open(&gateway).await.unwrap();
    let long = "x".repeat(300_000);
    caller.call([(0, long.as_str())]).await;
    assert_eq!(caller.end().await.unwrap_err().code, ErrorCode::FrameTooLarge);
}

#[tokio::test]
async fn a_gateway_that_stops_answers_what_it_took_and_says_so() {
    let gateway = Gateway::start().await;
    let mut caller = Caller::open(&gateway).await.unwrap();
    gateway.store.hold(true);
    caller.call_many(0, 3).await;
    gateway.stop.send(()).unwrap();
    tokio::time::sleep(A_MOMENT).await;
    // Not read any more.
    caller.call_many(3, 1).await;
    gateway.store.hold(false);
    assert!(caller.answers(3).await.values().all(Result::is_ok));
    assert_eq!(caller.end().await.unwrap_err().code, ErrorCode::GoingAway);
    gateway.running.await.unwrap().unwrap();
}
