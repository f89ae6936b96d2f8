//! `block` and `unblock`: what a user decides about a sender. Saying it twice changes nothing.

use std::fmt;

use serde::Serialize;
use tidemark_proto::v1::settings_client::SettingsClient;
use tidemark_proto::v1::{BlockRequest, UnblockRequest};
use tidemark_token::Role;

use crate::arguments::Pair;
use crate::error::Error;
use crate::gateways::Gateways;
use crate::outcome::Outcome;
use crate::output::{Output, plain};

/// Refuses a sender's messages from now on.
pub(crate) async fn block(
    pair: &Pair,
    gateways: &mut Gateways,
    output: Output,
) -> Result<(), Error> {
    let result = Setting::new(pair, true);
    let request = BlockRequest { user: result.user.clone(), sender: result.sender.clone() };
    let rpc = async |channel, request| SettingsClient::new(channel).block(request).await;
    gateways.call(Role::Service, Outcome::of_change(), request, rpc).await?;
    Ok(output.print(&result)?)
}

/// Takes a sender's messages again.
pub(crate) async fn unblock(
    pair: &Pair,
    gateways: &mut Gateways,
    output: Output,
) -> Result<(), Error> {
    let result = Setting::new(pair, false);
    let request = UnblockRequest { user: result.user.clone(), sender: result.sender.clone() };
    let rpc = async |channel, request| SettingsClient::new(channel).unblock(request).await;
    gateways.call(Role::Service, Outcome::of_change(), request, rpc).await?;
    Ok(output.print(&result)?)
}

#[derive(Serialize)]
struct Setting {
    user: String,
    sender: String,
    blocked: bool,
}

impl Setting {
    fn new(pair: &Pair, blocked: bool) -> Self {
        Setting { user: pair.user.to_string(), sender: pair.sender.to_string(), blocked }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.blocked { "blocks" } else { "does not block" };
        write!(f, "{} {verb} {}", plain(&self.user), plain(&self.sender))
    }
}
