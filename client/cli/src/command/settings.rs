//! `block`, `allow`, `accept` and their opposites: whose messages a user takes. Saying it twice
//! changes nothing.

use std::fmt;

use serde::Serialize;
use tidemark_proto::v1::settings_client::SettingsClient;
use tidemark_proto::v1::{
    AcceptFrom, AllowRequest, BlockRequest, DisallowRequest, SetAcceptFromRequest, UnblockRequest,
};
use tidemark_token::Role;
use tidemark_types::UserId;

use crate::arguments::{Pair, Whose};
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
    let (user, sender) = names(pair);
    let request = BlockRequest { user, sender };
    let rpc = async |channel, request| SettingsClient::new(channel).block(request).await;
    gateways.call(Role::Service, Outcome::of_change(), request, rpc).await?;
    Ok(output.print(&Block::new(pair, true))?)
}

/// Takes a sender's messages again.
pub(crate) async fn unblock(
    pair: &Pair,
    gateways: &mut Gateways,
    output: Output,
) -> Result<(), Error> {
    let (user, sender) = names(pair);
    let request = UnblockRequest { user, sender };
    let rpc = async |channel, request| SettingsClient::new(channel).unblock(request).await;
    gateways.call(Role::Service, Outcome::of_change(), request, rpc).await?;
    Ok(output.print(&Block::new(pair, false))?)
}

/// Makes a sender a contact.
pub(crate) async fn allow(
    pair: &Pair,
    gateways: &mut Gateways,
    output: Output,
) -> Result<(), Error> {
    let (user, sender) = names(pair);
    let request = AllowRequest { user, sender };
    let rpc = async |channel, request| SettingsClient::new(channel).allow(request).await;
    gateways.call(Role::Service, Outcome::of_change(), request, rpc).await?;
    Ok(output.print(&Allow::new(pair, true))?)
}

/// Makes a sender a stranger again.
pub(crate) async fn disallow(
    pair: &Pair,
    gateways: &mut Gateways,
    output: Output,
) -> Result<(), Error> {
    let (user, sender) = names(pair);
    let request = DisallowRequest { user, sender };
    let rpc = async |channel, request| SettingsClient::new(channel).disallow(request).await;
    gateways.call(Role::Service, Outcome::of_change(), request, rpc).await?;
    Ok(output.print(&Allow::new(pair, false))?)
}

/// Chooses whose messages a user takes.
pub(crate) async fn accept(
    user: &UserId,
    from: Whose,
    gateways: &mut Gateways,
    output: Output,
) -> Result<(), Error> {
    let accept_from = match from {
        Whose::Everybody => AcceptFrom::Everybody,
        Whose::Contacts => AcceptFrom::Contacts,
    };
    let user = user.to_string();
    let request = SetAcceptFromRequest { user: user.clone(), accept_from: accept_from.into() };
    let rpc = async |channel, request| SettingsClient::new(channel).set_accept_from(request).await;
    gateways.call(Role::Service, Outcome::of_change(), request, rpc).await?;
    Ok(output.print(&Accept { user, accept_from: from })?)
}

fn names(pair: &Pair) -> (String, String) {
    (pair.user.to_string(), pair.sender.to_string())
}

#[derive(Serialize)]
struct Block {
    user: String,
    sender: String,
    blocked: bool,
}

impl Block {
    fn new(pair: &Pair, blocked: bool) -> Self {
        let (user, sender) = names(pair);
        Block { user, sender, blocked }
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.blocked { "blocks" } else { "does not block" };
        write!(f, "{} {verb} {}", plain(&self.user), plain(&self.sender))
    }
}

#[derive(Serialize)]
struct Allow {
    user: String,
    sender: String,
    allowed: bool,
}

impl Allow {
    fn new(pair: &Pair, allowed: bool) -> Self {
        let (user, sender) = names(pair);
        Allow { user, sender, allowed }
    }
}

impl fmt::Display for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.allowed { "allows" } else { "does not allow" };
        write!(f, "{} {verb} {}", plain(&self.user), plain(&self.sender))
    }
}

#[derive(Serialize)]
struct Accept {
    user: String,
    accept_from: Whose,
}

impl fmt::Display for Accept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = match self.accept_from {
            Whose::Everybody => "everybody",
            Whose::Contacts => "contacts",
        };
        write!(f, "{} accepts messages from {whose}", plain(&self.user))
    }
}
