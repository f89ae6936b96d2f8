//! `history`: a mailbox's entries, page after page, checked as a device would check them. It
//! confirms nothing.

use std::time::Duration;

use tidemark_client::Entry;
use tidemark_proto::convert::required;
use tidemark_proto::page::Page;
use tidemark_proto::v1::mailboxes_client::MailboxesClient;
use tidemark_proto::v1::{self, SyncRequest};
use tidemark_token::Role;
use tidemark_types::{Epoch, UserId};

use crate::error::Error;
use crate::gateways::Gateways;
use crate::line::Line;
use crate::outcome::Outcome;
use crate::output::Output;

/// Between two questions, when a page had nothing and there may be more all the same: a replica
/// that is behind answered, and its leader is being asked for.
const PAUSE: Duration = Duration::from_millis(100);

/// Prints the entries after a seq, up to `limit`, or all there are.
pub(crate) async fn run(
    user: &UserId,
    after: u32,
    limit: Option<u32>,
    gateways: &mut Gateways,
    output: Output,
) -> Result<(), Error> {
    let rpc = async |channel, request| MailboxesClient::new(channel).sync(request).await;
    let mut left = limit.unwrap_or(u32::MAX);
    let mut next =
        SyncRequest { user: user.to_string(), epoch: 0, seq_cli: after, limit: limit.unwrap_or(0) };
    let mut progress = gateways.clock.monotonic();
    loop {
        let answer = gateways.call(Role::Service, Outcome::of_read(), next.clone(), rpc).await?;
        let Page { prev, last, gap, page } = checked(answer.page, next.seq_cli)?;
        if let Some(gap) = gap {
            output.print(&Line::from(gap))?;
        }
        for raw in page.entries.into_iter().take(left as usize) {
            let entry = Entry::read(Epoch::new(page.epoch), raw);
            output.print(&Line::from(&entry))?;
        }
        left = left.saturating_sub(last.since(prev));
        if left == 0 || !page.more {
            return Ok(());
        }
        let now = gateways.clock.monotonic();
        if last.get() > next.seq_cli {
            progress = now;
        } else if now - progress > gateways.deadline() {
            return Err(Error::Unavailable("there may be more, but nobody has it now".to_owned()));
        } else {
            tokio::time::sleep(PAUSE).await;
        }
        // From here on in this epoch: a mailbox that is restored meanwhile is another history.
        next.epoch = page.epoch;
        next.seq_cli = last.get();
        next.limit = limit.map_or(0, |_| left);
    }
}

/// The page after `seq`, whose parts agree with each other and with what was asked.
fn checked(page: Option<v1::Page>, seq: u32) -> Result<Page, Error> {
    let page = required("page", page).and_then(Page::try_from).map_err(Error::bad_answer)?;
    let begins = page.gap.map_or(page.prev.get(), |gap| gap.first().get() - 1);
    match begins == seq {
        true => Ok(page),
        false => Err(Error::bad_answer(format!("it begins after {begins} instead of {seq}"))),
    }
}
