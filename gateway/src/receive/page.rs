//! One page of a mailbox (R13).

use std::sync::Arc;

use tidemark_proto::{Failure, Position, v1};
use tidemark_store_core::read::{Answer, PageAnswer, PageLimits, Query};
use tidemark_types::{Epoch, Recipient, Seq, UserId};

use super::ask;
use crate::limits::{PAGE_BYTES_MAX, PAGE_ENTRIES_MAX};
use crate::store::Store;
use crate::{entry, failure, metrics};

/// Reads what comes after `seq_cli`: at most `wanted` entries, 0 for as many as may be.
pub(crate) async fn page(
    store: Arc<dyn Store>,
    user: UserId,
    epoch: Epoch,
    seq_cli: Seq,
    wanted: u32,
) -> Result<v1::Page, Failure> {
    let entries = match usize::try_from(wanted) {
        Ok(wanted @ 1..=PAGE_ENTRIES_MAX) => wanted,
        _ => PAGE_ENTRIES_MAX,
    };
    let limits = PageLimits { entries, bytes: PAGE_BYTES_MAX };
    let query = Query::Page { mailbox: Recipient::User(user), epoch, seq_cli, limits };
    match ask(store.as_ref(), query).await? {
        Answer::Page(PageAnswer::Page(page)) => {
            metrics::paged();
            Ok(entry::page(seq_cli, &page))
        }
        Answer::Page(PageAnswer::Reset { epoch, floor, head }) => {
            Err(Position { epoch, floor, head }.into())
        }
        other => Err(failure::of_answer(other)),
    }
}
