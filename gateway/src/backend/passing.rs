//! `Passing`: that somebody types, and who is there. Nothing of it is stored.

use tidemark_proto::v1::passing_server::Passing;
use tidemark_proto::v1::{PresenceRequest, PresenceResponse, TypeRequest, TypeResponse};
use tidemark_proto::{Failure, convert};
use tidemark_types::UserId;
use tonic::{Request, Response, Status};

use super::Backend;
use super::caller::Caller;
use crate::{failure, receive};

impl Backend {
    async fn tell_typing(
        &self,
        caller: Caller,
        request: TypeRequest,
    ) -> Result<TypeResponse, Failure> {
        let TypeRequest { sender, user, typing } = request;
        let sender: UserId = convert::name("sender", &sender)?;
        let user = convert::name("user", &user)?;
        caller.act_for(&sender)?;
        self.store.typing(user, sender, typing).await.map_err(failure::of_error)?;
        Ok(TypeResponse {})
    }

    async fn ask_presence(
        &self,
        caller: Caller,
        request: PresenceRequest,
    ) -> Result<PresenceResponse, Failure> {
        let user = convert::name("user", &request.user)?;
        let by = match request.by.as_str() {
            "" => {
                caller.act_for_groups()?;
                None
            }
            by => {
                let by: UserId = convert::name("by", by)?;
                caller.act_for(&by)?;
                Some(by)
            }
        };
        let status = receive::presence(self.store.clone(), user, by).await?;
        Ok(PresenceResponse { status: Some(status) })
    }
}

#[tonic::async_trait]
impl Passing for Backend {
    async fn r#type(
        &self,
        request: Request<TypeRequest>,
    ) -> Result<Response<TypeResponse>, Status> {
        let answer = |caller, request| self.tell_typing(caller, request);
        self.call("Passing.Type", request, answer).await
    }

    async fn presence(
        &self,
        request: Request<PresenceRequest>,
    ) -> Result<Response<PresenceResponse>, Status> {
        let answer = |caller, request| self.ask_presence(caller, request);
        self.call("Passing.Presence", request, answer).await
    }
}
