//! One stream of allocations: calls come in, answers go out, until one side ends it.
//!
//! ```text
//!   frames ──► calls ──► Numbers ──► answers that are ready: one frame ──► caller
//!     ▲                                                │
//!     └────────── not read while answers wait ─────────┘
//! ```
//!
//! Invariants: no more calls are without an answer than there may be, beside those of one frame
//! that are refused. A stream that is ended here reads nothing more, answers what it has read, and
//! then says why: what has no answer then was not taken.

use std::pin::Pin;
use std::time::Duration;

use tidemark_proto::failure::MESSAGE_BYTES_MAX;
use tidemark_proto::v1::allocate_answer::Outcome;
use tidemark_proto::v1::{
    AllocateAnswer, AllocateCall, AllocateStreamRequest, AllocateStreamResponse,
};
use tidemark_proto::{Failure, convert};
use tidemark_types::ErrorCode;
use tidemark_types::limits::{ALLOCATE_CALLS_MAX, SERVER_FRAME_BYTES_MAX};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::numbers::{Answer, Answers, Call, Numbers};
use crate::connect::grpc::unreadable;
use crate::limits::{CLOSE_TIMEOUT, OUTGOING_FRAMES, REFUSED_RETRY};
use crate::metrics;

/// What an answer costs in a frame beside its failure's message.
const ANSWER_OVERHEAD: usize = 64;

// As many failures as may be ready together fit into a frame.
const _: () =
    assert!(ALLOCATE_CALLS_MAX * (MESSAGE_BYTES_MAX + ANSWER_OVERHEAD) <= SERVER_FRAME_BYTES_MAX);

/// What the carrier of a stream empties.
pub(super) type Frames = mpsc::Receiver<Result<AllocateStreamResponse, Status>>;

/// A stream, from when it was admitted.
pub(super) struct Allocating {
    numbers: Numbers,
    incoming: Streaming<AllocateStreamRequest>,
    outgoing: mpsc::Sender<Result<AllocateStreamResponse, Status>>,
    answers: Answers,
    answered: mpsc::UnboundedReceiver<Answer>,
    /// Answers of the next frame.
    ready: Vec<Answer>,
    /// Calls whose answer has not gone out.
    open: usize,
}

impl Allocating {
    /// A stream that nothing was read from, and its frames to come.
    pub(super) fn new(
        numbers: Numbers,
        incoming: Streaming<AllocateStreamRequest>,
    ) -> (Self, Frames) {
        let (outgoing, frames) = mpsc::channel(OUTGOING_FRAMES);
        let (answers, answered) = mpsc::unbounded_channel();
        let ready = Vec::new();
        (Allocating { numbers, incoming, outgoing, answers, answered, ready, open: 0 }, frames)
    }

    /// Serves it until its caller ends it, or it is to end with this failure.
    pub(super) async fn run(mut self, ends: impl Future<Output = Failure>) {
        tokio::pin!(ends);
        let mut end = None;
        while end.is_none() || self.open > 0 {
            tokio::select! {
                // What is answered makes room for what is read.
                biased;
                _ = self.answered.recv_many(&mut self.ready, ALLOCATE_CALLS_MAX), if self.open > 0 => {
                    if !self.send(ends.as_mut(), &mut end).await {
                        return;
                    }
                }
                failure = &mut ends, if end.is_none() => end = Some(Err(failure)),
                frame = self.incoming.message(), if end.is_none() => match frame {
                    Ok(Some(frame)) => end = self.take(frame.calls).err().map(Err),
                    Ok(None) => end = Some(Ok(())),
                    Err(status) => match unreadable(&status) {
                        Some(failure) => end = Some(Err(failure)),
                        // The caller has gone, and nobody reads the answers.
                        None => return,
                    },
                },
            }
        }
        if let Some(Err(failure)) = end {
            // A caller that has gone, or that reads nothing, does not want to know.
            let _ = timeout(CLOSE_TIMEOUT, self.outgoing.send(Err(failure.into()))).await;
        }
    }

    /// Takes the calls of a frame; each is answered by itself. An error is of the whole frame.
    fn take(&mut self, calls: Vec<AllocateCall>) -> Result<(), Failure> {
        if calls.len() > ALLOCATE_CALLS_MAX {
            let text = format!("calls: {}, and a frame may have {ALLOCATE_CALLS_MAX}", calls.len());
            return Err(Failure::new(ErrorCode::Invalid).message(text));
        }
        let Allocating { numbers, answers, open, .. } = self;
        let checked = calls.into_iter().filter_map(|AllocateCall { call, counter }| {
            *open += 1;
            let checked = match *open > ALLOCATE_CALLS_MAX {
                true => Err(too_many()),
                false => convert::name("counter", &counter).map_err(Failure::from),
            };
            match checked {
                Ok(counter) => Some(Call { call, counter, count: 1 }),
                Err(failure) => {
                    metrics::allocated([(Some(failure.code), Duration::ZERO)].into_iter());
                    // Received here.
                    let _ = answers.send((call, Err(failure)));
                    None
                }
            }
        });
        numbers.take(checked, answers);
        Ok(())
    }

    /// Sends what is ready, once the caller takes frames; for a moment only, if the stream is to end. Has
    /// it been taken?
    async fn send(
        &mut self,
        ends: Pin<&mut impl Future<Output = Failure>>,
        end: &mut Option<Result<(), Failure>>,
    ) -> bool {
        self.open -= self.ready.len();
        let answers = self.ready.drain(..).map(answer).collect();
        let sending = self.outgoing.send(Ok(AllocateStreamResponse { answers }));
        tokio::pin!(sending);
        if !matches!(end, Some(Err(_))) {
            tokio::select! {
                biased;
                sent = &mut sending => return sent.is_ok(),
                failure = ends => *end = Some(Err(failure)),
            }
        }
        matches!(timeout(CLOSE_TIMEOUT, sending).await, Ok(Ok(())))
    }
}

fn too_many() -> Failure {
    let text = format!(
        "{ALLOCATE_CALLS_MAX} calls of this stream have no answer: make others once some have"
    );
    Failure::new(ErrorCode::Overloaded).message(text).retry_after(REFUSED_RETRY)
}

fn answer((call, outcome): Answer) -> AllocateAnswer {
    let outcome = match outcome {
        Ok(number) => Outcome::Number(number),
        Err(failure) => Outcome::Failure(failure.into()),
    };
    AllocateAnswer { call, outcome: Some(outcome) }
}
