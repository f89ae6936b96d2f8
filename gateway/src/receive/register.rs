//! A device says where it stands, and learns where its mailbox does.

use std::sync::Arc;

use tidemark_proto::hello::{self, Hello};
use tidemark_proto::{Failure, Position};
use tidemark_store_core::command::Start;
use tidemark_store_core::reply::Registered;
use tidemark_store_core::{Command, Reply};
use tidemark_types::Seq;

use super::{Confirmed, confirm};
use crate::failure;
use crate::store::Store;

/// Where a device is after its `Hello`.
#[derive(Debug)]
pub(crate) enum Place {
    /// It is sent what comes after this seq.
    At(Seq, Registered),
    /// Its cursor is of another epoch or above the head (R11).
    Reset(Position),
}

/// Registers the device, and confirms the cursor it has. The registration's reply comes from the
/// log, so it is as fresh as a read can be.
pub(crate) async fn register(store: Arc<dyn Store>, hello: Hello) -> Result<Place, Failure> {
    let Hello { user, device, cursor, .. } = hello;
    let start = match cursor {
        hello::Cursor::New(hello::Start::Head) => Start::Head,
        hello::Cursor::New(hello::Start::Floor) => Start::Floor,
        hello::Cursor::New(hello::Start::Last(n)) => Start::Last(n),
        // Should the store not know it: nothing counts as confirmed but what it says.
        hello::Cursor::At { .. } => Start::Floor,
    };
    let command = Command::RegisterDevice { user: user.clone(), device: device.clone(), start };
    let registered = match store.command(command).await {
        Ok(Reply::Registered(registered)) => registered,
        Ok(reply) => return Err(failure::of_reply(reply)),
        Err(error) => return Err(failure::of_error(error)),
    };
    let hello::Cursor::At { epoch, seq } = cursor else {
        return Ok(Place::At(registered.start, registered));
    };
    // Delivery starts at the device's own cursor, even below the server's (R12).
    if epoch == registered.epoch && seq <= registered.cursor {
        return Ok(Place::At(seq, registered));
    }
    match confirm(store, user, device, epoch, seq).await {
        Confirmed::At(_, cursor) => Ok(Place::At(seq, Registered { cursor, ..registered })),
        Confirmed::Reset(position) => Ok(Place::Reset(position)),
        Confirmed::Failed(failure) => Err(failure),
    }
}
