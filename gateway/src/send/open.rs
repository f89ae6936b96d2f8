//! Opening a send session (R1).

use std::sync::Arc;

use tidemark_proto::convert::bytes_of;
use tidemark_proto::hello::Open;
use tidemark_proto::v1::{self, opened};
use tidemark_store_core::{Command, Reply};
use tidemark_types::{DeviceId, UserId};

use crate::failure;
use crate::store::Store;

/// Opens a session, or says which one is live; the same `Open` again gets the same answer.
pub(crate) async fn open(
    store: Arc<dyn Store>,
    user: UserId,
    device: DeviceId,
    open: Open,
) -> v1::Opened {
    let Open { open_id, ends } = open;
    let result = match store.command(Command::Open { user, device, open_id, ends }).await {
        Ok(Reply::Opened { session }) => opened::Result::Session(session.get()),
        Ok(reply) => opened::Result::Failure(failure::of_reply(reply).into()),
        Err(error) => opened::Result::Failure(failure::of_error(error).into()),
    };
    v1::Opened { open_id: bytes_of(open_id.as_bytes()), result: Some(result) }
}
