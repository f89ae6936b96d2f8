//! `typing` and `presence`: what passes by. Nothing of it is stored, so neither has an id.

use std::fmt;

use serde::Serialize;
use tidemark_proto::v1::passing_client::PassingClient;
use tidemark_proto::v1::{PresenceRequest, TypeRequest};
use tidemark_token::Role;
use tidemark_types::UserId;

use crate::error::Error;
use crate::gateways::Gateways;
use crate::outcome::Outcome;
use crate::output::{Output, date, plain};

/// Tells one user that another one types, or has stopped.
pub(crate) async fn typing(
    sender: &UserId,
    user: &UserId,
    typing: bool,
    gateways: &mut Gateways,
    output: Output,
) -> Result<(), Error> {
    let (sender, user) = (sender.to_string(), user.to_string());
    let request = TypeRequest { sender: sender.clone(), user: user.clone(), typing };
    let rpc = async |channel, request| PassingClient::new(channel).r#type(request).await;
    gateways.call(Role::Service, Outcome::of_read(), request, rpc).await?;
    Ok(output.print(&Typing { sender, user, typing })?)
}

/// Prints whether a user is there.
pub(crate) async fn presence(
    user: &UserId,
    by: Option<&UserId>,
    gateways: &mut Gateways,
    output: Output,
) -> Result<(), Error> {
    let by = by.map(ToString::to_string).unwrap_or_default();
    let request = PresenceRequest { user: user.to_string(), by };
    let rpc = async |channel, request| PassingClient::new(channel).presence(request).await;
    let answer = gateways.call(Role::Service, Outcome::of_read(), request, rpc).await?;
    let status = answer.status.unwrap_or_default();
    let (online, last_seen_ms) = (status.online, status.last_seen_ms);
    Ok(output.print(&Presence { user: user.to_string(), online, last_seen_ms })?)
}

#[derive(Serialize)]
struct Typing {
    sender: String,
    user: String,
    typing: bool,
}

impl fmt::Display for Typing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.typing { "types" } else { "has stopped typing" };
        write!(f, "{} was told that {} {what}", plain(&self.user), plain(&self.sender))
    }
}

/// Whether a user is there.
#[derive(Serialize)]
pub(super) struct Presence {
    /// Who.
    pub(super) user: String,
    /// Is a device of the user connected?
    pub(super) online: bool,
    /// To the hour; 0 for never.
    pub(super) last_seen_ms: u64,
}

impl fmt::Display for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = plain(&self.user);
        match (self.online, self.last_seen_ms) {
            (true, _) => write!(f, "{user} is there"),
            (false, 0) => write!(f, "{user} is not there"),
            (false, seen) => {
                write!(f, "{user} is not there; last seen {}, to the hour", date(seen))
            }
        }
    }
}
