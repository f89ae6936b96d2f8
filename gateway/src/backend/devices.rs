//! `Devices`: registering one before its first `Hello`, forgetting one, logging one out, where its hints
//! go, and all of a user's.

use tidemark_proto::convert::session_number;
use tidemark_proto::v1::devices_server::Devices;
use tidemark_proto::v1::{
    DeviceInfo, ForgetRequest, ForgetResponse, ListRequest, ListResponse, LogOutRequest,
    LogOutResponse, RegisterRequest, RegisterResponse, SetPushRequest, SetPushResponse,
};
use tidemark_proto::{Failure, convert, hello, v1};
use tidemark_push::TargetError;
use tidemark_store_core::read::{Answer, Query};
use tidemark_store_core::value::{Device, Label, PushTarget};
use tidemark_store_core::{Command, Reply};
use tidemark_types::{DeviceId, ErrorCode, UserId};
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
        self.use_device(&caller, &user, &device).await?;
        let start = receive::start_at(convert::nested("start", request.start.as_ref())?);
        let label = request.label.as_ref().map(hello::Label::try_from).transpose();
        let label = label.map_err(|error| error.within("label"))?.map(receive::labelled);
        let register = Command::RegisterDevice { user, device, start, arrival: None, label };
        match self.command(register).await? {
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
        self.use_device(&caller, &user, &device).await?;
        self.done(Command::ForgetDevice { user, device }).await?;
        Ok(ForgetResponse {})
    }
}

impl Backend {
    async fn list_devices(
        &self,
        caller: Caller,
        request: ListRequest,
    ) -> Result<ListResponse, Failure> {
        let user: UserId = convert::name("user", &request.user)?;
        caller.act_for(&user)?;
        match self.query(Query::Devices { user }).await? {
            Answer::Devices(devices) => {
                Ok(ListResponse { devices: devices.into_iter().map(info).collect() })
            }
            other => Err(failure::of_answer(other)),
        }
    }

    async fn log_out_device(
        &self,
        caller: Caller,
        request: LogOutRequest,
    ) -> Result<LogOutResponse, Failure> {
        let (user, device) = named(&request.user, &request.device)?;
        caller.act_for(&user)?;
        let (named, its) = (user.clone(), device.clone());
        self.done(Command::LogOut { user, device }).await?;
        self.logins.forget(&named, &its);
        Ok(LogOutResponse {})
    }

    async fn set_device_push(
        &self,
        caller: Caller,
        request: SetPushRequest,
    ) -> Result<SetPushResponse, Failure> {
        let (user, device) = named(&request.user, &request.device)?;
        self.use_device(&caller, &user, &device).await?;
        if let Some(v1::PushTarget { provider, target }) = &request.target {
            let text =
                |error: TargetError| Failure::new(ErrorCode::Invalid).message(error.to_string());
            self.providers.check(provider, target).map_err(text)?;
        }
        let target = request
            .target
            .map(|v1::PushTarget { provider, target }| PushTarget { provider, target });
        self.done(Command::SetPush { user, device, target }).await?;
        Ok(SetPushResponse {})
    }
}

/// A device, as its owner is told.
fn info((name, device): (DeviceId, Device)) -> DeviceInfo {
    let Label { name: called, platform } = device.label;
    DeviceInfo {
        device: name.to_string(),
        label: Some(v1::Label { name: called, platform }),
        epoch: device.epoch.get(),
        cursor: device.cursor.get(),
        last_seen_ms: device.last_seen.get(),
        connected: device.connected,
        logged_out_ms: device.logged_out.get(),
        push_provider: device.push.map(|push| push.target.provider).unwrap_or_default(),
        pushed_upto: device.pushed_upto.get(),
        live_session: session_number(device.live),
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

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let answer = |caller, request| self.list_devices(caller, request);
        self.call("Devices.List", request, answer).await
    }

    async fn log_out(
        &self,
        request: Request<LogOutRequest>,
    ) -> Result<Response<LogOutResponse>, Status> {
        let answer = |caller, request| self.log_out_device(caller, request);
        self.call("Devices.LogOut", request, answer).await
    }

    async fn set_push(
        &self,
        request: Request<SetPushRequest>,
    ) -> Result<Response<SetPushResponse>, Status> {
        let answer = |caller, request| self.set_device_push(caller, request);
        self.call("Devices.SetPush", request, answer).await
    }

    async fn forget(
        &self,
        request: Request<ForgetRequest>,
    ) -> Result<Response<ForgetResponse>, Status> {
        let answer = |caller, request| self.forget_device(caller, request);
        self.call("Devices.Forget", request, answer).await
    }
}
