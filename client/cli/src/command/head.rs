//! `head`: where a user's mailbox stands.

use std::fmt;

use serde::Serialize;
use tidemark_proto::v1::HeadRequest;
use tidemark_proto::v1::mailboxes_client::MailboxesClient;
use tidemark_token::Role;
use tidemark_types::UserId;

use crate::error::Error;
use crate::gateways::Gateways;
use crate::outcome::Outcome;
use crate::output::{Output, row, table};

/// Asks and prints.
pub(crate) async fn run(
    user: &UserId,
    gateways: &mut Gateways,
    output: Output,
) -> Result<(), Error> {
    let request = HeadRequest { user: user.to_string() };
    let rpc = async |channel, request| MailboxesClient::new(channel).head(request).await;
    let stands = gateways.call(Role::Service, Outcome::of_read(), request, rpc).await?;
    let user = user.to_string();
    output.print(&Head { user, epoch: stands.epoch, floor: stands.floor, head: stands.head })?;
    Ok(())
}

#[derive(Serialize)]
struct Head {
    user: String,
    epoch: u32,
    floor: u32,
    head: u32,
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            row([&"epoch", &self.epoch]),
            row([&"floor", &self.floor]),
            row([&"head", &self.head]),
        ];
        f.write_str(&table(rows))
    }
}
