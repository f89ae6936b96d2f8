//! What a user has not read, as the shard of the user counts it.

use std::sync::Arc;

use tidemark_proto::{Failure, v1};
use tidemark_store_core::read::{Answer, Query};
use tidemark_store_core::unread::{Conversation, Unread};
use tidemark_types::UserId;

use super::ask;
use crate::failure;
use crate::store::Store;

/// Asks for the counts.
pub(crate) async fn unread(
    store: Arc<dyn Store>,
    user: UserId,
) -> Result<v1::UnreadCounts, Failure> {
    match ask(store.as_ref(), Query::Unread { user }).await? {
        Answer::Unread(unread) => Ok(counts(&unread)),
        other => Err(failure::of_answer(other)),
    }
}

fn counts(unread: &Unread) -> v1::UnreadCounts {
    let conversation = |it: &Conversation| v1::UnreadConversation {
        conversation: Some(v1::Id::from(&it.with)),
        unread: it.unread,
        delivered_seq: it.marks.delivered.get(),
        read_seq: it.marks.read.get(),
    };
    v1::UnreadCounts {
        epoch: unread.epoch.get(),
        from: unread.from.get(),
        head: unread.head.get(),
        unread: unread.conversations.iter().map(|it| it.unread).sum(),
        conversations: unread.conversations.iter().map(conversation).collect(),
    }
}
