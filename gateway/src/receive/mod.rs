//! What a device asks of its mailbox: its place, pages, heads, what became of a message; and what it
//! confirms.
//!
//! Each question is one future that asks the store and ends in what the device is told. Heads,
//! resets and the end of the pages come from the mailbox's leader alone (R16); the one exception
//! is a `Ping`, which a head that the watch keeps fresh may answer (R15).

mod cursor;
mod page;
mod ping;
mod register;
mod status;

use std::sync::Arc;

pub(crate) use cursor::Cursor;
pub(crate) use page::{Paged, page};
pub(crate) use ping::{Pinged, cached, ping};
pub(crate) use register::{Place, register};
pub(crate) use status::{asked, status};
use tidemark_proto::{Failure, Position};
use tidemark_store_core::read::{Answer, Query};
use tidemark_store_core::{Command, Reject, Reply};
use tidemark_types::{DeviceId, Epoch, Seq, UserId};

use crate::failure;
use crate::store::Store;

/// What became of a confirmation.
#[derive(Debug)]
pub(crate) enum Confirmed {
    /// The device's cursor stands there, or above.
    At(Epoch, Seq),
    /// The cursor is of another epoch or above the head (R11).
    Reset(Position),
    /// Nothing is known of it.
    Failed(Failure),
}

/// Confirms everything up to `seq`.
pub(crate) async fn confirm(
    store: Arc<dyn Store>,
    user: UserId,
    device: DeviceId,
    epoch: Epoch,
    seq: Seq,
) -> Confirmed {
    match store.command(Command::Confirm { user, device, epoch, seq }).await {
        Ok(Reply::Confirmed { cursor }) => Confirmed::At(epoch, cursor),
        Ok(Reply::Rejected(Reject::Reset { epoch, floor, head })) => {
            Confirmed::Reset(Position { epoch, floor, head })
        }
        Ok(reply) => Confirmed::Failed(failure::of_reply(reply)),
        Err(error) => Confirmed::Failed(failure::of_error(error)),
    }
}

async fn ask(store: &dyn Store, query: Query) -> Result<Answer, Failure> {
    store.query(query).await.map_err(failure::of_error)
}
