//! Numbers of counters, for back ends: many callers share one stream to a gateway.
//!
//! ```text
//!   next ─┐ a place among the calls       whatever is ready: one frame
//!   next ─┼──► queue ───────────────────────────────────────────► gateway
//!   next ─┘                                                          │
//!     ▲──────────────── each its answer, in any order ◄──────────────┘
//! ```
//!
//! A stream is not opened again by itself: whoever has several gateways decides where to.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tidemark_proto::v1::allocate_answer::Outcome;
use tidemark_proto::v1::sequence_client::SequenceClient;
use tidemark_proto::v1::{AllocateCall, AllocateStreamRequest, AllocateStreamResponse};
use tidemark_proto::{Failure, convert, headers};
use tidemark_types::limits::{ALLOCATE_CALLS_MAX, SERVER_FRAME_BYTES_MAX};
use tidemark_types::{CounterId, ErrorCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Streaming};

type Answer = Result<u64, Failure>;

/// A stream of allocations; a cheap handle. It ends when the last handle is dropped.
#[derive(Clone)]
pub struct Numbers {
    calls: mpsc::Sender<AllocateCall>,
    /// Room for calls that the gateway has not answered.
    places: Arc<Semaphore>,
    waiting: Arc<Mutex<Waiting>>,
    next_call: Arc<AtomicU64>,
}

/// Who waits for which answer, while the stream lasts.
enum Waiting {
    Open(HashMap<u64, Waiter>),
    Ended,
}

/// Who waits for an answer, and the place of the call until it comes, waited for or not.
struct Waiter {
    answer: oneshot::Sender<Answer>,
    _place: OwnedSemaphorePermit,
}

impl Numbers {
    /// Opens a stream over a channel to a gateway, with a token of role `service`.
    ///
    /// # Errors
    /// What the gateway refuses it with; `UNAVAILABLE` where there is none, `UNKNOWN` where it does
    /// not say. Nothing was taken.
    pub async fn open(channel: Channel, token: &str) -> Result<Self, Failure> {
        let bearer = format!("{}{token}", headers::BEARER).parse();
        let bearer = bearer.map_err(|_| {
            Failure::new(ErrorCode::Unauthenticated).message("a token is visible ASCII")
        })?;
        let (calls, queued) = mpsc::channel(ALLOCATE_CALLS_MAX);
        let (frames, outgoing) = mpsc::channel(1);
        let mut request = Request::new(ReceiverStream::new(outgoing));
        request.metadata_mut().insert(headers::AUTHORIZATION, bearer);
        let client = SequenceClient::new(channel);
        let mut client = client.max_decoding_message_size(SERVER_FRAME_BYTES_MAX);
        let opened = client.allocate_stream(request).await;
        let answers = opened.map_err(|status| Failure::from(&status))?.into_inner();
        let waiting = Arc::new(Mutex::new(Waiting::Open(HashMap::new())));
        tokio::spawn(coalesce(queued, frames));
        tokio::spawn(receive(answers, waiting.clone()));
        let places = Arc::new(Semaphore::new(ALLOCATE_CALLS_MAX));
        Ok(Numbers { calls, places, waiting, next_call: Arc::default() })
    }

    /// The next number of a counter. It waits while as many calls are under way as may be.
    ///
    /// # Errors
    /// The call's own failure, `INVALID` for what is no counter's name. After `UNKNOWN` the number may have
    /// been taken for nobody; the same call again gets another one. Where the stream ends meanwhile, why it
    /// did; `UNAVAILABLE` where it had ended: open another one.
    pub async fn next(&self, counter: &str) -> Answer {
        // A frame that is too large for a name would end the stream for everybody.
        let _: CounterId = convert::name("counter", counter)?;
        let ended = || Failure::new(ErrorCode::Unavailable).message("the stream has ended");
        let place = self.places.clone().acquire_owned().await.map_err(|_| ended())?;
        let call = self.next_call.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        match &mut *self.waiting.lock() {
            Waiting::Open(waiting) => waiting.insert(call, Waiter { answer, _place: place }),
            Waiting::Ended => return Err(ended()),
        };
        // There is room, since there was a place.
        let sent = self.calls.try_send(AllocateCall { call, counter: counter.to_owned() });
        sent.map_err(|_| ended())?;
        answered.await.unwrap_or_else(|_| Err(Failure::new(ErrorCode::Unknown)))
    }

    /// May it be called still?
    pub fn is_open(&self) -> bool {
        matches!(*self.waiting.lock(), Waiting::Open(_))
    }
}

/// Puts everything that is ready into one frame.
async fn coalesce(
    mut queued: mpsc::Receiver<AllocateCall>,
    frames: mpsc::Sender<AllocateStreamRequest>,
) {
    let mut calls = Vec::new();
    while queued.recv_many(&mut calls, ALLOCATE_CALLS_MAX).await > 0 {
        let frame = AllocateStreamRequest { calls: std::mem::take(&mut calls) };
        if frames.send(frame).await.is_err() {
            return;
        }
    }
}

/// Hands answers to those who wait; when the stream ends, why is the answer to all that are left.
async fn receive(mut answers: Streaming<AllocateStreamResponse>, waiting: Arc<Mutex<Waiting>>) {
    let end = loop {
        match answers.message().await {
            Ok(Some(frame)) => {
                let mut waiting = waiting.lock();
                let Waiting::Open(waiting) = &mut *waiting else { return };
                for answer in frame.answers {
                    let outcome = match answer.outcome {
                        Some(Outcome::Number(number)) => Ok(number),
                        Some(Outcome::Failure(failure)) => Err(failure.into()),
                        None => Err(Failure::new(ErrorCode::Unknown)),
                    };
                    if let Some(waiter) = waiting.remove(&answer.call) {
                        // Whoever asked may have given up.
                        let _ = waiter.answer.send(outcome);
                    }
                }
            }
            Ok(None) => break Failure::new(ErrorCode::Unknown),
            // With a status of Tidemark what has no answer was not taken; any other one is unknown.
            Err(status) => break Failure::from(&status),
        }
    };
    if let Waiting::Open(waiting) = std::mem::replace(&mut *waiting.lock(), Waiting::Ended) {
        for waiter in waiting.into_values() {
            let _ = waiter.answer.send(Err(end.clone()));
        }
    }
}
