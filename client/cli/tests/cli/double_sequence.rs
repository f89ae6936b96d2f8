//! Counters of the double: each stands at 40.

use futures::stream::{self, Empty};
use tidemark_proto::v1::sequence_server::Sequence;
use tidemark_proto::v1::{
    AllocateRequest, AllocateResponse, AllocateStreamRequest, AllocateStreamResponse,
    CurrentRequest, CurrentResponse,
};
use tonic::{Request, Response, Status, Streaming};

use crate::double::Gateway;

#[tonic::async_trait]
impl Sequence for Gateway {
    async fn allocate(
        &self,
        request: Request<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        let AllocateRequest { counter, count, request_id } = self.meet(request).await?;
        assert_eq!((counter.as_str(), request_id.len()), ("orders", 16));
        Ok(Response::new(AllocateResponse { first: 41, count }))
    }

    type AllocateStreamStream = Empty<Result<AllocateStreamResponse, Status>>;

    async fn allocate_stream(
        &self,
        _: Request<Streaming<AllocateStreamRequest>>,
    ) -> Result<Response<Self::AllocateStreamStream>, Status> {
        // The command line takes numbers by unary calls.
        Ok(Response::new(stream::empty()))
    }

    async fn current(
        &self,
        request: Request<CurrentRequest>,
    ) -> Result<Response<CurrentResponse>, Status> {
        let CurrentRequest { counter } = self.meet(request).await?;
        let last = if counter == "orders" { 40 } else { 0 };
        Ok(Response::new(CurrentResponse { last }))
    }
}
