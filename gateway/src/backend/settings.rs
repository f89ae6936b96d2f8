//! `Settings`: what a user decides about their own mailbox.

use tidemark_proto::v1::settings_server::Settings;
use tidemark_proto::v1::{
    AllowRequest, AllowResponse, BlockRequest, BlockResponse, DisallowRequest, DisallowResponse,
    SetAcceptFromRequest, SetAcceptFromResponse, SetSilentRequest, SetSilentResponse,
    UnblockRequest, UnblockResponse,
};
use tidemark_proto::{Failure, convert, v1};
use tidemark_store_core::Command;
use tidemark_store_core::value::AcceptFrom;
use tidemark_types::ErrorCode;
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

    async fn accept_from(
        &self,
        caller: Caller,
        request: SetAcceptFromRequest,
    ) -> Result<SetAcceptFromResponse, Failure> {
        let user = convert::name("user", &request.user)?;
        let from = match request.accept_from() {
            v1::AcceptFrom::Everybody => AcceptFrom::Everybody,
            v1::AcceptFrom::Contacts => AcceptFrom::Contacts,
            v1::AcceptFrom::Unspecified => {
                let text = "accept_from: is neither everybody nor contacts";
                return Err(Failure::new(ErrorCode::Invalid).message(text));
            }
        };
        caller.act_for(&user)?;
        self.done(Command::AcceptFrom { user, from }).await?;
        Ok(SetAcceptFromResponse {})
    }

    async fn set_allowed(
        &self,
        caller: Caller,
        user: &str,
        sender: &str,
        allowed: bool,
    ) -> Result<(), Failure> {
        let user = convert::name("user", user)?;
        let sender = convert::name("sender", sender)?;
        caller.act_for(&user)?;
        self.done(Command::Allow { user, sender, allowed }).await
    }

    async fn allow_sender(
        &self,
        caller: Caller,
        request: AllowRequest,
    ) -> Result<AllowResponse, Failure> {
        self.set_allowed(caller, &request.user, &request.sender, true).await?;
        Ok(AllowResponse {})
    }

    async fn disallow_sender(
        &self,
        caller: Caller,
        request: DisallowRequest,
    ) -> Result<DisallowResponse, Failure> {
        self.set_allowed(caller, &request.user, &request.sender, false).await?;
        Ok(DisallowResponse {})
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

    async fn set_accept_from(
        &self,
        request: Request<SetAcceptFromRequest>,
    ) -> Result<Response<SetAcceptFromResponse>, Status> {
        let answer = |caller, request| self.accept_from(caller, request);
        self.call("Settings.SetAcceptFrom", request, answer).await
    }

    async fn allow(
        &self,
        request: Request<AllowRequest>,
    ) -> Result<Response<AllowResponse>, Status> {
        let answer = |caller, request| self.allow_sender(caller, request);
        self.call("Settings.Allow", request, answer).await
    }

    async fn disallow(
        &self,
        request: Request<DisallowRequest>,
    ) -> Result<Response<DisallowResponse>, Status> {
        let answer = |caller, request| self.disallow_sender(caller, request);
        self.call("Settings.Disallow", request, answer).await
    }
}
