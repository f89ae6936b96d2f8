//! `Settings`: what a user decides about their own mailbox.

use tidemark_proto::v1::settings_server::Settings;
use tidemark_proto::v1::{
    BlockRequest, BlockResponse, SetSilentRequest, SetSilentResponse, UnblockRequest,
    UnblockResponse,
};
use tidemark_proto::{Failure, convert};
use tidemark_store_core::Command;
use tonic::{Request, Response, Status};

use super::Backend;
use super::caller::Caller;

impl Backend {
    async fn set_blocked(
        &self,
        caller: Caller,
        user: &str,
        sender: &str,
        blocked: bool,
    ) -> Result<(), Failure> {
        let user = convert::name("user", user)?;
        let sender = convert::name("sender", sender)?;
        caller.act_for(&user)?;
        self.done(Command::Block { user, sender, blocked }).await
    }

    async fn block_sender(
        &self,
        caller: Caller,
        request: BlockRequest,
    ) -> Result<BlockResponse, Failure> {
        self.set_blocked(caller, &request.user, &request.sender, true).await?;
        Ok(BlockResponse {})
    }

    async fn unblock_sender(
        &self,
        caller: Caller,
        request: UnblockRequest,
    ) -> Result<UnblockResponse, Failure> {
        self.set_blocked(caller, &request.user, &request.sender, false).await?;
        Ok(UnblockResponse {})
    }

    async fn silence(
        &self,
        caller: Caller,
        request: SetSilentRequest,
    ) -> Result<SetSilentResponse, Failure> {
        let user = convert::name("user", &request.user)?;
        caller.act_for(&user)?;
        self.done(Command::Silence { user, silent: request.silent }).await?;
        Ok(SetSilentResponse {})
    }
}

#[tonic::async_trait]
impl Settings for Backend {
    async fn block(
        &self,
        request: Request<BlockRequest>,
    ) -> Result<Response<BlockResponse>, Status> {
        let answer = |caller, request| self.block_sender(caller, request);
        self.call("Settings.Block", request, answer).await
    }

    async fn unblock(
        &self,
        request: Request<UnblockRequest>,
    ) -> Result<Response<UnblockResponse>, Status> {
        let answer = |caller, request| self.unblock_sender(caller, request);
        self.call("Settings.Unblock", request, answer).await
    }

    async fn set_silent(
        &self,
        request: Request<SetSilentRequest>,
    ) -> Result<Response<SetSilentResponse>, Status> {
        let answer = |caller, request| self.silence(caller, request);
        self.call("Settings.SetSilent", request, answer).await
    }
}
