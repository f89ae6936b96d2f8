//! One page of a mailbox (R13).

use std::sync::Arc;

use tidemark_proto::{Failure, Position, v1};
use tidemark_store_core::read::{Answer, PageAnswer, PageLimits, Query};
use tidemark_types::{Epoch, Recipient, Seq, UserId};

use super::ask;
use crate::limits::{PAGE_BYTES_MAX, PAGE_ENTRIES_MAX};
use crate::store::Store;
use crate::{entry, failure, metrics};

/// What a `Sync` gets.
#[derive(Debug)]
pub(crate) enum Paged {
    /// The page, without a `request_id`.
    Page(v1::Page),
    /// The place is of another epoch or above the head (R11).
    Reset(Position),
    /// Nobody could be asked.
    Failed(Failure),
}

/// Reads what comes after `seq_cli`: at most `wanted` entries, 0 for as many as may be.
pub(crate) async fn page(
    store: Arc<dyn Store>,
    user: UserId,
    epoch: Epoch,
    seq_cli: Seq,
    wanted: u32,
) -> Paged {
    let entries = match usize::try_from(wanted) {
        Ok(wanted @ 1..=PAGE_ENTRIES_MAX) => wanted,
        _ => PAGE_ENTRIES_MAX,
    };
    let limits = PageLimits { entries, bytes: PAGE_BYTES_MAX };
    let query = Query::Page { mailbox: Recipient::User(user), epoch, seq_cli, limits };
    match ask(store.as_ref(), query).await {
        Ok(Answer::Page(PageAnswer::Page(page))) => {
            metrics::paged();
            Paged::Page(entry::page(seq_cli, &page))
        }
        Ok(Answer::Page(PageAnswer::Reset { epoch, floor, head })) => {
            Paged::Reset(Position { epoch, floor, head })
        }
        Ok(answer) => Paged::Failed(failure::of_answer(answer)),
        Err(failure) => Paged::Failed(failure),
    }
}
