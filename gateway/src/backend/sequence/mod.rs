//! `Sequence`: named sources of numbers (R9).

use tidemark_proto::v1::sequence_server::Sequence;
use tidemark_proto::v1::{AllocateRequest, AllocateResponse, CurrentRequest, CurrentResponse};
use tidemark_proto::{Failure, convert};
use tidemark_store_core::read::{Answer, Query};
use tidemark_store_core::{Command, Reply};
use tonic::{Request, Response, Status};

use super::Backend;
use super::caller::Caller;
use crate::failure;

impl Backend {
    async fn take_numbers(
        &self,
        caller: Caller,
        request: AllocateRequest,
    ) -> Result<AllocateResponse, Failure> {
        caller.count()?;
        let counter = convert::name("counter", &request.counter)?;
        let id = convert::uuid_or_none("request_id", &request.request_id)?;
        match self.command(Command::Allocate { counter, count: request.count, id }).await? {
            Reply::Allocated { first, count } => Ok(AllocateResponse { first, count }),
            other => Err(failure::of_reply(other)),
        }
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

#[tonic::async_trait]
impl Sequence for Backend {
    async fn allocate(
        &self,
        request: Request<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        let answer = |caller, request| self.take_numbers(caller, request);
        self.call("Sequence.Allocate", request, answer).await
    }

    async fn current(
        &self,
        request: Request<CurrentRequest>,
    ) -> Result<Response<CurrentResponse>, Status> {
        let answer = |caller, request| self.last_number(caller, request);
        self.call("Sequence.Current", request, answer).await
    }
}
