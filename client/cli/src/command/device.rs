//! `device`: a user's devices, and what becomes of one. Saying it twice changes nothing.

use std::fmt;
use std::iter::once;

use serde::Serialize;
use tidemark_proto::v1::devices_client::DevicesClient;
use tidemark_proto::v1::{
    DeviceInfo, ForgetRequest, ListRequest, LogOutRequest, PushTarget, SetPushRequest,
};
use tidemark_token::Role;
use tidemark_types::UserId;

use crate::arguments::{Device, OneDevice};
use crate::error::Error;
use crate::gateways::Gateways;
use crate::outcome::Outcome;
use crate::output::{Output, date, plain, row, table};

/// Asks or changes, and prints.
pub(crate) async fn run(
    command: Device,
    gateways: &mut Gateways,
    output: Output,
) -> Result<(), Error> {
    match command {
        Device::List { user } => list(&user, gateways, output).await,
        Device::Forget(of) => {
            let (user, device) = of.names();
            let request = ForgetRequest { user, device };
            let rpc = async |channel, request| DevicesClient::new(channel).forget(request).await;
            gateways.call(Role::Service, Outcome::of_change(), request, rpc).await?;
            Ok(output.print(&Done::of(&of, "forgotten"))?)
        }
        Device::Logout(of) => {
            let (user, device) = of.names();
            let request = LogOutRequest { user, device };
            let rpc = async |channel, request| DevicesClient::new(channel).log_out(request).await;
            gateways.call(Role::Service, Outcome::of_change(), request, rpc).await?;
            Ok(output.print(&Done::of(&of, "logged_out"))?)
        }
        Device::Push { of, provider, target, none: _ } => {
            let target = provider.zip(target);
            let done = Done::of(&of, if target.is_some() { "hinted" } else { "not_hinted" });
            let target = target.map(|(provider, target)| PushTarget { provider, target });
            let (user, device) = of.names();
            let request = SetPushRequest { user, device, target };
            let rpc = async |channel, request| DevicesClient::new(channel).set_push(request).await;
            gateways.call(Role::Service, Outcome::of_change(), request, rpc).await?;
            Ok(output.print(&done)?)
        }
    }
}

async fn list(user: &UserId, gateways: &mut Gateways, output: Output) -> Result<(), Error> {
    let request = ListRequest { user: user.to_string() };
    let rpc = async |channel, request| DevicesClient::new(channel).list(request).await;
    let listed = gateways.call(Role::Service, Outcome::of_read(), request, rpc).await?;
    let devices = listed.devices.into_iter().map(Known::from).collect();
    Ok(output.print(&Devices { user: user.to_string(), devices })?)
}

impl OneDevice {
    fn names(&self) -> (String, String) {
        (self.user.to_string(), self.device.to_string())
    }
}

#[derive(Serialize)]
struct Done {
    user: String,
    device: String,
    done: &'static str,
}

impl Done {
    fn of(of: &OneDevice, done: &'static str) -> Self {
        let (user, device) = of.names();
        Done { user, device, done }
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = match self.done {
            "forgotten" => "is forgotten",
            "logged_out" => "is logged out",
            "hinted" => "gets hints",
            _ => "gets no hints",
        };
        write!(f, "{}'s {} {done}", plain(&self.user), plain(&self.device))
    }
}

#[derive(Serialize)]
struct Devices {
    user: String,
    devices: Vec<Known>,
}

#[derive(Serialize)]
struct Known {
    device: String,
    name: String,
    platform: String,
    epoch: u32,
    cursor: u32,
    last_seen_ms: u64,
    connected: bool,
    /// 0 for never.
    logged_out_ms: u64,
    /// Empty for none.
    push_provider: String,
    pushed_upto: u32,
    /// 0 for none.
    live_session: u64,
}

impl From<DeviceInfo> for Known {
    fn from(device: DeviceInfo) -> Self {
        let label = device.label.unwrap_or_default();
        Known {
            device: device.device,
            name: label.name,
            platform: label.platform,
            epoch: device.epoch,
            cursor: device.cursor,
            last_seen_ms: device.last_seen_ms,
            connected: device.connected,
            logged_out_ms: device.logged_out_ms,
            push_provider: device.push_provider,
            pushed_upto: device.pushed_upto,
            live_session: device.live_session,
        }
    }
}

impl Known {
    fn state(&self) -> &'static str {
        match (self.connected, self.logged_out_ms) {
            (true, _) => "connected",
            (false, 0) => "away",
            (false, _) => "logged out",
        }
    }
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head =
            row([&"DEVICE", &"NAME", &"PLATFORM", &"STATE", &"CURSOR", &"PUSH", &"LAST SEEN"]);
        let rows = self.devices.iter().map(|it| {
            row([
                &plain(&it.device),
                &plain(&it.name),
                &plain(&it.platform),
                &it.state(),
                &it.cursor,
                &plain(&it.push_provider),
                &date(it.last_seen_ms),
            ])
        });
        f.write_str(&table(once(head).chain(rows)))
    }
}
