//! Is a user there, as the leader of the user's shard sees it?

use tidemark_proto::store::v1::Present;
use tidemark_store_core::presence::{self, Seen};
use tidemark_store_core::{Command, Fatal};
use tidemark_types::{ShardId, UserId};

use crate::shard::Shard;
use crate::watch::Hub;

/// Is the user there, for `by`? Which devices are connected is known from who watches.
pub(super) fn present(
    hub: &Hub,
    (number, shard): (ShardId, &Shard),
    user: &UserId,
    by: Option<&UserId>,
) -> Result<Present, Fatal> {
    let watched = hub.is_watched(number, user);
    let Seen { connected, last } = shard.peek(|state| presence::seen(state, user, by))?;
    Ok(Present { online: watched && connected, last_seen_ms: last.get() })
}

/// Of whom it may look different afterwards whether they are there, and no effect tells it.
pub(super) fn moves(command: &Command) -> Option<UserId> {
    match command {
        Command::Depart { user, .. }
        | Command::Block { user, .. }
        | Command::Allow { user, .. }
        | Command::AcceptFrom { user, .. } => Some(user.clone()),
        _ => None,
    }
}
