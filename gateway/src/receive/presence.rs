//! Is a user there, as the leader of that user's shard knows it?

use std::sync::Arc;

use tidemark_proto::{Failure, v1};
use tidemark_store_client::Present;
use tidemark_types::UserId;

use crate::failure;
use crate::store::Store;

/// Asks for `by`; for nobody, whom nobody blocks, if that is none.
pub(crate) async fn presence(
    store: Arc<dyn Store>,
    user: UserId,
    by: Option<UserId>,
) -> Result<v1::PresenceStatus, Failure> {
    let Present { online, last_seen } =
        store.presence(user, by).await.map_err(failure::of_error)?;
    Ok(v1::PresenceStatus { online, last_seen_ms: last_seen.get() })
}
