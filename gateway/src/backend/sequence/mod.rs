//! `Sequence`: named sources of numbers (R9).

mod numbers;
mod stream;

use std::time::Duration;

use tidemark_proto::v1::sequence_server::Sequence;
use tidemark_proto::v1::{
    AllocateRequest, AllocateResponse, AllocateStreamRequest, AllocateStreamResponse,
    CurrentRequest, CurrentResponse,
};
use tidemark_proto::{Failure, convert};
use tidemark_store_core::read::{Answer, Query};
use tidemark_store_core::{Command, Reply};
use tidemark_types::ErrorCode;
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use self::stream::Allocating;
use super::Backend;
use super::caller::Caller;
use crate::failure;
use crate::limits::TOKEN_GRACE;

pub(super) use self::numbers::Numbers;

/// The frames of a stream of allocations.
type AllocateFrames = ReceiverStream<Result<AllocateStreamResponse, Status>>;

impl Backend {
    async fn take_numbers(
        &self,
        caller: Caller,
        request: AllocateRequest,
    ) -> Result<AllocateResponse, Failure> {
        caller.count()?;
        let AllocateRequest { counter, count, request_id } = request;
        let counter = convert::name("counter", &counter)?;
        let Some(id) = convert::uuid_or_none("request_id", &request_id)? else {
            let first = self.numbers.take_one(counter, count).await?;
            return Ok(AllocateResponse { first, count });
        };
        match self.command(Command::Allocate { counter, count, id: Some(id) }).await? {
            Reply::Allocated { first, count } => Ok(AllocateResponse { first, count }),
            other => Err(failure::of_reply(other)),
        }
    }

    /// Starts a stream; its frames to come.
    async fn allocate_on(
        &self,
        caller: Caller,
        incoming: Streaming<AllocateStreamRequest>,
    ) -> Result<AllocateFrames, Failure> {
        caller.count()?;
        let leaving = self.leaving.subscribe();
        if *leaving.borrow() {
            return Err(Failure::new(ErrorCode::GoingAway));
        }
        let expires = caller.expires().plus(TOKEN_GRACE).get();
        let left = Duration::from_millis(expires.saturating_sub(self.clock.wall().get()));
        let (allocating, frames) = Allocating::new(self.numbers.clone(), incoming);
        tokio::spawn(allocating.run(ends(leaving, left)));
        Ok(ReceiverStream::new(frames))
    }

    async fn last_number(
        &self,
        caller: Caller,
        request: CurrentRequest,
    ) -> Result<CurrentResponse, Failure> {
        caller.count()?;
        let counter = convert::name("counter", &request.counter)?;
        match self.query(Query::Counter { counter }).await? {
            Answer::Counter { last } => Ok(CurrentResponse { last }),
            other => Err(failure::of_answer(other)),
        }
    }
}

/// Why a stream is ended from here, once it is: the gateway stops, or the token is no longer good.
async fn ends(mut leaving: watch::Receiver<bool>, left: Duration) -> Failure {
    tokio::select! {
        _ = leaving.wait_for(|leaving| *leaving) => Failure::new(ErrorCode::GoingAway),
        () = tokio::time::sleep(left) => Failure::new(ErrorCode::TokenExpired),
    }
}

#[tonic::async_trait]
impl Sequence for Backend {
    async fn allocate(
        &self,
        request: Request<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        let answer = |caller, request| self.take_numbers(caller, request);
        self.call("Sequence.Allocate", request, answer).await
    }

    type AllocateStreamStream = AllocateFrames;

    async fn allocate_stream(
        &self,
        request: Request<Streaming<AllocateStreamRequest>>,
    ) -> Result<Response<AllocateFrames>, Status> {
        let answer = |caller, incoming| self.allocate_on(caller, incoming);
        self.call("Sequence.AllocateStream", request, answer).await
    }

    async fn current(
        &self,
        request: Request<CurrentRequest>,
    ) -> Result<Response<CurrentResponse>, Status> {
        let answer = |caller, request| self.last_number(caller, request);
        self.call("Sequence.Current", request, answer).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_when_the_gateway_stops_or_the_token_is_no_longer_good() {
        let second = Duration::from_secs(1);
        let leaving = watch::Sender::new(false);
        let ended = async |left| ends(leaving.subscribe(), left).await.code;
        assert_eq!(ended(second).await, ErrorCode::TokenExpired);
        let going = async {
            tokio::time::sleep(second).await;
            leaving.send_replace(true);
        };
        assert_eq!(tokio::join!(ended(2 * second), going).0, ErrorCode::GoingAway);
        assert_eq!(ended(second).await, ErrorCode::GoingAway);
    }
}
