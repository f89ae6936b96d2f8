//! A device says where it stands, and learns where its mailbox does.

use std::sync::Arc;

use tidemark_proto::Failure;
use tidemark_proto::hello::{self, Hello};
use tidemark_store_core::command::{Arrival, Start};
use tidemark_store_core::reply::Registered;
use tidemark_store_core::value::Label;
use tidemark_store_core::{Command, Reply};
use tidemark_types::{Seq, UnixMs};

use super::confirm;
use crate::failure;
use crate::store::Store;

/// Registers the device, whose token was made at `issued`, and confirms the cursor it has; the seq after which its delivery begins,
/// and where it stands. The registration's reply comes from the log, so it is as fresh as a read
/// can be.
pub(crate) async fn register(
    store: Arc<dyn Store>,
    hello: Hello,
    issued: UnixMs,
) -> Result<(Seq, Registered), Failure> {
    let Hello { user, device, cursor, label, .. } = hello;
    let start = match cursor {
        hello::Cursor::New(start) => start_at(start),
        // Should the store not know it: nothing counts as confirmed but what it says.
        hello::Cursor::At { .. } => Start::Floor,
    };
    let command = Command::RegisterDevice {
        user: user.clone(),
        device: device.clone(),
        start,
        arrival: Some(Arrival { issued }),
        label: label.map(labelled),
    };
    let registered = match store.command(command).await.map_err(failure::of_error)? {
        Reply::Registered(registered) => registered,
        other => return Err(failure::of_reply(other)),
    };
    let hello::Cursor::At { epoch, seq } = cursor else {
        return Ok((registered.start, registered));
    };
    // Delivery starts at the device's own cursor, even below the server's (R12).
    if epoch == registered.epoch && seq <= registered.cursor {
        return Ok((seq, registered));
    }
    let (_, cursor) = confirm(store, user, device, epoch, seq).await?;
    Ok((seq, Registered { cursor, ..registered }))
}

/// What a device is called, as the store is told.
pub(crate) fn labelled(hello::Label { name, platform }: hello::Label) -> Label {
    Label { name, platform }
}

/// Where a device starts that has no cursor, as the store is told.
pub(crate) fn start_at(start: hello::Start) -> Start {
    match start {
        hello::Start::Head => Start::Head,
        hello::Start::Floor => Start::Floor,
        hello::Start::Last(n) => Start::Last(n),
    }
}
