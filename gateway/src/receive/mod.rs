//! What a device asks of its mailbox: its place, pages, heads, what became of a message; and what it
//! confirms.
//!
//! Each question is one future that asks the store and ends in what the device is told; a place of
//! another epoch or above the head (R11) is a failure that carries the mailbox's position. Heads,
//! resets and the end of the pages come from the mailbox's leader alone (R16); the one exception
//! is a `Ping`, which a head that the watch keeps fresh may answer (R15).

mod cursor;
mod page;
mod ping;
mod presence;
mod register;
mod status;
mod unread;

use std::sync::Arc;

pub(crate) use cursor::{Cursor, Cursors};
pub(crate) use page::page;
pub(crate) use ping::{cached, ping};
pub(crate) use presence::presence;
pub(crate) use register::{labelled, register, start_at};
pub(crate) use status::{asked, status};
use tidemark_proto::Failure;
use tidemark_store_core::command::Confirmation;
use tidemark_store_core::read::{Answer, Query};
use tidemark_store_core::value::{Device, Mailbox};
use tidemark_store_core::{Command, Reject, Reply};
use tidemark_types::{DeviceId, Epoch, Recipient, Seq, UserId};
pub(crate) use unread::unread;

use crate::failure;
use crate::store::Store;

/// Confirms everything up to `seq`; where the device's cursor stands then, which may be above.
pub(crate) async fn confirm(
    store: Arc<dyn Store>,
    user: UserId,
    device: DeviceId,
    epoch: Epoch,
    seq: Seq,
) -> Result<(Epoch, Seq), Failure> {
    let confirm = Command::Confirm { user, device, epoch, seq };
    match store.command(confirm).await.map_err(failure::of_error)? {
        Reply::Confirmed { cursor } => Ok((epoch, cursor)),
        other => Err(failure::of_reply(other)),
    }
}

/// Confirms what many devices of one shard have; for each where its cursor stands then, as [`confirm`] does.
pub(crate) async fn confirm_many(
    store: Arc<dyn Store>,
    confirmations: Vec<Confirmation>,
) -> Vec<Result<(Epoch, Seq), Failure>> {
    let epochs: Vec<_> = confirmations.iter().map(|one| one.epoch).collect();
    let failed = match store.command(Command::ConfirmMany { confirmations }).await {
        Ok(Reply::ConfirmedMany(outcomes)) if outcomes.len() == epochs.len() => {
            let outcome = |(epoch, outcome): (Epoch, Result<Seq, Reject>)| {
                outcome.map(|cursor| (epoch, cursor)).map_err(failure::of_reject)
            };
            return epochs.into_iter().zip(outcomes).map(outcome).collect();
        }
        Ok(other) => failure::of_reply(other),
        Err(error) => failure::of_error(error),
    };
    vec![Err(failed); epochs.len()]
}

/// Where a user's mailbox stands.
pub(crate) async fn mailbox(store: &dyn Store, user: UserId) -> Result<Mailbox, Failure> {
    let mailbox = Recipient::User(user);
    match ask(store, Query::Mailbox { mailbox }).await? {
        Answer::Mailbox(mailbox) => Ok(mailbox),
        other => Err(failure::of_answer(other)),
    }
}

/// What the store knows of a device.
pub(crate) async fn device(
    store: &dyn Store,
    user: &UserId,
    device: &DeviceId,
) -> Result<Option<Device>, Failure> {
    match ask(store, Query::Devices { user: user.clone() }).await? {
        Answer::Devices(devices) => {
            Ok(devices.into_iter().find(|(name, _)| name == device).map(|(_, known)| known))
        }
        other => Err(failure::of_answer(other)),
    }
}

async fn ask(store: &dyn Store, query: Query) -> Result<Answer, Failure> {
    store.query(query).await.map_err(failure::of_error)
}
