//! `Devices`: registering one before its first `Hello`, and forgetting one.

use tidemark_proto::v1::devices_server::Devices;
use tidemark_proto::v1::{ForgetRequest, ForgetResponse, RegisterRequest, RegisterResponse};
use tidemark_proto::{Failure, convert};
use tidemark_store_core::{Command, Reply};
use tidemark_types::{DeviceId, UserId};
use tonic::{Request, Response, Status};

use super::Backend;
use super::caller::Caller;
use crate::{failure, receive};

impl Backend {
    async fn register_device(
        &self,
        caller: Caller,
        request: RegisterRequest,
    ) -> Result<RegisterResponse, Failure> {
        let (user, device) = named(&request.user, &request.device)?;
        caller.use_device(&user, &device)?;
        let start = receive::start_at(convert::nested("start", request.start.as_ref())?);
        match self.command(Command::RegisterDevice { user, device, start }).await? {
            Reply::Registered(registered) => Ok(RegisterResponse {
                epoch: registered.epoch.get(),
                floor: registered.floor.get(),
                head: registered.head.get(),
                start: registered.start.get(),
                cursor: registered.cursor.get(),
            }),
            other => Err(failure::of_reply(other)),
        }
    }

    async fn forget_device(
        &self,
        caller: Caller,
        request: ForgetRequest,
    ) -> Result<ForgetResponse, Failure> {
        let (user, device) = named(&request.user, &request.device)?;
        caller.use_device(&user, &device)?;
        self.done(Command::ForgetDevice { user, device }).await?;
        Ok(ForgetResponse {})
    }
}

fn named(user: &str, device: &str) -> Result<(UserId, DeviceId), Failure> {
    Ok((convert::name("user", user)?, convert::name("device", device)?))
}

#[tonic::async_trait]
impl Devices for Backend {
    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        let answer = |caller, request| self.register_device(caller, request);
        self.call("Devices.Register", request, answer).await
    }

    async fn forget(
        &self,
        request: Request<ForgetRequest>,
    ) -> Result<Response<ForgetResponse>, Status> {
        let answer = |caller, request| self.forget_device(caller, request);
        self.call("Devices.Forget", request, answer).await
    }
}
